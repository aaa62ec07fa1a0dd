//! Families of work that agents share. Pure.

use std::{collections::BTreeMap, time::Duration};

use super::text::Text;
use crate::{
    coordination::WorkCounts,
    model::{SwarmName, TaskState},
    tools::Called,
};

/// What there is of work.
pub(super) fn work(text: &mut Text, counts: &BTreeMap<SwarmName, WorkCounts>) {
    let mut family = text.gauge("hivekeeper_tasks", "Tasks of a swarm that are in a state.");
    for (swarm, counts) in counts {
        for state in TaskState::ALL {
            family.of(&[("swarm", swarm.as_str()), ("state", state.word())], counts.tasks.of(state) as u64);
        }
    }
    let mut family = text.gauge("hivekeeper_locks", "Locks of a swarm that are held, and those that wait for one.");
    for (swarm, counts) in counts {
        for (state, count) in [("held", counts.locks.held), ("waiting", counts.locks.waiting)] {
            family.of(&[("swarm", swarm.as_str()), ("state", state)], count as u64);
        }
    }
    let help =
        "Messages of a swarm that wait, that are with their recipients and not acknowledged, or that are dead letters.";
    let mut family = text.gauge("hivekeeper_messages", help);
    for (swarm, counts) in counts {
        let of = counts.messages;
        for (state, count) in [("waiting", of.waiting), ("delivered", of.delivered), ("dead", of.dead)] {
            family.of(&[("swarm", swarm.as_str()), ("state", state)], count as u64);
        }
    }
}

/// What was asked for.
pub(super) fn calls(text: &mut Text, called: &[Called]) {
    let help = "Calls of a tool, by any door, that ended with ok, with the code of a refusal, or with left: nobody waited for the answer.";
    let mut family = text.counter("hivekeeper_tool_calls", help);
    for one in called {
        family.of(&[("tool", one.tool), ("code", one.outcome)], one.count);
    }
    let mut sums: BTreeMap<&'static str, (Duration, u64)> = BTreeMap::new();
    for one in called {
        let (time, count) = sums.entry(one.tool).or_default();
        *time += one.time;
        *count += one.count;
    }
    let sums = sums.into_iter().map(|(tool, (time, count))| (tool, time.as_secs_f64(), count));
    let help = "How long calls of a tool took, the time included in which they waited for something.";
    text.summaries("hivekeeper_tool_seconds", help, "tool", sums);
}
