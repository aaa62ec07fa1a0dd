//! F10, F11: an actor that never runs out of messages, and senders that never wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::prelude::*;
use hivekeeper_actors::{AskError, Child, ChildCtx, ChildSpec, Placement, TellError};

use crate::harness::*;

/// Messages of a flood: many more than any budget.
const FLOOD: usize = 100_000;

/// A neighbour has had its turn long before a tenth of the flood is through, or it is starved.
const FAIR: usize = FLOOD / 10;

/// An actor that sends itself a message for each one it handles.
struct Hog {
    handled: Arc<AtomicUsize>,
    child: Option<ChildCtx<Hog>>,
}

impl Actor for Hog {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Go(usize);

impl Handler<Go> for Hog {
    type Result = ();

    fn handle(&mut self, Go(left): Go, context: &mut Self::Context) {
        self.handled.fetch_add(1, Ordering::SeqCst);
        match (&self.child, left) {
            (_, 0) => {}
            (None, _) => context.address().do_send(Go(left - 1)),
            (Some(child), _) => child.self_ref().tell(Go(left - 1)).unwrap(),
        }
    }
}

/// Notes how far the flood was when it had its turn.
fn look(flood: &Arc<AtomicUsize>, at: &Arc<AtomicUsize>) -> Do {
    let (flood, at) = (Arc::clone(flood), Arc::clone(at));
    Do::new(move |_, _| at.store(flood.load(Ordering::SeqCst), Ordering::SeqCst))
}

#[test]
fn f10_a_mailbox_is_drained_in_one_turn_however_long_it_is() {
    system(async {
        let (flood, at) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let hog = Hog { handled: Arc::clone(&flood), child: None }.start();
        let sibling = Specimen::new("sibling", Manner::Well, &Arc::default()).start();
        settle().await;
        hog.do_send(Go(FLOOD - 1));
        sibling.send(look(&flood, &at)).await.unwrap();
        assert_eq!(at.load(Ordering::SeqCst), FLOOD, "the sibling waits for the last of them");
    });
}

#[test]
fn f10_an_inbox_is_drained_in_turns() {
    system(async {
        let (flood, at) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let here = |name| ChildSpec { placement: Placement::WithSupervisor, ..eager(name) };
        let handled = Arc::clone(&flood);
        let (hog_child, hog) =
            Child::actor(here("hog"), move |child| Ok(Hog { handled: Arc::clone(&handled), child: Some(child) }));
        let (sibling_child, sibling) = specimen(here("sibling"), Manner::Well, &Arc::default());
        let (root, _) = start(vec![hog_child, sibling_child]);
        root.started().await.unwrap();
        hog.tell(Go(FLOOD - 1)).unwrap();
        sibling.ask(look(&flood, &at), PATIENCE).await.unwrap();
        let turn = at.load(Ordering::SeqCst);
        assert!(turn < FAIR, "the sibling had its turn after {turn} of {FLOOD}");
        // The order to stop has its turn among the messages, too; what waits then goes with the child.
        root.supervisor().terminate_child(&"hog".into()).await.unwrap();
        let stop = flood.load(Ordering::SeqCst);
        assert!(stop < FAIR, "the order was obeyed after {stop} of {FLOOD}");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn f10_a_long_queue_does_not_hold_up_its_neighbours_or_a_stop() {
    system(async {
        let seen = Arc::new(Seen::default());
        let spec = ChildSpec { placement: Placement::WithSupervisor, inbox_capacity: FLOOD, ..eager("a") };
        let (child, a) = specimen(spec, Manner::Well, &seen);
        for _ in 0..FLOOD {
            a.tell(Ping).unwrap();
        }
        let (root, _) = start(vec![child]);
        root.started().await.unwrap();
        root.supervisor().terminate_child(&"a".into()).await.unwrap();
        let handled = seen.pings();
        assert!(handled < FAIR, "the order was obeyed after {handled} of {FLOOD}");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn f11_the_bound_of_a_mailbox_is_the_senders_and_some_ignore_it() {
    system(async {
        let seen = Arc::new(Seen::default());
        let a = Specimen::new("a", Manner::Well, &seen).start();
        let accepted = (0..1000).take_while(|_| a.try_send(Ping).is_ok()).count();
        assert_eq!(accepted, 16, "full");
        let by_clones = (0..1000).filter(|_| a.clone().try_send(Ping).is_ok()).count();
        assert_eq!(by_clones, 1000, "each clone has a place of its own");
        for _ in 0..FLOOD {
            a.do_send(Ping);
        }
        until("all are handled", || seen.pings() == accepted + by_clones + FLOOD).await;
        a.send(Boom).await.unwrap_err();
        // It returns nothing, so nobody learns that this is lost.
        a.do_send(Ping);
        assert!(matches!(a.try_send(Ping), Err(SendError::Closed(Ping))));
    });
}

#[test]
fn f11_the_bound_of_an_inbox_is_the_childs_and_holds_for_all() {
    system(async {
        let seen = Arc::new(Seen::default());
        let (child, a) = specimen(ChildSpec { inbox_capacity: 16, ..eager("a") }, Manner::Well, &seen);
        let accepted = (0..1000).take_while(|_| a.tell(Ping).is_ok()).count();
        let by_clones = (0..1000).filter(|_| a.clone().tell(Ping).is_ok()).count();
        assert_eq!((accepted, by_clones, a.len()), (16, 0, 16));
        assert_eq!(a.tell(Ping), Err(TellError::Full));
        assert_eq!(a.ask(Ping, PATIENCE).await, Err(AskError::Full));
        let (root, _) = start(vec![child]);
        until("all are handled", || seen.pings() == 16).await;
        root.shutdown().await.unwrap();
        assert_eq!(a.tell(Ping), Err(TellError::Stopped), "a dead child says so");
    });
}
