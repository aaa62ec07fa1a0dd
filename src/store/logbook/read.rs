//! Pages of a book. Only what is known to be written is read: never behind a segment's known end.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{book::Shared, line};
use crate::{
    model::AgentId,
    store::{
        error::StoreError,
        forms::millis,
        records::{LogLine, LogPage, LogQuery},
    },
};

/// Bytes of text in one page: what a reader may cost the daemon, whatever it asks for. The page then ends early, and the reader asks for more.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A segment as it was when the page was begun.
struct Extent {
    path: PathBuf,
    /// Numbers from `first` up to, not with, `end` belong to it.
    first: u64,
    end: u64,
    offset: u64,
    bytes: u64,
}

/// Lines of an agent.
pub(super) fn page(shared: &Shared, agent: &AgentId, query: &LogQuery) -> Result<LogPage, StoreError> {
    let dir = shared.agent_dir(agent);
    let Some((extents, last)) = extents(shared, agent, &dir, query.after.unwrap_or(0)) else {
        return Ok(LogPage::default());
    };
    let lines = match query.tail {
        Some(tail) => last_lines(&extents, query, tail)?,
        None => first_lines(&extents, query)?,
    };
    // Looked up afterwards: what went away in between is not there any more for the reader, either.
    let first_kept = shared.index.lock().agents.get(agent).map_or(0, super::index::Agent::first_kept);
    Ok(LogPage { lines, first_kept, last })
}

/// The segments that may hold lines behind `after`, oldest first.
fn extents(shared: &Shared, agent: &AgentId, dir: &Path, after: u64) -> Option<(Vec<Extent>, u64)> {
    let index = shared.index.lock();
    let agent = index.agents.get(agent)?;
    let ends = agent.segments.iter().skip(1).map(|next| next.first).chain([agent.last + 1]);
    // A reader may name any number, the greatest there is among them.
    let behind = |end: u64| after.checked_add(1).is_some_and(|next| end > next);
    let extents = agent.segments.iter().zip(ends).filter(|(_, end)| behind(*end)).map(|(segment, end)| Extent {
        path: segment.path(dir),
        first: segment.first,
        end,
        offset: segment.offset(after),
        bytes: segment.bytes,
    });
    Some((extents.collect(), agent.last))
}

fn first_lines(extents: &[Extent], query: &LogQuery) -> Result<Vec<LogLine>, StoreError> {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    for extent in extents {
        if lines.len() >= query.limit {
            break;
        }
        each_line(extent, query, |line| {
            bytes += line.text.len();
            lines.push(line);
            lines.len() < query.limit && bytes < PAGE_BYTES_MAX
        })?;
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(lines)
}

/// The youngest `tail` that fit into a page, then the first `limit` of them.
fn last_lines(extents: &[Extent], query: &LogQuery, tail: usize) -> Result<Vec<LogLine>, StoreError> {
    let mut lines = VecDeque::new();
    let mut bytes = 0;
    for extent in extents.iter().rev() {
        let mut here: VecDeque<LogLine> = VecDeque::new();
        let mut here_bytes = 0;
        each_line(extent, query, |line| {
            here_bytes += line.text.len();
            here.push_back(line);
            while here.len() > tail || here_bytes > PAGE_BYTES_MAX {
                here_bytes -= here.pop_front().map_or(0, |line| line.text.len());
            }
            true
        })?;
        while let Some(line) = here.pop_back() {
            bytes += line.text.len();
            if lines.len() >= tail || bytes > PAGE_BYTES_MAX {
                break;
            }
            lines.push_front(line);
        }
        if lines.len() >= tail || bytes > PAGE_BYTES_MAX {
            break;
        }
    }
    lines.truncate(query.limit);
    Ok(lines.into())
}

/// Hands the lines that the query asks for to `take`, in order, until it says no.
fn each_line(extent: &Extent, query: &LogQuery, mut take: impl FnMut(LogLine) -> bool) -> Result<(), StoreError> {
    let after = query.after.unwrap_or(0);
    let since = query.since.map(millis);
    let text = match text(extent) {
        // Retention took it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut before = 0;
    for raw in text.split_inclusive(|byte| *byte == b'\n') {
        let Some(text) = raw.strip_suffix(b"\n").and_then(|text| std::str::from_utf8(text).ok()) else { continue };
        let Some(head) = line::head(text) else { continue };
        // Numbers that do not belong here were written by a daemon that had been fenced off.
        let ours = head.number > before && head.number >= extent.first && head.number < extent.end;
        if !ours || head.number <= after {
            continue;
        }
        before = head.number;
        if let Some(line) = line::parse(text)
            && since.is_none_or(|since| millis(line.at) >= since)
            && !take(line)
        {
            break;
        }
    }
    Ok(())
}

fn text(extent: &Extent) -> io::Result<Vec<u8>> {
    let file = File::open(&extent.path)?;
    let length = usize::try_from(extent.bytes.saturating_sub(extent.offset)).unwrap_or(0);
    let mut text = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut text[filled..], extent.offset + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    text.truncate(filled);
    Ok(text)
}
