//! How a command ends.

use std::io;

use crate::config::ConfigErrors;

/// The exit codes, as `--help` and README.md have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It worked.
    Done,
    /// It failed.
    Failed,
    /// Wrong usage, or a mistake in the configuration.
    Usage,
    /// The daemon can't be reached.
    Unreachable,
    /// The daemon refused.
    Refused,
    /// Not done in time.
    TimedOut,
    /// Ctrl-C; what was accepted goes on.
    Interrupted,
    /// That of the program that was run.
    Program(u8),
}

impl Exit {
    /// What the system is told.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Refused => 4,
            Self::TimedOut => 5,
            // 128 + SIGINT, as shells have it.
            Self::Interrupted => 130,
            Self::Program(code) => code,
        }
    }
}

/// Why a command did not work, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error("the daemon at {url} can't be reached: {cause}\n{advice}")]
    Unreachable { url: String, cause: String, advice: String },
    #[error("{url} did not answer as a Hivekeeper does: {what}\n{advice}")]
    Stranger { url: String, what: String, advice: String },
    /// `path` is what the refusal is about.
    #[error("the daemon refused: {detail} ({code})\n{hint}")]
    Refused { detail: String, code: String, hint: String, path: String },
    #[error("{what} did not end within {within}\n{hint}")]
    TimedOut { what: String, within: String, hint: String },
    #[error("{0}")]
    Failed(String),
    /// Ctrl-C.
    #[error("{0}")]
    Left(String),
    /// Everything was said where it happened.
    #[error("")]
    Told(Exit),
    #[error("{0}")]
    Usage(String),
    #[error("{}", mistakes(.0))]
    Config(#[from] ConfigErrors),
    /// Of our own output. A reader that went away is not an error.
    #[error("can't write the output: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } | Self::Stranger { .. } => Exit::Unreachable,
            Self::Refused { .. } => Exit::Refused,
            Self::TimedOut { .. } => Exit::TimedOut,
            Self::Failed(_) => Exit::Failed,
            Self::Left(_) => Exit::Interrupted,
            Self::Told(exit) => *exit,
            Self::Usage(_) | Self::Config(_) => Exit::Usage,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) => Exit::Failed,
        }
    }
}

fn mistakes(errors: &ConfigErrors) -> String {
    let count = match errors.problems().len() {
        1 => "a mistake".to_owned(),
        n => format!("{n} mistakes"),
    };
    format!("{count} in the configuration\n{errors}")
}
