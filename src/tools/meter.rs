//! What is counted of calls, whichever door they come by, and what there is of work altogether.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{call::Tools, error::ToolError};
use crate::{coordination::WorkCounts, model::SwarmName};

/// The outcome of a call that was answered.
const OK: &str = "ok";
/// That of one whose caller has gone before it was.
const LEFT: &str = "left";

/// Calls of one tool that ended in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Called {
    /// The tool; `unknown` for all names that none has.
    pub tool: &'static str,
    /// `ok`, the code of the refusal, or `left`: the caller did not wait for the answer.
    pub outcome: &'static str,
    /// How many.
    pub count: u64,
    /// How long they took together, waiting included.
    pub time: Duration,
}

/// A tool and an outcome.
type Kind = (&'static str, &'static str);

/// Counts calls. Bounded by tools and codes.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<BTreeMap<Kind, (u64, Duration)>>);

impl Meter {
    /// Begins a call.
    pub(super) fn begin(&self, tool: &'static str) -> Running<'_> {
        Running { meter: self, tool, began: Instant::now(), outcome: LEFT }
    }
}

/// A call that is under way. It is counted when this is dropped.
pub(super) struct Running<'a> {
    meter: &'a Meter,
    tool: &'static str,
    began: Instant,
    outcome: &'static str,
}

impl Running<'_> {
    /// It has come to its end.
    pub(super) fn ended<T>(mut self, how: &Result<T, ToolError>) {
        self.outcome = how.as_ref().map_or_else(ToolError::code, |_| OK);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut calls = self.meter.0.lock();
        let (count, time) = calls.entry((self.tool, self.outcome)).or_default();
        *count += 1;
        *time += self.began.elapsed();
    }
}

impl Tools {
    /// Calls that have ended since the daemon began, by tool and outcome.
    pub fn called(&self) -> Vec<Called> {
        let calls = self.meter.0.lock();
        calls.iter().map(|(&(tool, outcome), &(count, time))| Called { tool, outcome, count, time }).collect()
    }

    /// How much of everything each swarm has.
    ///
    /// # Errors
    /// It can't be told now.
    pub async fn counts(&self) -> Result<BTreeMap<SwarmName, WorkCounts>, ToolError> {
        Ok(self.desk.call(|cores, _| Ok(cores.counts())).await?)
    }
}
