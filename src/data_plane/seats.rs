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

use super::{limits::SESSIONS_PER_AGENT_MAX, session::Opening};
use crate::{
    health::{starts_over, updated},
    model::{AgentId, Telemetry, TelemetryKind, TelemetrySink, Usage},
};

/// What a connection is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Ask the agent to finish.
    Drain,
    /// See whether the incarnation has ended.
    Part,
    /// Close: the agent has too many.
    Yield,
}

struct Taken {
    number: u64,
    incarnation: u64,
    orders: mpsc::Sender<Order>,
    /// Whether it has declared that `hive/drain` is enough to end its agent.
    drains: bool,
    /// Whether it is that of a tool: nobody is told that it is there, and it is not asked to finish anything.
    is_tool: bool,
    /// The last totals of its incarnation, if it is the session that tells them.
    told: Option<Usage>,
    /// Whether somebody else's were let go meanwhile.
    drowns: bool,
    /// Whether it was asked to go for a younger one.
    yields: bool,
}

/// What becomes of totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Counts,
    /// Another session tells those of the incarnation. `is_news`: none was let go before for the one that does.
    Foreign {
        is_news: bool,
    },
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
        taken.push(Taken {
            number,
            incarnation: opening.incarnation,
            orders,
            drains: opening.drains,
            is_tool: opening.is_tool,
            told: None,
            drowns: false,
            yields: false,
        });
        // The oldest is the likeliest to be a lost one, and whoever comes back must get in.
        if taken.iter().filter(|seat| !seat.yields).count() > SESSIONS_PER_AGENT_MAX
            && let Some(oldest) = taken.iter_mut().find(|seat| !seat.yields)
        {
            oldest.yields = true;
            let _already_told = oldest.orders.try_send(Order::Yield);
        }
        // Before anybody is told: if telling panics, the seat is left again.
        let seat = Seat { seats: Arc::clone(self), number, opening };
        let told = catch_unwind(AssertUnwindSafe(|| {
            if !seat.opening.is_tool {
                self.tell(&seat.opening, TelemetryKind::SessionOpened);
            }
        }));
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
        let concerned = |seat: &&Taken| seat.incarnation == incarnation && !(seat.is_tool && order == Order::Drain);
        for seat in taken.iter().filter(concerned) {
            let _already_told = seat.orders.try_send(order);
            drains |= seat.drains;
        }
        drains
    }

    fn speak(&self, number: u64, opening: &Opening, totals: &Usage) -> Word {
        let Some(mut taken) = self.by_agent.get_mut(&opening.agent) else { return Word::Foreign { is_news: false } };
        let (mut told, mut drowns) = (*totals, false);
        let speaker = taken.iter_mut().find(|seat| seat.incarnation == opening.incarnation && seat.told.is_some());
        if let Some(speaker) = speaker
            && let Some(before) = speaker.told
        {
            let starts_over = starts_over(&before, totals);
            if starts_over && speaker.number != number {
                return Word::Foreign { is_news: !std::mem::replace(&mut speaker.drowns, true) };
            }
            speaker.told = None;
            drowns = speaker.drowns;
            if !starts_over {
                told = updated(&before, totals);
            }
        }
        for seat in taken.iter_mut().filter(|seat| seat.number == number) {
            (seat.told, seat.drowns) = (Some(told), drowns);
        }
        Word::Counts
    }

    fn leave(&self, number: u64, opening: &Opening) {
        let Entry::Occupied(mut entry) = self.by_agent.entry(opening.agent.clone()) else { return };
        entry.get_mut().retain(|seat| seat.number != number);
        let others = entry.get().iter().any(|seat| seat.incarnation == opening.incarnation && !seat.is_tool);
        if !opening.is_tool && !others {
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
    /// Whether it may tell these totals of its incarnation. They are absolute, and have one voice: the session that told some first, until it ends or
    /// another one goes on from there, with none of the counts below what it told last. So a program that comes back is heard while its lost connection is still open here, and
    /// a second session that counts for itself, or lags behind, does not look like a program that starts over each time the two take turns, by
    /// which the sum would grow without end.
    pub(super) fn may_tell(&self, totals: &Usage) -> bool {
        let word = self.seats.speak(self.number, &self.opening, totals);
        if word == (Word::Foreign { is_news: true }) {
            let Opening { agent, incarnation, .. } = &self.opening;
            tracing::warn!(
                %agent,
                incarnation,
                "two sessions tell totals of one incarnation; those of one count, the other's are dropped and counted"
            );
        }
        word == Word::Counts
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

    fn used(tokens: u64) -> Usage {
        Usage { input_tokens: Some(tokens), ..Usage::default() }
    }

    fn seats() -> Arc<Seats> {
        Arc::new(Seats::new(Arc::new(Nobody)))
    }

    fn take(seats: &Arc<Seats>, agent: &str, incarnation: u64) -> (Seat, mpsc::Receiver<Order>) {
        let (order, orders) = mpsc::channel(1);
        (
            seats.take(Opening { agent: agent.parse().unwrap(), incarnation, drains: false, is_tool: false }, order),
            orders,
        )
    }

    #[test]
    fn one_session_of_an_incarnation_tells_what_was_used_until_it_ends() {
        let seats = seats();
        let take = |agent, incarnation| take(&seats, agent, incarnation).0;
        let (idle, first, second) = (take("s/a", 2), take("s/a", 2), take("s/a", 2));
        let (other, older) = (take("s/b", 2), take("s/a", 1));
        assert!(first.may_tell(&used(10)) && first.may_tell(&used(5)), "it may start over");
        assert!(!second.may_tell(&used(4)) && !idle.may_tell(&used(0)));
        assert!(other.may_tell(&used(1)) && older.may_tell(&used(1)), "they count something else");
        drop(first);
        assert!(second.may_tell(&used(4)) && !idle.may_tell(&used(3)));
        drop(second);
        assert!(idle.may_tell(&used(0)));
        drop((idle, other, older));
        assert!(seats.by_agent.is_empty(), "nothing is kept of those that are gone");
    }

    /// Two programs in one agent, each with totals of its own: the log says so, once and not with each report.
    #[test]
    fn that_two_sessions_tell_totals_is_news_once() {
        let seats = seats();
        let take = || take(&seats, "s/a", 2).0;
        let (first, second, third) = (take(), take(), take());
        let tell = |seat: &Seat, tokens| seats.speak(seat.number, &seat.opening, &used(tokens));
        assert_eq!(tell(&first, 10), Word::Counts);
        for (seat, is_news) in [(&second, true), (&second, false), (&third, false)] {
            assert_eq!(tell(seat, 9), Word::Foreign { is_news });
        }
        assert_eq!((tell(&first, 11), tell(&second, 12)), (Word::Counts, Word::Counts), "it goes on from there");
        assert_eq!(tell(&first, 11), Word::Foreign { is_news: false });
        drop(second);
        assert_eq!((tell(&first, 11), tell(&third, 1)), (Word::Counts, Word::Foreign { is_news: true }));
    }

    #[test]
    fn who_comes_back_is_heard_while_the_lost_session_is_still_open() {
        let seats = seats();
        let take = || take(&seats, "s/a", 2).0;
        let (lost, back) = (take(), take());
        let out = |tokens| Usage { output_tokens: Some(tokens), ..Usage::default() };
        assert!(lost.may_tell(&used(100)) && lost.may_tell(&out(7)));
        assert!(!back.may_tell(&used(99)), "it counts for itself, or lags behind");
        assert!(back.may_tell(&used(100)));
        assert!(!lost.may_tell(&out(6)), "what one report leaves out stays as the last one had it");
        assert!(back.may_tell(&used(1)), "it may start over now");
        assert!(!lost.may_tell(&used(0)));
    }

    #[test]
    fn the_oldest_sessions_of_an_agent_go_for_those_beyond_the_limit() {
        let seats = seats();
        let mut first: Vec<_> = (0..SESSIONS_PER_AGENT_MAX).map(|_| take(&seats, "s/a", 2)).collect();
        let _of_another = take(&seats, "s/b", 2);
        assert!(first.iter_mut().all(|(_, orders)| orders.try_recv().is_err()));
        let _two_more = (take(&seats, "s/a", 3), take(&seats, "s/a", 2));
        let told: Vec<_> = first.iter_mut().map(|(_, orders)| orders.try_recv().ok()).collect();
        let mut expected = vec![None; SESSIONS_PER_AGENT_MAX];
        expected[..2].fill(Some(Order::Yield));
        assert_eq!(told, expected);
        first.truncate(2);
        let _third = take(&seats, "s/a", 2);
        assert!(
            first.iter_mut().all(|(_, orders)| orders.try_recv().is_err()),
            "there is room, and nobody is asked twice"
        );
    }
}
