//! Values as words for people. What was not measured is never a number.

use std::time::{Duration, SystemTime};

use super::shapes::{LastExit, Measured, Reason};

/// `3s`, `12m`, `5h`, `2d`: one unit, rounded down.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// `3m ago`; the text itself when it is no time.
pub(super) fn ago(at: &str, now: SystemTime) -> String {
    match humantime::parse_rfc3339(at) {
        // A clock that is a little behind the daemon's says "now".
        Ok(then) => format!("{} ago", span(now.duration_since(then).unwrap_or_default())),
        Err(_) => clean(at),
    }
}

/// `in 12s`, or `now` when it is due.
pub(super) fn until(at: &str, now: SystemTime) -> String {
    match humantime::parse_rfc3339(at).map(|then| then.duration_since(now)) {
        Ok(Ok(left)) => format!("in {}", span(left)),
        Ok(Err(_)) => "now".to_owned(),
        Err(_) => clean(at),
    }
}

/// The value as words, `-` when it was never observed, else the reason why there is none.
pub(super) fn measured<T>(measured: &Measured<T>, show: impl FnOnce(&T) -> String) -> String {
    match (&measured.value, measured.reason.as_deref()) {
        (Some(value), _) => show(value),
        (None, Some("never_observed")) => "-".to_owned(),
        (None, Some(reason)) => clean(reason),
        (None, None) => "unknown".to_owned(),
    }
}

/// Bytes in the largest unit that leaves a number above one.
pub(super) fn bytes(count: u64) -> String {
    let mut size = count as f64;
    for unit in ["B", "KiB", "MiB"] {
        if size < 1024.0 {
            return if unit == "B" { format!("{count}B") } else { format!("{size:.1}{unit}") };
        }
        size /= 1024.0;
    }
    format!("{size:.1}GiB")
}

/// How an exit came about in a few letters: `signal 9`, `code 3`, else the cause's word.
pub(super) fn exit_short(exit: &LastExit) -> String {
    match (exit.cause.as_str(), exit.code, exit.signal) {
        ("exited", Some(code), _) => format!("code {code}"),
        ("signalled", _, Some(signal)) => format!("signal {signal}"),
        (cause, _, _) => clean(cause),
    }
}

/// `code: detail; code`.
pub(super) fn reasons(reasons: &[Reason]) -> String {
    let one = |reason: &Reason| match reason.detail.as_str() {
        "" => clean(&reason.code),
        detail => format!("{}: {}", clean(&reason.code), clean(detail)),
    };
    reasons.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Text of others, made harmless for a terminal: control characters become visible.
pub(super) fn clean(text: &str) -> String {
    let show = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(show).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let now = humantime::parse_rfc3339("2026-11-21T04:00:00Z").unwrap();
        for (at, text) in [
            ("2026-11-21T03:59:57.500Z", "2s ago"),
            ("2026-11-21T03:57:00.000Z", "3m ago"),
            ("2026-11-21T02:00:00Z", "2h ago"),
            ("2026-11-01T00:00:00Z", "20d ago"),
            ("2026-11-21T04:00:01Z", "0s ago"),
            ("whenever\u{1b}", "whenever\\u{1b}"),
        ] {
            assert_eq!(ago(at, now), text);
        }
        assert_eq!(until("2026-11-21T04:01:05Z", now), "in 1m");
        assert_eq!(until("2026-11-21T03:01:05Z", now), "now");
    }

    #[test]
    fn sizes_have_a_unit() {
        for (count, text) in [(0, "0B"), (1023, "1023B"), (1536, "1.5KiB"), (3_565_158, "3.4MiB"), (5 << 30, "5.0GiB")]
        {
            assert_eq!(bytes(count), text);
        }
    }
}
