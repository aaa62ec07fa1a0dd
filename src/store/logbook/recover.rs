//! Opening the books: sizes of all segments, the content of each agent's last one. A torn end, left by `kill -9` in the middle of a write or by a power
//! cut, is cut off.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::SystemTime,
};

use super::{
    index::{Agent, Index, Segment, read_head_line},
    line,
};
use crate::model::{AgentId, AgentName, SwarmName};

/// Reads the directory of all books.
pub(super) fn recover(dir: &Path, usurped: bool) -> io::Result<Index> {
    let mut index = Index::default();
    for (swarm, swarm_dir) in named::<SwarmName>(dir)? {
        for (name, agent_dir) in named::<AgentName>(&swarm_dir)? {
            let mut agent = recover_agent(&agent_dir)?;
            // A daemon that we pushed aside may wake up with this segment open: whatever it still writes goes to a file that is closed for us.
            agent.roll = usurped;
            index.bytes += agent.bytes();
            index.agents.insert(AgentId { swarm: swarm.clone(), name }, agent);
        }
    }
    Ok(index)
}

/// Entries whose names are names of ours; others are not touched.
fn named<N: std::str::FromStr>(dir: &Path) -> io::Result<Vec<(N, std::path::PathBuf)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if let Some(Ok(name)) = entry.file_name().to_str().map(str::parse) {
            all.push((name, entry.path()));
        }
    }
    Ok(all)
}

fn recover_agent(dir: &Path) -> io::Result<Agent> {
    let mut agent = Agent::default();
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(Ok(first)) = name.to_str().and_then(|name| name.strip_suffix(".log")).map(str::parse) else {
            continue;
        };
        let about = entry.metadata()?;
        let written = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        segments.push(Segment { first, bytes: about.len(), written, marks: Vec::new() });
    }
    segments.sort_by_key(|segment| segment.first);
    agent.segments = segments.into();
    if let Some(mut last) = agent.segments.pop_back() {
        read_last(dir, &mut last, &mut agent)?;
        agent.segments.push_back(last);
    }
    agent.growth.send_replace(agent.last);
    Ok(agent)
}

fn read_last(dir: &Path, segment: &mut Segment, agent: &mut Agent) -> io::Result<()> {
    let path = segment.path(dir);
    let bytes = fs::read(&path)?;
    agent.last = segment.first.saturating_sub(1);
    let (mut offset, mut good) = (0, 0);
    for raw in bytes.split_inclusive(|byte| *byte == b'\n') {
        let begin = offset;
        offset += raw.len() as u64;
        let Some(text) = raw.strip_suffix(b"\n").and_then(|text| std::str::from_utf8(text).ok()) else { continue };
        if begin == 0 {
            agent.seqs = read_head_line(text);
            good = offset;
            continue;
        }
        let Some(line) = line::parse(text).filter(|line| line.number > agent.last) else { continue };
        good = offset;
        segment.mark(line.number, begin);
        agent.last = line.number;
        if let Some(seq) = line.seq {
            agent.seqs.raise(line.incarnation, seq);
        }
        agent.tail.push(line.incarnation, line.stream, line.partial, &line.text);
    }
    if good < segment.bytes {
        tracing::info!(path = %path.display(), bytes = segment.bytes - good, "cut the torn end of a log segment off");
        File::options().write(true).open(&path)?.set_len(good)?;
        segment.bytes = good;
    }
    Ok(())
}
