//! The shell around the core: what a supervisor knows and decides, under a lock, and the actix actor that is its clock.
//!
//! A notice of an end or a start is decided on the thread that brings it, wherever that is ([`Ear`](ear::Ear)), so that a restart waits for no
//! other thread to wake up, and so is an order, as a rule ([`Door`]). What only an actor can do is left to the actor: to wait for a deadline,
//! to hear in their turn those who could not be heard at once, to end.

mod change;
mod door;
mod ear;
mod home;
mod look;
mod mind;

use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, ActorContext, AsyncContext, Context, Running, SpawnHandle};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

pub(crate) use door::{Door, Heard, Waits};
use ear::{Ear, Tick};
pub(crate) use home::Home;
pub(crate) use look::View;
pub(crate) use mind::{Answer, Bench, Mind};

use crate::cell::{Spot, Watcher};
use crate::child::{Child, ChildCtx};
use crate::flags::SupervisorFlags;
use crate::init::Plan;
use crate::snapshot::ChildState;
use crate::supervisor_ref::{SupervisorError, SupervisorRef};
use crate::tree::{Input, Request};

/// A supervisor: itself the actor of a cell, so that its parent supervises it like any other child.
pub(crate) struct Supervisor {
    mind: Arc<Mutex<Mind>>,
    /// What it starts with; empty once it has.
    children: Vec<Child>,
    /// What its next incarnation starts with, unless it asks anew.
    plan: Option<Arc<Plan>>,
    me: SupervisorRef,
    /// When the next tick comes, and how to take it back unless it is on its way.
    alarm: Option<(Instant, Option<SpawnHandle>)>,
}

impl Supervisor {
    pub(crate) fn new(
        (child, me): (ChildCtx<Self>, SupervisorRef),
        flags: SupervisorFlags,
        children: Vec<Child>,
        plan: Option<Arc<Plan>>,
    ) -> Self {
        Self { mind: Arc::new(Mutex::new(Mind::new(child, flags))), children, plan, me, alarm: None }
    }

    /// What it knows. Whoever has it must not wait for anything.
    pub(crate) fn mind(&self) -> MutexGuard<'_, Mind> {
        self.mind.lock()
    }

    /// Feeds a request; the answer comes when what was asked has happened.
    pub(crate) fn ask(
        &mut self,
        context: &mut Context<Self>,
        request: Request<Bench>,
    ) -> Result<oneshot::Receiver<Answer>, SupervisorError> {
        let answer = self.mind().ask((mind::now(), Spot::Turn), request);
        self.attend(context);
        answer
    }

    fn feed(&mut self, context: &mut Context<Self>, input: Input<Bench>) {
        self.mind().feed((mind::now(), Spot::Turn), input);
        self.attend(context);
    }

    /// Does what is left to the actor: ends when all is done, and sees to it that the core gets its tick. A retry that is due at once comes
    /// back as a message, so that orders overtake it.
    fn attend(&mut self, context: &mut Context<Self>) {
        let wanted = {
            let mut mind = self.mind();
            if mind.is_over() {
                return context.stop();
            }
            mind.set_alarm();
            mind.alarm()
        };
        let Some(at) = wanted else { return };
        if let Some((set, handle)) = self.alarm {
            if set <= at {
                return;
            }
            if let Some(handle) = handle {
                context.cancel_future(handle);
            }
        }
        let wait = at.saturating_duration_since(mind::now());
        let handle = if wait.is_zero() {
            context.notify(Tick);
            None
        } else {
            Some(context.notify_later(Tick, wait))
        };
        self.alarm = Some((at, handle));
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let ear = Arc::new(Ear::new(Arc::clone(&self.mind), context.address(), self.me.clone()));
        let children = std::mem::take(&mut self.children).into_iter().map(Bench::admit).collect();
        self.mind().settle(Arc::clone(&ear) as Arc<dyn Watcher>, Home::here());
        self.feed(context, Input::Init(children));
        self.me.door.open(&ear);
    }

    fn stopping(&mut self, context: &mut Self::Context) -> Running {
        if !self.mind().is_over() {
            self.mind().enter(ChildState::Stopping);
            self.feed(context, Input::Shutdown);
        }
        if self.mind().is_over() { Running::Stop } else { Running::Continue }
    }
}

impl Drop for Supervisor {
    /// Cells that still have an ear of it are heard no more.
    fn drop(&mut self) {
        let (tree, _unanswered) = self.mind().forget();
        mind::abandon(&tree);
    }
}

#[cfg(test)]
mod tests;
