//! Children that come and go under one template.

use std::sync::{Arc, Weak};

use hivekeeper_actors::{Child, ChildId, ChildRef, ChildSpec, ExitReason, RestartType, Shutdown, Strategy, Template};
use parking_lot::Mutex;

use crate::harness::*;

/// A dynamic supervisor of this template as the only child of one that restarts nothing.
async fn pool<F, Args>(max_restarts: u32, spec: ChildSpec, role: F) -> (Sup, Pool<Args>)
where
    F: Fn(Args) -> Role + Send + Sync + 'static,
    Args: Clone + Send + Sync + 'static,
{
    let template = Template::new(spec, move |child, args| Worker::make(child, role(args)));
    let flags_of_pool = flags(Strategy::SimpleOneForOne, max_restarts);
    let (pool, children) = Child::dynamic(of_type("pool", RestartType::Temporary), flags_of_pool, template);
    (Sup::start(flags(Strategy::OneForOne, 0), vec![pool]).await, children)
}

type Pool<Args> = hivekeeper_actors::DynamicRef<Worker, Args>;

async fn start<Args: Clone + Send + Sync + 'static>(pool: &Pool<Args>, args: Args) -> (ChildId, ChildRef<Worker>) {
    soon(pool.start(args)).await.unwrap()
}

/// The pool gave up because of this child, and ended.
async fn pool_gave_up(sup: Sup, child: &ChildId) {
    let exits = sup.record.exits("pool");
    assert!(matches!(&exits[..], [ExitReason::GaveUp { child: at, .. }] if at == child), "{exits:?}");
    sup.stop().await;
}

/// Two children, of which the first fails, then the second, then the first again: the third failure is one too many.
#[test]
fn simple_one_for_one() {
    system(async {
        let (sup, pool) = pool(2, spec("child"), |()| Role::default()).await;
        let (first, failing) = start(&pool, ()).await;
        let (second, other) = start(&pool, ()).await;
        sup.end(first.as_str(), &failing, How::Died).await;
        two_of_which_one_was_restarted(&pool).await;
        sup.end(second.as_str(), &other, How::Died).await;
        assert_eq!(other.incarnation(), 2);
        sup.end(first.as_str(), &failing, How::Died).await;
        assert_eq!(sup.record.exits("child-2").last(), Some(&ExitReason::Shutdown));
        pool_gave_up(sup, &first).await;
    });
}

async fn two_of_which_one_was_restarted<Args: Clone + Send + Sync + 'static>(pool: &Pool<Args>) {
    let expected = [("child-1".into(), Is(2)), ("child-2".into(), Is(1))];
    assert_eq!(pool.supervisor().which().await, expected, "the other one stays who it is");
    assert_eq!(numbers(pool.count_children().await.unwrap()), [1, 2, 0, 2]);
}

/// What OTP's children say besides their pid has no place here. What they are given besides has: each is restarted with its own.
#[test]
fn simple_one_for_one_extra() {
    system(async {
        let given = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&given);
        let note = move |extra: &'static str| {
            given.lock().push(extra);
            Role::default()
        };
        let (sup, pool) = pool(2, spec("child"), note).await;
        let (first, failing) = start(&pool, "extra").await;
        let (second, other) = start(&pool, "other").await;
        sup.end(first.as_str(), &failing, How::Died).await;
        two_of_which_one_was_restarted(&pool).await;
        sup.end(second.as_str(), &other, How::Died).await;
        assert_eq!(*seen.lock(), ["extra", "other", "extra", "other"]);
        sup.end(first.as_str(), &failing, How::Died).await;
        pool_gave_up(sup, &first).await;
    });
}

/// All stop at once: it takes as long as the slowest, and who is slower than the deadline is dropped then.
#[test]
fn simple_one_for_one_shutdown() {
    system(async {
        let deadline = ChildSpec { shutdown: Shutdown::Deadline(MS * 2000), ..spec("child") };
        let (sup, pool) = pool(2, deadline, |slow| Role { slow, ..Role::default() }).await;
        for slow in [MS * 1000, MS * 1000, MS * 5000] {
            start(&pool, slow).await;
        }
        let record = Arc::clone(&sup.record);
        let took = sup.stop().await;
        assert!((MS * 2000..MS * 2100).contains(&took), "{took:?}");
        assert_eq!(record.exits("child-1"), [ExitReason::Shutdown]);
        assert_eq!(record.exits("child-2"), [ExitReason::Shutdown]);
        assert_eq!(record.exits("child-3"), [ExitReason::DeadlineExceeded]);
    });
}

#[test]
fn simple_one_for_one_escalation() {
    system(async {
        let (sup, pool) = pool(4, spec("child"), |once| Role { once, ..Role::default() }).await;
        let (first, failing) = start(&pool, true).await;
        start(&pool, false).await;
        sup.end(first.as_str(), &failing, How::Died).await;
        assert_eq!(sup.record.exits("child-1").len(), 5, "its own end and four failed starts");
        assert_eq!(sup.record.exits("child-2"), [ExitReason::Shutdown]);
        pool_gave_up(sup, &first).await;
    });
}

/// A supervisor whose first temporary child has died still keeps nothing of the next one. OTP asks for the start arguments of a living
/// one, too; here its factory holds them, one allocation a child, until it ends.
#[test]
fn simple_one_for_one_corruption() {
    system(async {
        let temporary = of_type("child", RestartType::Temporary);
        let (sup, pool) = pool(2, temporary, |_: Arc<[u8]>| Role::default()).await;
        for _ in 0..2 {
            let big: Arc<[u8]> = vec![0; 50_000].into();
            let kept: Weak<[u8]> = Arc::downgrade(&big);
            let (id, child) = start(&pool, big).await;
            sup.end(id.as_str(), &child, How::Died).await;
            assert!(kept.upgrade().is_none(), "the arguments outlive {id}");
            assert_eq!(pool.supervisor().which().await, []);
        }
        sup.stop().await;
    });
}
