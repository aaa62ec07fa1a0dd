//! Supervisors that live apart, with their children beside them.

use std::sync::Arc;
use std::thread::{self, ThreadId};

use actix::prelude::*;
use hivekeeper_actors::{Child, ChildRef, ChildSpec, Placement, Root, Strategy, SupervisorFlags};

use crate::harness::{PATIENCE, Record, eager, system, until};

struct Talker;

impl Actor for Talker {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "Where")]
struct WhereAreYou;

#[derive(MessageResponse)]
struct Where(ThreadId);

impl Handler<WhereAreYou> for Talker {
    type Result = Where;

    fn handle(&mut self, _: WhereAreYou, _: &mut Self::Context) -> Where {
        Where(thread::current().id())
    }
}

async fn place(talker: &ChildRef<Talker>) -> ThreadId {
    talker.ask(WhereAreYou, PATIENCE).await.unwrap().0
}

fn pair(name: &str) -> (Child, ChildRef<Talker>, ChildRef<Talker>) {
    let spec = |id: &str| ChildSpec { placement: Placement::WithSupervisor, ..eager(id) };
    let (first, one) = Child::actor(spec("one"), |_| Ok(Talker));
    let (second, other) = Child::actor(spec("other"), |_| Ok(Talker));
    let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
    (Child::supervisor(ChildSpec::new(name), flags, vec![first, second]).0.apart(), one, other)
}

#[test]
fn children_of_a_supervisor_apart_live_together_off_the_thread_of_the_root() {
    system(async {
        let record = Arc::new(Record::default());
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let (pair, one, other) = pair("pair");
        let root = Root::start(flags, vec![pair], record.clone()).unwrap();
        root.started().await.unwrap();
        let home = place(&one).await;
        assert_eq!(place(&other).await, home);
        assert_ne!(home, thread::current().id());

        one.run(|_, _| panic!("crash")).unwrap();
        until("it is back", || one.incarnation() == 2).await;
        assert_eq!((place(&one).await, place(&other).await), (home, home), "a restart stays with its supervisor");
        assert_eq!(other.incarnation(), 1);

        root.shutdown().await.unwrap();
        let lines = record.lines();
        let stops: Vec<&str> = lines.iter().map(String::as_str).filter(|line| line.ends_with("stopped")).collect();
        assert_eq!(stops, ["other stopped", "one stopped", "pair stopped"]);
    });
}

#[test]
fn supervisors_apart_spread_over_the_threads_in_turn() {
    system(async {
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let (pairs, talkers): (Vec<_>, Vec<_>) = ["a", "b"]
            .into_iter()
            .map(|name| {
                let (pair, one, _) = pair(name);
                (pair, one)
            })
            .unzip();
        let root = Root::start(flags, pairs, Arc::new(Record::default())).unwrap();
        root.started().await.unwrap();
        if thread::available_parallelism().unwrap().get() > 1 {
            assert_ne!(place(&talkers[0]).await, place(&talkers[1]).await);
        }
        root.shutdown().await.unwrap();
    });
}
