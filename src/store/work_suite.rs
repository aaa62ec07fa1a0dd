//! The contract of [`WorkStore`], to be run on every implementation.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;

use super::{
    suite::at,
    work::{WorkBatch, WorkKept, WorkStore},
};
use crate::model::{
    Attempt, AttemptEnd, Claim, Delivery, Fence, Grant, Lock, LockId, LockMode, Message, MessageId, MessageKind,
    OnDependencyFailure, Party, Priority, Retry, SendKey, Settled, Settlement, Task, TaskId, TaskProgress, TaskSpec,
    TaskState,
};

fn party(incarnation: Option<u64>) -> Party {
    Party { id: "review/coder-1".parse().unwrap(), incarnation }
}

/// A task in which everything is said that can be.
fn full_task(number: u64) -> Task {
    Task {
        id: TaskId::mint(),
        swarm: "review".parse().unwrap(),
        spec: TaskSpec {
            title: "say \"hallo\" \u{20ac}".into(),
            category: "code".into(),
            priority: Priority::Critical,
            payload: "{\"a\":[1,null]}".into(),
            group: Some("g".into()),
            on_dependency_failure: OnDependencyFailure::Continue,
            retry: Retry { retries: 3, backoff: Duration::from_millis(1), backoff_max: Duration::from_secs(9) },
            attempt_timeout: Some(Duration::from_secs(5)),
        },
        depends_on: vec![TaskId::mint(), TaskId::mint()],
        number,
        created_by: Some(party(None)),
        created_at: at(1),
        key: Some("k".into()),
        state: TaskState::Running,
        since: at(2),
        reasons: vec!["waiting: for it".to_owned()],
        failures: 1,
        losses: 2,
        not_before: Some(at(3)),
        claim: Some(Claim {
            holder: party(Some(4)),
            fence: Fence(u64::from(u32::MAX) * 7),
            since: at(4),
            lease_until: at(5),
            lease: Duration::from_millis(30_001),
            deadline: Some(at(6)),
        }),
        progress: Some(TaskProgress { percent: Some(50), note: Some("half".into()), at: at(7) }),
        result: Some("[]".into()),
        attempts: AttemptEnd::ALL
            .map(|end| Attempt {
                holder: party(Some(1)),
                fence: Fence(2),
                since: at(8),
                until: at(9),
                end,
                reason: Some("why".into()),
            })
            .into(),
    }
}

/// One in which nothing is said that can be left out.
fn bare_task(number: u64, state: TaskState, priority: Priority) -> Task {
    let full = full_task(number);
    Task {
        spec: TaskSpec {
            priority,
            group: None,
            on_dependency_failure: OnDependencyFailure::Block,
            attempt_timeout: None,
            ..full.spec
        },
        depends_on: Vec::new(),
        created_by: None,
        key: None,
        state,
        reasons: Vec::new(),
        not_before: None,
        claim: None,
        progress: None,
        result: None,
        attempts: Vec::new(),
        ..full
    }
}

fn lock(number: u64, mode: LockMode, note: Option<&str>) -> Lock {
    Lock {
        id: LockId::mint(),
        swarm: "review".parse().unwrap(),
        resources: vec!["src/".into(), "docs/a.md".into()],
        mode,
        holder: party(Some(3)),
        number,
        asked_at: at(1),
        lease: Duration::from_secs(30),
        note: note.map(Into::into),
        grant: Some(Grant { fence: Fence(9), since: at(2), lease_until: at(3) }),
        wait_until: None,
    }
}

fn message(number: u64, to: &str, kind: MessageKind) -> Message {
    Message {
        id: MessageId::mint(),
        swarm: "review".parse().unwrap(),
        to: to.parse().unwrap(),
        from: Some(party(Some(2))),
        priority: Priority::Low,
        topic: "t".into(),
        body: "\"x\"".into(),
        kind,
        broadcast: true,
        number,
        sent_at: at(4),
        deliveries: 2,
        delivery: Some(Delivery {
            to: party(None),
            fence: Fence(8),
            redeliver_after: Duration::from_millis(1_500),
            until: at(5),
        }),
        not_before: Some(at(7)),
        dead: Some((at(6), "undeliverable: five times".to_owned())),
        settled: Some(Settled { at: at(8), how: Settlement::Answered, fence: Some(Fence(8)) }),
        key: Some(SendKey { word: "k".into(), digest: u64::MAX }),
    }
}

/// Runs the whole contract; `make` gives an empty store and what keeps it alive.
pub async fn contract<K>(make: impl Fn() -> (K, Box<dyn WorkStore>)) {
    let (_keep, store) = make();
    documents_come_back_as_they_were(&*store).await;
    let (_keep, store) = make();
    the_last_word_counts_and_what_is_gone_is_gone(&*store).await;
    let (_keep, store) = make();
    a_counter_never_goes_back(&*store).await;
    let (_keep, store) = make();
    a_batch_is_kept_whole_or_not_at_all(&*store).await;
    let (_keep, store) = make();
    what_nobody_waited_for_is_read_or_never_written(&*store).await;
}

async fn documents_come_back_as_they_were(store: &dyn WorkStore) {
    assert_eq!(store.load().await.unwrap(), WorkKept::default());
    let mut tasks = vec![full_task(1)];
    tasks.extend(TaskState::ALL.iter().zip(2..).map(|(state, number)| bare_task(number, *state, Priority::Normal)));
    tasks.extend(
        Priority::ALL.iter().zip(20..).map(|(priority, number)| bare_task(number, TaskState::Ready, *priority)),
    );
    let locks: Vec<Lock> = LockMode::ALL.iter().zip(30..).map(|(mode, number)| lock(number, *mode, None)).collect();
    let kinds = [
        MessageKind::Note,
        MessageKind::Request { reply_by: at(77) },
        MessageKind::Reply { to: MessageId::mint() },
        MessageKind::Undelivered { of: MessageId::mint(), reason: "no_reply: in time".to_owned() },
    ];
    let mut messages: Vec<Message> =
        kinds.into_iter().zip(40..).map(|(kind, number)| message(number, "a", kind)).collect();
    let bare =
        Message { from: None, delivery: None, dead: None, broadcast: false, ..message(50, "a", MessageKind::Note) };
    let bare = Message { not_before: None, settled: None, key: None, ..bare };
    messages.push(bare.clone());
    messages.push(Message { to: "b".parse().unwrap(), ..bare });
    let batch = WorkBatch {
        tasks: tasks.iter().rev().cloned().map(Arc::new).collect(),
        locks: locks.iter().rev().cloned().map(Arc::new).collect(),
        messages: messages.iter().rev().cloned().map(Arc::new).collect(),
        counter: 60,
        ..WorkBatch::default()
    };
    store.commit(batch).await.unwrap();
    assert_eq!(store.load().await.unwrap(), WorkKept { tasks, locks, messages, counter: 60 });
}

async fn the_last_word_counts_and_what_is_gone_is_gone(store: &dyn WorkStore) {
    let (mut task, other) = (full_task(1), full_task(2));
    let (held, ended) = (lock(3, LockMode::Write, Some("note")), lock(4, LockMode::Read, None));
    let copies = ["a", "b"].map(|to| Message { to: to.parse().unwrap(), ..message(5, to, MessageKind::Note) });
    let copies = copies.clone().map(|copy| Message { id: copies[0].id, ..copy });
    let first = WorkBatch {
        tasks: vec![Arc::new(task.clone()), Arc::new(other.clone())],
        locks: vec![Arc::new(held.clone()), Arc::new(ended.clone())],
        messages: copies.iter().cloned().map(Arc::new).collect(),
        counter: 5,
        ..WorkBatch::default()
    };
    store.commit(first.clone()).await.unwrap();
    // Once more does no harm.
    store.commit(first).await.unwrap();
    task.state = TaskState::Done;
    let second = WorkBatch {
        tasks: vec![Arc::new(task.clone())],
        tasks_gone: vec![other.id, TaskId::mint()],
        locks_gone: vec![ended.id],
        messages_gone: vec![(copies[0].id, copies[0].to.clone())],
        counter: 6,
        ..WorkBatch::default()
    };
    store.commit(second).await.unwrap();
    let kept = WorkKept { tasks: vec![task], locks: vec![held], messages: vec![copies[1].clone()], counter: 6 };
    assert_eq!(store.load().await.unwrap(), kept);
}

async fn a_counter_never_goes_back(store: &dyn WorkStore) {
    for counter in [7, 3, 0] {
        store.commit(WorkBatch { counter, ..WorkBatch::default() }).await.unwrap();
    }
    assert_eq!(store.load().await.unwrap().counter, 7);
}

async fn a_batch_is_kept_whole_or_not_at_all(store: &dyn WorkStore) {
    // One that only waits is nothing to be written down.
    let waits = Lock { grant: None, ..lock(2, LockMode::Write, None) };
    let batch = WorkBatch {
        tasks: vec![Arc::new(full_task(1))],
        locks: vec![Arc::new(waits)],
        counter: 9,
        ..WorkBatch::default()
    };
    assert!(store.commit(batch).await.is_err());
    assert_eq!(store.load().await.unwrap(), WorkKept::default());
}

/// Whoever reads everything anew goes on from what he has read, so nothing that was begun before may come behind that.
async fn what_nobody_waited_for_is_read_or_never_written(store: &dyn WorkStore) {
    for round in 0..5 {
        let tasks = (1..200).map(|number| Arc::new(full_task(round * 1000 + number))).collect();
        // Begun, and given up at once.
        let _ = store.commit(WorkBatch { tasks, ..WorkBatch::default() }).now_or_never();
        let read = store.load().await.unwrap();
        store.commit(WorkBatch { counter: round + 1, ..WorkBatch::default() }).await.unwrap();
        assert_eq!(store.load().await.unwrap().tasks.len(), read.tasks.len(), "written behind the reading");
    }
}
