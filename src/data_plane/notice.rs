//! Notifications to telemetry, pure. An error is counted (and answered, if the message was a request).

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    heard::Heard,
    limits::{ATTRIBUTES_BYTES_MAX, EVENT_BYTES_MAX, LOG_PIECE_MAX, NAME_BYTES_MAX, PROGRESS_BYTES_MAX},
};
use crate::{
    model::{LogLevel, LogRecord, TelemetryKind, Usage, UsageReport},
    wire::rpc::{self as wire, BadParams, EventKind, Heartbeat, Log, Metric, Text, Told, object},
};

type Params<'a> = Option<&'a RawValue>;

/// The methods that tell something. `None` for any other.
pub(super) fn read(method: &str, params: Params<'_>, heard: &mut Heard) -> Option<Result<(), BadParams>> {
    Some(match method {
        "hive/heartbeat" => object(params).and_then(|beat| heartbeat(beat, heard)),
        "hive/log" => object(params).and_then(|record| log(record, heard)),
        "hive/metric" => object(params).and_then(|sample| metric(sample, heard)),
        "hive/usage" => usage(params, |kind| heard.tell(kind)),
        "hive/event" => event(params, |kind| heard.tell(kind)),
        _ => return None,
    })
}

/// What was read in the usual form.
pub(super) fn take(told: Told<'_>, heard: &mut Heard) -> Result<(), BadParams> {
    match told {
        Told::Heartbeat(beat) => heartbeat(beat, heard),
        Told::Log(record) => log(record, heard),
        Told::Metric(sample) => metric(sample, heard),
    }
}

/// A heartbeat with a useless `progress` is an error and a sign of life all the same.
fn heartbeat(Heartbeat { progress, busy }: Heartbeat<'_>, heard: &mut Heard) -> Result<(), BadParams> {
    let progress = progress.map(|raw| sound(raw, PROGRESS_BYTES_MAX, "progress")).transpose();
    heard.beat(progress.as_ref().ok().copied().flatten(), busy);
    progress.map(|_| ())
}

fn log(Log { level, line, stream, at }: Log<'_>, heard: &mut Heard) -> Result<(), BadParams> {
    let level = match &level {
        None => LogLevel::Info,
        Some(Text(word)) => {
            LogLevel::of(word).ok_or_else(|| BadParams::new("level is one of trace, debug, info, warn, error"))?
        }
    };
    if let Some(Text(stream)) = &stream {
        named(stream, "stream")?;
    }
    let at = match &at {
        None => None,
        Some(Text(at)) => Some(rfc3339(at).ok_or_else(|| BadParams::new("at is a time in RFC 3339"))?),
    };
    let mut rest: &str = &line;
    loop {
        let (text, more) = rest.split_at(rest.floor_char_boundary(LOG_PIECE_MAX));
        heard.logs.push(LogRecord { level, at, partial: !more.is_empty(), text });
        if more.is_empty() {
            return Ok(());
        }
        rest = more;
    }
}

/// Checked and counted: nobody keeps samples.
fn metric(Metric { name, value: _, unit, attributes }: Metric<'_>, heard: &mut Heard) -> Result<(), BadParams> {
    if attributes.is_some_and(|raw| !raw.get().starts_with('{')) {
        return Err(BadParams::new("attributes are an object"));
    }
    named(&name, "name")?;
    if let Some(Text(unit)) = &unit {
        named(unit, "unit")?;
    }
    if let Some(attributes) = attributes {
        sound(attributes, ATTRIBUTES_BYTES_MAX, "attributes")?;
    }
    heard.metrics += 1;
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
    let model = model.map(|Text(model)| named(&model, "model").map(Arc::from)).transpose()?;
    tell(TelemetryKind::Usage(Box::new(UsageReport { totals, model })));
    Ok(())
}

fn event(params: Params<'_>, mut tell: impl FnMut(TelemetryKind)) -> Result<(), BadParams> {
    let EventKind { kind } = object(params)?;
    let raw = params.ok_or_else(|| BadParams::new("no kind"))?;
    let kind = Arc::from(named(&kind, "kind")?);
    tell(TelemetryKind::Event { kind, data: Arc::from(sound(raw, EVENT_BYTES_MAX, "event")?) });
    Ok(())
}

fn named<'a>(text: &'a str, what: &str) -> Result<&'a str, BadParams> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(BadParams::new(format!("{what} has 1 to {NAME_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// JSON text that whoever reads it later can read: a raw value was only skipped over so far, and may hold half a surrogate pair or a number that
/// is none (1e999).
fn sound<'a>(raw: &'a RawValue, bytes_max: usize, what: &str) -> Result<&'a str, BadParams> {
    let text = raw.get();
    if text.len() > bytes_max {
        return Err(BadParams::new(format!("{what} has at most {bytes_max} bytes of JSON")));
    }
    serde_json::from_str::<Sound>(text).map_err(|why| BadParams::new(format!("{what}: {why}")))?;
    Ok(text)
}

/// Any JSON, read as whoever wants its values would, and kept by nobody.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Sound)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        while members.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
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
    use crate::model::LogRecords;

    /// All that is told, log records one by one, and whether nothing was wrong.
    fn told(method: &str, params: &str) -> (Vec<TelemetryKind>, bool) {
        let raw = RawValue::from_string(params.to_owned()).unwrap();
        let mut heard = Heard::default();
        let ok = read(method, Some(&raw), &mut heard).unwrap().is_ok();
        (heard.take(), ok)
    }

    fn record(level: LogLevel, at: Option<SystemTime>, pieces: &[(&str, bool)]) -> TelemetryKind {
        let mut records = LogRecords::default();
        for (text, partial) in pieces {
            records.push(LogRecord { level, at, partial: *partial, text });
        }
        TelemetryKind::Logs(records)
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
            record(LogLevel::Warn, Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)), &[("a\nb", false)])
        );
        assert_eq!(
            one("hive/metric", r#"{"name":"queue","value":3,"unit":"{task}","attributes":{"a":1}}"#),
            TelemetryKind::Counted(1)
        );
        let usage = r#"{"gen_ai.usage.input_tokens":10,"gen_ai.request.model":"m","cost_usd":0.5,"gen_ai.usage.text.input_tokens":-4}"#;
        let totals = Usage { input_tokens: Some(10), cost_usd: Some(0.5), ..Usage::default() };
        let report = UsageReport { totals, model: Some(text("m")) };
        assert_eq!(one("hive/usage", usage), TelemetryKind::Usage(Box::new(report)));
        let both = r#"{"gen_ai.request.model":"asked","gen_ai.response.model":"answered"}"#;
        let report = UsageReport { totals: Usage::default(), model: Some(text("answered")) };
        assert_eq!(one("hive/usage", both), TelemetryKind::Usage(Box::new(report)), "the one that answered was used");
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
        let long = "y".repeat(NAME_BYTES_MAX + 1);
        for (method, params) in [
            ("hive/log", format!(r#"{{"line":"x","stream":"{long}"}}"#)),
            ("hive/log", r#"{"line":"x","stream":""}"#.to_owned()),
            ("hive/metric", format!(r#"{{"name":"x","value":1,"unit":"{long}"}}"#)),
            ("hive/metric", r#"{"name":"x","value":1,"attributes":{"a":1e999}}"#.to_owned()),
            (
                "hive/metric",
                format!(r#"{{"name":"x","value":1,"attributes":{{"a":"{}"}}}}"#, "y".repeat(ATTRIBUTES_BYTES_MAX)),
            ),
        ] {
            assert_eq!(told(method, &params), (vec![], false), "{method} {params:.80}");
        }
        assert!(read("hive/usage", None, &mut Heard::default()).unwrap().is_err());
        assert!(read("hive/nothing", None, &mut Heard::default()).is_none());
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
        let [TelemetryKind::Logs(records)] = &all[..] else { panic!("{all:?}") };
        assert!(ok && records.len() == 1);
        let pieces: Vec<LogRecord<'_>> = records.iter().collect();
        assert!(pieces.iter().all(|piece| piece.text.len() <= LOG_PIECE_MAX));
        assert_eq!(pieces.iter().map(|piece| piece.partial).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(pieces.iter().map(|piece| piece.text).collect::<String>(), format!("x{line}"));
        assert_eq!(told("hive/log", r#"{"line":""}"#).0, [record(LogLevel::Info, None, &[("", false)])]);
    }

    #[test]
    fn what_is_unsound_is_found_however_deep() {
        for bad in [r#"[1e999]"#, r#"{"a":["\ud800"]}"#, r#"{"\udc00":1}"#, r#"[[-1e400]]"#] {
            assert_eq!(told("hive/event", &format!(r#"{{"kind":"k","x":{bad}}}"#)), (vec![], false), "{bad}");
        }
        let all = r#"[null,true,-1,18446744073709551615,1e300,123456789012345678901234567890,"\ud83d\ude00",{},[[]]]"#;
        assert!(told("hive/event", &format!(r#"{{"kind":"k","x":{all}}}"#)).1);
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
