//! What becomes of messages when incarnations end: kept, thrown out, dead; and what those who asked are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    AskError, Backoff, ChildRef, ChildSpec, ChildStats, DEAD_LETTERS_KEPT, DeadReason, ExitReason, Intensity,
    OnRestart, Overflow, Shutdown, TellRef,
};

use crate::harness::*;
use crate::overflow::hold;

/// Panics with its text, when its number is not that of the incarnation.
#[derive(Clone)]
pub(crate) struct Poison {
    pub(crate) text: String,
    pub(crate) harmless_to: u64,
}

impl Message for Poison {
    type Result = Result<u64, ()>;
}

impl Handler<Poison> for Probe {
    type Result = Result<u64, ()>;

    fn handle(&mut self, poison: Poison, _: &mut Self::Context) -> Self::Result {
        assert!(self.child.incarnation() == poison.harmless_to, "{}", poison.text);
        Ok(self.child.incarnation())
    }
}

pub(crate) fn poison(text: &str) -> Poison {
    Poison { text: text.into(), harmless_to: 0 }
}

/// Never answers while its incarnation lives.
struct Forever;

impl Message for Forever {
    type Result = ();
}

impl Handler<Forever> for Probe {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Forever, _: &mut Self::Context) -> Self::Result {
        Box::pin(actix::fut::wrap_future(std::future::pending()))
    }
}

pub(crate) fn panic_text<T: std::fmt::Debug>(told: Result<T, AskError>) -> String {
    match told {
        Err(AskError::Crashed { reason: ExitReason::Panic { text, .. } }) => text.to_string(),
        other => panic!("not a panic: {other:?}"),
    }
}

pub(crate) fn ask_later<M>(
    child: &ChildRef<Probe>,
    message: M,
) -> actix_rt::task::JoinHandle<Result<M::Result, AskError>>
where
    Probe: Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    let child = child.clone();
    actix_rt::spawn(async move { child.ask(message, PATIENCE).await })
}

fn patient(name: &str) -> ChildSpec {
    let backoff = Backoff { initial: Duration::from_secs(600), ..Backoff::default() };
    ChildSpec { backoff, ..eager(name) }
}

#[test]
fn each_ask_is_told_how_its_own_incarnation_ended() {
    system(async {
        let (child, a) = probe("a");
        // They all wait before the first starts: the next crash comes before those who asked have read of theirs.
        let asked: Vec<_> = (0..60).map(|n| ask_later(&a, poison(&format!("crash {n}")))).collect();
        until("all wait", || a.len() == 60).await;
        let (root, record) = start(vec![child]);
        until("all have crashed", || record.exits("a").len() == 60).await;
        for (n, asked) in asked.into_iter().enumerate() {
            assert_eq!(panic_text(asked.await.unwrap()), format!("crash {n}"));
        }
        assert_eq!(answers(&a).await, 61);
        root.shutdown().await.unwrap();
    });
}

/// Asks what is never answered, and returns once an incarnation has it.
async fn under_way(child: &ChildRef<Probe>) -> actix_rt::task::JoinHandle<Result<(), AskError>> {
    let before = child.stats().handled;
    let asked = ask_later(child, Forever);
    until("it is begun", || child.stats().handled > before).await;
    answers(child).await;
    asked
}

#[test]
fn an_ask_under_way_is_told_of_every_kind_of_end() {
    system(async {
        let (child, a) = probe("a");
        let (root, record) = start(vec![child]);
        let asked = under_way(&a).await;
        a.run(|me, ctx| me.child.clone().fail(ctx, "no luck")).unwrap();
        assert_eq!(asked.await.unwrap(), Err(AskError::Crashed { reason: ExitReason::Error("no luck".into()) }));
        let asked = under_way(&a).await;
        a.run(|_, ctx| ctx.stop()).unwrap();
        assert_eq!(asked.await.unwrap(), Err(AskError::Crashed { reason: ExitReason::Normal }));
        let asked = under_way(&a).await;
        a.run(|_, ctx| {
            ctx.run_later(MS, |_, _| panic!("elsewhere"));
        })
        .unwrap();
        assert_eq!(panic_text(asked.await.unwrap()), "elsewhere");
        let asked = under_way(&a).await;
        a.run(|_, _| actix_rt::Arbiter::current().stop().then_some(()).unwrap()).unwrap();
        assert_eq!(asked.await.unwrap(), Err(AskError::Crashed { reason: ExitReason::ArbiterGone }));
        let asked = under_way(&a).await;
        root.supervisor().terminate_child(&"a".into()).await.unwrap();
        assert_eq!(asked.await.unwrap(), Err(AskError::Crashed { reason: ExitReason::Shutdown }));
        assert_eq!(record.exits("a").len(), 5);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn time_that_runs_out_between_two_incarnations_says_so() {
    system(async {
        let (child, a) = scripted(patient("a"), Script::default());
        let (root, record) = start(vec![child]);
        assert_eq!(answers(&a).await, 1);
        a.tell(Boom).unwrap();
        record.saw("a backing_off").await;
        assert_eq!(a.ask(Add(1), MS * 5).await, Err(AskError::Restarting));
        assert!(!a.stats().live);
        let waiting = ask_later(&a, Add(1));
        until("it waits", || a.len() == 2).await;
        root.supervisor().terminate_child(&"a".into()).await.unwrap();
        assert_eq!(waiting.await.unwrap(), Err(AskError::Stopped));
        root.shutdown().await.unwrap();
    });
}

#[test]
fn messages_are_retained_when_the_start_fails_twice() {
    system(async {
        let tries = Arc::new(AtomicU32::new(0));
        let (child, a) =
            hivekeeper_actors::Child::actor(eager("a"), move |child| match tries.fetch_add(1, Ordering::SeqCst) {
                1 => Err("no".into()),
                2 => panic!("in the factory"),
                _ => Ok(Probe::new(child)),
            });
        let (root, record) = start(vec![child]);
        a.tell(Boom).unwrap();
        let asked: Vec<_> = (0..10).map(|_| ask_later(&a, Add(1))).collect();
        for (n, asked) in (1_u32..).zip(asked) {
            assert_eq!(asked.await.unwrap(), Ok((n, 4)), "in order");
        }
        assert_eq!(record.exits("a").len(), 3);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_second_failure_while_the_queue_is_replayed_loses_only_its_own_message() {
    system(async {
        let (child, a) = probe("a");
        for n in 0..5 {
            a.tell(Add(1 << n)).unwrap();
            a.tell(Boom).unwrap();
        }
        let last = ask_later(&a, Add(0));
        until("all wait", || a.len() == 11).await;
        let (root, record) = start(vec![child]);
        assert_eq!(last.await.unwrap(), Ok((0, 6)));
        assert_eq!(record.exits("a").len(), 5);
        let stats = a.stats();
        assert_eq!(stats, ChildStats { incarnation: 6, live: true, handled: 11, ..ChildStats::default() });
        root.shutdown().await.unwrap();
    });
}

#[test]
fn what_waits_at_the_last_crash_dies_with_its_child() {
    system(async {
        let spec = ChildSpec { intensity: Some(Intensity { max_restarts: 1, ..Intensity::default() }), ..eager("a") };
        let (child, a) = scripted(spec, Script::default());
        (0..2).for_each(|_| a.tell(Boom).unwrap());
        a.tell(Add(7)).unwrap();
        let asked = ask_later(&a, Add(8));
        until("all wait", || a.len() == 4).await;
        a.run(|_, _| ()).unwrap();
        let (root, record) = start(vec![child]);
        record.saw("a failed").await;
        assert_eq!(asked.await.unwrap(), Err(AskError::Stopped));
        let dead = root.dead_letters();
        let letter = dead.next(PATIENCE).await.unwrap();
        assert_eq!((&*letter.path, letter.incarnation, &letter.why), ("root/a", 2, &DeadReason::Stopped));
        assert!(letter.message.ends_with("::Add"), "{}", letter.message);
        let letter = letter.downcast::<Boom>().err().unwrap();
        assert_eq!(letter.downcast::<Add>().unwrap().0, 7);
        assert_eq!(dead.next(PATIENCE).await.unwrap().downcast::<Add>().unwrap().0, 8);
        assert!(dead.next(MS).await.is_none(), "what was refused and what is no message is not kept");
        let stats = a.stats();
        assert_eq!((stats.dead_lettered, stats.dropped, stats.waiting, stats.live), (2, 1, 0, false));
        root.shutdown().await.unwrap();
        assert_eq!((dead.total(), dead.lost()), (2, 0), "readable after the tree");
    });
}

#[test]
fn on_restart_drop_throws_out_what_waited_and_bounces_asks() {
    system(async {
        let (child, a) = scripted(ChildSpec { on_restart: OnRestart::Drop, ..patient("a") }, Script::default());
        a.tell(Boom).unwrap();
        (0..5).for_each(|_| a.tell(Add(1)).unwrap());
        let asked = ask_later(&a, Add(1));
        until("all wait", || a.len() == 7).await;
        let (root, record) = start(vec![child]);
        assert_eq!(asked.await.unwrap(), Err(AskError::Restarting), "at once, not after the back-off");
        record.saw("a backing_off").await;
        let later = ask_later(&a, Add(10));
        until("it waits", || a.len() == 1).await;
        assert_eq!(a.stats().dropped, 6);
        root.supervisor().force_restart(&"a".into()).await.unwrap();
        assert_eq!(later.await.unwrap(), Ok((10, 2)), "what came later is for the next one");
        assert!(root.dead_letters().is_empty());
        root.shutdown().await.unwrap();
    });
}

#[test]
fn on_restart_dead_letter_keeps_what_it_throws_out_for_whoever_wants_it() {
    system(async {
        let (child, a) = scripted(ChildSpec { on_restart: OnRestart::DeadLetter, ..eager("a") }, Script::default());
        a.tell(Boom).unwrap();
        (1..=5).for_each(|n| a.tell(Add(n)).unwrap());
        let given_up = a.ask(Add(100), MS).await;
        assert_eq!(given_up, Err(AskError::Timeout));
        let asked = ask_later(&a, Add(6));
        until("all wait", || a.len() == 8).await;
        let (root, _) = start(vec![child]);
        assert_eq!(asked.await.unwrap(), Err(AskError::Restarting));
        until("all are dead", || root.dead_letters().len() == 6).await;
        let dead = root.dead_letters().take();
        assert!(dead.iter().all(|letter| letter.why == DeadReason::Restarted && letter.incarnation == 1));
        let numbers: Vec<_> = dead.into_iter().map(|letter| letter.downcast::<Add>().unwrap().0).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6], "in order, and without the one that was given up");
        assert_eq!(a.ask(Add(0), PATIENCE).await, Ok((0, 2)));
        root.shutdown().await.unwrap();
    });
}

/// At the end nobody knows whether an operator's stop is one half of a restart.
#[test]
fn an_operator_s_restart_throws_out_as_a_crash_does_and_a_stop_says_stopped() {
    fn slow(_: &mut Probe, _: &mut Context<Probe>) -> Running {
        std::thread::sleep(MS * 2);
        Running::Stop
    }
    system(async {
        let spec = ChildSpec { on_restart: OnRestart::DeadLetter, ..eager("a") };
        let (child, a) = scripted(spec, Script { in_stopping: Some(slow), ..Script::default() });
        let (root, _) = start(vec![child]);
        for stops in [false, true] {
            // What it waits for is dropped with it, so its queue is there when it ends.
            a.run(|_, ctx| ctx.wait(actix::fut::wrap_future::<_, Probe>(std::future::pending()))).unwrap();
            until("it waits", || a.is_empty() && a.stats().live).await;
            let asked = ask_later(&a, Add(1));
            until("the message waits", || a.len() == 1).await;
            if stops {
                root.supervisor().terminate_child(&"a".into()).await.unwrap();
                assert_eq!(asked.await.unwrap(), Err(AskError::Stopped));
                assert_eq!(root.dead_letters().next(PATIENCE).await.unwrap().why, DeadReason::Stopped);
            } else {
                root.supervisor().force_restart(&"a".into()).await.unwrap();
                assert_eq!(asked.await.unwrap(), Err(AskError::Restarting));
                assert_eq!(root.dead_letters().next(PATIENCE).await.unwrap().why, DeadReason::Restarted);
                assert_eq!(answers(&a).await, 2);
            }
        }
        root.shutdown().await.unwrap();
    });
}

#[test]
fn dead_letters_are_bounded_and_counted() {
    system(async {
        let spec = ChildSpec { inbox_capacity: DEAD_LETTERS_KEPT + 10, ..patient("a") };
        let (child, a) = scripted(spec, Script::default());
        let (root, record) = start(vec![child]);
        a.tell(Boom).unwrap();
        record.saw("a backing_off").await;
        let dead = root.dead_letters();
        let waiting = {
            let dead = dead.clone();
            actix_rt::spawn(async move { dead.next(PATIENCE).await })
        };
        tokio::task::yield_now().await;
        for n in 0..=DEAD_LETTERS_KEPT {
            a.tell(Add(u32::try_from(n).unwrap())).unwrap();
        }
        a.tell(Add(u32::MAX)).unwrap();
        root.supervisor().terminate_child(&"a".into()).await.unwrap();
        assert!(waiting.await.unwrap().is_some());
        let total = DEAD_LETTERS_KEPT as u64 + 2;
        assert_eq!(dead.total(), total);
        let kept = dead.take();
        assert_eq!(kept.len() as u64 + dead.lost() + 1, total);
        assert!(dead.lost() > 0 && kept.len() < DEAD_LETTERS_KEPT + 1);
        assert_eq!(kept.into_iter().next_back().unwrap().downcast::<Add>().unwrap().0, u32::MAX, "the newest stay");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_recipient_knows_only_the_message() {
    fn is_send<T: Send + Sync + Clone + 'static>(_: &T) {}
    system(async {
        let (child, a) = scripted(ChildSpec { overflow: Overflow::Block, ..eager("a") }, Script::default());
        let (other, b) = probe("b");
        let (root, _) = start(vec![child, other]);
        let all: Vec<TellRef<Add>> = vec![a.recipient(), b.recipient()];
        is_send(&all[0]);
        for (n, recipient) in (1_u32..).zip(all.clone()) {
            recipient.tell(Add(n)).unwrap();
            a.tell(Boom).unwrap();
            assert_eq!(recipient.ask(Add(0), PATIENCE).await.map(|(sum, _)| sum), Ok(if n == 1 { 0 } else { n }));
        }
        let elsewhere = all[1].clone();
        std::thread::spawn(move || elsewhere.tell(Add(40)).unwrap()).join().unwrap();
        assert_eq!(b.ask(Add(0), PATIENCE).await, Ok((42, 1)));
        assert_eq!(panic_text(a.recipient::<Poison>().ask(poison("typed"), PATIENCE).await), "typed");
        root.shutdown().await.unwrap();
        assert_eq!(all[0].ask(Add(0), PATIENCE).await, Err(AskError::Stopped));
    });
}

#[test]
fn whoever_drops_the_future_takes_the_message_back() {
    system(async {
        let (child, a) = probe("a");
        let asked = ask_later(&a, Add(100));
        let again = {
            let a = a.clone();
            actix_rt::spawn(async move { a.ask_redeliver(poison("taken back"), 3, PATIENCE).await })
        };
        until("both wait", || a.len() == 2).await;
        asked.abort();
        again.abort();
        assert!(asked.await.is_err() && again.await.is_err());
        let (root, record) = start(vec![child]);
        assert_eq!(a.ask(Add(1), PATIENCE).await, Ok((1, 1)));
        assert!(record.exits("a").is_empty());
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_killed_incarnation_takes_no_further_message() {
    system(async {
        let (child, a) = scripted(ChildSpec { shutdown: Shutdown::Brutal, ..eager("a") }, Script::default());
        let (root, record) = start(vec![child]);
        let gate = hold(&a).await;
        (0..10).for_each(|_| a.tell(Add(1)).unwrap());
        let supervisor = root.supervisor();
        let restart = actix_rt::spawn(async move { supervisor.force_restart(&"a".into()).await });
        record.saw("a stopping").await;
        drop(gate);
        restart.await.unwrap().unwrap();
        assert_eq!(a.ask(Add(0), PATIENCE).await, Ok((10, 2)), "they were left to the next one");
        assert_eq!(record.exits("a"), [ExitReason::Killed]);
        root.shutdown().await.unwrap();
    });
}
