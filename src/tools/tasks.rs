//! Tools for tasks.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use super::{
    call::{Answer, Call, form},
    error::ToolError,
    list::{Effect, Tool, Who},
    schema,
};
use crate::{
    coordination::{Bell, board::Asking},
    view::work::{TasksView, task},
};

/// How long a claim holds where nothing is said.
const LEASE: Duration = Duration::from_secs(60);
/// How long a call may wait.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(300);
/// Between two words to whoever waits.
pub(super) const WORD_EVERY: Duration = Duration::from_secs(1);

pub(super) const TOOLS: &[Tool] = &[Tool {
    name: "task_claim",
    title: "Claim tasks",
    about: "Takes ready tasks for yourself, the most urgent first, and gives each with its fencing token (`claim.fence`), which every later call on the \
            task must show. Answers with none when there is none, after waiting `wait_ms` for one. While you work, your heartbeat or task_renew keeps the claim.",
    effect: Effect::Adds,
    who: Who::Party,
    arguments: || schema::arguments::<Claim>(Who::Party),
    answer: schema::of::<TasksView<'_>>,
    run: |call, arguments| Box::pin(claim(call, arguments)),
}];

/// What a claim asks for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Claim {
    /// Of these categories alone; none: of all.
    #[serde(default)]
    categories: Vec<String>,
    /// At most so many.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 100, default = 1)]
    max: usize,
    /// How long the claim holds unless it is renewed.
    #[schema(minimum = 1, default = 60_000)]
    lease_ms: Option<u64>,
    /// How long to wait for a task when none is ready.
    #[serde(default)]
    #[schema(maximum = 300_000, default = 0)]
    wait_ms: u64,
}

fn one() -> usize {
    1
}

async fn claim(call: Call<'_>, arguments: Map<String, Value>) -> Result<Answer, ToolError> {
    let wanted: Claim = form(arguments)?;
    let party = call.party()?.clone();
    let began = Instant::now();
    let until = began + Duration::from_millis(wanted.wait_ms).min(WAIT_MAX);
    let mut bell = call.tools.desk.listen(Bell::Work(party.id.swarm.clone()));
    let asking = Asking {
        party,
        categories: wanted.categories.into_iter().map(Into::into).collect(),
        max: wanted.max,
        lease: wanted.lease_ms.map_or(LEASE, Duration::from_millis),
    };
    loop {
        bell.mark_unchanged();
        let asking = asking.clone();
        let claimed =
            call.tools.desk.call(move |cores, now| cores.board.claim(&mut cores.counter, &asking, now)).await?;
        if !claimed.is_empty() || Instant::now() >= until {
            return Ok(Answer::of(&TasksView { tasks: claimed.iter().map(|one| task(one)).collect() }));
        }
        call.wait(began, until, "a task that is ready", bell.changed()).await;
    }
}

impl Call<'_> {
    /// Waits for something until then at most, and says so every second.
    pub(super) async fn wait(&self, began: Instant, until: Instant, what: &str, for_it: impl Future) {
        let mut for_it = std::pin::pin!(for_it);
        loop {
            let now = Instant::now();
            let pause = until.saturating_duration_since(now).min(WORD_EVERY);
            if timeout(pause, &mut for_it).await.is_ok() || Instant::now() >= until {
                return;
            }
            self.patience.waits(began.elapsed(), what);
        }
    }
}
