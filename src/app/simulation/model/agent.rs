//! What one agent amounts to.

use super::*;

impl Agent {
    pub(super) fn new(spec: Arc<AgentSpec>, desired: Desired, seed: &AgentSeed, now: Now) -> Self {
        let phase = match seed.standing {
            Standing::Active => Phase::Pending,
            Standing::BackingOff { .. } => Phase::BackingOff,
            Standing::Failed { .. } => Phase::Failed,
            Standing::Completed => Phase::Completed,
            Standing::Stopped => Phase::Stopped,
        };
        Self {
            spec,
            desired,
            phase,
            incarnation: seed.incarnation,
            ended: seed.incarnation > 0 && !seed.lives,
            waits: false,
            session: false,
            paused: None,
            unreachable: false,
            heard: now.mono,
            moved: now.mono,
            sampled: now.mono,
            pid: None,
            restarts: seed.restarts,
            last_exit: seed.last_exit.clone(),
            cpu: Value::Never,
            memory: Value::Never,
            heartbeat: Value::Never,
            progress: Value::Never,
            received: 0,
            dropped: 0,
            used: seed.spent.as_ref().map(Used::known).unwrap_or_default(),
            flap: Flap::default(),
        }
    }

    pub(super) fn hear(&mut self, now: Now) {
        self.heard = now.mono;
        self.flap.beat(now.mono);
    }

    /// Nothing of an incarnation is known before it says something.
    pub(super) fn enter(&mut self, incarnation: u64, now: Now) {
        if incarnation > self.incarnation {
            let new = Self::new(Arc::clone(&self.spec), self.desired, &AgentSeed::default(), now);
            let (phase, restarts, received, dropped) = (self.phase, self.restarts, self.received, self.dropped);
            let (last_exit, used) = (self.last_exit.clone(), self.used.clone());
            *self = Self { phase, incarnation, restarts, received, dropped, last_exit, used, ..new };
        }
    }

    pub(super) fn end(&mut self) {
        (self.ended, self.waits, self.session, self.paused, self.unreachable) = (true, false, false, None, false);
        self.pid = None;
        self.cpu.outdate();
        self.memory.outdate();
    }

    pub(super) fn reached(&mut self, now: Now) {
        if self.unreachable {
            self.unreachable = false;
            (self.heard, self.moved) = (now.mono, now.mono);
        }
    }

    pub(super) fn shift(&mut self, by: Duration, now: Now) {
        for then in [&mut self.heard, &mut self.moved, &mut self.sampled] {
            *then = (*then + by).min(now.mono);
        }
        self.flap.shift(by, now.mono);
    }

    pub(super) fn supervised(&mut self, kind: &EventKind, now: Now) {
        match kind {
            EventKind::Starting { .. } => (self.phase, self.ended) = (Phase::Starting, false),
            EventKind::Started { .. } => {
                self.phase = Phase::Running;
                (self.heard, self.moved) = (now.mono, now.mono);
            }
            EventKind::Exited { .. } => self.end(),
            EventKind::BackingOff { .. } => self.phase = Phase::BackingOff,
            EventKind::Failed { .. } => self.phase = Phase::Failed,
            EventKind::Completed => self.phase = Phase::Completed,
            EventKind::Stopping => self.phase = Phase::Stopping,
            EventKind::Stopped | EventKind::Removed => {
                self.phase = Phase::Stopped;
                self.end();
            }
            _ => {}
        }
    }

    pub(super) fn seen(&mut self, incarnation: u64, event: &Observation, now: Now) {
        if let Observation::Exited(record) = event
            && self.last_exit.as_ref().is_none_or(|known| known.incarnation <= record.incarnation)
        {
            self.last_exit = Some(Arc::clone(record));
        }
        if incarnation < self.incarnation {
            return;
        }
        self.enter(incarnation, now);
        match event {
            Observation::Waiting { .. } => self.waits = true,
            Observation::Alive { pid, .. } => {
                (self.ended, self.waits, self.pid) = (false, false, Some(*pid));
                self.reached(now);
            }
            Observation::Paused(paused) if !self.ended => {
                self.reached(now);
                match (self.paused, paused) {
                    (None, true) => self.paused = Some(now.mono),
                    (Some(since), false) => {
                        self.paused = None;
                        self.shift(now.mono - since, now);
                    }
                    _ => {}
                }
            }
            Observation::Exited(_) => self.end(),
            Observation::Unreachable if !self.ended => self.unreachable = true,
            _ => {}
        }
    }

    pub(super) fn is_judged(&self) -> bool {
        self.phase == Phase::Running && !self.ended && !self.unreachable && self.paused.is_none()
    }

    pub(super) fn is_overdue(&self, now: Now) -> bool {
        let limit = self.spec.heartbeat_timeout;
        let limit = if self.session { limit } else { limit.max(SAMPLE_INTERVAL * 3) };
        now.mono.saturating_duration_since(self.heard) >= limit
    }

    pub(super) fn state(&self, now: Now) -> AgentState {
        let silent = |since: Instant| now.mono.saturating_duration_since(since);
        let progress = self.spec.progress_timeout;
        match self.phase {
            Phase::Pending => AgentState::Pending,
            Phase::Starting if self.waits => AgentState::Pending,
            Phase::Starting if self.paused.is_some() => AgentState::Paused,
            Phase::Starting => AgentState::Starting,
            Phase::Running if self.ended => AgentState::Pending,
            Phase::Running if self.unreachable => AgentState::Unknown,
            Phase::Running if self.paused.is_some() => AgentState::Paused,
            Phase::Running if !progress.is_zero() && silent(self.moved) >= progress => AgentState::Stuck,
            Phase::Running if self.is_overdue(now) || self.flap.is_flapping => AgentState::Degraded,
            Phase::Running => AgentState::Running,
            Phase::Stopping => AgentState::Stopping,
            Phase::Stopped => AgentState::Stopped,
            Phase::Completed => AgentState::Completed,
            Phase::BackingOff => AgentState::BackingOff,
            Phase::Failed => AgentState::Failed,
        }
    }

    pub(super) fn agrees(&self, doc: &AgentHealth, now: Now) -> Told {
        let state = self.state(now);
        if state != doc.state {
            return Err((
                Rule::StatesFollow,
                format!("{} is shown {:?} and is {state:?}: {self:?}", doc.id, doc.state),
            ));
        }
        let used = doc.usage.value().map(|used| [used.input_tokens.unwrap_or(0), used.output_tokens.unwrap_or(0)]);
        if used != self.used.total() {
            return Err((Rule::UsageIsTheSum, format!("{} is shown {used:?} and has used {:?}", doc.id, self.used)));
        }
        if (self.received, self.dropped) != (doc.telemetry.received, doc.dropped) {
            let shown = (doc.telemetry.received, doc.dropped);
            let detail = format!("{} is shown as {shown:?} received and dropped: {self:?}", doc.id);
            return Err((Rule::EveryMessageIsCounted, detail));
        }
        let plain = (doc.incarnation, doc.pid, doc.restarts, &doc.last_exit, doc.desired);
        let known = (self.incarnation, self.pid, self.restarts, &self.last_exit, self.desired);
        let measured = self.cpu.is(&doc.cpu)
            && self.memory.is(&doc.memory)
            && self.heartbeat.is(&doc.last_heartbeat)
            && self.progress.is(&doc.progress);
        if plain != known || !measured || doc.dropped != doc.telemetry_dropped() {
            return Err((Rule::FoldIsTheModel, format!("{} is shown as\n{doc:?}\nand is\n{self:?}", doc.id)));
        }
        Ok(())
    }
}

trait Sums {
    fn telemetry_dropped(&self) -> u64;
}

impl Sums for AgentHealth {
    /// What is dropped by class sums up to what is dropped, where classes are told at all.
    fn telemetry_dropped(&self) -> u64 {
        if self.telemetry.dropped == Lost::default() { self.dropped } else { self.telemetry.dropped.total() }
    }
}
