//! What is written down of who did what: each request that changed something, and what was refused, summed up so that nobody can fill the journal with it.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;

use super::pace::Peer;
use crate::{
    control_plane::Key,
    events::Feed,
    model::{Audit, EventKind, TokenId},
};

/// Refusals of one kind that follow each other are told at once, and then at most so often.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Events about refusals in the long run, however many peers are refused: some 8,600 a day, of the 100,000 that the journal keeps by default.
const EVENT_EVERY: Duration = Duration::from_secs(10);
/// Events about refusals at once.
const EVENTS_BURST: u32 = 20;
/// Peers with their tokens that are told apart; what others are refused is summed up as theirs together.
const PEERS_MAX: usize = 256;
/// Characters of a path that are kept. Those of our routes are shorter.
const PATH_LEN_MAX: usize = 200;

/// A request, as far as it is told of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) key: Option<&'a Key>,
    pub(super) peer: Peer,
    pub(super) address: Option<std::net::SocketAddr>,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
}

impl Asked<'_> {
    fn audit(&self, status: u16, code: Option<&'static str>) -> Audit {
        Audit {
            token: self.key.map(|key| (key.id().clone(), key.name().clone())),
            peer: self.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string()),
            method: self.method.chars().take(PATH_LEN_MAX).collect(),
            path: self.path.chars().take(PATH_LEN_MAX).collect(),
            status,
            code,
            count: 1,
        }
    }
}

/// The refusals that are not told yet.
#[derive(Debug)]
pub(super) struct Book {
    feed: Feed,
    refusals: Mutex<Refusals>,
}

#[derive(Debug)]
struct Refusals {
    tallies: HashMap<Whose, Tally>,
    /// Events that may be told now.
    events: u32,
    refilled_at: Instant,
}

/// Whose refusals of which code a tally counts. Of a crowd nobody is told apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Whose {
    peer: Peer,
    token: Option<TokenId>,
    code: &'static str,
}

#[derive(Debug)]
struct Tally {
    /// The last of them.
    audit: Audit,
    /// Those that are not told yet.
    untold: u64,
    told_at: Option<Instant>,
}

impl Book {
    pub(super) fn new(feed: Feed, now: Instant) -> Self {
        let refusals = Refusals { tallies: HashMap::new(), events: EVENTS_BURST, refilled_at: now };
        Self { feed, refusals: Mutex::new(refusals) }
    }

    /// Something was changed: it is told of by itself.
    pub(super) fn change(&self, asked: Asked<'_>, status: u16) {
        self.tell(asked.audit(status, None));
    }

    /// Somebody was refused: for who he is, or a change that could not be.
    pub(super) fn refusal(&self, asked: Asked<'_>, status: u16, code: &'static str, now: Instant) {
        let told = {
            let mut refusals = self.refusals.lock();
            let mut whose = Whose { peer: asked.peer, token: asked.key.map(|key| key.id().clone()), code };
            if !refusals.tallies.contains_key(&whose) && refusals.tallies.len() >= PEERS_MAX {
                whose = Whose { peer: Peer::Crowd, token: None, code };
            }
            let audit = asked.audit(status, Some(code));
            let tally = refusals.tallies.entry(whose.clone()).or_insert_with(|| Tally {
                audit: audit.clone(),
                untold: 0,
                told_at: None,
            });
            tally.audit = audit;
            tally.untold += 1;
            refusals.due(&whose, now)
        };
        if let Some(audit) = told {
            self.tell(audit);
        }
    }

    /// Tells what has been summed up for long enough; to be called every few seconds.
    pub(super) fn tidy(&self, now: Instant) {
        let told = {
            let mut refusals = self.refusals.lock();
            let all: Vec<_> = refusals.tallies.keys().cloned().collect();
            let told: Vec<_> = all.iter().filter_map(|whose| refusals.due(whose, now)).collect();
            let quiet = |tally: &Tally| tally.untold == 0 && tally.told_at.is_none_or(|at| now >= at + TOLD_EVERY);
            refusals.tallies.retain(|_, tally| !quiet(tally));
            told
        };
        told.into_iter().for_each(|audit| self.tell(audit));
    }

    fn tell(&self, audit: Audit) {
        let by = audit.token.as_ref().map(|(_, name)| name.as_str());
        tracing::info!(by, peer = %audit.peer, method = %audit.method, path = %audit.path, status = audit.status, count = audit.count, "audit");
        self.feed.publish(SystemTime::now(), EventKind::Audit(audit.into()));
    }
}

impl Refusals {
    /// What is to be told of one tally now.
    fn due(&mut self, whose: &Whose, now: Instant) -> Option<Audit> {
        let earned = now.saturating_duration_since(self.refilled_at).as_secs() / EVENT_EVERY.as_secs();
        if earned > 0 {
            self.events = self.events.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(EVENTS_BURST);
            self.refilled_at = now;
        }
        let tally = self.tallies.get_mut(whose)?;
        let waits = tally.told_at.is_some_and(|at| now < at + TOLD_EVERY);
        if self.events == 0 || tally.untold == 0 || waits {
            return None;
        }
        self.events -= 1;
        tally.told_at = Some(now);
        let count = std::mem::take(&mut tally.untold);
        // Several came by several connections: what they have in common is the address.
        let one = count == 1 && whose.peer != Peer::Crowd;
        let peer = if one { tally.audit.peer.clone() } else { whose.peer.to_string() };
        // Of a crowd the last one's token would stand for all.
        let token = tally.audit.token.clone().filter(|_| whose.token.is_some());
        Some(Audit { count, peer, token, ..tally.audit.clone() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::model::{Epoch, Seq};

    fn asked(n: u32) -> Asked<'static> {
        let ip = std::net::Ipv4Addr::from(0x0a00_0000 + n);
        Asked {
            key: None,
            peer: Peer::At(ip.into()),
            address: Some((ip, 4711).into()),
            method: "POST",
            path: "/api/v1/reconcile",
        }
    }

    fn told(feed: &Feed) -> Vec<(String, u64)> {
        let events = feed.read(Seq(0), 10_000).unwrap();
        let audit = |event: &std::sync::Arc<crate::model::Event>| match &event.kind {
            EventKind::Audit(audit) => (audit.peer.clone(), audit.count),
            other => panic!("{other:?}"),
        };
        events.iter().map(audit).collect()
    }

    #[test]
    fn refusals_of_one_peer_are_told_at_once_and_then_summed_up() {
        let feed = Feed::new(Epoch(1), Seq(1));
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let book = Book::new(feed.clone(), start);
        for n in 0..1000 {
            book.refusal(asked(1), 401, "invalid_token", start + second * n / 50);
        }
        assert_eq!(told(&feed), [("10.0.0.1:4711".to_owned(), 1)]);
        book.tidy(start + second * 59);
        assert_eq!(told(&feed).len(), 1);
        book.tidy(start + second * 60);
        assert_eq!(told(&feed)[1..], [("10.0.0.1".to_owned(), 999)]);
        book.refusal(asked(1), 403, "forbidden", start + second * 60);
        assert_eq!(told(&feed).len(), 3, "another kind");
        book.tidy(start + second * 200);
        assert!(book.refusals.lock().tallies.is_empty());
    }

    #[test]
    fn a_day_of_refusals_by_very_many_peers_leaves_the_journal_its_room() {
        let feed = Feed::new(Epoch(1), Seq(1));
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let book = Book::new(feed.clone(), start);
        let mut refused = 0;
        let mut events = 0;
        let mut counted = 0;
        let mut seen = 0;
        for at in 0..24 * 60 * 12 {
            let now = start + second * 5 * at;
            for n in 0..400 {
                book.refusal(asked(at * 31 % 1000 + n), 401, "unauthorized", now);
                refused += 1;
            }
            book.tidy(now);
            assert!(book.refusals.lock().tallies.len() <= PEERS_MAX + 1);
            let fresh = feed.read(Seq(seen), 1000).unwrap();
            for event in &fresh {
                let EventKind::Audit(audit) = &event.kind else { panic!("{event:?}") };
                (events, counted, seen) = (events + 1, counted + audit.count, event.seq.0);
            }
        }
        assert!(events < 9_000, "{events} events");
        assert!(counted > refused / 2, "{counted} of {refused}: none is lost, some are still to be told");
    }
}
