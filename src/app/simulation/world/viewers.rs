//! What viewers do.

use super::*;

impl World {
    /// Viewers connect, subscribe, read, stop reading and leave.
    pub(super) fn watch(&mut self) -> Ended {
        self.judge_viewers()?;
        for at in 0..self.clients.len() {
            if self.clients[at].ours.is_none() {
                if self.chance.permille(if self.is_calm { 1000 } else { 200 }) {
                    self.enter(at);
                }
                continue;
            }
            match self.chance.below(1000) {
                _ if self.is_calm => self.clients[at].reads = true,
                0..15 => {
                    self.note(format_args!("viewer {at} leaves"));
                    self.clients[at].disconnected();
                    continue;
                }
                15..40 if self.clients[at].reads => {
                    self.note(format_args!("viewer {at} stops reading"));
                    (self.clients[at].reads, self.clients[at].stopped_at) = (false, self.ms);
                }
                40..100 if !self.clients[at].reads => {
                    (self.clients[at].reads, self.clients[at].reads_since) = (true, self.ms);
                }
                100..130 => self.subscribe(at),
                130..140 => self.ask(at, r#"{"type":"ping"}"#),
                140..150 => self.ask(at, r#"{"type":"subscribe","swarms":["NO"]}"#),
                150..155 => self.ask(at, "garbage"),
                _ => {}
            }
            self.clients[at].pump()?;
            self.read_frames(at)?;
        }
        Ok(())
    }

    pub(super) fn enter(&mut self, at: usize) {
        let resumes = self.clients[at].last_seq.filter(|_| self.chance.permille(600));
        let (viewer, frames) = Viewer::new(&self.house.hub, self.now().mono);
        self.note(format_args!("viewer {at} connects, resumes {resumes:?}"));
        self.clients[at].connected(viewer, frames, self.epoch);
        self.clients[at].reads_since = self.ms;
        if let Some(after) = resumes {
            // Sometimes it has forgotten the last ones that it saw.
            let after = if self.chance.permille(300) { after.saturating_sub(self.chance.below(60)) } else { after };
            self.clients[at].resuming = Some(after);
            self.ask(at, &format!(r#"{{"type":"subscribe","after":{after}}}"#));
        }
    }

    pub(super) fn subscribe(&mut self, at: usize) {
        let swarms = match self.chance.below(3) {
            0 => r#"[]"#,
            1 => r#"["s0"]"#,
            _ => r#"["s1","s7"]"#,
        };
        let text = match self.chance.below(4) {
            0 => r#"{"type":"unsubscribe","subscriptions":["status"]}"#.to_owned(),
            1 => r#"{"type":"unsubscribe","subscriptions":["sessions"]}"#.to_owned(),
            _ => format!(r#"{{"type":"subscribe","subscriptions":["status","sessions"],"swarms":{swarms}}}"#),
        };
        self.ask(at, &text);
        // What is let through anew is not known yet.
        self.ask(at, r#"{"type":"request_status"}"#);
    }

    pub(super) fn ask(&mut self, at: usize, text: &str) {
        self.trace.note(self.ms, format_args!("viewer {at} says {text}"));
        if let Some(viewer) = &mut self.clients[at].ours {
            let frames = viewer.said(text);
            self.clients[at].send(frames);
        }
    }

    pub(super) fn read_frames(&mut self, at: usize) -> Ended {
        let now = self.now().mono;
        let client = &mut self.clients[at];
        if !client.reads {
            return Ok(());
        }
        let (frames, pings) = client.read()?;
        self.seen.frames += frames as u64;
        let last = client.last_seq;
        if let Some(viewer) = &mut client.ours {
            for number in pings {
                viewer.ponged(number, now);
            }
        }
        if frames > 0 {
            self.trace.note(self.ms, format_args!("viewer {at} reads {frames} frames up to {last:?}"));
        }
        Ok(())
    }

    pub(super) fn judge_viewers(&mut self) -> Ended {
        let now = self.now().mono;
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            let Some(viewer) = &mut client.ours else { continue };
            let reads_for = if client.reads { self.ms - client.reads_since } else { 0 };
            let (reads, silent) = (client.reads, self.ms.saturating_sub(client.stopped_at));
            match viewer.judge(now) {
                Judged::Nothing => {}
                Judged::Ping(number) => client.ping(number),
                Judged::Dropped => {
                    client.disconnected();
                    self.seen.dropped_viewers += 1;
                    self.note(format_args!("viewer {at} is dropped"));
                    if reads_for > SLOW_MS {
                        return Err((Rule::SlowViewersGo, format!("viewer {at} reads and is dropped")));
                    }
                    continue;
                }
            }
            if !reads && silent > SLOW_MS {
                return Err((Rule::SlowViewersGo, format!("viewer {at} has read nothing for {silent} ms")));
            }
            // Who reads does so at once.
            self.read_frames(at)?;
        }
        Ok(())
    }
}
