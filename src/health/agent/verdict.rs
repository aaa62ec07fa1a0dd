//! What state an agent is in, why, and when time alone may change that.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Agent, Phase};
use crate::{
    health::{flap, report::Now},
    model::{AgentState, Desired, OnStuck, Ready, Reason, RestartType},
};

/// Readings that may be missed before a value no longer stands for now: one late and one lost are ordinary, a third is not.
const SAMPLES_MISSED_MAX: u32 = 3;

/// A value is never called stale before this, however often readings are taken: a busy machine delays a launcher by seconds.
const STALE_MIN: Duration = Duration::from_secs(10);

impl Agent {
    /// Derives the state, its reasons and what has become stale. Returns whether it has just become stuck and is to be restarted for it.
    pub(in crate::health) fn judge(&mut self, sample_interval: Duration, now: Now) -> bool {
        if self.overdue(sample_interval, now) {
            self.flap.overdue(now.mono);
            self.live.outdate_latency();
        }
        let state = self.state(sample_interval, now);
        let reasons = self.reasons(state, sample_interval, now);
        while self.window.front().is_some_and(|seen| now.mono.saturating_duration_since(*seen) >= self.period) {
            self.window.pop_front();
        }
        let in_window = u32::try_from(self.window.len()).unwrap_or(u32::MAX);
        let stale = now.mono.saturating_duration_since(self.sampled) >= stale_after(sample_interval);
        let newly_stuck = state == AgentState::Stuck && self.doc.state != AgentState::Stuck;
        if stale {
            self.live.outdate_readings();
        }
        if state != self.doc.state || reasons != self.doc.reasons || in_window != self.doc.restarts_in_window {
            let doc = Arc::make_mut(&mut self.doc);
            if state != doc.state {
                (doc.state, doc.since) = (state, now.wall);
            }
            doc.reasons = reasons;
            doc.restarts_in_window = in_window;
        }
        newly_stuck && self.spec.on_stuck == OnStuck::Restart
    }

    /// When time alone may next change the document. What is past was judged and is no deadline any more.
    pub(in crate::health) fn deadline(&self, sample_interval: Duration, now: Now) -> Option<Instant> {
        let after = |since: Instant, limit: Duration| since.checked_add(limit);
        let judged = self.judged();
        let overdue = judged.then(|| after(self.heard, self.heartbeat_limit(sample_interval)));
        let stuck =
            (judged && !self.spec.progress_timeout.is_zero()).then(|| after(self.moved, self.spec.progress_timeout));
        let stale = self.live.has_readings().then(|| after(self.sampled, stale_after(sample_interval)));
        let window = self.window.front().map(|seen| after(*seen, self.period));
        [overdue, stuck, stale, window].into_iter().flatten().flatten().filter(|at| *at > now.mono).min()
    }

    /// Whether silence may be held against it.
    fn judged(&self) -> bool {
        self.phase == Phase::Running && self.paused.is_none() && !self.unreachable && !self.ended
    }

    fn heartbeat_limit(&self, sample_interval: Duration) -> Duration {
        if self.session {
            self.spec.heartbeat_timeout
        } else {
            // The launcher beats with its readings, and can't be asked to beat more often than it takes them.
            self.spec.heartbeat_timeout.max(sample_interval.saturating_mul(SAMPLES_MISSED_MAX))
        }
    }

    fn overdue(&self, sample_interval: Duration, now: Now) -> bool {
        self.judged() && now.mono.saturating_duration_since(self.heard) >= self.heartbeat_limit(sample_interval)
    }

    fn stuck(&self, now: Now) -> bool {
        let limit = self.spec.progress_timeout;
        self.judged() && !limit.is_zero() && now.mono.saturating_duration_since(self.moved) >= limit
    }

    pub(super) fn state(&self, sample_interval: Duration, now: Now) -> AgentState {
        match self.phase {
            Phase::Pending => AgentState::Pending,
            // Nothing is being started yet.
            Phase::Starting if self.waits.is_some() => AgentState::Pending,
            Phase::Starting if self.paused.is_some() => AgentState::Paused,
            Phase::Starting => AgentState::Starting,
            // Its supervisor has not said yet what follows.
            Phase::Running if self.ended => AgentState::Pending,
            Phase::Running if self.unreachable => AgentState::Unknown,
            Phase::Running if self.paused.is_some() => AgentState::Paused,
            // Both may hold; what its document may restart it for is shown first.
            Phase::Running if self.stuck(now) => AgentState::Stuck,
            Phase::Running if self.overdue(sample_interval, now) || self.flap.is_flapping() => AgentState::Degraded,
            Phase::Running => AgentState::Running,
            Phase::Stopping => AgentState::Stopping,
            Phase::Stopped => AgentState::Stopped,
            Phase::Completed => AgentState::Completed,
            Phase::BackingOff => AgentState::BackingOff,
            Phase::Failed => AgentState::Failed,
        }
    }

    pub(super) fn reasons(&self, state: AgentState, sample_interval: Duration, now: Now) -> Vec<Reason> {
        let ending = || self.ending.as_deref().unwrap_or("how it ended is not known");
        let account = || self.account.as_deref().map(|account| vec![reason("sibling_failed", account)]);
        let overdue = || {
            let who = if self.session { "the agent" } else { "its launcher" };
            let limit = humantime::format_duration(self.heartbeat_limit(sample_interval));
            reason("heartbeat_overdue", format!("nothing heard from {who} for {limit} or longer"))
        };
        let flapping = || {
            let (within, calm) = (humantime::format_duration(flap::WITHIN), humantime::format_duration(flap::CALM));
            let detail = format!(
                "fell silent {} times within {within}; its heartbeats have to be in time for {calm}",
                flap::SILENCES
            );
            reason("flapping", detail)
        };
        match state {
            AgentState::Running => Vec::new(),
            AgentState::Pending => vec![match &self.waits {
                Some((code, what)) => reason(code, what.as_str()),
                None if self.phase == Phase::Running => reason("exited", ending()),
                None if self.account.is_some() => return account().unwrap_or_default(),
                None => reason("not_started", "waits for its turn"),
            }],
            AgentState::Starting => {
                let what = match self.spec.ready {
                    Ready::Process => "the report that its process lives",
                    Ready::Session => "its session",
                };
                vec![reason("no_sign_of_life", format!("waits for {what}"))]
            }
            AgentState::Degraded => {
                let overdue = self.overdue(sample_interval, now).then(overdue);
                overdue.into_iter().chain(self.flap.is_flapping().then(flapping)).collect()
            }
            AgentState::Stuck => {
                let limit = humantime::format_duration(self.spec.progress_timeout);
                let mut all = vec![reason("no_progress", format!("no progress for {limit} or longer"))];
                if self.overdue(sample_interval, now) {
                    all.push(overdue());
                }
                all
            }
            AgentState::Paused => vec![reason("paused_by_operator", "frozen, its clocks stand still")],
            AgentState::Unknown => vec![reason("runtime_unreachable", "its runtime can't be reached")],
            AgentState::Stopping => account().unwrap_or_else(|| vec![reason("stop_requested", "was asked to end")]),
            AgentState::Stopped if self.doc.desired == Desired::Stopped => {
                vec![reason("stopped_by_operator", "stays so until it is started")]
            }
            AgentState::Stopped => vec![reason("stopped", ending())],
            AgentState::Completed => vec![reason("exited_normally", ending())],
            AgentState::BackingOff => vec![reason("restart_delayed", ending())],
            AgentState::Failed if self.spec.restart == RestartType::Temporary => {
                vec![reason("exited_abnormally", ending())]
            }
            AgentState::Failed => account().unwrap_or_else(|| vec![reason("gave_up", ending())]),
        }
    }
}

fn stale_after(sample_interval: Duration) -> Duration {
    sample_interval.saturating_mul(SAMPLES_MISSED_MAX).max(STALE_MIN)
}

fn reason(code: &'static str, detail: impl Into<String>) -> Reason {
    Reason { code, detail: detail.into() }
}
