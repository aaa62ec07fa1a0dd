//! What one read told, summed up as far as only the sum or the latest counts, pure: an agent that sends a thousand messages at once costs those
//! above one look.

use std::sync::Arc;

use crate::model::{LogRecords, Lost, TelemetryKind, Usage, UsageReport};

/// Gathered from the messages of one read.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Whether what is told next comes beyond the rate of its connection.
    pub(super) beyond: bool,
    beats: u64,
    /// Whether one of them came within the rate of its connection.
    beat_within: bool,
    progress: String,
    busy: Option<bool>,
    /// Log records.
    pub(super) logs: LogRecords,
    /// Metric samples.
    pub(super) metrics: u64,
    kinds: Vec<TelemetryKind>,
    /// The last totals that came beyond the rate of the connection.
    totals: Option<Box<UsageReport>>,
    /// Totals that these have overtaken.
    overtaken: u64,
    /// What was let go.
    pub(super) lost: Lost,
}

impl Heard {
    /// A heartbeat. What the younger one does not say, the older one has said.
    pub(super) fn beat(&mut self, progress: Option<&str>, busy: Option<bool>) {
        self.beats += 1;
        self.beat_within |= !self.beyond;
        if let Some(progress) = progress {
            self.progress.clear();
            self.progress.push_str(progress);
        }
        self.busy = busy.or(self.busy);
    }

    /// Something that stands for itself. Totals are absolute, so those that come beyond the rate take the place of the ones before that came so.
    pub(super) fn tell(&mut self, kind: TelemetryKind) {
        match kind {
            TelemetryKind::Usage(report) if self.beyond => {
                self.overtaken += u64::from(self.totals.replace(report).is_some());
            }
            kind => self.kinds.push(kind),
        }
    }

    /// Lets go what it says was used, as far as somebody else is to say that. Asked in order, of each of the totals.
    pub(super) fn retain_usage(&mut self, mut is_kept: impl FnMut(&Usage) -> bool) {
        let all = self.kinds.len();
        self.kinds.retain(|kind| if let TelemetryKind::Usage(report) = kind { is_kept(&report.totals) } else { true });
        let foreign = self.totals.take_if(|report| !is_kept(&report.totals));
        self.lost.metrics += (all - self.kinds.len()) as u64 + u64::from(foreign.is_some());
    }

    /// Messages that may be let go when too much comes from everybody together: log records and samples.
    pub(super) fn spare(&self) -> u64 {
        self.logs.len() as u64 + self.metrics
    }

    /// What is never let go, as it burdens those above: heartbeats are one look there, however many they are, and what came beyond the rate of its
    /// connection costs nobody else his share.
    pub(super) fn needed(&self) -> u64 {
        u64::from(self.beat_within) + self.kinds.len() as u64
    }

    /// Lets so many go: samples first, which nobody keeps, then the oldest records.
    pub(super) fn shed(&mut self, messages: u64) {
        let metrics = messages.min(self.metrics);
        self.metrics -= metrics;
        self.lost.metrics += metrics;
        let records = usize::try_from(messages - metrics).unwrap_or(usize::MAX);
        self.lost.logs += self.logs.drop_oldest(records) as u64;
    }

    /// Takes all of it out, save what was let go.
    pub(super) fn take(&mut self) -> Vec<TelemetryKind> {
        let mut all = Vec::new();
        let mut counted = std::mem::take(&mut self.metrics) + std::mem::take(&mut self.overtaken);
        self.beat_within = false;
        if self.beats > 0 {
            counted += self.beats - 1;
            let progress = (!self.progress.is_empty()).then(|| Arc::from(self.progress.as_str()));
            all.push(TelemetryKind::Heartbeat { progress, busy: self.busy.take() });
            self.progress.clear();
            self.beats = 0;
        }
        if !self.logs.is_empty() {
            all.push(TelemetryKind::Logs(std::mem::take(&mut self.logs)));
        }
        if counted > 0 {
            all.push(TelemetryKind::Counted(counted));
        }
        all.append(&mut self.kinds);
        all.extend(self.totals.take().map(TelemetryKind::Usage));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LogLevel, LogRecord};

    fn log(heard: &mut Heard, text: &str) {
        heard.logs.push(LogRecord { level: LogLevel::Info, at: None, partial: false, text });
    }

    #[test]
    fn heartbeats_become_one_and_none_is_forgotten() {
        let mut heard = Heard { beyond: true, ..Heard::default() };
        heard.beat(Some("1"), None);
        heard.beat(Some("2"), Some(true));
        heard.beat(None, None);
        assert_eq!((heard.needed(), heard.spare()), (0, 0), "beyond the rate they are no burden");
        heard.beyond = false;
        heard.beat(None, None);
        heard.beat(None, None);
        assert_eq!((heard.needed(), heard.spare()), (1, 0), "they are one look");
        let kind = TelemetryKind::Heartbeat { progress: Some(Arc::from("2")), busy: Some(true) };
        assert_eq!(heard.take(), [kind, TelemetryKind::Counted(4)]);
        heard.beat(None, None);
        assert_eq!(heard.take(), [TelemetryKind::Heartbeat { progress: None, busy: None }]);
        assert_eq!(heard.take(), []);
        heard.tell(TelemetryKind::SessionClosed);
        assert_eq!((heard.needed(), heard.spare()), (1, 0), "what stands for itself is never let go");
    }

    fn used(tokens: u64) -> Box<UsageReport> {
        let totals = Usage { input_tokens: Some(tokens), ..Usage::default() };
        Box::new(UsageReport { totals, model: None })
    }

    #[test]
    fn usage_is_let_go_alone_and_counted() {
        let mut heard = Heard::default();
        let event = TelemetryKind::Event { kind: Arc::from("note"), data: Arc::from("{}") };
        for kind in [TelemetryKind::Usage(used(1)), event.clone(), TelemetryKind::Usage(used(2))] {
            heard.tell(kind);
        }
        heard.beyond = true;
        heard.tell(TelemetryKind::Usage(used(3)));
        let mut asked = Vec::new();
        heard.retain_usage(|totals| {
            asked.push(totals.input_tokens.unwrap_or(0));
            totals.input_tokens == Some(2)
        });
        assert_eq!((heard.lost, asked), (Lost { metrics: 2, ..Lost::default() }, vec![1, 2, 3]));
        assert_eq!(heard.take(), [event, TelemetryKind::Usage(used(2))]);
    }

    #[test]
    fn of_totals_beyond_the_rate_the_last_stay_behind_all_others() {
        let mut heard = Heard::default();
        for (tokens, beyond) in [(1, false), (2, true), (3, true)] {
            heard.beyond = beyond;
            heard.tell(TelemetryKind::Usage(used(tokens)));
        }
        assert_eq!(heard.needed(), 1);
        let kept = [TelemetryKind::Counted(1), TelemetryKind::Usage(used(1)), TelemetryKind::Usage(used(3))];
        assert_eq!((heard.take(), heard.lost), (kept.to_vec(), Lost::default()));
        assert_eq!(heard.take(), []);
    }

    #[test]
    fn samples_go_first_then_the_oldest_records_and_never_a_heartbeat() {
        let mut heard = Heard::default();
        heard.beat(None, None);
        heard.metrics = 2;
        ["a", "b", "c"].iter().for_each(|text| log(&mut heard, text));
        assert_eq!((heard.needed(), heard.spare()), (1, 5));
        heard.shed(4);
        assert_eq!(heard.lost, Lost { logs: 2, metrics: 2, events: 0 });
        heard.shed(100);
        assert_eq!(heard.lost, Lost { logs: 3, metrics: 2, events: 0 });
        assert_eq!(heard.take(), [TelemetryKind::Heartbeat { progress: None, busy: None }]);
    }
}
