//! Times and durations as text.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time, written as RFC 3339 UTC with milliseconds: `2026-11-21T04:05:06.789Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rfc3339(pub SystemTime);

/// Where RFC 3339's four-digit years end: 9999-12-31T23:59:59Z, in seconds since 1970. Later times are shown as this one.
const YEAR_9999_ENDS_S: u64 = 253_402_300_799;

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A clock before 1970 or after 9999 is shown at the nearest end: a broken clock must not break the document that shows it.
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(YEAR_9999_ENDS_S);
        humantime::format_rfc3339_millis(self.0.clamp(SystemTime::UNIX_EPOCH, last)).fmt(f)
    }
}

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rfc3339 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        parse_rfc3339(&text)
            .map(Self)
            .ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&text), &"an RFC 3339 time in UTC"))
    }
}

/// Reads a time that [`Rfc3339`] has written, or any other RFC 3339 time in UTC.
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

/// A duration in the form of the configuration: `60s`, `10m`, `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationText(pub Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One number and one unit, as people write it. A single minute or hour stays in the smaller unit: `60s`, `60m`.
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        match (seconds, nanos) {
            (_, nanos) if nanos % 1_000_000 != 0 => humantime::format_duration(self.0).fmt(f),
            (_, 1..) => write!(f, "{}ms", self.0.as_millis()),
            (s, 0) if s >= 7200 && s % 3600 == 0 => write!(f, "{}h", s / 3600),
            (s, 0) if s >= 120 && s % 60 == 0 => write!(f, "{}m", s / 60),
            (s, 0) => write!(f, "{s}s"),
        }
    }
}

impl Serialize for DurationText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map(Self)
            .map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &"a duration such as \"60s\" or \"10m\""))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_survive_broken_clocks() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_233_906_789);
        assert_eq!(Rfc3339(time).to_string(), "2026-11-21T04:05:06.789Z");
        assert_eq!(parse_rfc3339("2026-11-21T04:05:06.789Z"), Some(time));
        assert_eq!(parse_rfc3339("yesterday"), None);
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(serde_json::to_string(&Rfc3339(before)).unwrap(), "\"1970-01-01T00:00:00.000Z\"");
        let after = SystemTime::UNIX_EPOCH + Duration::from_secs(YEAR_9999_ENDS_S * 3);
        assert_eq!(serde_json::to_string(&Rfc3339(after)).unwrap(), "\"9999-12-31T23:59:59.000Z\"");
    }

    #[test]
    fn durations_read_as_people_write_them() {
        for text in ["0s", "1s", "60s", "90s", "10m", "60m", "24h", "250ms", "1500ms"] {
            let json = format!("\"{text}\"");
            let read: DurationText = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), json);
        }
        let fine = DurationText(Duration::new(1, 5));
        assert_eq!(serde_json::from_str::<DurationText>(&serde_json::to_string(&fine).unwrap()).unwrap(), fine);
        let error = serde_json::from_str::<DurationText>("\"60 parsecs\"").unwrap_err().to_string();
        assert!(error.contains("60 parsecs") && error.contains("a duration such as"), "{error}");
    }
}
