//! Notifications to telemetry, pure. An error is counted (and answered, if the message was a request).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::value::RawValue;

use super::limits::{ATTRIBUTES_BYTES_MAX, EVENT_BYTES_MAX, LOG_PIECE_MAX, NAME_BYTES_MAX, PROGRESS_BYTES_MAX};
use crate::{
    model::{TelemetryKind, Usage, UsageReport},
    wire::rpc::{self as wire, BadParams, EventKind, Heartbeat, Log, Metric, Text, object},
};

type Params<'a> = Option<&'a RawValue>;

/// The methods that tell something. `None` for any other.
pub(super) fn read(method: &str, params: Params<'_>, tell: impl FnMut(TelemetryKind)) -> Option<Result<(), BadParams>> {
    Some(match method {
        "hive/heartbeat" => heartbeat(params, tell),
        "hive/log" => log(params, tell),
        "hive/metric" => metric(params, tell),
        "hive/usage" => usage(params, tell),
        "hive/event" => event(params, tell),
        _ => return None,
    })
}

/// A heartbeat with a useless `progress` is an error and a sign of life all the same.
fn heartbeat(params: Params<'_>, mut tell: impl FnMut(TelemetryKind)) -> Result<(), BadParams> {
    let Heartbeat { progress, busy } = object(params)?;
    let progress = progress.map(|raw| sound(raw, PROGRESS_BYTES_MAX, "progress")).transpose();
    tell(TelemetryKind::Heartbeat { progress: progress.clone().unwrap_or(None), busy });
    progress.map(|_| ())
}

fn log(params: Params<'_>, mut tell: impl FnMut(TelemetryKind)) -> Result<(), BadParams> {
    let Log { level, line, stream, at } = object(params)?;
    let level = level.as_ref().map_or("info", |Text(level)| level.as_ref());
    if !["trace", "debug", "info", "warn", "error"].contains(&level) {
        return Err(BadParams::new("level is one of trace, debug, info, warn, error"));
    }
    let stream: Option<Arc<str>> = stream.map(|Text(stream)| named(&stream, "stream")).transpose()?;
    let at = match at {
        None => None,
        Some(Text(at)) => Some(rfc3339(&at).ok_or_else(|| BadParams::new("at is a time in RFC 3339"))?),
    };
    let level: Arc<str> = Arc::from(level);
    let mut rest: &str = &line;
    loop {
        let (piece, more) = rest.split_at(rest.floor_char_boundary(LOG_PIECE_MAX));
        tell(TelemetryKind::Log { level: Arc::clone(&level), line: Arc::from(piece), stream: stream.clone(), at });
        if more.is_empty() {
            return Ok(());
        }
        rest = more;
    }
}

fn metric(params: Params<'_>, mut tell: impl FnMut(TelemetryKind)) -> Result<(), BadParams> {
    let Metric { name, value, unit, attributes } = object(params)?;
    if attributes.is_some_and(|raw| !raw.get().starts_with('{')) {
        return Err(BadParams::new("attributes are an object"));
    }
    tell(TelemetryKind::Metric {
        name: named(&name, "name")?,
        value,
        unit: unit.map(|Text(unit)| named(&unit, "unit")).transpose()?,
        attributes: attributes.map(|raw| sound(raw, ATTRIBUTES_BYTES_MAX, "attributes")).transpose()?,
    });
    Ok(())
}

fn usage(params: Params<'_>, mut tell: impl FnMut(TelemetryKind)) -> Result<(), BadParams> {
    let raw = params.ok_or_else(|| BadParams::new("no totals"))?;
    if raw.get().len() > ATTRIBUTES_BYTES_MAX {
        return Err(BadParams::new(format!("usage has at most {ATTRIBUTES_BYTES_MAX} bytes of JSON")));
    }
    let said: wire::Usage<'_> = object(params)?;
    let model = said.response_model.or(said.request_model);
    let totals = Usage {
        input_tokens: said.input_tokens,
        output_tokens: said.output_tokens,
        cache_read_input_tokens: said.cache_read_input_tokens,
        cache_creation_input_tokens: said.cache_creation_input_tokens,
        reasoning_output_tokens: said.reasoning_output_tokens,
        cost_usd: said.cost_usd,
    };
    let model = model.map(|Text(model)| named(&model, "model")).transpose()?;
    tell(TelemetryKind::Usage(Box::new(UsageReport { totals, model })));
    Ok(())
}

fn event(params: Params<'_>, mut tell: impl FnMut(TelemetryKind)) -> Result<(), BadParams> {
    let EventKind { kind } = object(params)?;
    let raw = params.ok_or_else(|| BadParams::new("no kind"))?;
    tell(TelemetryKind::Event { kind: named(&kind, "kind")?, data: sound(raw, EVENT_BYTES_MAX, "event")? });
    Ok(())
}

fn named(text: &str, what: &str) -> Result<Arc<str>, BadParams> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(BadParams::new(format!("{what} has 1 to {NAME_BYTES_MAX} bytes")));
    }
    Ok(Arc::from(text))
}

/// JSON text that whoever reads it later can read: a raw value was only skipped over so far, and may hold half a surrogate pair or a number that
/// is none (1e999).
fn sound(raw: &RawValue, bytes_max: usize, what: &str) -> Result<Arc<str>, BadParams> {
    let text = raw.get();
    if text.len() > bytes_max {
        return Err(BadParams::new(format!("{what} has at most {bytes_max} bytes of JSON")));
    }
    serde_json::from_str::<serde_json::Value>(text).map_err(|why| BadParams::new(format!("{what}: {why}")))?;
    Ok(Arc::from(text))
}

/// RFC 3339 with any offset.
fn rfc3339(text: &str) -> Option<SystemTime> {
    if let Ok(utc) = humantime::parse_rfc3339(text) {
        return Some(utc);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
    let (sign, hours_minutes) = offset.split_at_checked(1)?;
    let (hours, minutes) = hours_minutes.split_once(':')?;
    let (hours, minutes) = (two_digits(hours, 23)?, two_digits(minutes, 59)?);
    let offset = Duration::from_secs((hours * 60 + minutes) * 60);
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    match sign {
        "+" => local.checked_sub(offset),
        "-" => local.checked_add(offset),
        _ => None,
    }
}

fn two_digits(text: &str, max: u64) -> Option<u64> {
    let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n <= max)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(method: &str, params: &str) -> (Vec<TelemetryKind>, bool) {
        let raw = RawValue::from_string(params.to_owned()).unwrap();
        let mut all = Vec::new();
        let ok = read(method, Some(&raw), |kind| all.push(kind)).unwrap().is_ok();
        (all, ok)
    }

    fn text(text: &str) -> Arc<str> {
        Arc::from(text)
    }

    #[test]
    fn every_notification_becomes_telemetry() {
        let one = |method, params| {
            let (mut all, ok) = told(method, params);
            assert!(ok && all.len() == 1, "{method}: {all:?}");
            all.remove(0)
        };
        assert_eq!(
            one("hive/heartbeat", r#"{"progress": {"done": 3}, "busy": true, "new": 1}"#),
            TelemetryKind::Heartbeat { progress: Some(text(r#"{"done": 3}"#)), busy: Some(true) }
        );
        assert_eq!(
            one("hive/heartbeat", r#"{"progress":null}"#),
            TelemetryKind::Heartbeat { progress: None, busy: None }
        );
        assert_eq!(
            one("hive/log", r#"{"level":"warn","line":"a\nb","stream":"stderr","at":"1970-01-01T00:00:01.500Z"}"#),
            TelemetryKind::Log {
                level: text("warn"),
                line: text("a\nb"),
                stream: Some(text("stderr")),
                at: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)),
            }
        );
        assert_eq!(
            one("hive/metric", r#"{"name":"queue","value":3,"unit":"{task}","attributes":{"a":1}}"#),
            TelemetryKind::Metric {
                name: text("queue"),
                value: 3.0,
                unit: Some(text("{task}")),
                attributes: Some(text(r#"{"a":1}"#)),
            }
        );
        let usage = r#"{"gen_ai.usage.input_tokens":10,"gen_ai.request.model":"m","cost_usd":0.5,"gen_ai.usage.text.input_tokens":-4}"#;
        let totals = Usage { input_tokens: Some(10), cost_usd: Some(0.5), ..Usage::default() };
        let report = UsageReport { totals, model: Some(text("m")) };
        assert_eq!(one("hive/usage", usage), TelemetryKind::Usage(Box::new(report)));
        let event = r#"{"kind":"merged","branch":"x"}"#;
        assert_eq!(one("hive/event", event), TelemetryKind::Event { kind: text("merged"), data: text(event) });
    }

    #[test]
    fn bad_parameters_tell_nothing() {
        for (method, params) in [
            ("hive/heartbeat", "[]"),
            ("hive/heartbeat", r#"{"busy":"yes"}"#),
            ("hive/log", "{}"),
            ("hive/log", r#"{"line":1}"#),
            ("hive/log", r#"{"line":"x","level":"loud"}"#),
            ("hive/log", r#"{"line":"x","at":"yesterday"}"#),
            ("hive/log", r#"{"line":"\ud800"}"#),
            ("hive/metric", r#"{"name":"x"}"#),
            ("hive/metric", r#"{"name":"","value":1}"#),
            ("hive/metric", r#"{"name":"x","value":"1"}"#),
            ("hive/metric", r#"{"name":"x","value":1e999}"#),
            ("hive/metric", r#"{"name":"x","value":1,"attributes":[]}"#),
            ("hive/usage", r#"{"gen_ai.usage.input_tokens":-1}"#),
            ("hive/usage", r#"{"gen_ai.usage.reasoning.output_tokens":1.5}"#),
            ("hive/usage", r#"{"gen_ai.usage.cache_read.input_tokens":"7"}"#),
            ("hive/usage", r#"{"gen_ai.usage.output_tokens":1e999}"#),
            ("hive/usage", r#"{"gen_ai.usage.output_tokens":1e19}"#),
            ("hive/usage", r#"{"cost_usd":-0.01}"#),
            ("hive/usage", r#"{"cost_usd":1e999}"#),
            ("hive/usage", r#"{"cost_usd":NaN}"#),
            ("hive/usage", r#"{"gen_ai.request.model":""}"#),
            ("hive/event", r#"{"what":"x"}"#),
            ("hive/event", r#"{"kind":"x","data":"\udc00"}"#),
        ] {
            assert_eq!(told(method, params), (vec![], false), "{method} {params}");
        }
        for (method, params) in [
            ("hive/usage", format!(r#"{{"x":"{}"}}"#, "y".repeat(ATTRIBUTES_BYTES_MAX))),
            ("hive/event", format!(r#"{{"kind":"x","y":"{}"}}"#, "y".repeat(EVENT_BYTES_MAX))),
            ("hive/event", format!(r#"{{"kind":"{}"}}"#, "y".repeat(NAME_BYTES_MAX + 1))),
        ] {
            assert_eq!(told(method, &params), (vec![], false), "{method}");
        }
        assert!(read("hive/usage", None, |_| ()).unwrap().is_err());
        assert!(read("hive/nothing", None, |_| ()).is_none());
    }

    #[test]
    fn a_heartbeat_with_useless_progress_still_beats() {
        let beat = vec![TelemetryKind::Heartbeat { progress: None, busy: None }];
        let long = format!(r#"{{"progress":"{}"}}"#, "x".repeat(PROGRESS_BYTES_MAX));
        assert_eq!(told("hive/heartbeat", &long), (beat.clone(), false));
        assert_eq!(told("hive/heartbeat", r#"{"progress":1e999}"#), (beat, false));
    }

    #[test]
    fn a_long_log_line_becomes_pieces() {
        let line = "ä".repeat(LOG_PIECE_MAX);
        let (all, ok) = told("hive/log", &format!(r#"{{"line":"x{line}"}}"#));
        assert!(ok);
        let mut whole = String::new();
        for kind in &all {
            let TelemetryKind::Log { line, .. } = kind else { panic!("{kind:?}") };
            assert!(line.len() <= LOG_PIECE_MAX);
            whole.push_str(line);
        }
        assert_eq!(whole, format!("x{line}"));
        assert_eq!(told("hive/log", r#"{"line":""}"#).0.len(), 1);
    }

    #[test]
    fn times_carry_any_offset() {
        let at = |s: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        for (written, is) in [
            ("1970-01-02T00:00:00Z", at(86_400)),
            ("1970-01-02T00:00:00+00:00", at(86_400)),
            ("1970-01-02T01:30:00+01:30", at(86_400)),
            ("1970-01-01T22:00:00.0-02:00", at(86_400)),
            ("1970-01-01T22:00:00-24:00", None),
            ("1970-01-01T22:00:00*02:00", None),
            ("1970-01-01T22:00:00-+2:00", None),
            ("ääää", None),
            ("", None),
        ] {
            assert_eq!(rfc3339(written), is, "{written}");
        }
    }

    proptest! {
        #[test]
        fn any_time_is_read_or_refused(text in ".{0,40}") {
            let _ = rfc3339(&text);
        }
    }
}
