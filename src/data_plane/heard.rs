//! What one read told, summed up as far as only the sum or the latest counts, pure: an agent that sends a thousand messages at once costs those
//! above one look.

use std::sync::Arc;

use crate::model::{LogRecords, Lost, TelemetryKind};

/// Gathered from the messages of one read.
#[derive(Debug, Default)]
pub(super) struct Heard {
    beats: u64,
    progress: String,
    busy: Option<bool>,
    /// Log records.
    pub(super) logs: LogRecords,
    /// Metric samples.
    pub(super) metrics: u64,
    kinds: Vec<TelemetryKind>,
    /// What was let go.
    pub(super) lost: Lost,
}

impl Heard {
    /// A heartbeat. What the younger one does not say, the older one has said.
    pub(super) fn beat(&mut self, progress: Option<&str>, busy: Option<bool>) {
        self.beats += 1;
        if let Some(progress) = progress {
            self.progress.clear();
            self.progress.push_str(progress);
        }
        self.busy = busy.or(self.busy);
    }

    /// Something that stands for itself.
    pub(super) fn tell(&mut self, kind: TelemetryKind) {
        self.kinds.push(kind);
    }

    /// Whether it says what was used.
    pub(super) fn tells_usage(&self) -> bool {
        self.kinds.iter().any(|kind| matches!(kind, TelemetryKind::Usage(_)))
    }

    /// Lets go what it says was used.
    pub(super) fn shed_usage(&mut self) {
        let all = self.kinds.len();
        self.kinds.retain(|kind| !matches!(kind, TelemetryKind::Usage(_)));
        self.lost.metrics += (all - self.kinds.len()) as u64;
    }

    /// Messages that may be let go when too much comes from everybody together: log records and samples.
    pub(super) fn spare(&self) -> u64 {
        self.logs.len() as u64 + self.metrics
    }

    /// Messages that are never let go.
    pub(super) fn needed(&self) -> u64 {
        self.beats + self.kinds.len() as u64
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
        let mut counted = std::mem::take(&mut self.metrics);
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
        let mut heard = Heard::default();
        heard.beat(Some("1"), None);
        heard.beat(Some("2"), Some(true));
        heard.beat(None, None);
        assert_eq!((heard.needed(), heard.spare()), (3, 0));
        let kind = TelemetryKind::Heartbeat { progress: Some(Arc::from("2")), busy: Some(true) };
        assert_eq!(heard.take(), [kind, TelemetryKind::Counted(2)]);
        heard.beat(None, None);
        assert_eq!(heard.take(), [TelemetryKind::Heartbeat { progress: None, busy: None }]);
        assert_eq!(heard.take(), []);
        heard.tell(TelemetryKind::SessionClosed);
        assert_eq!((heard.needed(), heard.spare()), (1, 0), "what stands for itself is never let go");
    }

    #[test]
    fn usage_is_let_go_alone_and_counted() {
        let mut heard = Heard::default();
        assert!(!heard.tells_usage());
        let event = TelemetryKind::Event { kind: Arc::from("note"), data: Arc::from("{}") };
        for kind in [TelemetryKind::Usage(Box::default()), event.clone(), TelemetryKind::Usage(Box::default())] {
            heard.tell(kind);
        }
        assert!(heard.tells_usage());
        heard.shed_usage();
        assert_eq!((heard.lost, heard.take()), (Lost { metrics: 2, ..Lost::default() }, vec![event]));
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
