//! What the limits no longer cover.

use std::{os::unix::fs::FileExt, path::PathBuf};

use super::{
    batch,
    book::LogLimits,
    index::{Agent, Index, Segment, head_line},
};
use crate::model::AgentId;

/// Forgets the oldest segments, of the agent that has just written and then of all, until the limits hold; `total` is that of all. Returns the files to be
/// removed.
pub(super) fn retain(
    index: &mut Index,
    limits: &LogLimits,
    total: u64,
    written: &AgentId,
    dir_of: impl Fn(&AgentId) -> PathBuf,
) -> Vec<PathBuf> {
    let mut gone = Vec::new();
    while index.agent(written).bytes() > limits.bytes_per_agent
        && let Some(path) = forget_oldest(index, written, &dir_of)
    {
        gone.push(path);
    }
    gone.extend(make_room(index, total, Some(written), dir_of));
    gone
}

/// Forgets the oldest segments of all until they take no more than `total`; not that which was just `written`.
pub(super) fn make_room(
    index: &mut Index,
    total: u64,
    written: Option<&AgentId>,
    dir_of: impl Fn(&AgentId) -> PathBuf,
) -> Vec<PathBuf> {
    let mut gone = Vec::new();
    while index.bytes > total {
        let closed = |agent: &Agent| agent.segments.len() > 1;
        let victim = oldest(index, |_, agent| closed(agent)).or_else(|| {
            // Only the segments that are written to are left: those that no one has written to for longest make room, too.
            let idle = oldest(index, |id, agent| Some(id) != written && agent.first_kept() > 0)?;
            begin_next(index, &idle, &dir_of)?;
            Some(idle)
        });
        let Some(path) = victim.and_then(|id| forget_oldest(index, &id, &dir_of)) else { break };
        gone.push(path);
    }
    gone
}

/// Whose first segment was written to longest ago.
fn oldest(index: &Index, eligible: impl Fn(&AgentId, &Agent) -> bool) -> Option<AgentId> {
    let eligible = index.agents.iter().filter(|(id, agent)| eligible(id, agent));
    let by_age = eligible.filter_map(|(id, agent)| Some((agent.segments.front()?.written, id)));
    by_age.min().map(|(_, id)| id.clone())
}

/// Drops the first segment, unless it is the last.
fn forget_oldest(index: &mut Index, id: &AgentId, dir_of: impl Fn(&AgentId) -> PathBuf) -> Option<PathBuf> {
    let agent = index.agent(id);
    if agent.segments.len() < 2 {
        return None;
    }
    let segment = agent.segments.pop_front()?;
    index.bytes = index.bytes.saturating_sub(segment.bytes);
    Some(segment.path(&dir_of(id)))
}

/// Begins a segment without a line: its head keeps the numbers going.
fn begin_next(index: &mut Index, id: &AgentId, dir_of: impl Fn(&AgentId) -> PathBuf) -> Option<()> {
    let agent = index.agent(id);
    let first = agent.last + 1;
    let head = head_line(id, first, &agent.seqs);
    let file = batch::begin(&Segment::path_of(&dir_of(id), first)).ok()?;
    file.write_all_at(head.as_bytes(), 0).ok()?;
    agent.file = None;
    agent.segments.push_back(Segment::new(first, head.len() as u64));
    index.bytes += head.len() as u64;
    Some(())
}
