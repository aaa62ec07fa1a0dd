//! The form in which tasks, locks and messages lie in the store: JSON text, as the other [`forms`](super::forms).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    error::StoreError,
    forms::{from_json, millis, parse, time, to_json},
};
use crate::model::{
    Attempt, AttemptEnd, Claim, Delivery, Fence, Grant, Lock, LockMode, Message, MessageKind, OnDependencyFailure,
    Party, Priority, Retry, SendKey, Settled, Settlement, Task, TaskProgress, TaskSpec, TaskState,
};

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The one of these that has this word.
fn word<T: Copy>(all: &[T], name: fn(T) -> &'static str, found: &str) -> Result<T, StoreError> {
    let known = all.iter().copied().find(|one| name(*one) == found);
    known.ok_or_else(|| StoreError::Corrupt(format!("no such word: {found:?}")))
}

#[derive(Serialize, Deserialize)]
struct PartyForm {
    id: String,
    incarnation: Option<u64>,
}

impl PartyForm {
    fn of(party: &Party) -> Self {
        Self { id: party.id.to_string(), incarnation: party.incarnation }
    }

    fn read(self) -> Result<Party, StoreError> {
        Ok(Party { id: parse(&self.id)?, incarnation: self.incarnation })
    }
}

#[derive(Serialize, Deserialize)]
struct ClaimForm {
    holder: PartyForm,
    fence: u64,
    since: i64,
    lease_until: i64,
    lease_ms: u64,
    deadline: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct ProgressForm {
    percent: Option<u8>,
    note: Option<Arc<str>>,
    at: i64,
}

#[derive(Serialize, Deserialize)]
struct AttemptForm {
    holder: PartyForm,
    fence: u64,
    since: i64,
    until: i64,
    end: String,
    reason: Option<Arc<str>>,
}

#[derive(Serialize, Deserialize)]
struct TaskForm {
    id: String,
    swarm: String,
    title: Arc<str>,
    category: Arc<str>,
    priority: String,
    payload: Arc<str>,
    group: Option<Arc<str>>,
    goes_on: bool,
    retries: u32,
    backoff_ms: u64,
    backoff_max_ms: u64,
    attempt_timeout_ms: Option<u64>,
    depends_on: Vec<String>,
    number: u64,
    created_by: Option<PartyForm>,
    created_at: i64,
    key: Option<Arc<str>>,
    state: String,
    since: i64,
    reasons: Vec<String>,
    failures: u32,
    losses: u32,
    not_before: Option<i64>,
    claim: Option<ClaimForm>,
    progress: Option<ProgressForm>,
    result: Option<Arc<str>>,
    attempts: Vec<AttemptForm>,
}

/// A task as text.
pub(super) fn task_text(task: &Task) -> Result<String, StoreError> {
    let spec = &task.spec;
    let attempt = |attempt: &Attempt| AttemptForm {
        holder: PartyForm::of(&attempt.holder),
        fence: attempt.fence.0,
        since: millis(attempt.since),
        until: millis(attempt.until),
        end: attempt.end.word().to_owned(),
        reason: attempt.reason.clone(),
    };
    to_json(&TaskForm {
        id: task.id.to_string(),
        swarm: task.swarm.to_string(),
        title: Arc::clone(&spec.title),
        category: Arc::clone(&spec.category),
        priority: spec.priority.word().to_owned(),
        payload: Arc::clone(&spec.payload),
        group: spec.group.clone(),
        goes_on: spec.on_dependency_failure == OnDependencyFailure::Continue,
        retries: spec.retry.retries,
        backoff_ms: ms(spec.retry.backoff),
        backoff_max_ms: ms(spec.retry.backoff_max),
        attempt_timeout_ms: spec.attempt_timeout.map(ms),
        depends_on: task.depends_on.iter().map(ToString::to_string).collect(),
        number: task.number,
        created_by: task.created_by.as_ref().map(PartyForm::of),
        created_at: millis(task.created_at),
        key: task.key.clone(),
        state: task.state.word().to_owned(),
        since: millis(task.since),
        reasons: task.reasons.clone(),
        failures: task.failures,
        losses: task.losses,
        not_before: task.not_before.map(millis),
        claim: task.claim.as_ref().map(|claim| ClaimForm {
            holder: PartyForm::of(&claim.holder),
            fence: claim.fence.0,
            since: millis(claim.since),
            lease_until: millis(claim.lease_until),
            lease_ms: ms(claim.lease),
            deadline: claim.deadline.map(millis),
        }),
        progress: task.progress.as_ref().map(|progress| ProgressForm {
            percent: progress.percent,
            note: progress.note.clone(),
            at: millis(progress.at),
        }),
        result: task.result.clone(),
        attempts: task.attempts.iter().map(attempt).collect(),
    })
}

/// The task of [`task_text`].
pub(super) fn read_task(text: &str) -> Result<Task, StoreError> {
    let form: TaskForm = from_json(text)?;
    let claim = |form: ClaimForm| {
        Ok::<_, StoreError>(Claim {
            holder: form.holder.read()?,
            fence: Fence(form.fence),
            since: time(form.since),
            lease_until: time(form.lease_until),
            lease: Duration::from_millis(form.lease_ms),
            deadline: form.deadline.map(time),
        })
    };
    let attempt = |form: AttemptForm| {
        Ok::<_, StoreError>(Attempt {
            holder: form.holder.read()?,
            fence: Fence(form.fence),
            since: time(form.since),
            until: time(form.until),
            end: word(&AttemptEnd::ALL, AttemptEnd::word, &form.end)?,
            reason: form.reason,
        })
    };
    Ok(Task {
        id: parse(&form.id)?,
        swarm: parse(&form.swarm)?,
        spec: TaskSpec {
            title: form.title,
            category: form.category,
            priority: word(&Priority::ALL, Priority::word, &form.priority)?,
            payload: form.payload,
            group: form.group,
            on_dependency_failure: match form.goes_on {
                true => OnDependencyFailure::Continue,
                false => OnDependencyFailure::Block,
            },
            retry: Retry {
                retries: form.retries,
                backoff: Duration::from_millis(form.backoff_ms),
                backoff_max: Duration::from_millis(form.backoff_max_ms),
            },
            attempt_timeout: form.attempt_timeout_ms.map(Duration::from_millis),
        },
        depends_on: form.depends_on.iter().map(|id| parse(id)).collect::<Result<_, _>>()?,
        number: form.number,
        created_by: form.created_by.map(PartyForm::read).transpose()?,
        created_at: time(form.created_at),
        key: form.key,
        state: word(&TaskState::ALL, TaskState::word, &form.state)?,
        since: time(form.since),
        reasons: form.reasons,
        failures: form.failures,
        losses: form.losses,
        not_before: form.not_before.map(time),
        claim: form.claim.map(claim).transpose()?,
        progress: form.progress.map(|form| TaskProgress { percent: form.percent, note: form.note, at: time(form.at) }),
        result: form.result,
        attempts: form.attempts.into_iter().map(attempt).collect::<Result<_, _>>()?,
    })
}

#[derive(Serialize, Deserialize)]
struct LockForm {
    id: String,
    swarm: String,
    resources: Vec<Arc<str>>,
    mode: String,
    holder: PartyForm,
    number: u64,
    asked_at: i64,
    lease_ms: u64,
    note: Option<Arc<str>>,
    fence: u64,
    since: i64,
    lease_until: i64,
}

/// A lock that is held as text; who only waits has nothing to be written down.
pub(super) fn lock_text(lock: &Lock) -> Result<String, StoreError> {
    let Some(grant) = lock.grant else {
        return Err(StoreError::Conflict(format!("lock {} is not held", lock.id)));
    };
    to_json(&LockForm {
        id: lock.id.to_string(),
        swarm: lock.swarm.to_string(),
        resources: lock.resources.clone(),
        mode: lock.mode.word().to_owned(),
        holder: PartyForm::of(&lock.holder),
        number: lock.number,
        asked_at: millis(lock.asked_at),
        lease_ms: ms(lock.lease),
        note: lock.note.clone(),
        fence: grant.fence.0,
        since: millis(grant.since),
        lease_until: millis(grant.lease_until),
    })
}

/// The lock of [`lock_text`].
pub(super) fn read_lock(text: &str) -> Result<Lock, StoreError> {
    let form: LockForm = from_json(text)?;
    Ok(Lock {
        id: parse(&form.id)?,
        swarm: parse(&form.swarm)?,
        resources: form.resources,
        mode: word(&LockMode::ALL, LockMode::word, &form.mode)?,
        holder: form.holder.read()?,
        number: form.number,
        asked_at: time(form.asked_at),
        lease: Duration::from_millis(form.lease_ms),
        note: form.note,
        grant: Some(Grant { fence: Fence(form.fence), since: time(form.since), lease_until: time(form.lease_until) }),
        wait_until: None,
    })
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindForm {
    Note,
    Request { reply_by: i64 },
    Reply { to: String },
    Undelivered { of: String, reason: String },
}

#[derive(Serialize, Deserialize)]
struct DeliveryForm {
    to: PartyForm,
    fence: u64,
    redeliver_after_ms: u64,
    until: i64,
}

#[derive(Serialize, Deserialize)]
struct SettledForm {
    at: i64,
    how: String,
    fence: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct SendKeyForm {
    word: Arc<str>,
    digest: u64,
}

#[derive(Serialize, Deserialize)]
struct MessageForm {
    id: String,
    swarm: String,
    to: String,
    from: Option<PartyForm>,
    priority: String,
    topic: Arc<str>,
    body: Arc<str>,
    kind: KindForm,
    broadcast: bool,
    number: u64,
    sent_at: i64,
    deliveries: u32,
    delivery: Option<DeliveryForm>,
    not_before: Option<i64>,
    dead: Option<(i64, String)>,
    settled: Option<SettledForm>,
    key: Option<SendKeyForm>,
}

/// A copy of a message as text.
pub(super) fn message_text(message: &Message) -> Result<String, StoreError> {
    to_json(&MessageForm {
        id: message.id.to_string(),
        swarm: message.swarm.to_string(),
        to: message.to.to_string(),
        from: message.from.as_ref().map(PartyForm::of),
        priority: message.priority.word().to_owned(),
        topic: Arc::clone(&message.topic),
        body: Arc::clone(&message.body),
        kind: match &message.kind {
            MessageKind::Note => KindForm::Note,
            MessageKind::Request { reply_by } => KindForm::Request { reply_by: millis(*reply_by) },
            MessageKind::Reply { to } => KindForm::Reply { to: to.to_string() },
            MessageKind::Undelivered { of, reason } => {
                KindForm::Undelivered { of: of.to_string(), reason: reason.clone() }
            }
        },
        broadcast: message.broadcast,
        number: message.number,
        sent_at: millis(message.sent_at),
        deliveries: message.deliveries,
        delivery: message.delivery.as_ref().map(|delivery| DeliveryForm {
            to: PartyForm::of(&delivery.to),
            fence: delivery.fence.0,
            redeliver_after_ms: ms(delivery.redeliver_after),
            until: millis(delivery.until),
        }),
        not_before: message.not_before.map(millis),
        dead: message.dead.as_ref().map(|(at, why): &(SystemTime, String)| (millis(*at), why.clone())),
        settled: message.settled.map(|settled| SettledForm {
            at: millis(settled.at),
            how: settled.how.word().to_owned(),
            fence: settled.fence.map(|fence| fence.0),
        }),
        key: message.key.as_ref().map(|key| SendKeyForm { word: Arc::clone(&key.word), digest: key.digest }),
    })
}

/// The copy of [`message_text`].
pub(super) fn read_message(text: &str) -> Result<Message, StoreError> {
    let form: MessageForm = from_json(text)?;
    let delivery = |form: DeliveryForm| {
        let redeliver_after = Duration::from_millis(form.redeliver_after_ms);
        let (fence, until) = (Fence(form.fence), time(form.until));
        Ok::<_, StoreError>(Delivery { to: form.to.read()?, fence, redeliver_after, until })
    };
    let settled = |form: SettledForm| {
        let how = word(&Settlement::ALL, Settlement::word, &form.how)?;
        Ok::<_, StoreError>(Settled { at: time(form.at), how, fence: form.fence.map(Fence) })
    };
    Ok(Message {
        id: parse(&form.id)?,
        swarm: parse(&form.swarm)?,
        to: parse(&form.to)?,
        from: form.from.map(PartyForm::read).transpose()?,
        priority: word(&Priority::ALL, Priority::word, &form.priority)?,
        topic: form.topic,
        body: form.body,
        kind: match form.kind {
            KindForm::Note => MessageKind::Note,
            KindForm::Request { reply_by } => MessageKind::Request { reply_by: time(reply_by) },
            KindForm::Reply { to } => MessageKind::Reply { to: parse(&to)? },
            KindForm::Undelivered { of, reason } => MessageKind::Undelivered { of: parse(&of)?, reason },
        },
        broadcast: form.broadcast,
        number: form.number,
        sent_at: time(form.sent_at),
        deliveries: form.deliveries,
        delivery: form.delivery.map(delivery).transpose()?,
        not_before: form.not_before.map(time),
        dead: form.dead.map(|(at, why)| (time(at), why)),
        settled: form.settled.map(settled).transpose()?,
        key: form.key.map(|key| SendKey { word: key.word, digest: key.digest }),
    })
}
