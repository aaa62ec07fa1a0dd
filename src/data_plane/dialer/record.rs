//! What is told of a source: where its breaker stands, what went well and wrong, what its tools and agents said last. Pure. It outlives the actor.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;

use super::{agents::Listed, answer::shown_whole, breaker::Permit, schedule::Schedule};
use crate::model::{BreakerState, Measured, Source, SourceReport, SourceSpec, ToolReport, health::Absent};

/// The time by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) wall: SystemTime,
    pub(super) mono: Instant,
}

impl Now {
    pub(super) fn read() -> Self {
        Self { wall: SystemTime::now(), mono: Instant::now() }
    }
}

/// What one call brought.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Which tool of the document.
    pub(super) tool: usize,
    /// From the question to the answer.
    pub(super) took: Duration,
    /// Its payload, or why there is none.
    pub(super) said: Result<Value, String>,
}

/// What one poll brought.
#[derive(Debug, Default)]
pub(super) struct Polled {
    pub(super) outcomes: Vec<Outcome>,
    /// What ended a connection, and the poll with it.
    pub(super) trouble: Option<String>,
    /// Connections that the peer ended.
    pub(super) cut: u64,
    /// What was agreed to, where a connection is left that knows.
    pub(super) protocol: Option<Arc<str>>,
}

/// One source's record.
#[derive(Debug)]
pub(super) struct Record {
    schedule: Schedule,
    report: SourceReport,
}

impl Record {
    pub(super) fn new(spec: Arc<SourceSpec>, now: Now) -> Self {
        let tool = |name: &Arc<str>| ToolReport {
            name: Arc::clone(name),
            error: None,
            latency_ms: Measured::Absent(Absent::NeverObserved),
            answer: Measured::Absent(Absent::NeverObserved),
            answered: None,
        };
        let report = SourceReport {
            breaker: BreakerState::Closed,
            since: now.wall,
            retry_at: None,
            protocol: None,
            last_success: None,
            last_error: None,
            polls: 0,
            failures: 0,
            failures_in_a_row: 0,
            cut: 0,
            tools: spec.tools.iter().map(|spec| tool(&spec.name)).collect(),
            agents: Arc::from([]),
            agents_listed: None,
            agents_left_out: 0,
            spec,
        };
        Self { schedule: Schedule::new(report.spec.interval, now.mono), report }
    }

    pub(super) fn report(&self) -> SourceReport {
        self.report.clone()
    }

    /// When the next poll is due.
    pub(super) fn due(&self) -> Instant {
        self.schedule.due()
    }

    /// A poll begins.
    pub(super) fn begin(&mut self, now: Now) -> Permit {
        self.report.polls += 1;
        let permit = self.schedule.begin(now.mono);
        self.follow_breaker(now);
        permit
    }

    /// A connection was ended between polls.
    pub(super) fn cut(&mut self) {
        self.report.cut += 1;
    }

    /// A connection was left for what its server sent unasked.
    pub(super) fn left(&mut self, now: Now, why: String) {
        self.report.last_error = Some((now.wall, why.into()));
    }

    /// The poll has ended. `chance` lies in 0..1.
    pub(super) fn end(&mut self, now: Now, polled: Polled, chance: f64) {
        let Polled { outcomes, trouble, cut, protocol } = polled;
        let report = &mut self.report;
        report.cut += cut;
        if protocol.is_some() {
            report.protocol = protocol;
        }
        let mut listed = Listed::default();
        let (mut results, mut refused) = (0, None);
        for Outcome { tool, took, said } in outcomes {
            let Some(tool) = report.tools.get_mut(tool) else { continue };
            match said {
                Ok(payload) => {
                    results += 1;
                    listed.add(&payload, now.wall);
                    note(tool, &payload, took, now);
                }
                Err(why) => {
                    refused.get_or_insert_with(|| format!("{}: {why}", tool.name));
                    tool.error = Some(why.into());
                }
            }
        }
        if listed.any {
            report.agents = listed.agents.into();
            (report.agents_listed, report.agents_left_out) = (Some((now.wall, now.mono)), listed.left_out);
        }
        if results > 0 {
            report.last_success = Some((now.wall, now.mono));
        }
        let failed = trouble.is_some() || results == 0;
        // A server of which one tool answers is there, whatever becomes of the others.
        self.schedule.end(now.mono, results > 0, chance);
        let report = &mut self.report;
        if let Some(why) = trouble.or(refused) {
            report.last_error = Some((now.wall, why.into()));
        }
        report.failures += u64::from(failed);
        // Counted as the breaker counts: a poll that brought something ends the row, even if it did not bring everything.
        report.failures_in_a_row = if results > 0 { 0 } else { report.failures_in_a_row.saturating_add(1) };
        self.follow_breaker(now);
    }

    fn follow_breaker(&mut self, now: Now) {
        let breaker = self.schedule.breaker();
        if breaker.state() != self.report.breaker {
            (self.report.breaker, self.report.since) = (breaker.state(), now.wall);
        }
        self.report.retry_at = breaker.open_until().map(|until| now.wall + until.saturating_duration_since(now.mono));
    }
}

fn note(tool: &mut ToolReport, payload: &Value, took: Duration, now: Now) {
    let measured = |value, source| Measured::Value { value, observed_at: now.wall, source };
    tool.error = None;
    tool.answered = Some(now.mono);
    tool.latency_ms = measured(u64::try_from(took.as_millis()).unwrap_or(u64::MAX), Source::Daemon);
    tool.answer = match shown_whole(payload) {
        Some(text) => Measured::Value { value: Arc::from(text), observed_at: now.wall, source: Source::Mcp },
        None => Measured::Absent(Absent::Unsupported),
    };
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::model::ToolSpec;

    fn record() -> Record {
        let tool = |name: &str| ToolSpec { name: Arc::from(name), arguments: Arc::from("{}") };
        let spec = SourceSpec {
            name: "flow".parse().unwrap(),
            address: Arc::from("x:1"),
            tools: vec![tool("good"), tool("bad")],
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            connections: 1,
        };
        Record::new(Arc::new(spec), Now::read())
    }

    fn poll(record: &mut Record, answers: bool) {
        let now = Now::read();
        let _ = record.begin(now);
        let outcome = |tool, said| Outcome { tool, took: Duration::ZERO, said };
        let good = if answers { Ok(Value::Null) } else { Err("cut".to_owned()) };
        let outcomes = vec![outcome(0, good), outcome(1, Err("cut".to_owned()))];
        record.end(now, Polled { outcomes, trouble: Some("bad: cut".to_owned()), ..Polled::default() }, 0.5);
    }

    /// "N polls in a row failed" is said of a source that is down, and counts what took it down.
    #[test]
    fn a_poll_that_brought_something_ends_the_row_of_those_that_failed() {
        let mut record = record();
        let since = record.report().since;
        for _ in 0..5 {
            poll(&mut record, true);
        }
        let report = record.report();
        assert_eq!(report.since, since, "its breaker has stood there all the while");
        assert_eq!((report.failures, report.failures_in_a_row, report.breaker), (5, 0, BreakerState::Closed));
        for _ in 0..3 {
            poll(&mut record, false);
        }
        let report = record.report();
        assert_eq!((report.failures, report.failures_in_a_row, report.breaker), (8, 3, BreakerState::Open));
    }
}
