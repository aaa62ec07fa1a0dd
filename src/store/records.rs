//! What the store hands out.

use std::{sync::Arc, time::SystemTime};

use crate::model::{Epoch, Seq};

/// One line of an agent's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// 1, 2, 3 ... over all incarnations of the agent.
    pub number: u64,
    /// Which start wrote it.
    pub incarnation: u64,
    /// The launcher's number within the incarnation; `None` for `hive/log` records and notes of the daemon.
    pub seq: Option<u64>,
    /// When.
    pub at: SystemTime,
    /// `stdout`, `stderr`, `log` (an agent's `hive/log`) or `hivekeeper` (a note of ours: lines lost, incarnation ended).
    pub stream: &'static str,
    /// Level of a `log` record.
    pub level: Option<String>,
    /// Whether the line goes on in the next piece of the same stream.
    pub partial: bool,
    /// The text.
    pub text: String,
}

/// Which lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Only lines with a greater number.
    pub after: Option<u64>,
    /// Only lines written at or after this time.
    pub since: Option<SystemTime>,
    /// Only the last so many of them.
    pub tail: Option<usize>,
    /// At most so many, oldest first.
    pub limit: usize,
}

/// Some lines, and where they stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPage {
    /// In order.
    pub lines: Vec<LogLine>,
    /// The oldest number that is still kept; 0 when there is none.
    pub first_kept: u64,
    /// The youngest number; 0 when there is none.
    pub last: u64,
}

/// An event as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its number.
    pub seq: Seq,
    /// Who numbered it.
    pub epoch: Epoch,
    /// When.
    pub at: SystemTime,
    /// Its stable name.
    pub kind: String,
    /// What it was about: a swarm, an agent, an operation; empty for the hive.
    pub subject: String,
    /// The event's JSON document, as on every edge.
    pub body: Arc<str>,
}
