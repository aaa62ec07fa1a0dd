//! The health actor without an actor, for the simulation: turns at times of its own, and falls in the middle of one.

use std::time::Instant;

use super::{
    handle::{Handle, Options},
    intake::Item,
    report::{Now, Report},
};
use crate::model::{AgentId, HiveHealth};

/// Where in its turn the actor falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fall {
    /// So many items were folded; the documents are not shown and nothing is told.
    Folding(usize),
    /// Everything is folded and shown; so many changes were told.
    Telling(usize),
}

/// An item that was folded.
#[derive(Debug, Clone)]
pub(crate) enum Folded {
    Report(Box<Report>),
    Burst(AgentId),
    Said(AgentId),
    Refused(u64),
}

/// A hive of which nothing is known, at a time.
pub(crate) fn begin(options: Options, now: Now) -> Handle {
    Handle::begin(options, now)
}

/// Somebody reports.
pub(crate) fn report(handle: &Handle, now: Now, report: Report) {
    handle.report_at(report, now.mono);
}

/// One turn of the actor. `None` instead of a fall is a whole one. Returns what was folded, in order, and whether silence was judged behind it.
pub(crate) fn turn(handle: &Handle, now: Now, fall: Option<Fall>) -> (Vec<Folded>, bool) {
    let shared = &handle.shared;
    let work = &mut *shared.work.lock();
    shared.fetch(work);
    work.fold.wake(now);
    let mut folded = Vec::new();
    let items_max = if let Some(Fall::Folding(items)) = fall { items } else { usize::MAX };
    while folded.len() < items_max
        && let Some(item) = work.items.pop_front()
    {
        folded.push(match &item {
            Item::Report(report) => Folded::Report(Box::new(report.clone())),
            Item::Burst(agent, _) => Folded::Burst(agent.clone()),
            Item::Said(telemetry) => Folded::Said(telemetry.agent.clone()),
            Item::Refused(_, messages) => Folded::Refused(*messages),
        });
        work.fold_item(now, item);
    }
    if let Some(Fall::Folding(_)) = fall {
        return (folded, false);
    }
    shared.judge(work, now);
    shared.show(work, now);
    let told_max = if let Some(Fall::Telling(told)) = fall { told } else { usize::MAX };
    for _ in 0..told_max {
        let Some(change) = work.changes.pop_front() else { break };
        shared.tell(now, change);
    }
    (folded, true)
}

/// When the actor would wake by itself.
pub(crate) fn deadline(handle: &Handle) -> Instant {
    handle.shared.work.lock().fold.next_deadline()
}

/// The documents as they are folded, shown or not.
pub(crate) fn documents(handle: &Handle) -> HiveHealth {
    handle.shared.work.lock().fold.hive()
}
