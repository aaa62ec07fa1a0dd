//! Who has a session open. A seat is left by dropping it, so that a connection task that panics or is aborted leaves it, too.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use dashmap::{DashMap, Entry};
use tokio::sync::mpsc;

use super::session::Opening;
use crate::model::{AgentId, Telemetry, TelemetryKind, TelemetrySink};

/// What a connection is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Ask the agent to finish.
    Drain,
    /// Close, if the incarnation has ended.
    Part,
}

struct Taken {
    number: u64,
    incarnation: u64,
    orders: mpsc::Sender<Order>,
    /// Whether it has declared that `hive/drain` is enough to end its agent.
    drains: bool,
    /// Whether it tells what its incarnation has used.
    speaks: bool,
}

/// All open sessions by agent.
pub(super) struct Seats {
    by_agent: DashMap<AgentId, Vec<Taken>>,
    next: AtomicU64,
    sink: Arc<dyn TelemetrySink>,
}

impl Seats {
    pub(super) fn new(sink: Arc<dyn TelemetrySink>) -> Self {
        Self { by_agent: DashMap::new(), next: AtomicU64::new(0), sink }
    }

    /// Takes a seat and tells of it. Told under the agent's lock, so that opened and closed are told in the order in which they happened; the
    /// sink must not call back.
    pub(super) fn take(self: &Arc<Self>, opening: Opening, orders: mpsc::Sender<Order>) -> Seat {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut taken = self.by_agent.entry(opening.agent.clone()).or_default();
        taken.push(Taken { number, incarnation: opening.incarnation, orders, drains: opening.drains, speaks: false });
        // Before anybody is told: if telling panics, the seat is left again.
        let seat = Seat { seats: Arc::clone(self), number, opening };
        let told = catch_unwind(AssertUnwindSafe(|| self.tell(&seat.opening, TelemetryKind::SessionOpened)));
        drop(taken);
        if let Err(panic) = told {
            std::panic::resume_unwind(panic);
        }
        seat
    }

    /// Hands an order to every session of an incarnation. One whose queue is full has its orders already. Whether one of them ends by a drain alone.
    pub(super) fn order(&self, agent: &AgentId, incarnation: u64, order: Order) -> bool {
        let Some(taken) = self.by_agent.get(agent) else { return false };
        let mut drains = false;
        for seat in taken.iter().filter(|seat| seat.incarnation == incarnation) {
            let _already_told = seat.orders.try_send(order);
            drains |= seat.drains;
        }
        drains
    }

    fn speak(&self, number: u64, opening: &Opening) -> bool {
        let Some(mut taken) = self.by_agent.get_mut(&opening.agent) else { return false };
        let speaker = taken.iter().find(|seat| seat.incarnation == opening.incarnation && seat.speaks);
        if let Some(speaker) = speaker {
            return speaker.number == number;
        }
        taken.iter_mut().filter(|seat| seat.number == number).for_each(|seat| seat.speaks = true);
        true
    }

    fn leave(&self, number: u64, opening: &Opening) {
        let Entry::Occupied(mut entry) = self.by_agent.entry(opening.agent.clone()) else { return };
        entry.get_mut().retain(|seat| seat.number != number);
        if !entry.get().iter().any(|seat| seat.incarnation == opening.incarnation) {
            self.tell(opening, TelemetryKind::SessionClosed);
        }
        if entry.get().is_empty() {
            entry.remove();
        }
    }

    fn tell(&self, Opening { agent, incarnation, .. }: &Opening, kind: TelemetryKind) {
        let (agent, incarnation) = (agent.clone(), *incarnation);
        self.sink.accept(vec![Telemetry { agent, incarnation, at: SystemTime::now(), kind }]);
    }
}

/// One open session.
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    opening: Opening,
}

impl Seat {
    /// Whether it may tell what its incarnation has used. Totals are absolute, and those of one incarnation have one voice: the session that told
    /// some first, until it ends. A second one that counts for itself, or lags behind, would otherwise look like a program that starts over each
    /// time the two take turns, and the sum would grow without end.
    pub(super) fn speaks_of_usage(&self) -> bool {
        self.seats.speak(self.number, &self.opening)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // A seat may be left while a panic unwinds; a second panic that escaped from here would end the daemon.
        if catch_unwind(AssertUnwindSafe(|| self.seats.leave(self.number, &self.opening))).is_err() {
            tracing::error!(agent = %self.opening.agent, "the end of a session could not be told: the sink panicked");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    struct Nobody;

    impl TelemetrySink for Nobody {
        fn accept(&self, _: Vec<Telemetry>) {}
        fn refused(&self, _: Option<&AgentId>, _: i64, _: u64) {}
    }

    #[test]
    fn one_session_of_an_incarnation_tells_what_was_used_until_it_ends() {
        let seats = Arc::new(Seats::new(Arc::new(Nobody)));
        let take = |agent: &str, incarnation| {
            let (orders, _) = mpsc::channel(1);
            seats.take(Opening { agent: agent.parse().unwrap(), incarnation, drains: false }, orders)
        };
        let (idle, first, second) = (take("s/a", 2), take("s/a", 2), take("s/a", 2));
        let (other, older) = (take("s/b", 2), take("s/a", 1));
        assert!(first.speaks_of_usage() && first.speaks_of_usage());
        assert!(!second.speaks_of_usage() && !idle.speaks_of_usage());
        assert!(other.speaks_of_usage() && older.speaks_of_usage(), "they count something else");
        drop(first);
        assert!(second.speaks_of_usage() && !idle.speaks_of_usage());
        drop(second);
        assert!(idle.speaks_of_usage());
    }
}
