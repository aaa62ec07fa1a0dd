//! The one thread that writes.

use std::{fs, io, path::PathBuf, time::SystemTime};

use super::{
    batch::Batch,
    book::{Job, Shared},
    index::Index,
    line::NewLine,
    retain,
};
use crate::{model::AgentId, store::error::StoreError};

/// Segments that stay open between writes. With a common limit of 1024 open files a daemon needs most of them for its agents' channels.
const OPEN_FILES_MAX: usize = 128;

/// Carries jobs out until the queue is closed and empty.
pub(super) fn run(shared: &Shared) {
    let mut count = 0;
    loop {
        let (jobs, records, dropped) = {
            let mut queue = shared.queue.lock();
            while queue.jobs.is_empty() && queue.records.is_empty() {
                if queue.closed {
                    return;
                }
                shared.wake.wait(&mut queue);
            }
            (queue.record_count, queue.record_bytes) = (0, 0);
            (std::mem::take(&mut queue.jobs), std::mem::take(&mut queue.records), std::mem::take(&mut queue.dropped))
        };
        for (agent, dropped) in dropped {
            shared.index.lock().agent(&agent).lost.dropped += dropped;
        }
        for job in jobs {
            count += 1;
            match job {
                Job::Append { agent, incarnation, lines, reply, _room } => {
                    let written = append(shared, &agent, incarnation, &lines, count);
                    // The caller may have gone away.
                    let _ = reply.send(written);
                }
                Job::MakeRoom => make_room(shared),
                Job::Remove { agent, reply } => {
                    let _ = reply.send(remove(shared, &agent));
                }
            }
        }
        let mut records = records.into_iter().peekable();
        while let Some(first) = records.next() {
            let (agent, incarnation) = (first.agent, first.incarnation);
            let mut lines: Vec<NewLine> = first.records.iter().map(|one| NewLine::record(one, first.read_at)).collect();
            while let Some(more) = records.next_if(|next| next.agent == agent && next.incarnation == incarnation) {
                lines.extend(more.records.iter().map(|one| NewLine::record(one, more.read_at)));
            }
            count += 1;
            // A failure is in the status, and in the book once writing works.
            let _ = append(shared, &agent, incarnation, &lines, count);
        }
    }
}

fn append(shared: &Shared, id: &AgentId, incarnation: u64, lines: &[NewLine], count: u64) -> Result<u64, StoreError> {
    if shared.fence.is_fenced() {
        return Err(StoreError::Fenced);
    }
    let (batch, mut file) = {
        let mut index = shared.index.lock();
        let agent = index.agent(id);
        let Some(batch) = Batch::plan(agent, id, incarnation, lines, shared.limits.segment_bytes) else {
            return Ok(agent.last);
        };
        (batch, agent.file.take())
    };
    let written = batch.write(&shared.agent_dir(id), &mut file);
    let mut gone = Vec::new();
    let result = {
        let mut index = shared.index.lock();
        let agent = index.agent(id);
        agent.file = file;
        agent.used = count;
        match &written {
            Ok(()) => {
                let before = agent.bytes();
                batch.commit(agent);
                let (last, after) = (agent.last, agent.bytes());
                index.bytes = index.bytes - before + after;
                gone = retain::retain(&mut index, &shared.limits, shared.bound(), id, |of| shared.agent_dir(of));
                close_idle(&mut index);
                Ok(last)
            }
            Err(error) => {
                batch.refuse(agent, error);
                Err(error.clone())
            }
        }
    };
    note_health(shared, &written, batch.lost());
    remove_files(&gone);
    result
}

/// The bound of all books has become smaller.
fn make_room(shared: &Shared) {
    if shared.fence.is_fenced() {
        return;
    }
    let gone = retain::make_room(&mut shared.index.lock(), shared.bound(), None, |of| shared.agent_dir(of));
    remove_files(&gone);
}

fn remove_files(gone: &[PathBuf]) {
    for path in gone {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "failed to remove an old log segment");
        }
    }
}

fn note_health(shared: &Shared, written: &Result<(), StoreError>, lost: u64) {
    let mut health = shared.health.lock();
    if written.is_ok() {
        health.lost_lines += lost;
    }
    if health.ok != written.is_ok() {
        health.ok = written.is_ok();
        health.since = SystemTime::now();
    }
    if let Err(error) = written {
        health.last_error = Some(error.to_string());
    }
}

fn close_idle(index: &mut Index) {
    if index.agents.values().filter(|agent| agent.file.is_some()).count() > OPEN_FILES_MAX
        && let Some(idle) = index.agents.values_mut().filter(|agent| agent.file.is_some()).min_by_key(|a| a.used)
    {
        idle.file = None;
    }
}

fn remove(shared: &Shared, id: &AgentId) -> Result<(), StoreError> {
    if shared.fence.is_fenced() {
        return Err(StoreError::Fenced);
    }
    let dir = shared.agent_dir(id);
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    if let Some(swarm) = dir.parent() {
        // Fails while there are other agents in it, as it should.
        let _ = fs::remove_dir(swarm);
    }
    let mut index = shared.index.lock();
    if let Some(agent) = index.agents.remove(id) {
        index.bytes -= agent.bytes();
    }
    Ok(())
}
