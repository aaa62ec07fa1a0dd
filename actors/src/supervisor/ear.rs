//! How a supervisor hears of the time it asked for and of what becomes of incarnations.
//!
//! A notice that comes from the turn of a cell is taken in at once, on the thread of the child. It goes to the actor as a message when
//! somebody else has the lock, when an earlier notice is still on its way there (nothing overtakes it), and when it comes from anywhere else,
//! such as a destructor: locks may be held there, this one among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::{Addr, Handler, Message};
use actix_rt::{Arbiter, ArbiterHandle};
use parking_lot::Mutex;

use super::{Bench, Mind, Supervisor};
use crate::cell::{Spot, Watcher};
use crate::exit::ExitReason;
use crate::panics::caught;
use crate::supervisor_ref::SupervisorRef;
use crate::tree::{Input, Key};

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
        let Some(mut mind) = self.mind.try_lock() else { return Some(input) };
        if self.on_the_way.load(Ordering::Acquire) > 0 || !mind.hears() {
            return Some(input);
        }
        let decided = caught(|| {
            mind.feed(input);
            // A retry that is due at once comes after the orders that wait; without any, it need not be sent for.
            if mind.is_due() && self.me.inner.is_empty() {
                mind.feed(Input::Tick);
            }
        });
        if let Err(panic) = decided {
            // It is the supervisor's own, not the child's whose turn this is.
            mind.fail(panic);
        }
        let wanted = mind.is_over() || mind.set_alarm();
        drop(mind);
        if wanted {
            self.send(Attend);
        }
        None
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
            mind.feed(input);
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

/// The thread on which a supervisor lives.
pub(super) struct Home {
    thread: std::thread::ThreadId,
    arbiter: ArbiterHandle,
}

impl Home {
    /// The thread that calls, if it is that of an arbiter.
    pub(super) fn here() -> Option<Self> {
        Some(Self { thread: std::thread::current().id(), arbiter: Arbiter::try_current()? })
    }

    /// The way there; `None` on the thread itself.
    pub(super) fn unless_here(&self) -> Option<&ArbiterHandle> {
        (std::thread::current().id() != self.thread).then_some(&self.arbiter)
    }
}
