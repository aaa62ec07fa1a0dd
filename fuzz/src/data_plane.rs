//! One connection's rules under a stranger's bytes, a clock that jumps, an incarnation that ends and a daemon that drains and stops.

#[path = "../../src/data_plane/bucket.rs"]
mod bucket;
#[path = "../../src/data_plane/heard.rs"]
mod heard;
#[path = "../../src/data_plane/limits.rs"]
mod limits;
#[path = "../../src/data_plane/notice.rs"]
mod notice;
#[path = "../../src/data_plane/session.rs"]
mod session;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use uuid::Uuid;

use self::{
    limits::PlaneLimits,
    session::{Effects, Gate, Now, Session},
};
use crate::{
    model::{Admission, AgentId, Refusal},
    wire::lines::{Line, Lines},
};

struct House {
    lives: bool,
}

impl Admission for House {
    fn admit(&self, agent: &AgentId, incarnation: u64, token: &str) -> Result<(), Refusal> {
        match (agent.to_string().as_str(), token, incarnation == 2 && self.lives) {
            ("a/b", "t", true) => Ok(()),
            ("a/b", "t", false) => Err(Refusal::StaleIncarnation),
            _ => Err(Refusal::BadToken),
        }
    }

    fn lives(&self, agent: &AgentId, incarnation: u64) -> bool {
        agent.to_string() == "a/b" && incarnation == 2 && self.lives
    }

    fn heartbeat_interval(&self, _: &AgentId) -> Option<Duration> {
        None
    }
}

const OPEN: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"hive/open","params":{"token":"t","agent":"a/b","incarnation":2,"protocol":1}}"#;

/// Lines of `data` are said; a line of one control character is an order instead. The first byte says whether a session is open already.
pub fn session(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else { return };
    let began = Instant::now();
    let mut now = Now { wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000), steady: began };
    let mut house = House { lives: true };
    let mut shutting_down = false;
    let mut session = Session::new(Uuid::nil(), now, Arc::new(PlaneLimits::default()));
    let (mut open, mut closed) = (false, false);
    if first % 2 == 0 {
        let mut out = Effects::default();
        session.line(now, &Line::Whole(OPEN), Gate { admission: &house, shutting_down: false }, &mut out);
        assert!(out.opened.is_some() && out.refused.is_empty());
        open = true;
    }
    let mut lines = Lines::new(session.line_bytes_max());
    let mut rest = stream;
    while let Some(line) = lines.next(&mut rest) {
        let mut out = Effects::default();
        let order = if let Line::Whole([one]) = line { Some(*one) } else { None };
        let (was_open, was_closed) = (open, closed);
        match order {
            Some(1) => house.lives = false,
            Some(2) => session.drain(&mut out),
            Some(3) => shutting_down = true,
            Some(4) => now = Now { wall: now.wall, steady: session.deadline().max(now.steady) },
            Some(5) => now.steady += Duration::from_secs(1),
            _ => {}
        }
        let gate = Gate { admission: &house, shutting_down };
        match order {
            Some(1..=3 | 5) => {}
            Some(4) => session.tick(now, gate, &mut out),
            Some(6 | 7) => session.verify(now, gate),
            _ => {
                session.line(now, &line, gate, &mut out);
                if !was_closed {
                    let told = out.replies.iter().filter(|byte| **byte == b'\n').count();
                    assert!(told <= 1, "one line is answered at most once");
                }
            }
        }
        session.gather(now, &mut out);
        for reply in out.replies.split(|byte| *byte == b'\n').filter(|reply| !reply.is_empty()) {
            let reply: Value = serde_json::from_slice(reply).expect("we write JSON");
            assert_eq!(reply["jsonrpc"], "2.0");
            assert!(reply.get("id").is_some());
        }
        assert!(out.replies.is_empty() || out.replies.ends_with(b"\n"));
        if let Some(opening) = &out.opened {
            assert!(!was_open && house.lives && !shutting_down);
            assert_eq!((opening.agent.to_string().as_str(), opening.incarnation), ("a/b", 2));
            open = true;
        }
        assert!(open || out.telemetry.is_empty(), "who has not opened tells nothing");
        for told in &out.telemetry {
            assert_eq!((told.agent.to_string().as_str(), told.incarnation), ("a/b", 2));
        }
        if was_closed {
            let nothing = out.replies.is_empty() && out.telemetry.is_empty() && out.refused.is_empty() && !out.close;
            assert!(nothing || order == Some(4), "what is closed says nothing more");
        }
        closed |= out.close;
    }
}
