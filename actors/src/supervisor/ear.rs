//! How a supervisor hears of the time it asked for and of what becomes of incarnations.
//!
//! A notice that comes from the turn of a cell is taken in at once, on the thread of the child. It goes to the actor as a message when
//! somebody else has the lock, when an earlier notice is still on its way there (nothing overtakes it), and when it comes from anywhere else,
//! such as a destructor: locks may be held there, this one among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::{Addr, Handler, Message};
use parking_lot::{Mutex, MutexGuard};

use super::door::Heard;
use super::mind::{Mind, now};
use super::{Bench, Supervisor};
use crate::cell::{Spot, Watcher};
use crate::exit::ExitReason;
use crate::panics::caught;
use crate::supervisor_ref::{SupervisorError, SupervisorRef};
use crate::tree::{Input, Key, Request};

/// How the cells of one incarnation of a supervisor reach it; it hears nothing more once that has ended.
pub(super) struct Ear {
    mind: Arc<Mutex<Mind>>,
    on_the_way: Arc<AtomicUsize>,
    address: Addr<Supervisor>,
    me: SupervisorRef,
}

impl Ear {
    pub(super) fn new(mind: Arc<Mutex<Mind>>, address: Addr<Supervisor>, me: SupervisorRef) -> Self {
        let on_the_way = Arc::clone(&mind.lock().on_the_way);
        Self { mind, on_the_way, address, me }
    }

    fn tell(&self, spot: Spot, input: Input<Bench>) {
        let sent = match spot {
            Spot::Turn => self.take_in(input),
            Spot::Anywhere => Some(input),
        };
        if let Some(input) = sent {
            self.on_the_way.fetch_add(1, Ordering::AcqRel);
            self.send(Notice(input));
        }
    }

    /// Decides here and now; gives the notice back when that must not be.
    fn take_in(&self, input: Input<Bench>) -> Option<Input<Bench>> {
        let now = now();
        let Some(mind) = self.listen().filter(|mind| mind.hears(now)) else { return Some(input) };
        // A panic is the supervisor's own, not the child's whose turn this is.
        let _ = self.decide(mind, |mind| {
            mind.feed((now, Spot::Turn), input);
            // A retry that is due at once comes after the orders that wait; without any, it need not be sent for.
            if mind.is_due() && self.me.inner.is_empty() {
                mind.feed((now, Spot::Turn), Input::Tick);
            }
        });
        None
    }

    /// As [`Ear::take_in`], with an order.
    pub(super) fn take_order(&self, order: Request<Bench>) -> Heard {
        let now = now();
        let Some(mind) = self.listen().filter(|mind| mind.hears_orders(now)) else { return Heard::NotNow(order) };
        let decided = self.decide(mind, |mind| mind.ask((now, Spot::Anywhere), order));
        // Of an order that is sent nobody would hear either that the supervisor panics over it.
        Heard::AtOnce(decided.unwrap_or(Err(SupervisorError::Gone)))
    }

    /// Ends the children of an incarnation that is fenced, and tells those who wait for it that it is gone. Nobody can while it is in the middle of a step.
    pub(super) fn let_go(&self) {
        let askers = self.mind.try_lock().and_then(|mut mind| mind.let_go());
        // They wake up here, outside the lock.
        drop(askers);
    }

    /// The mind, if nobody else has it and nothing is on its way to it.
    fn listen(&self) -> Option<MutexGuard<'_, Mind>> {
        let mind = self.mind.try_lock()?;
        (self.on_the_way.load(Ordering::Acquire) == 0).then_some(mind)
    }

    /// Decides, and has the actor do what is left to it. The error is a panic, with which the supervisor ends.
    fn decide<R>(&self, mut mind: MutexGuard<'_, Mind>, piece: impl FnOnce(&mut Mind) -> R) -> Result<R, ExitReason> {
        let decided = caught(|| piece(&mut mind));
        if let Err(panic) = &decided {
            mind.fail(panic.clone());
        }
        let wanted = mind.is_over() || mind.set_alarm();
        drop(mind);
        if wanted {
            self.send(Attend);
        }
        decided
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "at most two notices an incarnation, each with one call at most, and a dead supervisor needs none"
    )]
    fn send<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        Supervisor: Handler<M>,
    {
        self.address.do_send(message);
    }
}

impl Watcher for Ear {
    fn started(&self, spot: Spot, key: Key, incarnation: u64) {
        self.tell(spot, Input::Started { key, incarnation });
    }

    fn down(&self, spot: Spot, key: Key, incarnation: u64, reason: ExitReason) {
        self.tell(spot, Input::Down { key, incarnation, reason });
    }

    fn supervisor(&self) -> Option<SupervisorRef> {
        Some(self.me.clone())
    }
}

/// A notice of a cell on its way to the actor; sent to one incarnation of the supervisor and lost with it.
#[derive(Message)]
#[rtype(result = "()")]
struct Notice(Input<Bench>);

impl Handler<Notice> for Supervisor {
    type Result = ();

    fn handle(&mut self, Notice(input): Notice, context: &mut Self::Context) {
        {
            let mut mind = self.mind();
            // Under the lock, so that nobody sees it arrived before it is taken in.
            mind.on_the_way.fetch_sub(1, Ordering::AcqRel);
            mind.feed((now(), Spot::Turn), input);
        }
        self.attend(context);
    }
}

/// Something was decided elsewhere that takes the actor.
#[derive(Message)]
#[rtype(result = "()")]
struct Attend;

impl Handler<Attend> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Attend, context: &mut Self::Context) {
        self.attend(context);
    }
}

/// The alarm rings.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Tick;

impl Handler<Tick> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Tick, context: &mut Self::Context) {
        self.alarm = None;
        self.mind().tick();
        self.attend(context);
    }
}
