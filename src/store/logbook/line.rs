//! Lines at rest: `NUMBER INCARNATION SEQ AT_MS STREAM LEVEL TEXT`, one a line, so that `grep` works on a segment. `-` stands for none, a `+` behind the stream for
//! a line that goes on in the next piece; backslash, newline and carriage return in the text are escaped.

use std::{fmt::Write, time::SystemTime};

use crate::{
    model::LogRecord,
    store::{
        forms::{millis, time},
        records::LogLine,
    },
};

/// Longest piece of a record that has no piece size of its own; the launcher cuts output at the same length.
pub(super) const PIECE_MAX: usize = 16 * 1024;

/// A level is a word; a longer one is cut.
const LEVEL_MAX: usize = 16;

/// A line that is to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLine {
    /// The launcher's number within the incarnation; `None` for `hive/log` records and notes of the daemon.
    pub seq: Option<u64>,
    /// When.
    pub at: SystemTime,
    /// `stdout`, `stderr`, `log` or `hivekeeper`.
    pub stream: &'static str,
    /// Level of a `log` record.
    pub level: Option<&'static str>,
    /// Whether the line goes on in the next piece of the same stream.
    pub partial: bool,
    /// The text.
    pub text: String,
}

impl NewLine {
    /// A note of the daemon.
    pub fn note(at: SystemTime, text: String) -> Self {
        Self { seq: None, at, stream: "hivekeeper", level: None, partial: false, text }
    }

    /// A log record, or a piece of one, that was read at this time.
    pub(super) fn record(LogRecord { level, at, partial, text }: LogRecord<'_>, read_at: SystemTime) -> Self {
        let (at, level) = (at.unwrap_or(read_at), Some(level.word()));
        Self { seq: None, at, stream: "log", level, partial, text: text.to_owned() }
    }

    /// What it takes in memory, about.
    pub(super) fn weight(&self) -> usize {
        // The rest of the struct.
        self.text.len() + 64
    }
}

/// Appends a line to `out`; a record longer than [`PIECE_MAX`] becomes several. Returns how many numbers were used.
pub(super) fn encode(out: &mut String, number: u64, incarnation: u64, line: &NewLine) -> u64 {
    let mut rest = line.text.as_str();
    let mut used = 0;
    loop {
        let cut = if line.seq.is_some() { rest.len() } else { rest.floor_char_boundary(PIECE_MAX) };
        let (piece, more) = rest.split_at(cut);
        let partial = line.partial || !more.is_empty();
        let _ = write!(out, "{} {incarnation} ", number + used);
        match line.seq {
            Some(seq) => _ = write!(out, "{seq}"),
            None => out.push('-'),
        }
        let _ = write!(out, " {} {}{} ", millis(line.at), line.stream, if partial { "+" } else { "" });
        push_level(out, line.level);
        out.push(' ');
        escape(out, piece);
        out.push('\n');
        used += 1;
        rest = more;
        if rest.is_empty() {
            return used;
        }
    }
}

fn push_level(out: &mut String, level: Option<&str>) {
    let word = level.unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).take(LEVEL_MAX);
    let before = out.len();
    out.extend(word);
    if out.len() == before {
        out.push('-');
    }
}

fn escape(out: &mut String, text: &str) {
    for part in text.split_inclusive(['\\', '\n', '\r']) {
        match part.as_bytes().last() {
            Some(b'\\') => out.extend([part, "\\"]),
            Some(b'\n') => out.extend([&part[..part.len() - 1], "\\n"]),
            Some(b'\r') => out.extend([&part[..part.len() - 1], "\\r"]),
            _ => out.push_str(part),
        }
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

/// The numbers at the beginning of a line: enough to pass over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) number: u64,
    pub(super) incarnation: u64,
    pub(super) seq: Option<u64>,
}

/// Reads the beginning of a line without its newline.
pub(super) fn head(line: &str) -> Option<Head> {
    let mut words = line.splitn(4, ' ');
    let number = words.next()?.parse().ok()?;
    let incarnation = words.next()?.parse().ok()?;
    let seq = match words.next()? {
        "-" => None,
        word => Some(word.parse().ok()?),
    };
    words.next()?;
    Some(Head { number, incarnation, seq })
}

/// Reads a line without its newline.
pub(super) fn parse(line: &str) -> Option<LogLine> {
    let Head { number, incarnation, seq } = head(line)?;
    let mut words = line.splitn(7, ' ').skip(3);
    let at = time(words.next()?.parse().ok()?);
    let stream = words.next()?;
    let (stream, partial) = stream.strip_suffix('+').map_or((stream, false), |stream| (stream, true));
    let stream = *["stdout", "stderr", "log", "hivekeeper"].iter().find(|known| **known == stream)?;
    let level = match words.next()? {
        "-" => None,
        level => Some(level.to_owned()),
    };
    let text = unescape(words.next()?);
    Some(LogLine { number, incarnation, seq, at, stream, level, partial, text })
}
