//! Who hears of what.

use std::sync::Arc;

use hivekeeper_actors::{Broadcast, EventKind, EventSink, Heard, Root, Strategy, SupervisorFlags, ThreadEvent};

use crate::harness::*;

#[test]
fn every_listener_hears_every_event_from_its_subscription_on() {
    system(async {
        let (broadcast, record) = (Broadcast::new(100), Arc::new(Record::default()));
        let mut early = broadcast.subscribe();
        let sinks: Vec<Arc<dyn EventSink>> = vec![Arc::new(broadcast.clone()), Arc::clone(&record) as _];
        let (child, a) = probe("a");
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let root = Root::start(flags, vec![child], Arc::new(sinks)).unwrap();
        root.started().await.unwrap();
        let mut late = broadcast.subscribe();
        a.tell(Boom).unwrap();
        assert_eq!(answers(&a).await, 2);
        record.saw("a started").await;
        until("it is started again", || record.count("a started") == 2).await;
        for expected in record.lines() {
            let Heard::Event(event) = early.next().await else { panic!("nothing is missed here") };
            assert_eq!(format!("{} {}", event.id, short(&event.kind)), expected);
        }
        let Heard::Event(event) = late.next().await else { panic!("nothing is missed here") };
        assert!(matches!(event.kind, EventKind::Exited { .. }), "{event:?}");
        root.shutdown().await.unwrap();
        drop((root, broadcast));
        let mut rest = 0;
        while late.next().await != Heard::End {
            rest += 1;
        }
        assert!(rest >= 6, "{rest}");
    });
}

#[test]
fn a_slow_listener_is_told_how_much_it_missed() {
    system(async {
        let broadcast = Broadcast::new(8);
        let mut slow = broadcast.subscribe();
        let (child, a) = probe("a");
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let record = Arc::new(Record::default());
        let sinks: Vec<Arc<dyn EventSink>> = vec![Arc::new(broadcast.clone()), Arc::clone(&record) as _];
        let root = Root::start(flags, vec![child], Arc::new(sinks)).unwrap();
        for _ in 0..25 {
            a.tell(Boom).unwrap();
        }
        until("the last start", || record.count("a started") == 26).await;
        root.shutdown().await.unwrap();
        drop((root, broadcast));
        // Two for the first start, four for each crash, three for the stop.
        let Heard::Missed(missed) = slow.next().await else { panic!("it kept up") };
        let mut heard = 0;
        while let Heard::Event(_) = slow.next().await {
            heard += 1;
        }
        assert_eq!((missed, heard), (2 + 25 * 4 + 3 - 8, 8));
    });
}

/// What a thread does reaches every listener, too, next to what becomes of the children.
#[test]
fn listeners_hear_of_threads() {
    system(async {
        let (broadcast, record) = (Broadcast::new(8), Arc::new(Record::default()));
        let mut listener = broadcast.subscribe();
        let sinks: Vec<Arc<dyn EventSink>> = vec![Arc::new(broadcast.clone()), Arc::clone(&record) as _];
        let fenced = ThreadEvent::Fenced { thread: 3, leaked: 2 };
        sinks.thread(fenced);
        assert_eq!((listener.next().await, record.threads()), (Heard::Thread(fenced), vec![fenced]));
        drop((sinks, broadcast));
        assert_eq!(listener.next().await, Heard::End);
    });
}
