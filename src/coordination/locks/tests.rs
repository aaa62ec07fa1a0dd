//! One test for each rule.

use LockMode::{Exclusive, Read, Write};

use super::{hall::conflict, *};
use crate::model::Grant;

/// Locks with a clock and clients.
#[derive(Debug)]
pub(super) struct World {
    pub(super) locks: Locks,
    pub(super) counter: Counter,
    pub(super) now: SystemTime,
}

pub(super) fn party(name: &str) -> Party {
    Party { id: format!("s/{name}").parse().unwrap(), incarnation: Some(1) }
}

pub(super) fn swarm() -> SwarmName {
    "s".parse().unwrap()
}

pub(super) const LEASE: Duration = Duration::from_secs(10);
pub(super) const WAIT: Duration = Duration::from_secs(60);

impl World {
    pub(super) fn new() -> Self {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        Self { locks: Locks::default(), counter: Counter::behind(0), now }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.locks.tick(&mut self.counter, self.now);
    }

    pub(super) fn try_ask(&mut self, ask: Ask) -> Result<Asked, Refused> {
        self.locks.ask(&mut self.counter, ask, self.now)
    }

    fn asks(&mut self, who: &str, mode: LockMode, resources: &[&str], wait: Duration) -> Result<Asked, Refused> {
        self.try_ask(wanted(who, mode, resources, wait))
    }

    fn held(&mut self, who: &str, mode: LockMode, resources: &[&str]) -> Arc<Lock> {
        match self.asks(who, mode, resources, Duration::ZERO) {
            Ok(Asked::Granted(lock)) => lock,
            other => panic!("{who} {mode:?} {resources:?}: {other:?}"),
        }
    }

    fn waits(&mut self, who: &str, mode: LockMode, resources: &[&str]) -> LockId {
        match self.asks(who, mode, resources, WAIT) {
            Ok(Asked::Waiting(lock)) => lock.id,
            other => panic!("{who} {mode:?} {resources:?}: {other:?}"),
        }
    }

    fn release(&mut self, lock: &Lock) -> Result<(), Refused> {
        self.locks.release(&mut self.counter, &swarm(), lock.id, token(lock), self.now)
    }

    fn change(&mut self, lock: &Lock, mode: LockMode, wait: Duration) -> Result<Asked, Refused> {
        let change = Change { id: lock.id, fence: token(lock), mode, wait };
        self.locks.change(&mut self.counter, &swarm(), change, self.now)
    }

    fn renew(&mut self, lock: &Lock) -> Result<Arc<Lock>, Refused> {
        self.locks.renew(&swarm(), lock.id, token(lock), self.now)
    }

    fn check(&self, resource: &str, fence: Fence) -> Result<Arc<Lock>, Refused> {
        self.locks.check(&swarm(), &resource.into(), fence, self.now)
    }

    /// Who was given what he waited for since the last call.
    fn given(&mut self) -> Vec<LockId> {
        self.locks.drain().granted.iter().map(|lock| lock.id).collect()
    }

    fn holders(&self) -> Vec<String> {
        let held = LockFilter { held: Some(true), limit: usize::MAX, ..LockFilter::default() };
        let held = self.locks.list(&swarm(), &held).unwrap();
        held.iter().map(|view| view.lock.holder.id.name.to_string()).collect()
    }
}

pub(super) fn wanted(who: &str, mode: LockMode, resources: &[&str], wait: Duration) -> Ask {
    Ask {
        id: LockId::mint(),
        resources: resources.iter().map(|name| Arc::from(*name)).collect(),
        mode,
        holder: party(who),
        lease: LEASE,
        wait,
        note: None,
    }
}

pub(super) fn token(lock: &Lock) -> Fence {
    lock.grant.unwrap().fence
}

#[test]
fn modes_that_go_together() {
    for (a, b, other, same) in [
        (Read, Read, false, false),
        (Read, Write, true, false),
        (Write, Write, true, false),
        (Read, Exclusive, true, true),
        (Write, Exclusive, true, true),
        (Exclusive, Exclusive, true, true),
    ] {
        assert_eq!((conflict(a, b, false), conflict(a, b, true)), (other, same), "{a:?} {b:?}");
        assert_eq!((conflict(b, a, false), conflict(b, a, true)), (other, same), "{b:?} {a:?}");
    }
}

/// Lesson 16: elsewhere a second reader overwrote the first, who could then never release.
#[test]
fn several_readers_hold_and_each_releases_his_own() {
    let mut w = World::new();
    let readers: Vec<_> = ["a", "b", "c"].iter().map(|who| w.held(who, Read, &["x"])).collect();
    assert_eq!(w.holders(), ["a", "b", "c"]);
    let writer = w.waits("d", Write, &["x"]);
    for reader in &readers {
        assert!(w.given().is_empty(), "a reader is still there");
        w.release(reader).unwrap();
    }
    assert_eq!(w.given(), [writer]);
}

#[test]
fn readers_come_in_together_when_a_writer_leaves() {
    let mut w = World::new();
    let writer = w.held("w", Write, &["x"]);
    let readers = [w.waits("a", Read, &["x"]), w.waits("b", Read, &["x/y"]), w.waits("c", Read, &["x"])];
    w.release(&writer).unwrap();
    assert_eq!(w.given(), readers);
}

#[test]
fn nobody_overtakes_a_writer_who_waits() {
    let mut w = World::new();
    let reader = w.held("a", Read, &["x"]);
    let writer = w.waits("w", Write, &["x/y"]);
    assert!(matches!(w.asks("b", Read, &["x"], Duration::ZERO), Err(Refused::TimedOut { waited_ms: 0, .. })));
    let late = w.waits("b", Read, &["x"]);
    w.held("c", Write, &["other"]);
    w.held("c", Read, &["x/z"]);
    w.release(&reader).unwrap();
    assert_eq!(w.given(), [writer]);
    assert_eq!(w.locks.get(&swarm(), late).unwrap().behind[0].holder, party("w"));
}

#[test]
fn whoever_is_in_the_way_already_comes_in_again() {
    let mut w = World::new();
    let first = w.held("a", Write, &["src/"]);
    let other = w.waits("b", Write, &["src"]);
    let second = w.held("a", Write, &["src/a.rs"]);
    w.release(&first).unwrap();
    assert!(w.given().is_empty());
    w.release(&second).unwrap();
    assert_eq!(w.given(), [other]);
}

#[test]
fn exclusive_minds_its_own_party() {
    let mut w = World::new();
    let first = w.held("a", Exclusive, &["x"]);
    assert!(w.asks("a", Read, &["x"], Duration::ZERO).is_err());
    let second = w.waits("a", Exclusive, &["x"]);
    w.release(&first).unwrap();
    assert_eq!(w.given(), [second], "a party may wait for itself");
}

#[test]
fn all_names_at_once_or_none() {
    let mut w = World::new();
    let y = w.held("a", Write, &["y"]);
    let both = w.waits("b", Write, &["x", "y"]);
    assert_eq!(w.holders(), ["a"]);
    let view = w.locks.get(&swarm(), both).unwrap();
    assert_eq!(view.behind, [Blocker { lock: y.id, holder: party("a"), waits: false }]);
    w.release(&y).unwrap();
    assert_eq!(w.given(), [both]);
    let unknown = LockFilter { resource: Some("x/deep".into()), limit: 9, ..LockFilter::default() };
    assert_eq!(w.locks.list(&swarm(), &unknown).unwrap().len(), 1);
}

#[test]
fn waits_end_in_time_and_let_others_by() {
    let mut w = World::new();
    let reader = w.held("a", Read, &["x"]);
    let Ok(Asked::Waiting(writer)) = w.asks("b", Write, &["x"], Duration::from_secs(5)) else { panic!() };
    let behind = w.waits("c", Read, &["x"]);
    assert_eq!(w.locks.next_due(), Some(w.now + Duration::from_secs(5)));
    w.pass(Duration::from_secs(5));
    let changes = w.locks.drain();
    let why = Refused::TimedOut { waited_ms: 5000, held_by: format!("held by {}", reader.holder) };
    assert_eq!(changes.ended, [(writer.id, why)]);
    assert_eq!(changes.granted[0].id, behind);
    assert_eq!(changes.put.len(), 2, "the two that are held, not the one that waited");
    assert!(changes.removed.is_empty());
}

/// Lesson 15: elsewhere locks of the dead stayed for ever.
#[test]
fn what_nobody_renews_ends_and_its_token_with_it() {
    let mut w = World::new();
    let a = w.held("a", Write, &["x"]);
    let b = w.waits("b", Write, &["x"]);
    w.pass(LEASE / 2);
    assert_eq!(w.renew(&a).unwrap().grant.unwrap().lease_until, w.now + LEASE);
    w.pass(LEASE / 2);
    w.locks.heartbeat(&party("a"), w.now);
    w.pass(LEASE - Duration::from_millis(1));
    w.check("x/y", token(&a)).unwrap();
    assert!(w.given().is_empty());
    w.pass(Duration::from_millis(1));
    let changes = w.locks.drain();
    assert_eq!((changes.removed, changes.granted[0].id), (vec![a.id], b));
    let newer = token(&changes.granted[0]);
    assert!(newer > token(&a));
    for refused in [w.renew(&a).unwrap_err(), w.release(&a).unwrap_err(), w.check("x", token(&a)).unwrap_err()] {
        let told = refused.to_string();
        assert!(told.contains("ended 0 ms ago; s/b#1 holds \"x\" now (write, token"), "{told}");
    }
    w.check("x", newer).unwrap();
}

#[test]
fn an_unrenewed_lock_is_refused_even_before_anybody_ticks() {
    let mut w = World::new();
    let a = w.held("a", Write, &["x"]);
    w.now += LEASE;
    assert!(matches!(w.check("x", token(&a)), Err(Refused::StaleToken { .. })));
    w.renew(&a).unwrap();
    w.pass(Duration::ZERO);
    w.check("x", token(&a)).unwrap();
    w.now += LEASE;
    w.locks.renew_all(w.now);
    w.pass(Duration::ZERO);
    assert_eq!(w.holders(), ["a"]);
    assert!(w.locks.knows(&party("a")) && w.locks.parties().eq([&party("a")]));
    w.pass(LEASE);
    assert!(!w.locks.knows(&party("a")));
}

#[test]
fn tokens_allow_what_their_lock_covers_and_no_more() {
    let mut w = World::new();
    let src = w.held("a", Write, &["src/"]);
    let doc = w.held("a", Read, &["doc"]);
    w.check("src/a.rs", token(&src)).unwrap();
    for (resource, fence) in [("srcx", token(&src)), ("doc", token(&doc)), ("src", Fence(999)), ("..", token(&src))] {
        assert!(w.check(resource, fence).is_err(), "{resource} {fence}");
    }
    assert!(w.check("doc", token(&doc)).unwrap_err().to_string().contains("does not allow to write"));
    let other: SwarmName = "other".parse().unwrap();
    assert!(w.locks.check(&other, &"src".into(), token(&src), w.now).is_err());
    assert!(w.locks.release(&mut w.counter, &other, src.id, token(&src), w.now).is_err());
}

#[test]
fn released_once_more_is_released() {
    let mut w = World::new();
    let a = w.held("a", Write, &["x"]);
    let wrong = Lock { grant: Some(Grant { fence: Fence(99), ..a.grant.unwrap() }), ..Lock::clone(&a) };
    assert!(matches!(w.release(&wrong), Err(Refused::StaleToken { .. })));
    w.release(&a).unwrap();
    w.release(&a).unwrap();
    assert!(matches!(w.release(&wrong), Err(Refused::StaleToken { .. })));
    assert!(w.renew(&a).unwrap_err().to_string().contains("it was released 0 ms ago; nobody holds it now"));
    let never = Lock { id: LockId::mint(), ..Lock::clone(&a) };
    assert_eq!(w.release(&never), Err(Refused::UnknownLock(never.id)));
}

#[test]
fn a_dead_holder_leaves_nothing() {
    let mut w = World::new();
    w.held("a", Write, &["x"]);
    w.held("b", Write, &["y"]);
    let (mine, theirs) = (w.waits("a", Read, &["y/z"]), w.waits("c", Write, &["x"]));
    let behind = w.waits("c", Write, &["q", "x"]);
    let _ = w.locks.drain();
    let next = Party { incarnation: Some(2), ..party("a") };
    w.locks.holder_ended(&mut w.counter, &next, w.now);
    let changes = w.locks.drain();
    assert_eq!(changes.ended, [(mine, Refused::UnknownLock(mine))]);
    assert_eq!(changes.granted.iter().map(|lock| lock.id).collect::<Vec<_>>(), [theirs, behind]);
    assert_eq!(changes.removed.len(), 1);
    assert_eq!(w.holders(), ["b", "c", "c"]);
}

#[test]
fn the_dead_do_not_take_successors_along() {
    let mut w = World::new();
    let lock = w.try_ask(Ask {
        holder: Party { incarnation: Some(3), ..party("a") },
        ..wanted("a", Write, &["x"], Duration::ZERO)
    });
    assert!(lock.is_ok());
    let client = Party { incarnation: None, ..party("a") };
    for gone in [Party { incarnation: Some(2), ..party("a") }, client] {
        w.locks.holder_ended(&mut w.counter, &gone, w.now);
        assert_eq!(w.holders(), ["a"]);
    }
}

#[test]
fn an_upgrade_goes_first_and_has_a_new_token() {
    let mut w = World::new();
    let (a, b) = (w.held("a", Read, &["x"]), w.held("b", Read, &["x"]));
    let writer = w.waits("c", Write, &["x"]);
    assert!(matches!(w.change(&a, Write, Duration::ZERO), Err(Refused::TimedOut { .. })));
    assert!(matches!(w.change(&a, Write, WAIT), Ok(Asked::Waiting(lock)) if lock.id == a.id));
    assert!(matches!(w.change(&a, Write, WAIT), Err(Refused::Invalid { .. })), "one at a time");
    assert!(w.asks("d", Read, &["x"], Duration::ZERO).is_err(), "nor does anybody overtake it");
    w.release(&b).unwrap();
    let granted = w.locks.drain().granted;
    assert_eq!((granted[0].id, granted[0].mode, granted.len()), (a.id, Write, 1));
    assert!(token(&granted[0]) > token(&b));
    assert!(w.renew(&a).unwrap_err().to_string().contains("newer one"));
    let Ok(Asked::Granted(less)) = w.change(&granted[0], Read, WAIT) else { panic!() };
    assert_eq!(token(&less), token(&granted[0]));
    w.check("x", token(&less)).unwrap_err();
    assert!(w.given().is_empty(), "the writer minds readers");
    w.release(&less).unwrap();
    assert_eq!(w.given(), [writer]);
}

#[test]
fn a_downgrade_lets_readers_in() {
    let mut w = World::new();
    let a = w.held("a", Exclusive, &["x"]);
    let (own, reader) = (w.waits("a", Write, &["x"]), w.waits("b", Read, &["x"]));
    let Ok(Asked::Granted(a)) = w.change(&a, Write, Duration::ZERO) else { panic!() };
    let given = w.locks.drain().granted;
    assert_eq!(given[0].id, own);
    w.release(&given[0]).unwrap();
    assert!(w.change(&a, Read, Duration::ZERO).is_ok());
    assert_eq!(w.given(), [reader]);
}

#[test]
fn an_upgrade_that_waits_ends_with_its_lock() {
    let mut w = World::new();
    let a = w.held("a", Read, &["x"]);
    w.held("b", Read, &["x"]);
    let _ = w.change(&a, Write, WAIT).unwrap();
    let reader = w.waits("c", Read, &["x"]);
    w.release(&a).unwrap();
    let changes = w.locks.drain();
    assert!(matches!(&changes.ended[..], [(id, Refused::StaleToken { .. })] if *id == a.id));
    assert_eq!(changes.granted[0].id, reader);
}

/// Lesson 16: elsewhere deadlocks were listed, never broken.
#[test]
fn a_circle_is_refused_to_the_youngest() {
    let mut w = World::new();
    let (a, _b) = (w.held("a", Write, &["x"]), w.held("b", Write, &["y"]));
    w.held("c", Write, &["z"]);
    w.waits("a", Read, &["y"]);
    w.waits("b", Read, &["z/1"]);
    let circle = w.asks("c", Write, &["free", "x"], WAIT).unwrap_err();
    assert_eq!(circle, Refused::Deadlock(vec![party("c"), party("a"), party("b")]));
    assert!(circle.to_string().contains("s/c#1 -> s/a#1 -> s/b#1 -> s/c#1"));
    assert_eq!(w.holders(), ["a", "b", "c"]);
    w.renew(&a).unwrap();
    w.held("d", Write, &["free"]);
}

#[test]
fn two_readers_who_both_want_to_write_are_a_deadlock() {
    let mut w = World::new();
    let (a, b) = (w.held("a", Read, &["x"]), w.held("b", Read, &["x"]));
    let _ = w.change(&a, Write, WAIT).unwrap();
    assert_eq!(w.change(&b, Write, WAIT), Err(Refused::Deadlock(vec![party("b"), party("a")])));
    w.release(&b).unwrap();
    assert_eq!(w.given(), [a.id]);
}

#[test]
fn a_queue_is_a_part_of_a_circle() {
    let mut w = World::new();
    w.held("a", Read, &["x"]);
    w.held("c", Write, &["z"]);
    w.waits("b", Write, &["x"]);
    w.waits("c", Read, &["x"]);
    assert_eq!(
        w.asks("a", Write, &["z"], WAIT),
        Err(Refused::Deadlock(vec![party("a"), party("c"), party("b")])),
        "c would be behind b, who waits for a"
    );
}

/// Somebody may lose the right to go first long after he began to wait, and it is not he who is the youngest.
#[test]
fn a_circle_that_closes_later_tells_the_youngest() {
    let mut w = World::new();
    let first = w.held("p", Read, &["x"]);
    w.held("p", Write, &["k"]);
    w.held("r", Write, &["y"]);
    w.held("s", Write, &["t"]);
    w.waits("q", Write, &["x", "t"]);
    w.waits("p", Read, &["x/1", "y"]);
    let youngest = w.waits("s", Write, &["k"]);
    let _ = w.locks.drain();
    w.release(&first).unwrap();
    let ended = w.locks.drain().ended;
    assert_eq!(ended, [(youngest, Refused::Deadlock(vec![party("p"), party("q"), party("s")]))]);
}

/// What a change puts in the way of others lets its own party go before them from then on.
#[test]
fn a_change_lets_its_party_go_on() {
    let mut w = World::new();
    let a = w.held("p", Read, &["a"]);
    w.held("s", Write, &["c"]);
    w.waits("q", Read, &["a", "c", "d"]);
    let behind = w.waits("p", Write, &["d"]);
    assert!(matches!(w.change(&a, Write, Duration::ZERO), Ok(Asked::Granted(_))));
    assert_eq!(w.given(), [behind]);
}

#[test]
fn a_change_that_closes_a_circle_is_told_to_the_youngest() {
    let mut w = World::new();
    let a = w.held("p", Read, &["a"]);
    w.held("s", Write, &["c"]);
    w.held("q", Write, &["k"]);
    w.waits("q", Read, &["a", "c"]);
    let youngest = w.waits("p", Write, &["k"]);
    assert!(matches!(w.change(&a, Write, Duration::ZERO), Ok(Asked::Granted(_))));
    assert_eq!(w.locks.drain().ended, [(youngest, Refused::Deadlock(vec![party("p"), party("q")]))]);
}

/// Whoever asked before a change that waits is behind it all the same.
#[test]
fn a_change_goes_before_those_who_asked_before() {
    let mut w = World::new();
    let a = w.held("a", Read, &["x"]);
    w.held("b", Read, &["x"]);
    let c = w.held("c", Write, &["y"]);
    let reader = w.waits("d", Read, &["x", "y"]);
    let _ = w.change(&a, Write, WAIT).unwrap();
    w.release(&c).unwrap();
    assert!(w.given().is_empty());
    assert_eq!(w.locks.get(&swarm(), reader).unwrap().behind[0].lock, a.id);
}

#[test]
fn leases_of_the_paused_stand_still() {
    let mut w = World::new();
    let a = w.held("a", Write, &["x"]);
    w.pass(LEASE / 2);
    w.locks.paused(&party("a"), w.now);
    w.pass(LEASE * 10);
    let late = w.held("a", Write, &["y"]);
    w.pass(LEASE * 10);
    w.check("x", token(&a)).unwrap();
    w.locks.resumed(&party("a"), w.now);
    w.pass(LEASE / 2 - Duration::from_millis(1));
    w.check("x", token(&a)).unwrap();
    w.pass(Duration::from_millis(1));
    w.check("x", token(&a)).unwrap_err();
    w.check("y", token(&late)).unwrap();
    w.pass(LEASE / 2);
    assert!(w.holders().is_empty());
}

#[test]
fn the_next_daemon_lets_leases_run_anew_and_knows_no_waiters() {
    let mut w = World::new();
    let a = w.held("a", Read, &["x"]);
    w.waits("b", Write, &["x"]);
    let written: Vec<Lock> = w.locks.drain().put.iter().map(|lock| Lock::clone(lock)).collect();
    w.now += LEASE * 100;
    w.locks = Locks::restore(written, w.now);
    assert_eq!((w.locks.counts(&swarm()), w.locks.next_due()), ((1, 0), Some(w.now + LEASE)));
    w.pass(LEASE - Duration::from_millis(1));
    w.renew(&a).unwrap();
    w.release(&a).unwrap();
    w.held("b", Write, &["x"]);
}

#[test]
fn who_has_gone_waits_no_more() {
    let mut w = World::new();
    let a = w.held("a", Read, &["x"]);
    w.held("r", Read, &["x"]);
    let gone = w.waits("b", Write, &["x"]);
    let behind = w.waits("c", Read, &["x"]);
    let _ = w.change(&a, Exclusive, WAIT).unwrap();
    assert!(w.locks.give_up(&mut w.counter, &swarm(), gone, w.now));
    assert!(!w.locks.give_up(&mut w.counter, &swarm(), gone, w.now));
    assert!(w.given().is_empty(), "behind the change");
    assert!(w.locks.give_up(&mut w.counter, &swarm(), a.id, w.now));
    let changes = w.locks.drain();
    assert_eq!(changes.granted[0].id, behind);
    assert!(changes.ended.is_empty());
    w.renew(&a).unwrap();
}

/// A grant that nobody has heard of must not be told once its lock is gone.
#[test]
fn a_grant_that_ended_unheard_is_told_as_its_end() {
    let mut w = World::new();
    let a = w.held("a", Write, &["x"]);
    let b = w.waits("b", Write, &["x"]);
    w.release(&a).unwrap();
    w.locks.holder_ended(&mut w.counter, &party("b"), w.now);
    let changes = w.locks.drain();
    assert!(changes.granted.is_empty() && changes.put.is_empty());
    assert!(matches!(&changes.ended[..], [(id, Refused::StaleToken { .. })] if *id == b));
}

#[test]
fn bounds_hold() {
    let mut w = World::new();
    for n in 0..LOCKS_MAX {
        w.held("a", Write, &[&format!("x/{n}")]);
    }
    let full = |what, max| Err(Refused::Full { what, max });
    assert_eq!(w.asks("a", Read, &["y"], WAIT), full("locks of a swarm", LOCKS_MAX));
    for n in 0..WAITING_MAX {
        w.waits("b", Write, &[&format!("x/{n}")]);
    }
    assert_eq!(w.asks("b", Read, &["x"], WAIT), full("attempts of a swarm that wait", WAITING_MAX));
    assert!(matches!(w.asks("b", Read, &["x"], Duration::ZERO), Err(Refused::TimedOut { .. })));
    w.locks.swarm_removed(&mut w.counter, &swarm(), w.now);
    let changes = w.locks.drain();
    assert_eq!((changes.removed.len(), changes.ended.len()), (LOCKS_MAX, WAITING_MAX));
    assert_eq!(w.locks.next_due(), None);
    for bad in [
        Ask { lease: Duration::ZERO, ..wanted("a", Read, &["x"], WAIT) },
        Ask { lease: Duration::MAX, ..wanted("a", Read, &["x"], WAIT) },
        Ask { wait: Duration::MAX, ..wanted("a", Read, &["x"], WAIT) },
        Ask { note: Some("n".repeat(NOTE_LEN_MAX + 1).into()), ..wanted("a", Read, &["x"], WAIT) },
    ] {
        assert!(matches!(w.try_ask(bad), Err(Refused::Invalid { .. })));
    }
}
