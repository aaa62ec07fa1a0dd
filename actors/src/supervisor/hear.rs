//! What a supervisor hears: the time it asked for, and what becomes of incarnations.

use actix::{Addr, Handler, Message};

use super::Supervisor;
use crate::cell::Watcher;
use crate::exit::ExitReason;
use crate::supervisor_ref::SupervisorRef;
use crate::tree::{Input, Key};

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Tick;

impl Handler<Tick> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Tick, context: &mut Self::Context) {
        self.alarm = None;
        self.feed(context, Input::Tick);
    }
}

/// A notice of a cell; sent to one incarnation of the supervisor and lost with it.
#[derive(Message)]
#[rtype(result = "()")]
enum Notice {
    Started { key: Key, incarnation: u64 },
    Down { key: Key, incarnation: u64, reason: ExitReason },
}

impl Handler<Notice> for Supervisor {
    type Result = ();

    fn handle(&mut self, notice: Notice, context: &mut Self::Context) {
        let input = match notice {
            Notice::Started { key, incarnation } => Input::Started { key, incarnation },
            Notice::Down { key, incarnation, reason } => Input::Down { key, incarnation, reason },
        };
        self.feed(context, input);
    }
}

pub(super) struct ToSupervisor {
    pub(super) address: Addr<Supervisor>,
    pub(super) me: SupervisorRef,
}

impl ToSupervisor {
    #[expect(
        clippy::disallowed_methods,
        reason = "at most two notices an incarnation, and a dead supervisor needs none"
    )]
    fn tell(&self, notice: Notice) {
        self.address.do_send(notice);
    }
}

impl Watcher for ToSupervisor {
    fn started(&self, key: Key, incarnation: u64) {
        self.tell(Notice::Started { key, incarnation });
    }

    fn down(&self, key: Key, incarnation: u64, reason: ExitReason) {
        self.tell(Notice::Down { key, incarnation, reason });
    }

    fn supervisor(&self) -> Option<SupervisorRef> {
        Some(self.me.clone())
    }
}
