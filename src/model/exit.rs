//! How an incarnation ended.

use std::time::SystemTime;

/// Why an incarnation ended, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitCause {
    /// The program ended by itself, with a code.
    Exited,
    /// A signal ended it that we did not send.
    Signalled,
    /// We stopped it: an operator's command, a shutdown, a removal.
    Stopped,
    /// No daemon renewed its lease in time, so its launcher ended it.
    LeaseLost,
    /// The program could not be started.
    StartFailed {
        /// What the system said: a missing file, a directory that is not there.
        message: String,
    },
    /// No first sign of life within `start_timeout`; we ended it.
    StartTimeout,
    /// It was `stuck` and its document asks for a restart then; we ended it.
    Stuck,
    /// Its launcher died without an exit record; what was left of the tree was swept. Code and signal are unknown.
    LauncherLost,
    /// Its container ended and took it along, through no doing of the agent's that we know of: this is one event of its swarm, and no restart is
    /// debited to the agent. Code and signal are unknown.
    ContainerLost {
        /// For people: what became of the container, such as `exit code 137` or `removed`.
        message: String,
    },
    /// The runtime died before the launch happened, as the journal and the run directory show: nothing ran.
    NeverStarted,
}

/// The record of one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitRecord {
    /// The incarnation that ended.
    pub incarnation: u64,
    /// Exit code, when the program exited.
    pub code: Option<i32>,
    /// Signal number, when a signal ended it.
    pub signal: Option<i32>,
    /// Whether memory ran out; `None` where the runtime can't know.
    pub oom: Option<bool>,
    /// When it ended, by the launcher's clock, or when the loss was noticed.
    pub at: SystemTime,
    /// Why.
    pub cause: ExitCause,
    /// The last lines that it wrote, oldest first, at most [`LAST_LINES_MAX`].
    pub last_lines: Vec<String>,
}

/// Lines kept in an exit record: a screenful that holds a stack trace's end.
pub const LAST_LINES_MAX: usize = 20;

impl ExitRecord {
    /// An end of which nothing is known but when it was noticed and why it is one.
    pub fn unseen(incarnation: u64, at: SystemTime, cause: ExitCause) -> Self {
        Self { incarnation, code: None, signal: None, oom: None, at, cause, last_lines: Vec::new() }
    }

    /// Whether a transient agent may rest after it: code 0, or an end that we asked for.
    pub fn is_normal(&self) -> bool {
        match self.cause {
            ExitCause::Exited => self.code == Some(0),
            ExitCause::Stopped => true,
            _ => false,
        }
    }

    /// Whether a restart after it counts: for its window, its back-off and its number of restarts.
    pub fn is_debited(&self) -> bool {
        !matches!(self.cause, ExitCause::ContainerLost { .. } | ExitCause::LeaseLost)
    }

    /// One line for people: `exited with code 3`, `killed by signal 9`.
    pub fn describe(&self) -> String {
        let how = match (self.code, self.signal) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended in an unknown way".to_owned(),
        };
        let how = if self.oom == Some(true) { format!("{how}: memory ran out") } else { how };
        match &self.cause {
            ExitCause::Exited | ExitCause::Signalled => how,
            ExitCause::Stopped => format!("stopped: {how}"),
            ExitCause::LeaseLost => format!("lease ran out: {how}"),
            ExitCause::StartFailed { message } => format!("could not be started: {message}"),
            ExitCause::StartTimeout => format!("no sign of life in time: {how}"),
            ExitCause::Stuck => format!("made no progress: {how}"),
            ExitCause::LauncherLost => "its launcher died; what it left was swept".to_owned(),
            ExitCause::ContainerLost { message } => format!("its container ended: {message}"),
            ExitCause::NeverStarted => "it was never started".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: Option<i32>, signal: Option<i32>, oom: Option<bool>, cause: ExitCause) -> ExitRecord {
        ExitRecord { code, signal, oom, ..ExitRecord::unseen(1, SystemTime::UNIX_EPOCH, cause) }
    }

    #[test]
    fn memory_that_ran_out_is_said_of_how_it_ended() {
        let killed = |oom| ended(None, Some(9), oom, ExitCause::Signalled).describe();
        assert_eq!(killed(Some(true)), "killed by signal 9: memory ran out");
        assert_eq!(killed(Some(false)), "killed by signal 9");
        assert_eq!(killed(None), "killed by signal 9");
        let told = ended(Some(137), None, Some(true), ExitCause::Exited);
        assert_eq!(told.describe(), "exited with code 137: memory ran out");
        let stopped = ended(None, Some(9), Some(true), ExitCause::Stopped);
        assert_eq!(stopped.describe(), "stopped: killed by signal 9: memory ran out");
    }

    #[test]
    fn only_a_lost_container_debits_nobody() {
        let lost = ended(None, None, None, ExitCause::ContainerLost { message: "removed".to_owned() });
        assert_eq!((lost.is_debited(), lost.is_normal()), (false, false));
        assert_eq!(lost.describe(), "its container ended: removed");
        assert!(ended(None, None, None, ExitCause::LauncherLost).is_debited());
    }
}
