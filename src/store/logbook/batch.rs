//! One call's lines on their way to disk: planned from what is known, written without a lock, then either known or counted as refused.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
    time::SystemTime,
};

use super::{
    index::{Agent, Segment, head_line},
    line::{self, NewLine},
};
use crate::{model::AgentId, store::error::StoreError};

/// What is to be written for one call, and what follows from it once it is.
pub(super) struct Batch<'a> {
    incarnation: u64,
    /// Those that are not there yet.
    lines: Vec<&'a NewLine>,
    text: String,
    /// Number of each line, and its offset in `text`.
    marks: Vec<(u64, u64)>,
    /// The head of the segment that begins here.
    head: Option<String>,
    /// Number of the segment's first line.
    segment: u64,
    /// Where `text` goes in it.
    offset: u64,
    last: u64,
    next_seq: Option<u64>,
    lost: u64,
}

impl<'a> Batch<'a> {
    /// `None` when there is nothing to write.
    pub(super) fn plan(
        agent: &Agent,
        id: &AgentId,
        incarnation: u64,
        lines: &'a [NewLine],
        segment_bytes: u64,
    ) -> Option<Self> {
        let mut known = agent.seqs.get(incarnation);
        let mut fresh: Vec<&NewLine> = Vec::with_capacity(lines.len());
        for line in lines {
            if let Some(seq) = line.seq {
                if seq <= known {
                    continue;
                }
                known = seq;
            }
            fresh.push(line);
        }
        let first = *fresh.first()?;
        let next_seq = fresh.iter().find_map(|line| line.seq);
        let (notes, lost) = agent.lost.notes(incarnation, next_seq, &agent.seqs);
        let mut batch = Batch {
            incarnation,
            lines: Vec::new(),
            text: String::new(),
            marks: Vec::new(),
            head: None,
            segment: agent.last + 1,
            offset: 0,
            last: agent.last,
            next_seq,
            lost,
        };
        for note in notes {
            batch.push(&NewLine::note(first.at, note));
        }
        for line in &fresh {
            batch.push(line);
        }
        batch.lines = fresh;
        match agent.segments.back() {
            Some(segment) if !agent.roll && segment.bytes + batch.text.len() as u64 <= segment_bytes => {
                (batch.segment, batch.offset) = (segment.first, segment.bytes);
            }
            // A segment without a line takes one batch of any length.
            Some(segment) if !agent.roll && segment.first > agent.last => {
                (batch.segment, batch.offset) = (segment.first, segment.bytes);
            }
            _ => {
                let head = head_line(id, batch.segment, &agent.seqs);
                batch.offset = head.len() as u64;
                batch.head = Some(head);
            }
        }
        Some(batch)
    }

    fn push(&mut self, line: &NewLine) {
        self.marks.push((self.last + 1, self.text.len() as u64));
        self.last += line::encode(&mut self.text, self.last + 1, self.incarnation, line);
    }

    /// Lines of earlier calls that this batch notes as lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Writes. `file` is the segment that is open, before and after. When this fails the disk is as it was, as far as anyone looks.
    pub(super) fn write(&self, dir: &Path, file: &mut Option<File>) -> Result<(), StoreError> {
        let path = Segment::path_of(dir, self.segment);
        let result = self.try_write(&path, file);
        if result.is_err() {
            // Nobody reads behind the known end, so these are for the space alone.
            if self.head.is_some() {
                let _ = fs::remove_file(&path);
            } else if let Some(file) = file {
                let _ = file.set_len(self.offset);
            }
            *file = None;
        }
        Ok(result?)
    }

    fn try_write(&self, path: &Path, file: &mut Option<File>) -> io::Result<()> {
        if let Some(head) = &self.head {
            *file = None;
            let begun = file.insert(begin(path)?);
            begun.write_all_at(head.as_bytes(), 0)?;
        }
        let open = match file {
            Some(open) => open,
            None => file.insert(File::options().write(true).open(path)?),
        };
        // At the known end, not at the end of the file: what a failed write may have left there is written over.
        open.write_all_at(self.text.as_bytes(), self.offset)
    }

    /// It is written.
    pub(super) fn commit(&self, agent: &mut Agent) {
        if self.head.is_some() {
            if agent.segments.back().is_some_and(|segment| segment.first == self.segment) {
                // It had no line, and another file has its name now.
                agent.segments.pop_back();
            }
            if let Some(before) = agent.segments.back_mut() {
                before.marks = Vec::new();
            }
            agent.segments.push_back(Segment::new(self.segment, self.offset));
            agent.roll = false;
        }
        if let Some(segment) = agent.segments.back_mut() {
            for (number, offset) in &self.marks {
                segment.mark(*number, self.offset + offset);
            }
            segment.bytes = self.offset + self.text.len() as u64;
            segment.written = SystemTime::now();
        }
        for line in &self.lines {
            if let Some(seq) = line.seq {
                agent.seqs.raise(self.incarnation, seq);
            }
            agent.tail.push(self.incarnation, line.stream, line.partial, &line.text);
        }
        agent.lost.noted(self.incarnation, self.next_seq);
        agent.last = self.last;
        agent.growth.send_replace(self.last);
    }

    /// It is not.
    pub(super) fn refuse(&self, agent: &mut Agent, error: &StoreError) {
        let seq_max = self.lines.iter().rev().find_map(|line| line.seq);
        let unnumbered = self.lines.iter().filter(|line| line.seq.is_none()).count() as u64;
        let why = match error {
            StoreError::Full => "no space was left on the disk".to_owned(),
            StoreError::ReadOnly => "the disk could not be written".to_owned(),
            other => other.to_string(),
        };
        agent.lost.refuse(self.incarnation, seq_max, unnumbered, &agent.seqs, &why);
    }
}

/// Makes a segment. One that is there under this name has no line that anyone knows of.
pub(super) fn begin(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(path)
}
