//! Tools for locks.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    call::{Answer, Call, WAIT_MAX},
    error::ToolError,
    form::{Arguments, form, time, within, wrong},
    list::{Effect, Tool, Who},
    pile::Pile,
    schema,
};
use crate::{
    coordination::{
        Cores, Refused,
        locks::{Ask, Change, LockFilter, Locks},
    },
    model::{AgentId, Fence, LockId, LockMode, Party},
    view::work::{LockIdText, LockModeWord, LockPageView, LockView, ReleasedView, in_the_way, lock, lock_seen},
};

/// How long a lock is held where nothing is said.
const LEASE: Duration = Duration::from_secs(60);
/// Locks in one answer.
const LISTED_MAX: usize = 1_000;

pub(super) const TOOLS: &[Tool] = &[
    Tool {
        name: "lock_acquire",
        title: "Lock something",
        about: "Locks names or paths for you, all at once or none, and waits for them up to `wait_ms`. A path means everything below it, too. `read` goes beside \
                other readers; `write` keeps everybody else out; `exclusive` keeps out your own other locks, too. The answer has the fencing token (`fence`). \
                Those who would wait for each other for ever are refused with `deadlock`: give back what you hold and begin again.",
        effect: Effect::Adds,
        who: Who::Party,
        arguments: || schema::arguments::<Acquire>(Who::Party),
        answer: schema::of::<LockView<'_>>,
        run: |call, arguments| Box::pin(acquire(call, arguments)),
    },
    Tool {
        name: "lock_change",
        title: "Change a lock",
        about: "Lets a lock that you hold allow more or less: `read` to `write`, or back. More gives a new token, and what was there is kept when it is refused.",
        effect: Effect::AddsOnce,
        who: Who::Party,
        arguments: || schema::arguments::<ChangeMode>(Who::Party),
        answer: schema::of::<LockView<'_>>,
        run: |call, arguments| Box::pin(change(call, arguments)),
    },
    Tool {
        name: "lock_renew",
        title: "Keep a lock",
        about: "Makes the lease of a lock run anew. Your heartbeat does so as well.",
        effect: Effect::AddsOnce,
        who: Who::Party,
        arguments: || schema::arguments::<Held>(Who::Party),
        answer: schema::of::<LockView<'_>>,
        run: |call, arguments| Box::pin(renew(call, arguments)),
    },
    Tool {
        name: "lock_release",
        title: "Give a lock back",
        about: "Gives a lock back. Saying it again is as good as once.",
        effect: Effect::AddsOnce,
        who: Who::Swarm,
        arguments: || schema::arguments::<Held>(Who::Swarm),
        answer: schema::of::<ReleasedView>,
        run: |call, arguments| Box::pin(release(call, arguments)),
    },
    Tool {
        name: "lock_check",
        title: "Check a fencing token",
        about: "Tells whether whoever shows this token may write to this name or path now, and answers with his lock. For whoever guards what is written to: a \
                token that is refused belongs to somebody who no longer has the right.",
        effect: Effect::Reads,
        who: Who::Swarm,
        arguments: || schema::arguments::<Check>(Who::Swarm),
        answer: schema::of::<LockView<'_>>,
        run: |call, arguments| Box::pin(check(call, arguments)),
    },
    Tool {
        name: "lock_list",
        title: "List locks",
        about: "Lists the locks of the swarm, held and waited for, in the order of asking, and who stands in whose way. When `next` is not null there may be more: \
                call again with it as `after`.",
        effect: Effect::Reads,
        who: Who::Swarm,
        arguments: || schema::arguments::<List>(Who::Swarm),
        answer: schema::of::<LockPageView>,
        run: |call, arguments| Box::pin(list(call, arguments)),
    },
];

/// What to lock.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Acquire {
    /// Names or paths, each with everything below it.
    #[schema(min_items = 1, max_items = 64)]
    resources: Vec<String>,
    /// What the lock is to allow.
    #[schema(value_type = LockModeWord, required = false, default = "write")]
    mode: Option<LockModeWord>,
    /// How long it is held unless it is renewed.
    #[schema(minimum = 1, maximum = 86_400_000, default = 60_000)]
    lease_ms: Option<u64>,
    /// How long to wait for it; 0: now or not at all.
    #[serde(default)]
    #[schema(maximum = 300_000, default = 0)]
    wait_ms: u64,
    /// What for, for people.
    #[schema(max_length = 1024)]
    note: Option<String>,
}

/// What a lock is to allow from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeMode {
    /// The lock.
    id: LockIdText,
    /// Its token.
    fence: u64,
    /// What it is to allow.
    mode: LockModeWord,
    /// How long to wait where that is more than it allows now; 0: now or not at all.
    #[serde(default)]
    #[schema(maximum = 300_000, default = 0)]
    wait_ms: u64,
}

/// A lock that is held.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Held {
    /// The lock.
    id: LockIdText,
    /// Its token.
    fence: u64,
}

/// A token that was shown.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Check {
    /// What is to be written to.
    #[schema(min_length = 1, max_length = 512)]
    resource: String,
    /// The token.
    fence: u64,
}

/// Which locks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct List {
    /// Only those that overlap this name or path.
    #[schema(min_length = 1, max_length = 512)]
    resource: Option<String>,
    /// Only those of this agent, whichever incarnation, or of this client.
    holder: Option<String>,
    /// Only those that are held, or, if false, only those that wait for something.
    held: Option<bool>,
    /// Only those behind this number: `next` of the answer before.
    #[serde(default)]
    after: u64,
    /// At most so many.
    #[serde(default = "listed")]
    #[schema(minimum = 1, maximum = 1000, default = 100)]
    limit: usize,
}

fn listed() -> usize {
    100
}

async fn acquire(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: Acquire = form(arguments)?;
    let ask = Ask {
        id: LockId::mint(),
        resources: wanted.resources.into_iter().map(Arc::from).collect(),
        mode: wanted.mode.map_or(LockMode::Write, |word| word.0),
        holder: call.party()?.clone(),
        lease: wanted.lease_ms.map_or(LEASE, Duration::from_millis),
        wait: time("wait_ms", wanted.wait_ms, WAIT_MAX)?,
        note: wanted.note.map(Arc::from),
    };
    let given = call.attend("the lock", call.tools.desk.lock(ask)).await?;
    Ok(Answer::of(&lock(&given)))
}

async fn change(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: ChangeMode = form(arguments)?;
    let (party, id, fence) = (call.party()?.clone(), wanted.id.0, Fence(wanted.fence));
    let wait = time("wait_ms", wanted.wait_ms, WAIT_MAX)?;
    let swarm = party.id.swarm.clone();
    call.decide(move |cores, _| own(&cores.locks, &party, id, fence)).await?;
    let change = Change { id, fence, mode: wanted.mode.0, wait };
    let given = call.attend("the lock to allow more", call.tools.desk.change_lock(swarm, change)).await?;
    Ok(Answer::of(&lock(&given)))
}

async fn renew(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Held { id, fence } = form(arguments)?;
    let party = call.party()?.clone();
    let renewed = call
        .decide(move |cores, now| {
            own(&cores.locks, &party, id.0, Fence(fence))?;
            cores.locks.renew(&party.id.swarm, id.0, Fence(fence), now)
        })
        .await?;
    Ok(Answer::of(&lock(&renewed)))
}

async fn release(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Held { id, fence } = form(arguments)?;
    let (swarm, party) = (call.swarm()?.clone(), call.party.clone());
    call.decide(move |cores: &mut Cores, now| {
        if let Some(party) = &party {
            own(&cores.locks, party, id.0, Fence(fence))?;
        }
        cores.locks.release(&mut cores.counter, &swarm, id.0, Fence(fence), now)
    })
    .await?;
    Ok(Answer::of(&ReleasedView { id, released: true }))
}

/// Refuses the token of a lock that somebody else holds. Of one that nobody holds the rules say more.
fn own(locks: &Locks, party: &Party, id: LockId, fence: Fence) -> Result<(), Refused> {
    match locks.get(&party.id.swarm, id) {
        Some(view) if view.lock.holder != *party => {
            let why = format!("it is a lock of {}, not of {party}", view.lock.holder);
            Err(Refused::StaleToken { shown: fence, why })
        }
        _ => Ok(()),
    }
}

async fn check(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: Check = form(arguments)?;
    let (swarm, resource) = (call.swarm()?.clone(), Arc::from(wanted.resource));
    let held = call.decide(move |cores, now| cores.locks.check(&swarm, &resource, Fence(wanted.fence), now)).await?;
    Ok(Answer::of(&lock(&held)))
}

async fn list(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: List = form(arguments)?;
    let swarm = call.swarm()?.clone();
    let holder = match wanted.holder {
        Some(text) => {
            let name =
                text.parse().map_err(|_| wrong("holder", format!("{text:?}"), "the name of an agent or a client"))?;
            Some(AgentId { swarm: swarm.clone(), name })
        }
        None => None,
    };
    let limit = within("limit", wanted.limit, 1, LISTED_MAX)?;
    let resource = wanted.resource.map(Arc::from);
    // One more than wanted tells whether there are more.
    let filter = LockFilter { resource, holder, held: wanted.held, after: wanted.after, limit: limit + 1 };
    let found = call.decide(move |cores, _| cores.locks.list(&swarm, &filter)).await?;
    let (mut pile, mut next, mut last) = (Pile::one_of(1), None, wanted.after);
    for view in &found {
        let behind = view.behind.iter().map(|one| in_the_way(one.lock, &one.holder, one.waits)).collect();
        if pile.len() == limit || !pile.add(&lock_seen(&view.lock, view.wants, behind)) {
            next = Some(last);
            break;
        }
        last = view.lock.number;
    }
    Ok(Answer::of(&LockPageView { locks: pile.documents(), next }))
}
