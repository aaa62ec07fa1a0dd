//! What holds after any calls, beside a model that looks at everything each time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::{
    tests::{World, party, swarm, token},
    *,
};

const NAMES: [&str; 8] = ["a", "a/", "a/b", "a/b/c", "a-", "d/e", "d/f", "d"];
const PARTIES: [&str; 5] = ["p", "q", "r", "s", "t"];

/// What the model knows of one attempt, or of one change that waits.
#[derive(Debug, Clone)]
struct Seen {
    id: LockId,
    /// The number of its lock, and of the attempt or change itself.
    number: u64,
    order: u64,
    party: Party,
    names: Vec<&'static str>,
    mode: LockMode,
    until: SystemTime,
    lease: Duration,
    change: bool,
}

#[derive(Debug, Default)]
struct Model {
    held: BTreeMap<LockId, Seen>,
    waits: Vec<Seen>,
}

fn parts(name: &str) -> Vec<&str> {
    name.split('/').filter(|part| !part.is_empty()).collect()
}

fn in_conflict(a: &Seen, b: &Seen) -> bool {
    use LockMode::{Exclusive, Read};
    let overlap = a.names.iter().any(|one| {
        b.names.iter().any(|other| {
            let (one, other) = (parts(one), parts(other));
            one.iter().zip(&other).all(|(x, y)| x == y)
        })
    });
    let exclusive = a.mode == Exclusive || b.mode == Exclusive;
    let read = a.mode == Read && b.mode == Read;
    overlap && a.id != b.id && !read && (exclusive || a.party != b.party)
}

impl Model {
    /// Everything that one has to wait for.
    fn in_the_way(&self, wants: &Seen) -> Vec<&Seen> {
        let held = self.held.values().filter(|held| in_conflict(held, wants));
        let before = self.waits.iter().filter(|other| {
            let first = other.change || other.order < wants.order;
            let behind_him = self.held.values().any(|held| held.party == wants.party && in_conflict(held, other));
            !wants.change && first && in_conflict(other, wants) && !behind_him
        });
        held.chain(before).collect()
    }

    fn settle(&mut self, now: SystemTime) {
        self.waits.sort_by_key(|wait| (!wait.change, wait.order));
        while let Some(free) = self.waits.iter().position(|wait| self.in_the_way(wait).is_empty()) {
            let given = self.waits.remove(free);
            let until = now + given.lease;
            self.held.insert(given.id, Seen { until, order: given.number, change: false, ..given });
        }
    }

    /// Who waits for whom.
    fn graph(&self) -> BTreeMap<&Party, BTreeSet<&Party>> {
        let mut graph: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for wait in &self.waits {
            let others = self.in_the_way(wait).into_iter().map(|other| &other.party);
            graph.entry(&wait.party).or_default().extend(others.filter(|party| **party != wait.party));
        }
        graph
    }

    fn has_circle(&self) -> bool {
        let mut graph = self.graph();
        // Whoever waits for nobody of those who wait is in no circle.
        while let Some(out) = graph.iter().find(|(_, to)| to.iter().all(|to| !graph.contains_key(to))) {
            let out = *out.0;
            graph.remove(out);
        }
        !graph.is_empty()
    }
}

#[derive(Debug, Clone)]
enum Call {
    Ask { party: usize, names: Vec<usize>, mode: usize, wait_ms: u64, lease_ms: u64 },
    Change { pick: usize, mode: usize, wait_ms: u64 },
    Release { pick: usize },
    Renew { pick: usize },
    Heartbeat { party: usize },
    GiveUp { pick: usize },
    HolderEnded { party: usize },
    Pass { ms: u64 },
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let names = prop::collection::vec(0..NAMES.len(), 1..3);
    let wait = prop_oneof![Just(0_u64), 1..500_u64, Just(100_000_u64)];
    let ask = (0..PARTIES.len(), names, 0..3_usize, wait.clone(), prop_oneof![1..500_u64, Just(100_000_u64)]);
    let call = prop_oneof![
        8 => ask.prop_map(|(party, names, mode, wait_ms, lease_ms)| Call::Ask { party, names, mode, wait_ms, lease_ms }),
        3 => (any::<usize>(), 0..3_usize, wait).prop_map(|(pick, mode, wait_ms)| Call::Change { pick, mode, wait_ms }),
        4 => any::<usize>().prop_map(|pick| Call::Release { pick }),
        1 => any::<usize>().prop_map(|pick| Call::Renew { pick }),
        1 => (0..PARTIES.len()).prop_map(|party| Call::Heartbeat { party }),
        1 => any::<usize>().prop_map(|pick| Call::GiveUp { pick }),
        1 => (0..PARTIES.len()).prop_map(|party| Call::HolderEnded { party }),
        1 => (1..400_u64).prop_map(|ms| Call::Pass { ms }),
    ];
    prop::collection::vec(call, 1..60)
}

/// The locks and the model side by side, and what a driver knows: what is written, who waits for an answer.
struct Pair {
    world: World,
    model: Model,
    incarnations: [u64; PARTIES.len()],
    written: BTreeMap<LockId, Lock>,
    waiting: BTreeSet<LockId>,
    fences: BTreeSet<Fence>,
    /// Whom the last call has told of a circle.
    losers: VecDeque<(LockId, Vec<Party>)>,
}

impl Pair {
    fn new() -> Self {
        Self {
            world: World::new(),
            model: Model::default(),
            incarnations: [1; PARTIES.len()],
            written: BTreeMap::new(),
            waiting: BTreeSet::new(),
            fences: BTreeSet::new(),
            losers: VecDeque::new(),
        }
    }

    fn party(&self, which: usize) -> Party {
        Party { incarnation: Some(self.incarnations[which]), ..party(PARTIES[which]) }
    }

    fn held(&self, pick: usize) -> Option<Lock> {
        self.written.values().nth(pick % self.written.len().max(1)).cloned()
    }

    /// Does what a driver does after each call.
    fn drain(&mut self, given_at_once: Option<&Lock>) {
        let changes = self.world.locks.drain();
        let last = self.fences.last().copied();
        for granted in changes.granted.iter().map(|lock| &**lock).chain(given_at_once) {
            assert!(Some(token(granted)) > last && self.fences.insert(token(granted)), "a token that does not grow");
        }
        for lock in &changes.put {
            self.written.insert(lock.id, Lock::clone(lock));
        }
        for id in changes.removed {
            assert!(self.written.remove(&id).is_some(), "what was never written");
        }
        for id in changes.granted.iter().map(|lock| lock.id).chain(changes.ended.iter().map(|(id, _)| *id)) {
            assert!(self.waiting.remove(&id), "{id} is told, but does not wait");
        }
        self.losers = changes
            .ended
            .into_iter()
            .filter_map(|(id, why)| match why {
                Refused::Deadlock(circle) => Some((id, circle)),
                _ => None,
            })
            .collect();
    }

    /// Gives what can be given, and lets those lose of whom the locks said so, while there is a circle.
    fn settle(&mut self) {
        self.model.settle(self.world.now);
        while self.model.has_circle() {
            let (id, circle) = self.losers.pop_front().expect("a circle that nobody has broken");
            let lost = self.model.waits.iter().position(|wait| wait.id == id).unwrap();
            let lost = self.model.waits.remove(lost);
            assert!(circle.contains(&lost.party));
            self.model.settle(self.world.now);
        }
    }

    /// Whoever asked is in the model as one who waits; what the answer must be follows from it.
    fn asked(&mut self, seen: Seen, wait: Duration, asked: Result<Asked, Refused>) {
        let free = self.model.in_the_way(&seen).is_empty();
        let (id, order) = (seen.id, seen.order);
        self.model.waits.push(seen);
        match asked {
            Ok(Asked::Granted(lock)) => {
                assert!(free, "{id} was given in spite of {:?}", self.model);
                self.drain(Some(&lock));
                return self.settle();
            }
            Ok(Asked::Waiting(_)) => {
                assert!(!free && !wait.is_zero() && !self.model.has_circle(), "{:?}", self.model);
                self.waiting.insert(id);
            }
            Err(Refused::TimedOut { waited_ms: 0, .. }) => {
                assert!(!free && wait.is_zero());
                self.model.waits.retain(|wait| wait.order != order);
            }
            Err(Refused::Deadlock(_)) => {
                assert!(!free && !wait.is_zero() && self.model.has_circle(), "{:?}", self.model);
                self.model.waits.retain(|wait| wait.order != order);
            }
            Err(other) => panic!("{other:?}"),
        }
        self.drain(None);
    }

    fn call(&mut self, call: Call) {
        let now = self.world.now;
        match call {
            Call::Ask { party, names, mode, wait_ms, lease_ms } => {
                let holder = self.party(party);
                let (wait, lease) = (Duration::from_millis(wait_ms), Duration::from_millis(lease_ms));
                let names: Vec<_> = names.into_iter().map(|name| NAMES[name]).collect();
                let (id, mode) = (LockId::mint(), LockMode::ALL[mode]);
                let resources = names.iter().map(|name| Arc::from(*name)).collect();
                // No number is as young, whether or not one was given.
                let number = self.world.counter.last() + 1;
                let ask = Ask { id, resources, mode, holder: holder.clone(), lease, wait, note: None };
                let asked = self.world.try_ask(ask);
                let (order, until) = (number, now + wait);
                let seen = Seen { id, number, order, party: holder, names, mode, until, lease, change: false };
                self.asked(seen, wait, asked);
            }
            Call::Change { pick, mode, wait_ms } => {
                let Some(lock) = self.held(pick) else { return };
                let (wait, mode) = (Duration::from_millis(wait_ms), LockMode::ALL[mode]);
                let order = self.world.counter.last() + 1;
                let change = Change { id: lock.id, fence: token(&lock), mode, wait };
                let asked = self.world.locks.change(&mut self.world.counter, &swarm(), change, now);
                if self.waiting.contains(&lock.id) {
                    assert!(matches!(asked, Err(Refused::Invalid { .. })), "one change at a time");
                    return;
                }
                let held = self.model.held.get_mut(&lock.id).unwrap();
                let rank = |mode| LockMode::ALL.iter().position(|one| *one == mode);
                if rank(mode) > rank(held.mode) {
                    let seen = Seen { order, mode, until: now + wait, change: true, ..held.clone() };
                    return self.asked(seen, wait, asked);
                }
                held.mode = mode;
                assert!(matches!(asked, Ok(Asked::Granted(_))));
                self.drain(None);
                self.settle();
            }
            Call::Release { pick } => {
                let Some(lock) = self.held(pick) else { return };
                let World { locks, counter, .. } = &mut self.world;
                locks.release(counter, &swarm(), lock.id, token(&lock), now).unwrap();
                self.drain(None);
                self.end(lock.id);
            }
            Call::Renew { pick } => {
                let Some(lock) = self.held(pick) else { return };
                self.world.locks.renew(&swarm(), lock.id, token(&lock), now).unwrap();
                self.renewed(|held| held.id == lock.id);
            }
            Call::Heartbeat { party } => {
                let holder = Party { incarnation: Some(self.incarnations[party]), ..self::party(PARTIES[party]) };
                self.world.locks.heartbeat(&holder, now);
                self.renewed(|held| held.party == holder);
            }
            Call::GiveUp { pick } => {
                let Some(id) = self.waiting.iter().nth(pick % self.waiting.len().max(1)).copied() else { return };
                let World { locks, counter, .. } = &mut self.world;
                assert!(locks.give_up(counter, &swarm(), id, now));
                self.waiting.remove(&id);
                self.drain(None);
                self.model.waits.retain(|wait| wait.id != id);
                self.settle();
            }
            Call::HolderEnded { party } => {
                let holder = self.party(party);
                self.incarnations[party] += 1;
                self.world.locks.holder_ended(&mut self.world.counter, &holder, now);
                self.drain(None);
                self.model.held.retain(|_, held| held.party != holder);
                self.model.waits.retain(|wait| wait.party != holder);
                self.settle();
            }
            Call::Pass { ms } => {
                self.world.pass(Duration::from_millis(ms));
                self.drain(None);
                self.pass();
            }
        }
    }

    fn renewed(&mut self, whose: impl Fn(&Seen) -> bool) {
        let now = self.world.now;
        for held in self.model.held.values_mut().filter(|held| whose(held)) {
            held.until = now + held.lease;
        }
    }

    fn end(&mut self, id: LockId) {
        self.model.held.remove(&id);
        self.model.waits.retain(|wait| wait.id != id);
        self.settle();
    }

    /// Ends what is over, the earliest first.
    fn pass(&mut self) {
        loop {
            let held = self.model.held.values().map(|held| (held.until, held.order, held.id, true));
            let waits = self.model.waits.iter().map(|wait| (wait.until, wait.order, wait.id, false));
            match held.chain(waits).min().filter(|first| first.0 <= self.world.now) {
                Some((_, _, id, true)) => self.end(id),
                Some((_, order, _, false)) => {
                    self.model.waits.retain(|wait| wait.order != order);
                    self.settle();
                }
                None => break,
            }
        }
    }

    fn check(&self) {
        let list = |held| {
            let filter = LockFilter { held: Some(held), limit: usize::MAX, ..LockFilter::default() };
            self.world.locks.list(&swarm(), &filter).unwrap()
        };
        assert!(self.losers.is_empty(), "told of a circle that was none: {:?}", self.losers);
        let held: BTreeMap<_, _> = list(true).into_iter().map(|view| (view.lock.id, view.lock)).collect();
        for (one, other) in held.keys().flat_map(|one| held.keys().map(move |other| (one, other))) {
            let (one, other) = (&self.model.held[one], &self.model.held[other]);
            assert!(!in_conflict(one, other), "two holders: {one:?} {other:?}");
        }
        let mode = |(id, lock): (&LockId, &Arc<Lock>)| (*id, lock.mode, token(lock));
        let written: Vec<_> = self.written.values().map(|lock| (lock.id, lock.mode, token(lock))).collect();
        assert_eq!(held.iter().map(mode).collect::<Vec<_>>(), written, "what is written is what is held");
        let model: Vec<_> = self.model.held.values().map(|held| (held.id, held.mode)).collect();
        assert_eq!(held.values().map(|lock| (lock.id, lock.mode)).collect::<Vec<_>>(), model);
        let waits: BTreeSet<_> = self.model.waits.iter().map(|wait| wait.id).collect();
        assert_eq!(list(false).iter().map(|view| view.lock.id).collect::<BTreeSet<_>>(), waits);
        assert_eq!(self.waiting, waits, "who waits will be told");
        for wait in &self.model.waits {
            assert!(!self.model.in_the_way(wait).is_empty(), "waits for nobody: {wait:?}");
            assert!(!self.world.locks.get(&swarm(), wait.id).unwrap().behind.is_empty());
        }
        assert!(!self.model.has_circle());
        let due = self.model.held.values().chain(&self.model.waits).map(|seen| seen.until).min();
        assert!(self.world.locks.next_due().is_some() == due.is_some() && self.world.locks.next_due() <= due);
        assert_eq!(self.world.locks.counts(&swarm()), (held.len(), waits.len()));
    }

    /// Nobody asks any more, and whoever holds something gives it back.
    fn wind_up(&mut self) {
        let again = Locks::restore(self.written.values().cloned(), self.world.now);
        assert_eq!(again.counts(&swarm()), (self.written.len(), 0));
        while let Some(id) = self.written.keys().next().copied() {
            let pick = self.written.keys().position(|one| *one == id).unwrap();
            self.call(Call::Release { pick });
            self.check();
        }
        assert!(self.waiting.is_empty(), "who starves: {:?}", self.model);
        let Some(hall) = self.world.locks.halls.get(&swarm()) else { return };
        assert!(hall.held.is_empty() && hall.waiting.is_empty() && hall.parties.is_empty(), "{hall:?}");
        assert!(hall.entries.is_empty() && hall.ids.is_empty() && hall.waits.is_empty(), "{hall:?}");
        assert_eq!(self.world.locks.next_due(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_calls_are_answered_as_by_the_model(calls in calls()) {
        let mut pair = Pair::new();
        for call in calls {
            pair.call(call);
            pair.check();
        }
        pair.wind_up();
    }
}
