//! The supervision tree.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use hivekeeper_actors::{
    AutoShutdown, ChildKind, ChildState, ExitReason, LastExit, Meltdown, OnExceeded, Supervision, TreeNode,
};
use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

use super::{time::Rfc3339, words};

/// One child as its supervisor sees it, with everything below it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TreeNode)]
pub struct TreeView<'a> {
    id: &'a str,
    path: &'a str,
    kind: &'static str,
    #[schema(value_type = Option<words::StrategyWord>)]
    strategy: Option<&'static str>,
    limit: Option<LimitView>,
    auto_shutdown: Option<&'static str>,
    #[schema(value_type = words::RestartWord)]
    restart: &'static str,
    significant: bool,
    #[schema(schema_with = states)]
    state: &'static str,
    since: Rfc3339,
    incarnation: u64,
    restarts: u64,
    restarts_in_window: u32,
    retry_at: Option<Rfc3339>,
    last_exit: Option<LastExitView>,
    #[schema(no_recursion)]
    children: Vec<TreeView<'a>>,
}

/// How many automatic restarts a supervisor allows all of its children together, and what follows when they need more: it `escalates`, or contains it:
/// its children are `failed`, and tried again after `retry_after_ms`.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Limit)]
pub struct LimitView {
    intensity: u32,
    period_ms: u64,
    restarts_in_window: u32,
    on_exceeded: &'static str,
    retry_after_ms: Option<u64>,
}

/// How an incarnation of an actor ended; `detail` says it in one line for people. An agent's own exit record is in its health document.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = LastExit)]
pub struct LastExitView {
    incarnation: u64,
    at: Rfc3339,
    cause: &'static str,
    detail: String,
}

/// Shows a tree whose ages were taken at `now`.
pub fn tree(node: &TreeNode, now: SystemTime) -> TreeView<'_> {
    TreeView {
        id: node.id.as_str(),
        path: &node.path,
        kind: match node.kind {
            ChildKind::Worker => "worker",
            ChildKind::Supervisor => "supervisor",
        },
        strategy: node.strategy.map(words::strategy),
        limit: node.supervision.as_ref().and_then(limit),
        auto_shutdown: node.supervision.as_ref().map(|told| auto_shutdown(told.auto_shutdown)),
        restart: words::restart(node.restart),
        significant: node.significant,
        state: state(node.state),
        since: Rfc3339(now.checked_sub(node.in_state_for).unwrap_or(SystemTime::UNIX_EPOCH)),
        incarnation: node.incarnation,
        restarts: node.restarts,
        restarts_in_window: node.restarts_in_window,
        retry_at: node.retry_in.and_then(|wait| now.checked_add(wait)).map(Rfc3339),
        last_exit: node.last_exit.as_ref().map(|exit| last_exit(exit, now)),
        children: node.children.iter().map(|child| tree(child, now)).collect(),
    }
}

/// How many children are in which state, at every depth, the states that none is in included.
pub fn count(node: &TreeNode) -> BTreeMap<&'static str, u64> {
    let mut counts = STATES.iter().map(|one| (state(*one), 0)).collect();
    count_into(&mut counts, node);
    counts
}

fn count_into(counts: &mut BTreeMap<&'static str, u64>, node: &TreeNode) {
    *counts.entry(state(node.state)).or_default() += 1;
    node.children.iter().for_each(|child| count_into(counts, child));
}

const STATES: [ChildState; 8] = [
    ChildState::Pending,
    ChildState::Starting,
    ChildState::Running,
    ChildState::BackingOff,
    ChildState::Stopping,
    ChildState::Stopped,
    ChildState::Completed,
    ChildState::Failed,
];

fn states() -> RefOr<Schema> {
    words::one_of("Where its supervisor sees it.", &STATES.map(state))
}

fn limit(told: &Supervision) -> Option<LimitView> {
    let intensity = told.intensity?;
    let (on_exceeded, retry_after) = match told.meltdown {
        Meltdown::Escalate => ("escalate", None),
        Meltdown::Contain(OnExceeded::Fail) => ("fail", None),
        Meltdown::Contain(OnExceeded::RetryAfter(after)) => ("retry_after", Some(after)),
    };
    Some(LimitView {
        intensity: intensity.max_restarts,
        period_ms: millis(intensity.period),
        restarts_in_window: told.restarts_in_window,
        on_exceeded,
        retry_after_ms: retry_after.map(millis),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn auto_shutdown(when: AutoShutdown) -> &'static str {
    match when {
        AutoShutdown::Never => "never",
        AutoShutdown::AnySignificant => "any_significant",
        AutoShutdown::AllSignificant => "all_significant",
    }
}

fn last_exit(exit: &LastExit, now: SystemTime) -> LastExitView {
    LastExitView {
        incarnation: exit.incarnation,
        at: Rfc3339(now.checked_sub(exit.age).unwrap_or(SystemTime::UNIX_EPOCH)),
        cause: cause(&exit.reason),
        detail: exit.reason.to_string(),
    }
}

fn state(state: ChildState) -> &'static str {
    match state {
        ChildState::Pending => "pending",
        ChildState::Starting => "starting",
        ChildState::Running => "running",
        ChildState::BackingOff => "backing_off",
        ChildState::Stopping => "stopping",
        ChildState::Stopped => "stopped",
        ChildState::Completed => "completed",
        ChildState::Failed => "failed",
    }
}

fn cause(reason: &ExitReason) -> &'static str {
    match reason {
        ExitReason::Normal => "normal",
        ExitReason::Shutdown => "shutdown",
        ExitReason::Panic { .. } => "panic",
        ExitReason::Error(_) => "error",
        ExitReason::Lost(_) => "lost",
        ExitReason::StartFailed(_) => "start_failed",
        ExitReason::StartTimeout => "start_timeout",
        ExitReason::Killed => "killed",
        ExitReason::DeadlineExceeded => "deadline_exceeded",
        ExitReason::ArbiterGone => "thread_ended",
        ExitReason::Stuck => "stuck",
        ExitReason::Overflow => "overflow",
        ExitReason::Ignored => "ignored",
        ExitReason::GaveUp { .. } => "gave_up",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use hivekeeper_actors::{Intensity, RestartType, Strategy};
    use serde_json::json;

    use super::*;

    #[test]
    fn ages_become_times_and_children_stay_in_order() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_233_900_000);
        let child = TreeNode {
            id: "coder-1".into(),
            path: "root/review/coder-1".into(),
            kind: ChildKind::Worker,
            strategy: None,
            supervision: None,
            restart: RestartType::Transient,
            significant: false,
            state: ChildState::BackingOff,
            in_state_for: Duration::from_millis(1),
            incarnation: 3,
            restarts: 2,
            restarts_in_window: 1,
            retry_in: Some(Duration::from_secs(1)),
            last_exit: Some(LastExit {
                reason: ExitReason::Panic { text: "boom".into(), location: "src/a.rs:1:2".into() },
                age: Duration::from_millis(2),
                incarnation: 2,
            }),
            children: vec![],
        };
        let root = TreeNode {
            id: "root".into(),
            path: "root".into(),
            kind: ChildKind::Supervisor,
            strategy: Some(Strategy::OneForAll),
            supervision: Some(Supervision {
                intensity: Some(Intensity { max_restarts: 5, period: Duration::from_secs(60) }),
                restarts_in_window: 1,
                meltdown: Meltdown::Contain(OnExceeded::RetryAfter(Duration::from_secs(600))),
                auto_shutdown: AutoShutdown::Never,
            }),
            restart: RestartType::Permanent,
            significant: false,
            state: ChildState::Running,
            in_state_for: Duration::MAX,
            incarnation: 1,
            restarts: 0,
            restarts_in_window: 0,
            retry_in: None,
            last_exit: None,
            children: vec![child],
        };
        let counted = count(&root);
        assert_eq!((counted["running"], counted["backing_off"], counted["failed"], counted.len()), (1, 1, 0, 8));
        assert_eq!(
            serde_json::to_value(tree(&root, now)).unwrap(),
            json!({
                "id": "root", "path": "root", "kind": "supervisor", "strategy": "one_for_all", "restart": "permanent",
                "limit": {
                    "intensity": 5, "period_ms": 60_000, "restarts_in_window": 1, "on_exceeded": "retry_after",
                    "retry_after_ms": 600_000
                },
                "auto_shutdown": "never", "significant": false,
                "state": "running", "since": "1970-01-01T00:00:00.000Z", "incarnation": 1, "restarts": 0,
                "restarts_in_window": 0, "retry_at": null, "last_exit": null,
                "children": [{
                    "id": "coder-1", "path": "root/review/coder-1", "kind": "worker", "strategy": null, "restart": "transient",
                    "limit": null, "auto_shutdown": null, "significant": false,
                    "state": "backing_off", "since": "2026-11-21T04:04:59.999Z", "incarnation": 3, "restarts": 2,
                    "restarts_in_window": 1, "retry_at": "2026-11-21T04:05:01.000Z",
                    "last_exit": {
                        "incarnation": 2, "at": "2026-11-21T04:04:59.998Z", "cause": "panic",
                        "detail": "panic at src/a.rs:1:2: boom"
                    },
                    "children": []
                }]
            })
        );
    }
}
