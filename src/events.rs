//! The feed: the numbered, bounded stream of events that the journal, sockets and the CLI read.
//!
//! A ring of shared events with one writer lock and any number of readers, each with a cursor of its own. A reader that falls behind the ring
//! is told so by a [`Gap`] and costs neither the writer nor the other readers anything.

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::model::{Epoch, Event, EventKind, Seq};

/// Events that the ring keeps: minutes of a busy hive, so that a reader survives a reconnect without a new snapshot.
pub const RING_EVENTS_MAX: usize = 4096;

/// Agent documents that the ring keeps alive through its events. A `Samples` event holds one for each agent, so that counting events alone
/// would let a hive of thousands grow the ring to gigabytes; at about 600 bytes a document this bounds it at some 20 MiB.
pub const RING_DOCUMENTS_MAX: usize = 32_768;

/// The ring no longer holds, or never held, what follows `after`. The reader takes a snapshot now and goes on behind `head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events after {after} are gone, the oldest kept is {first_kept}")]
pub struct Gap {
    /// Where the reader stood.
    pub after: Seq,
    /// The oldest event that is still there; one behind `head` when there is none.
    pub first_kept: Seq,
    /// The youngest event when the gap was noticed. A snapshot taken afterwards holds everything up to it.
    pub head: Seq,
}

/// The pure part: a numbered ring.
#[derive(Debug)]
struct Ring {
    epoch: Epoch,
    events_max: usize,
    next: u64,
    events: VecDeque<Arc<Event>>,
    documents: usize,
}

impl Ring {
    fn new(epoch: Epoch, first: Seq, events_max: usize) -> Self {
        // Zero means "nothing seen yet" for readers, so no event carries it.
        Self { epoch, events_max, next: first.0.max(1), events: VecDeque::new(), documents: 0 }
    }

    fn head(&self) -> Seq {
        Seq(self.next - 1)
    }

    fn first_kept(&self) -> Seq {
        self.events.front().map_or(Seq(self.next), |event| event.seq)
    }

    fn push(&mut self, at: SystemTime, kind: EventKind) -> Seq {
        let seq = Seq(self.next);
        self.next += 1;
        self.documents += documents_in(&kind);
        self.events.push_back(Arc::new(Event { seq, epoch: self.epoch, at, kind }));
        // The youngest event stays whatever its weight: its readers are only just being woken.
        while self.events.len() > 1 && (self.events.len() > self.events_max || self.documents > RING_DOCUMENTS_MAX) {
            if let Some(gone) = self.events.pop_front() {
                self.documents -= documents_in(&gone.kind);
            }
        }
        seq
    }

    /// Where in the ring the events behind a cursor begin.
    fn place(&self, after: Seq) -> Result<usize, Gap> {
        let first = self.first_kept();
        // A cursor beyond the head comes from another data directory: what it has seen is not what we have.
        if after > self.head() || after.0 + 1 < first.0 {
            return Err(Gap { after, first_kept: first, head: self.head() });
        }
        Ok(usize::try_from(after.0 + 1 - first.0).unwrap_or(usize::MAX))
    }

    fn read(&self, after: Seq, limit: usize) -> Result<Vec<Arc<Event>>, Gap> {
        let skip = self.place(after)?;
        Ok(self.events.iter().skip(skip).take(limit).cloned().collect())
    }

    fn next(&self, after: Seq) -> Result<Option<Arc<Event>>, Gap> {
        self.place(after).map(|place| self.events.get(place).cloned())
    }
}

fn documents_in(kind: &EventKind) -> usize {
    match kind {
        EventKind::Samples { agents } => agents.len(),
        _ => 1,
    }
}

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    head: watch::Sender<Seq>,
}

/// A handle on the feed; clones are the same feed.
#[derive(Debug, Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

impl Feed {
    /// An empty feed whose first event will carry `first` (at least 1): one behind the last number that any daemon of this hive may have used.
    pub fn new(epoch: Epoch, first: Seq) -> Self {
        Self::with_ring(epoch, first, RING_EVENTS_MAX)
    }

    /// The same with a ring of another size than [`RING_EVENTS_MAX`].
    pub(crate) fn with_ring(epoch: Epoch, first: Seq, events_max: usize) -> Self {
        let ring = Ring::new(epoch, first, events_max);
        let (head, _) = watch::channel(ring.head());
        Self { shared: Arc::new(Shared { ring: Mutex::new(ring), head }) }
    }

    /// Numbers an event and hands it to every reader. Never waits for a reader.
    pub fn publish(&self, at: SystemTime, kind: EventKind) -> Seq {
        let mut ring = self.shared.ring.lock();
        let seq = ring.push(at, kind);
        // Announced under the lock, so that the announced head never goes backwards.
        self.shared.head.send_replace(seq);
        seq
    }

    /// The number of the youngest event.
    pub fn head(&self) -> Seq {
        self.shared.ring.lock().head()
    }

    /// The epoch that this feed stamps on its events.
    pub fn epoch(&self) -> Epoch {
        self.shared.ring.lock().epoch
    }

    /// At most `limit` events behind `after`, oldest first.
    ///
    /// # Errors
    /// The ring has gone on, or `after` is a number that this feed has not reached.
    pub fn read(&self, after: Seq, limit: usize) -> Result<Vec<Arc<Event>>, Gap> {
        self.shared.ring.lock().read(after, limit)
    }

    /// A reader that begins behind `after`.
    pub fn subscribe(&self, after: Seq) -> Subscription {
        Subscription { feed: self.clone(), head: self.shared.head.subscribe(), after }
    }
}

/// One reader's cursor. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Subscription {
    feed: Feed,
    head: watch::Receiver<Seq>,
    after: Seq,
}

impl Subscription {
    /// The next event; waits for it without a deadline. Cancel-safe: an event is passed over only when it was returned.
    ///
    /// # Errors
    /// The events behind the cursor are gone. The cursor then stands at [`Gap::head`]; the reader takes a snapshot and calls again.
    pub async fn next(&mut self) -> Result<Arc<Event>, Gap> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            self.changed().await;
        }
    }

    /// Waits until something is published behind the last look, which [`Subscription::try_next`] is and the subscribing was. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.head.changed().await.is_err() {
            // The sender lives in the feed, which this subscription holds: it can't be gone.
            std::future::pending::<()>().await;
        }
    }

    /// The next event if it is there already.
    ///
    /// # Errors
    /// As [`Subscription::next`].
    pub fn try_next(&mut self) -> Result<Option<Arc<Event>>, Gap> {
        // Marked as seen before the ring is read: what is published in between wakes the next wait.
        self.head.borrow_and_update();
        match self.feed.shared.ring.lock().next(self.after) {
            Ok(event) => {
                if let Some(event) = &event {
                    self.after = event.seq;
                }
                Ok(event)
            }
            Err(gap) => {
                self.after = gap.head;
                Err(gap)
            }
        }
    }

    /// The number of the last event that was returned, or where the cursor was set.
    pub fn after(&self) -> Seq {
        self.after
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{AgentHealth, AgentState};

    const AT: SystemTime = SystemTime::UNIX_EPOCH;

    fn feed(first: u64) -> Feed {
        Feed::new(Epoch(7), Seq(first))
    }

    fn said(n: usize) -> EventKind {
        EventKind::AgentSaid {
            agent: "review/coder".parse().unwrap(),
            incarnation: 1,
            kind: Arc::from("note"),
            data: Arc::from(n.to_string()),
        }
    }

    fn document() -> AgentHealth {
        AgentHealth {
            state: AgentState::Running,
            incarnation: 1,
            ..AgentHealth::unknown("review/coder".parse().unwrap(), AT)
        }
    }

    fn seqs(events: &[Arc<Event>]) -> Vec<u64> {
        events.iter().map(|event| event.seq.0).collect()
    }

    #[test]
    fn numbers_follow_the_first() {
        let feed = feed(100);
        assert_eq!(feed.head(), Seq(99));
        assert_eq!(feed.publish(AT, said(0)), Seq(100));
        assert_eq!(feed.publish(AT, said(1)), Seq(101));
        assert_eq!(feed.head(), Seq(101));
        let read = feed.read(Seq(99), 10).unwrap();
        assert_eq!(seqs(&read), [100, 101]);
        assert_eq!(read[0].epoch, Epoch(7));
        assert_eq!(seqs(&feed.read(Seq(100), 10).unwrap()), [101]);
        assert_eq!(seqs(&feed.read(Seq(99), 1).unwrap()), [100]);
        assert!(feed.read(Seq(101), 10).unwrap().is_empty());
    }

    #[test]
    fn zero_is_never_given_out() {
        assert_eq!(feed(0).publish(AT, said(0)), Seq(1));
    }

    #[test]
    fn a_cursor_from_elsewhere_is_a_gap() {
        let feed = feed(100);
        feed.publish(AT, said(0));
        assert_eq!(feed.read(Seq(98), 10), Err(Gap { after: Seq(98), first_kept: Seq(100), head: Seq(100) }));
        assert_eq!(feed.read(Seq(101), 10), Err(Gap { after: Seq(101), first_kept: Seq(100), head: Seq(100) }));
        assert!(feed.read(Seq(u64::MAX), 10).is_err());
    }

    #[test]
    fn the_ring_is_bounded_by_events() {
        let feed = feed(1);
        for n in 0..RING_EVENTS_MAX + 10 {
            feed.publish(AT, said(n));
        }
        assert_eq!(feed.read(Seq(9), 1).unwrap_err().first_kept, Seq(11));
        let all = feed.read(Seq(10), usize::MAX).unwrap();
        assert_eq!(all.len(), RING_EVENTS_MAX);
        assert_eq!((all[0].seq, all.last().unwrap().seq), (Seq(11), feed.head()));
    }

    #[test]
    fn the_ring_is_bounded_by_documents() {
        let one = Arc::new(document());
        let agents = vec![one; RING_DOCUMENTS_MAX / 4];
        let feed = feed(1);
        for _ in 0..10 {
            feed.publish(AT, EventKind::Samples { agents: agents.clone() });
        }
        assert_eq!(feed.read(Seq(6), usize::MAX).unwrap().len(), 4);
        assert!(feed.read(Seq(5), 1).is_err());
        // One event heavier than the whole bound is still delivered.
        let heavy = vec![Arc::clone(&agents[0]); RING_DOCUMENTS_MAX + 1];
        let seq = feed.publish(AT, EventKind::Samples { agents: heavy });
        assert_eq!(seqs(&feed.read(Seq(seq.0 - 1), 10).unwrap()), [seq.0]);
    }

    #[tokio::test]
    async fn a_reader_waits_and_is_woken() {
        let feed = feed(1);
        let mut reader = feed.subscribe(feed.head());
        assert_eq!(reader.try_next(), Ok(None));
        let writer = {
            let feed = feed.clone();
            std::thread::spawn(move || feed.publish(AT, said(0)))
        };
        let got = tokio::time::timeout(Duration::from_secs(10), reader.next()).await.expect("woken").unwrap();
        assert_eq!(got.seq, writer.join().unwrap());
        assert_eq!(reader.after(), got.seq);
    }

    #[tokio::test]
    async fn a_reader_that_lags_learns_of_the_gap_and_goes_on() {
        let feed = feed(1);
        let mut reader = feed.subscribe(Seq(0));
        for n in 0..RING_EVENTS_MAX + 1 {
            feed.publish(AT, said(n));
        }
        let gap = reader.next().await.unwrap_err();
        assert_eq!(gap, Gap { after: Seq(0), first_kept: Seq(2), head: feed.head() });
        let seq = feed.publish(AT, said(0));
        assert_eq!(reader.next().await.unwrap().seq, seq);
    }

    #[tokio::test]
    async fn many_writers_give_every_reader_one_strict_order() {
        const WRITERS: usize = 4;
        const EACH: usize = 500;
        let feed = feed(1);
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let feed = feed.clone();
                std::thread::spawn(move || (0..EACH).map(|n| feed.publish(AT, said(n)).0).collect::<Vec<_>>())
            })
            .collect();
        let mut reader = feed.subscribe(Seq(0));
        let read = tokio::time::timeout(Duration::from_secs(30), async {
            let mut got = Vec::new();
            while got.len() < WRITERS * EACH {
                got.push(reader.next().await.unwrap().seq.0);
            }
            got
        })
        .await
        .expect("every event arrives");
        assert_eq!(read, (1..=(WRITERS * EACH) as u64).collect::<Vec<_>>());
        for writer in writers {
            assert!(writer.join().unwrap().windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
