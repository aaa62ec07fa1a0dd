//! Tools for whoever works on tasks.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    coordination::{
        Bell, Cores, Refused,
        board::{Asking, Board},
        locks::LockFilter,
    },
    model::{Fence, Party, SwarmName, Task, TaskId},
    tools::{
        call::{Answer, Call, WAIT_MAX},
        error::ToolError,
        form::{Arguments, form, time, within},
        list::{Effect, Tool, Who},
        pile::Pile,
        schema,
    },
    view::work::{BequestView, HeldView, Json, TaskIdText, TaskView, TasksView, brief, lock, task},
};

/// How long a claim holds where nothing is said.
const LEASE: Duration = Duration::from_secs(60);

pub(in crate::tools) const TOOLS: &[Tool] = &[
    Tool {
        name: "task_claim",
        title: "Claim tasks",
        about: "Takes ready tasks for yourself, the most urgent first, and gives each with its fencing token (`claim.fence`), which every later call on the \
                task must show. Answers with none when there is none, after waiting `wait_ms` for one. While you work, your heartbeat or task_renew keeps the claim.",
        effect: Effect::Adds,
        who: Who::Party,
        arguments: || schema::arguments::<Claim>(Who::Party),
        answer: schema::of::<TasksView<'_>>,
        run: |call, arguments| Box::pin(claim(call, arguments)),
    },
    Tool {
        name: "task_take",
        title: "Claim one task",
        about: "Takes this very task for yourself if it is ready, whatever comes before it. It answers like task_claim, with one task.",
        effect: Effect::Adds,
        who: Who::Party,
        arguments: || schema::arguments::<Take>(Who::Party),
        answer: schema::of::<TaskView<'_>>,
        run: |call, arguments| Box::pin(take(call, arguments)),
    },
    Tool {
        name: "task_renew",
        title: "Keep a claim",
        about: "Says that you still work on a task, which makes its lease run anew.",
        effect: Effect::AddsOnce,
        who: Who::Party,
        arguments: || schema::arguments::<Held>(Who::Party),
        answer: schema::of::<TaskView<'_>>,
        run: |call, arguments| Box::pin(renew(call, arguments)),
    },
    Tool {
        name: "task_progress",
        title: "Tell of progress",
        about: "Says how far you are with a task, which makes its lease run anew.",
        effect: Effect::AddsOnce,
        who: Who::Party,
        arguments: || schema::arguments::<Progress>(Who::Party),
        answer: schema::of::<TaskView<'_>>,
        run: |call, arguments| Box::pin(progress(call, arguments)),
    },
    Tool {
        name: "task_complete",
        title: "Complete a task",
        about: "Says that you have done a task, and leaves a result for others. Those that wait for it alone become ready. Saying it again is as good as once.",
        effect: Effect::AddsOnce,
        who: Who::Party,
        arguments: || schema::arguments::<Complete>(Who::Party),
        answer: schema::of::<TaskView<'_>>,
        run: |call, arguments| Box::pin(complete(call, arguments)),
    },
    Tool {
        name: "task_fail",
        title: "Fail a task",
        about: "Says that you could not do a task, and why. Another attempt follows after a pause if a retry is left; otherwise the task has failed, and those \
                that depend on it stay blocked.",
        effect: Effect::AddsOnce,
        who: Who::Party,
        arguments: || schema::arguments::<Fail>(Who::Party),
        answer: schema::of::<TaskView<'_>>,
        run: |call, arguments| Box::pin(fail(call, arguments)),
    },
    Tool {
        name: "task_release",
        title: "Give a task back",
        about: "Gives a claimed task back undone, for somebody else to claim. That is no failure.",
        effect: Effect::AddsOnce,
        who: Who::Swarm,
        arguments: || schema::arguments::<Held>(Who::Swarm),
        answer: schema::of::<TaskView<'_>>,
        run: |call, arguments| Box::pin(release(call, arguments)),
    },
    Tool {
        name: "task_cancel",
        title: "Cancel a task",
        about: "Calls off a task that has not ended, whoever holds it. Those that depend on it stay blocked unless they are to go on.",
        effect: Effect::Ends,
        who: Who::Swarm,
        arguments: || schema::arguments::<Cancel>(Who::Swarm),
        answer: schema::of::<TaskView<'_>>,
        run: |call, arguments| Box::pin(cancel(call, arguments)),
    },
    Tool {
        name: "task_retry",
        title: "Try a task again",
        about: "Lets a task that has failed or was cancelled be claimed again, with all its retries.",
        effect: Effect::Adds,
        who: Who::Swarm,
        arguments: || schema::arguments::<Again>(Who::Swarm),
        answer: schema::of::<TaskView<'_>>,
        run: |call, arguments| Box::pin(retry(call, arguments)),
    },
    Tool {
        name: "task_held",
        title: "What is mine",
        about: "Tells which tasks and locks you hold, with their tokens, and which tasks the incarnation before you held when it ended, and where they stand \
                now. Ask for it when you begin: what your predecessor held is no longer yours, and waits to be claimed again.",
        effect: Effect::Reads,
        who: Who::Party,
        arguments: || schema::arguments::<Nothing>(Who::Party),
        answer: schema::of::<HeldView>,
        run: |call, arguments| Box::pin(held(call, arguments)),
    },
];

/// What a claim asks for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Claim {
    /// Of these categories alone; none: of all.
    #[serde(default)]
    categories: Vec<String>,
    /// At most so many. Tasks with much payload come in several answers.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 100, default = 1)]
    max: usize,
    /// How long the claim holds unless it is renewed.
    #[schema(minimum = 1, maximum = 2_592_000_000_u64, default = 60_000)]
    lease_ms: Option<u64>,
    /// How long to wait for a task when none is ready.
    #[serde(default)]
    #[schema(maximum = 300_000, default = 0)]
    wait_ms: u64,
}

fn one() -> usize {
    1
}

async fn claim(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: Claim = form(arguments)?;
    let party = call.party()?.clone();
    let until = Instant::now() + time("wait_ms", wanted.wait_ms, WAIT_MAX)?;
    let mut bell = call.tools.desk.listen(Bell::Work(party.id.swarm.clone()));
    let asking = Asking {
        party,
        categories: wanted.categories.into_iter().map(Into::into).collect(),
        max: wanted.max,
        lease: wanted.lease_ms.map_or(LEASE, Duration::from_millis),
    };
    loop {
        bell.forget();
        let asking = asking.clone();
        let claimed = call.decide(move |cores, now| cores.board.claim(&mut cores.counter, &asking, now)).await?;
        if !claimed.is_empty() || Instant::now() >= until {
            return Ok(Answer::of(&TasksView { tasks: claimed.iter().map(|one| task(one)).collect() }));
        }
        call.attend_until(until, "a task that is ready", bell.rings()).await;
    }
}

/// Which task to take.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Take {
    /// The task.
    id: TaskIdText,
    /// How long the claim holds unless it is renewed.
    #[schema(minimum = 1, maximum = 2_592_000_000_u64, default = 60_000)]
    lease_ms: Option<u64>,
}

async fn take(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: Take = form(arguments)?;
    let lease = wanted.lease_ms.map_or(LEASE, Duration::from_millis);
    let asking = Asking { party: call.party()?.clone(), categories: Vec::new(), max: 1, lease };
    let taken =
        call.decide(move |cores, now| cores.board.claim_this(&mut cores.counter, wanted.id.0, &asking, now)).await?;
    Ok(Answer::of(&task(&taken)))
}

/// A claim.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Held {
    /// The task.
    id: TaskIdText,
    /// The token of the claim.
    fence: u64,
}

/// How far the holder of a claim is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// The task.
    id: TaskIdText,
    /// The token of your claim.
    fence: u64,
    /// How much is done, from 0 to 100.
    #[schema(maximum = 100)]
    percent: Option<u64>,
    /// What is going on, for people.
    #[schema(max_length = 2000)]
    note: Option<String>,
}

/// The end of an attempt, and what it has led to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Complete {
    /// The task.
    id: TaskIdText,
    /// The token of your claim.
    fence: u64,
    /// What you leave for others: any JSON value of at most 64 KiB.
    #[schema(value_type = Json, required = false)]
    result: Option<Json>,
}

/// The end of an attempt, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Fail {
    /// The task.
    id: TaskIdText,
    /// The token of your claim.
    fence: u64,
    /// Why, for people and for whoever tries next.
    #[schema(max_length = 2000)]
    reason: String,
}

/// A task to be called off.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Cancel {
    /// The task.
    id: TaskIdText,
    /// Why, for people.
    #[schema(max_length = 2000)]
    reason: Option<String>,
}

/// A task to be tried again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Again {
    /// The task.
    id: TaskIdText,
}

/// Nothing is to be said.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn renew(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Held { id, fence } = form(arguments)?;
    call.under(id, fence, |board, swarm, id, fence, now| board.renew(swarm, id, fence, now)).await
}

async fn progress(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Progress { id, fence, percent, note } = form(arguments)?;
    let percent = percent.map(|found| within("percent", found, 0, 100)).transpose()?;
    let percent = percent.and_then(|percent| u8::try_from(percent).ok());
    let note = note.map(Arc::from);
    call.under(id, fence, move |board, swarm, id, fence, now| board.progress(swarm, id, fence, percent, note, now))
        .await
}

async fn complete(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Complete { id, fence, result } = form(arguments)?;
    let result = result.map(|json| json.0);
    call.under(id, fence, |board, swarm, id, fence, now| board.complete(swarm, id, fence, result, now)).await
}

async fn fail(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Fail { id, fence, reason } = form(arguments)?;
    call.under(id, fence, |board, swarm, id, fence, now| board.fail(swarm, id, fence, reason.into(), now)).await
}

async fn release(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Held { id, fence } = form(arguments)?;
    call.under(id, fence, |board, swarm, id, fence, now| board.release(swarm, id, fence, now)).await
}

async fn cancel(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Cancel { id, reason } = form(arguments)?;
    let (swarm, reason) = (call.swarm()?.clone(), reason.map(Arc::from));
    let task = call.decide(move |cores, now| cores.board.cancel(&swarm, id.0, reason, now)).await?;
    Ok(Answer::of(&brief(&task)))
}

async fn retry(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Again { id } = form(arguments)?;
    let swarm = call.swarm()?.clone();
    let task = call.decide(move |cores, now| cores.board.retry(&swarm, id.0, now)).await?;
    Ok(Answer::of(&brief(&task)))
}

impl Call<'_> {
    /// Does something under a claim, which must be that of whoever asks, if he has said who he is.
    async fn under<F>(&self, id: TaskIdText, fence: u64, act: F) -> Result<Answer, ToolError>
    where
        F: FnOnce(&mut Board, &SwarmName, TaskId, Fence, std::time::SystemTime) -> Result<Arc<Task>, Refused>
            + Send
            + 'static,
    {
        let (swarm, party, id, fence) = (self.swarm()?.clone(), self.party.clone(), id.0, Fence(fence));
        let after = self
            .decide(move |cores: &mut Cores, now| {
                if let Some(party) = &party {
                    own(&cores.board, party, id, fence)?;
                }
                act(&mut cores.board, &swarm, id, fence, now)
            })
            .await?;
        Ok(Answer::of(&brief(&after)))
    }
}

/// Refuses a token that belongs to a claim of somebody else. Of one that belongs to none the rules say more.
fn own(board: &Board, party: &Party, id: TaskId, fence: Fence) -> Result<(), Refused> {
    let task = board.get(&party.id.swarm, id)?;
    let claims = task.claim.iter().map(|claim| (claim.fence, &claim.holder));
    let ended = task.attempts.iter().map(|attempt| (attempt.fence, &attempt.holder));
    match claims.chain(ended).find(|(of, _)| *of == fence) {
        Some((_, holder)) if holder != party => Err(Refused::StaleToken {
            shown: fence,
            why: format!("it is the token of a claim of {holder}, not of {party}"),
        }),
        _ => Ok(()),
    }
}

async fn held(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Nothing {} = form(arguments)?;
    let party = call.party()?.clone();
    let (tasks, locks, before) = call
        .decide(move |cores, _| {
            let tasks: Vec<_> = cores.board.held_by(&party).cloned().collect();
            let own = LockFilter {
                holder: Some(party.id.clone()),
                held: Some(true),
                limit: usize::MAX,
                ..LockFilter::default()
            };
            let locks = cores.locks.list(&party.id.swarm, &own)?;
            let locks: Vec<_> = locks.into_iter().map(|view| view.lock).filter(|lock| lock.holder == party).collect();
            Ok((tasks, locks, cores.board.bequest(&party.id)))
        })
        .await?;
    let mut piles = [Pile::one_of(3), Pile::one_of(3), Pile::one_of(3)];
    let all = tasks.iter().all(|one| piles[0].add(&brief(one)))
        & locks.iter().all(|one| piles[1].add(&lock(one)))
        & before.iter().all(|(fence, one)| piles[2].add(&BequestView::of(*fence, one)));
    let [tasks, locks, predecessor] = piles.map(Pile::documents);
    Ok(Answer::of(&HeldView { tasks, locks, predecessor, more: !all }))
}
