//! What is known of the segments without reading them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Write,
    fs::File,
    path::{Path, PathBuf},
    time::SystemTime,
};

use tokio::sync::watch;

use super::tail::Tail;
use crate::model::AgentId;

/// A mark in the youngest segment every so many bytes, so that a follower's page does not read the segment from its beginning.
const MARK_EVERY: u64 = 64 * 1024;

/// Incarnations whose last output number is remembered: the one that lives, and those whose launchers a new daemon may still have to hear out.
const INCARNATIONS_KEPT: usize = 4;

/// All agents.
#[derive(Default)]
pub(super) struct Index {
    pub(super) agents: HashMap<AgentId, Agent>,
    /// Of all segments.
    pub(super) bytes: u64,
}

impl Index {
    pub(super) fn agent(&mut self, id: &AgentId) -> &mut Agent {
        self.agents.entry(id.clone()).or_default()
    }
}

/// One agent's book.
pub(super) struct Agent {
    /// Oldest first; the last one is written to.
    pub(super) segments: VecDeque<Segment>,
    /// The youngest line's number.
    pub(super) last: u64,
    pub(super) seqs: Seqs,
    pub(super) tail: Tail,
    pub(super) growth: watch::Sender<u64>,
    pub(super) lost: Lost,
    /// The last segment, open for writing.
    pub(super) file: Option<File>,
    /// The next line begins a segment.
    pub(super) roll: bool,
    /// When it was written to, in the writer's count of jobs.
    pub(super) used: u64,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            segments: VecDeque::new(),
            last: 0,
            seqs: Seqs::default(),
            tail: Tail::default(),
            growth: watch::channel(0).0,
            lost: Lost::default(),
            file: None,
            roll: false,
            used: 0,
        }
    }
}

impl Agent {
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    pub(super) fn first_kept(&self) -> u64 {
        self.segments.iter().map(|segment| segment.first).find(|first| *first <= self.last).unwrap_or(0)
    }
}

/// One file.
pub(super) struct Segment {
    /// Number of its first line, had or to come.
    pub(super) first: u64,
    /// Its length as far as it is good.
    pub(super) bytes: u64,
    pub(super) written: SystemTime,
    /// (number, offset) of some lines; only kept for the last segment.
    pub(super) marks: Vec<(u64, u64)>,
}

impl Segment {
    /// One that holds its head alone.
    pub(super) fn new(first: u64, bytes: u64) -> Self {
        Self { first, bytes, written: SystemTime::now(), marks: Vec::new() }
    }

    pub(super) fn path_of(agent_dir: &Path, first: u64) -> PathBuf {
        agent_dir.join(format!("{first:020}.log"))
    }

    pub(super) fn path(&self, agent_dir: &Path) -> PathBuf {
        Self::path_of(agent_dir, self.first)
    }

    /// To be called for each line with its offset, in order.
    pub(super) fn mark(&mut self, number: u64, offset: u64) {
        if self.marks.last().map_or(offset >= MARK_EVERY, |(_, last)| offset >= last + MARK_EVERY) {
            self.marks.push((number, offset));
        }
    }

    /// Where to begin to read for lines behind `after`.
    pub(super) fn offset(&self, after: u64) -> u64 {
        let behind = self.marks.partition_point(|(number, _)| *number <= after);
        behind.checked_sub(1).map_or(0, |n| self.marks[n].1)
    }
}

/// The last output number that is safe, of each of the latest incarnations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seqs(BTreeMap<u64, u64>);

impl Seqs {
    pub(super) fn get(&self, incarnation: u64) -> u64 {
        self.0.get(&incarnation).copied().unwrap_or(0)
    }

    pub(super) fn raise(&mut self, incarnation: u64, seq: u64) {
        let known = self.0.entry(incarnation).or_default();
        *known = seq.max(*known);
        while self.0.len() > INCARNATIONS_KEPT {
            self.0.pop_first();
        }
    }
}

/// The first line of a segment.
pub(super) fn head_line(agent: &AgentId, first: u64, seqs: &Seqs) -> String {
    let mut line = format!("# hivekeeper log 1 {agent} {first}");
    for (incarnation, seq) in &seqs.0 {
        let _ = write!(line, " {incarnation}:{seq}");
    }
    line.push('\n');
    line
}

/// What [`head_line`] carries over; nothing when the line is not one.
pub(super) fn read_head_line(line: &str) -> Seqs {
    let mut seqs = Seqs::default();
    for word in line.strip_prefix("# hivekeeper log 1 ").unwrap_or_default().split(' ').skip(2) {
        if let Some((incarnation, seq)) = word.split_once(':')
            && let (Ok(incarnation), Ok(seq)) = (incarnation.parse(), seq.parse())
        {
            seqs.raise(incarnation, seq);
        }
    }
    seqs
}

/// What could not be written and has not come again since.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Incarnation and greatest number of output lines that were refused.
    numbered: Option<(u64, u64)>,
    /// Records and notes, which nobody keeps to send them again.
    unnumbered: u64,
    /// Why.
    why: String,
    /// Records that fell out of the queue.
    pub(super) dropped: u64,
}

impl Lost {
    pub(super) fn refuse(&mut self, incarnation: u64, seq_max: Option<u64>, unnumbered: u64, seqs: &Seqs, why: &str) {
        if let Some(seq) = seq_max {
            let seq = match self.numbered {
                Some((of, before)) if of == incarnation => seq.max(before),
                Some((of, before)) => {
                    // An earlier incarnation's lines do not come again once a later one writes.
                    self.unnumbered += before.saturating_sub(seqs.get(of));
                    seq
                }
                None => seq,
            };
            self.numbered = Some((incarnation, seq));
        }
        self.unnumbered += unnumbered;
        why.clone_into(&mut self.why);
    }

    /// What is lost for good, once `next` of `incarnation` is about to be written: notes for the book, and the number of lines.
    pub(super) fn notes(&self, incarnation: u64, next: Option<u64>, seqs: &Seqs) -> (Vec<String>, u64) {
        let numbered = self.numbered.map_or(0, |(of, upto)| {
            let upto = match next {
                Some(next) if of == incarnation => upto.min(next.saturating_sub(1)),
                // A record between output lines: they may come yet.
                None if of == incarnation => 0,
                _ => upto,
            };
            upto.saturating_sub(seqs.get(of))
        });
        let mut notes = Vec::new();
        let lines = numbered + self.unnumbered;
        if lines > 0 {
            notes.push(format!("{lines} lines lost: {}", self.why));
        }
        if self.dropped > 0 {
            notes.push(format!("{} log records dropped: they came faster than they could be written", self.dropped));
        }
        (notes, lines)
    }

    /// To be called when what [`notes`](Self::notes) gave is written.
    pub(super) fn noted(&mut self, incarnation: u64, next: Option<u64>) {
        self.unnumbered = 0;
        self.dropped = 0;
        if next.is_some() || self.numbered.is_some_and(|(of, _)| of != incarnation) {
            self.numbered = None;
        }
    }
}
