//! Prometheus's text format 0.0.4, as far as we speak it. Pure.
//!
//! Written by hand: every value here is a snapshot of something that is kept elsewhere, and a registry of a client library would be a second
//! copy that has to be kept in step, series by series.

use std::fmt::{Display, Write as _};

/// Of the whole text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Labels of one series.
pub(super) type Labels<'a> = [(&'static str, &'a str)];

/// A number that has one written form that Prometheus reads.
pub(super) trait Number: Display {}
impl Number for u64 {}
impl Number for f64 {}

/// The text so far.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// A number that only grows while the daemon lives. `_total` is put behind its name.
    pub(super) fn counter(&mut self, name: &str, help: &'static str) -> Family<'_> {
        self.family(format!("{name}_total"), "counter", help)
    }

    /// A number that goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &'static str) -> Family<'_> {
        self.family(name.to_owned(), "gauge", help)
    }

    /// How many observations there were and what they add up to: its mean over any time is `rate(sum) / rate(count)`.
    pub(super) fn summary(&mut self, name: &str, help: &'static str, sum: f64, count: u64) {
        let mut family = self.family(name.to_owned(), "summary", help);
        family.sample("_sum", &[], sum);
        family.sample("_count", &[], count);
    }

    /// The same for each value of a label.
    pub(super) fn summaries<'l>(
        &mut self,
        name: &str,
        help: &'static str,
        label: &'static str,
        all: impl IntoIterator<Item = (&'l str, f64, u64)>,
    ) {
        let mut family = self.family(name.to_owned(), "summary", help);
        for (value, sum, count) in all {
            family.sample("_sum", &[(label, value)], sum);
            family.sample("_count", &[(label, value)], count);
        }
    }

    /// The whole.
    pub(super) fn finish(self) -> String {
        self.0
    }

    fn family(&mut self, name: String, kind: &'static str, help: &'static str) -> Family<'_> {
        Family { text: &mut self.0, name, kind, help, begun: false }
    }
}

/// The series of one name. Without a series it leaves no trace.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: String,
    kind: &'static str,
    help: &'static str,
    begun: bool,
}

impl Family<'_> {
    /// The only series of its family.
    pub(super) fn value(&mut self, value: impl Number) {
        self.sample("", &[], value);
    }

    /// One of several.
    pub(super) fn of(&mut self, labels: &Labels<'_>, value: impl Number) {
        self.sample("", labels, value);
    }

    /// A truth as 1 or 0.
    pub(super) fn is(&mut self, labels: &Labels<'_>, truth: bool) {
        self.sample("", labels, u64::from(truth));
    }

    fn sample(&mut self, suffix: &str, labels: &Labels<'_>, value: impl Number) {
        let Self { text, name, kind, help, begun } = self;
        // Writing to a string can't fail.
        if !std::mem::replace(begun, true) {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        let _ = write!(text, "{name}{suffix}");
        for (at, (label, value)) in labels.iter().enumerate() {
            let _ = write!(text, "{}{label}=\"{}\"", if at == 0 { '{' } else { ',' }, Escaped(value));
        }
        let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// A label's value as it stands between quotation marks.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['\\', '"', '\n']) {
            let (plain, special) = rest.split_at(at);
            f.write_str(plain)?;
            f.write_str(match special.as_bytes()[0] {
                b'\\' => r"\\",
                b'"' => "\\\"",
                _ => r"\n",
            })?;
            rest = &special[1..];
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_its_head_and_its_series() {
        let mut text = Text::default();
        text.counter("a_starts", "Starts.").of(&[("swarm", "x"), ("agent", "y")], 7u64);
        let mut gauge = text.gauge("a_level", "The level.");
        gauge.is(&[("level", "healthy")], true);
        gauge.is(&[("level", "critical")], false);
        text.gauge("a_cores", "Cores.").value(0.25);
        text.summary("a_seconds", "Time.", 1.5, 3);
        let nothing = text.gauge("a_nothing", "Never seen.");
        drop(nothing);
        let expected = "# HELP a_starts_total Starts.\n# TYPE a_starts_total counter\na_starts_total{swarm=\"x\",agent=\"y\"} 7\n\
                        # HELP a_level The level.\n# TYPE a_level gauge\na_level{level=\"healthy\"} 1\na_level{level=\"critical\"} 0\n\
                        # HELP a_cores Cores.\n# TYPE a_cores gauge\na_cores 0.25\n\
                        # HELP a_seconds Time.\n# TYPE a_seconds summary\na_seconds_sum 1.5\na_seconds_count 3\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn what_would_end_a_label_is_escaped() {
        assert_eq!(Escaped("a\\b\"c\nd\u{e9}").to_string(), "a\\\\b\\\"c\\nd\u{e9}");
    }
}
