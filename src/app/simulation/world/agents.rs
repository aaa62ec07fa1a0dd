//! What agents do, and what comes of it on the data plane.

use super::*;

impl World {
    pub(super) fn live(&mut self, at: usize) {
        let (ms, now) = (self.ms, self.now());
        let mut reports = Vec::new();
        let soul = &mut self.souls[at];
        let (was, fate) = (soul.incarnation, soul.fate);
        if let (Fate::Up, Some(_)) = (soul.fate, self.restarted.iter().position(|(id, n)| *id == soul.id && *n == was))
        {
            soul.restart_stuck(ms, now.wall, &mut self.chance, &mut reports);
        } else if self.is_calm {
            soul.rest(ms, now.wall, &mut self.chance, &mut reports);
        } else {
            soul.step(ms, now.wall, &mut self.chance, &mut reports);
        }
        let soul = &self.souls[at];
        let (id, token, incarnation) = (soul.id.clone(), soul.token(), soul.incarnation);
        let may_open = matches!(soul.fate, Fate::Starting { .. } | Fate::Up | Fate::Ending(_));
        self.seen.restarts += u64::from(incarnation > was && was > 0);
        if may_open {
            self.gate.lives.lock().insert(id.clone(), (incarnation, token));
        } else {
            self.gate.lives.lock().remove(&id);
        }
        if fate != soul.fate && matches!(soul.fate, Fate::Ending(_)) {
            self.house.plane.drain(&id, incarnation);
        }
        for report in reports {
            self.tell(report);
        }
        if incarnation > was || !may_open {
            self.house.plane.ended(&id, was);
        }
    }

    /// Programs connect, write, cut, and forget their connections.
    pub(super) fn converse(&mut self) -> Ended {
        for at in 0..self.souls.len() {
            let soul = &self.souls[at];
            if !soul.lives || soul.paused {
                continue;
            }
            let (id, incarnation) = (soul.id.clone(), soul.incarnation);
            let mine = |wire: &&Wire| wire.agent == id && wire.incarnation == incarnation && !wire.is_half_open;
            let count = self.wires.iter().filter(mine).count();
            if self.chance.permille(if count == 0 { 350 } else { 25 }) && count < 3 {
                self.connect(at);
            }
        }
        for at in 0..self.wires.len() {
            let wire = &self.wires[at];
            if wire.is_half_open || wire.peer.is_none() {
                continue;
            }
            let (id, incarnation) = (wire.agent.clone(), wire.incarnation);
            let Some(soul) = self.souls.iter().position(|soul| soul.id == id) else { continue };
            if self.souls[soul].incarnation != incarnation || !self.souls[soul].lives {
                // Its program is dead: the connection ends, or nobody tells us that it did.
                if self.chance.permille(250) {
                    self.cut(at);
                } else if self.chance.permille(100) {
                    self.wires[at].is_half_open = true;
                }
                continue;
            }
            if !self.souls[soul].paused {
                self.speak(at, soul);
            }
            match self.chance.below(1000) {
                _ if self.is_calm => {}
                0..12 => self.cut(at),
                12..18 => self.wires[at].is_half_open = true,
                18..40 => self.wires[at].stalled_until = self.ms + self.chance.below(6_000),
                _ => {}
            }
        }
        self.wires.retain(|wire| wire.peer.is_some());
        self.take_basket();
        Ok(())
    }

    pub(super) fn connect(&mut self, at: usize) {
        self.wires_made += 1;
        let soul = &self.souls[at];
        let peer = Peer::new(&self.house.plane, u128::from(self.wires_made), self.now());
        let mut wire = Wire::new(self.wires_made, soul.id.clone(), soul.incarnation, peer);
        let (mut token, mut incarnation, mut protocol) = (soul.token(), soul.incarnation, 1);
        match self.chance.below(if self.is_calm { 1 } else { 60 }) {
            1 => "wrong".clone_into(&mut token),
            2 => incarnation += 1,
            3 => incarnation = incarnation.saturating_sub(1),
            4 => protocol = 2,
            5 => wire.is_half_open = true,
            6 => {
                let (sent, text) = wire::anything(&mut self.chance, &mut self.souls[at].count, incarnation);
                wire.write(sent, &text);
            }
            _ => {}
        }
        if !wire.is_half_open {
            let (sent, text) = wire::open(&self.souls[at].id, &token, incarnation, protocol);
            wire.write(sent, text.as_bytes());
        }
        let number = self.wires_made;
        self.note(format_args!("connection {number} of {}", wire.agent));
        self.wires.push(wire);
    }

    pub(super) fn speak(&mut self, at: usize, soul: usize) {
        let (ms, wire, soul) = (self.ms, &mut self.wires[at], &mut self.souls[soul]);
        if wire.is_new() || wire.waits() > 16 * 1024 {
            return;
        }
        if ms >= soul.next_beat && ms >= soul.mute_until {
            let interval = u64::try_from(soul.spec.heartbeat_timeout.as_millis()).unwrap_or(0) / 3;
            soul.next_beat = ms + interval;
            let (sent, text) = wire::heartbeat(&mut self.chance, &mut soul.count);
            wire.write(sent, text.as_bytes());
        }
        while wire.pings > 0 {
            wire.pings -= 1;
            if self.chance.permille(800) {
                let (sent, text) = wire::pong(wire.pings + 1);
                wire.write(sent, text.as_bytes());
            }
        }
        let lines = match self.chance.below(100) {
            _ if self.is_calm => 0,
            0..70 => 0,
            70..98 => self.chance.between(1, 3),
            _ => self.chance.between(10, 40),
        };
        for _ in 0..lines {
            let (sent, text) = wire::anything(&mut self.chance, &mut soul.count, soul.incarnation);
            wire.write(sent, &text);
        }
    }

    pub(super) fn cut(&mut self, at: usize) {
        let wire = &mut self.wires[at];
        // What was on its way may still arrive, cut anywhere.
        let number = wire.number;
        if let Some(peer) = wire.peer.take() {
            peer.gone();
        }
        self.note(format_args!("connection {number} is cut"));
    }

    pub(super) fn deliver(&mut self) -> Ended {
        for at in 0..self.wires.len() {
            let wire = &self.wires[at];
            let (ms, waits) = (self.ms, wire.waits());
            if wire.stalled_until > ms || wire.peer.is_none() || waits == 0 || self.chance.permille(200) {
                continue;
            }
            let len = if self.chance.permille(300) { self.chance.index(waits + 1) } else { waits };
            self.read(at, len.min(8 * 1024))?;
        }
        self.wires.retain(|wire| wire.peer.is_some());
        Ok(())
    }

    /// Our end of a connection reads.
    pub(super) fn read(&mut self, at: usize, len: usize) -> Ended {
        let now = self.now();
        let wire = &mut self.wires[at];
        let (chunk, lines) = wire.deliver(len);
        let admitted = self.gate.lives.lock().get(&wire.agent).cloned();
        let was_new = wire.is_new();
        if wire.is_left_open(self.ms, admitted.as_ref()) {
            let detail = format!("connection {} of an ended incarnation is still read", wire.number);
            return Err((Rule::SessionsAnswer, detail));
        }
        let expected = wire.expect(&lines, admitted.as_ref());
        let Some(peer) = &mut wire.peer else { return Ok(()) };
        let replies = peer.read(now, &chunk);
        let is_closed = peer.is_closed();
        if was_new && wire.is_open() {
            wire.opened_at = self.ms;
        }
        let (told, refused) = {
            let reports = self.basket.reports.lock();
            let id = &wire.agent;
            (told(&reports, id), refused(&reports))
        };
        let number = wire.number;
        wire::compare(&expected, &told, &refused, &replies, self.is_crowded)
            .map_err(|(rule, detail)| (rule, format!("connection {number}: {detail}")))?;
        wire.notes += expected.notes();
        wire.let_in += told.let_in(&expected);
        let limited = refused.iter().filter(|code| **code == 1005).count();
        let elapsed = self.ms - wire.opened_at;
        let allowed = u64::from(BURST) + u64::from(PER_SECOND) * elapsed / 1000 + 1;
        if wire.let_in > allowed || (limited > 0 && wire.notes <= u64::from(BURST)) {
            let (let_in, notes) = (wire.let_in, wire.notes);
            return Err((
                Rule::RatesHold,
                format!("connection {number} had {let_in} of {notes} in {elapsed} ms let in"),
            ));
        }
        if told.opened
            && let Some(soul) = self.souls.iter_mut().find(|soul| soul.id == wire.agent)
        {
            soul.opened |= soul.incarnation == wire.incarnation;
        }
        self.answered(at, &replies);
        if is_closed {
            self.close(at);
        }
        self.take_basket();
        Ok(())
    }

    /// The program sees what we wrote.
    pub(super) fn answered(&mut self, at: usize, replies: &[u8]) {
        let replies = String::from_utf8_lossy(replies);
        let pings = replies.lines().filter(|line| line.contains("hive/ping")).count() as u64;
        self.wires[at].pings += pings;
        if !replies.is_empty() {
            // The session's own number is all that chance has not decided.
            self.trace.note(self.ms, format_args!("answered {} bytes, {pings} pings", replies.len()));
        }
    }

    pub(super) fn close(&mut self, at: usize) {
        let wire = &mut self.wires[at];
        wire.closed();
        wire.peer = None;
        let number = wire.number;
        self.note(format_args!("connection {number} is closed by us"));
    }

    pub(super) fn tick_wires(&mut self) -> Ended {
        let now = self.now();
        for at in 0..self.wires.len() {
            let Some(peer) = &mut self.wires[at].peer else { continue };
            let replies = peer.tick(now);
            let is_closed = peer.is_closed();
            self.answered(at, &replies);
            if is_closed {
                self.close(at);
            }
            self.take_basket();
        }
        self.wires.retain(|wire| wire.peer.is_some());
        Ok(())
    }

    /// What the data plane handed up goes to health.
    pub(super) fn take_basket(&mut self) {
        let wall = self.now().wall;
        let reports = std::mem::take(&mut *self.basket.reports.lock());
        for mut report in reports {
            if let Report::Telemetry(batch) = &mut report {
                for told in batch {
                    // Seats read the clock themselves.
                    if matches!(told.kind, TelemetryKind::SessionOpened | TelemetryKind::SessionClosed) {
                        told.at = wall;
                    }
                }
            }
            self.tell(report);
        }
    }
}

fn told(reports: &[Report], agent: &AgentId) -> Told {
    let mut told = Told::default();
    for report in reports {
        if let Report::Dropped { lost, .. } = report {
            told.lost = *lost;
        }
    }
    let batches =
        reports.iter().filter_map(|report| if let Report::Telemetry(batch) = report { Some(batch) } else { None });
    for said in batches.flatten().filter(|said| said.agent == *agent) {
        match &said.kind {
            TelemetryKind::SessionOpened => told.opened = true,
            TelemetryKind::SessionClosed => {}
            TelemetryKind::Heartbeat { progress, .. } => {
                told.beats += 1;
                told.progress = progress.as_deref().map(str::to_owned).or(told.progress.take());
            }
            TelemetryKind::Logs(records) => told.logs += records.len() as u64,
            TelemetryKind::Logged(records) => told.logs += records,
            TelemetryKind::Counted(messages) => told.counted += messages,
            TelemetryKind::Usage(_) => told.usages += 1,
            TelemetryKind::Event { .. } => told.events += 1,
        }
    }
    told
}

fn refused(reports: &[Report]) -> Vec<i64> {
    let mut codes = Vec::new();
    for report in reports {
        if let Report::Refused { code, messages } = report {
            codes.extend((0..*messages).map(|_| *code));
        }
    }
    codes
}
