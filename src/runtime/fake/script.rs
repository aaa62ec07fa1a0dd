//! What a launch is to do.

use std::time::Duration;

use crate::model::ExitCause;

/// What one launch does. Each step comes so long after the one before; the first one after `Alive`.
#[derive(Debug, Clone, Default)]
pub struct Script {
    pub(super) alive_after: Duration,
    pub(super) no_launch: Option<NoLaunch>,
    pub(super) start_failure: Option<String>,
    pub(super) ignores_stop: bool,
    pub(super) steps: Vec<(Duration, Step)>,
}

#[derive(Debug, Clone)]
pub(super) enum NoLaunch {
    Unreachable(String),
    Refused(String),
    Launcher(String),
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Alive,
    Line(String),
    Sample { cpu_cores: f64, memory_bytes: u64 },
    Lost { lines: u64 },
    End { code: Option<i32>, signal: Option<i32>, cause: ExitCause },
    Fenced,
}

impl Step {
    pub(super) fn container_lost(message: &str) -> Self {
        Self::End { code: None, signal: None, cause: ExitCause::ContainerLost { message: message.to_owned() } }
    }
}

impl Script {
    /// Lives at once and until it is ended.
    pub fn runs() -> Self {
        Self::default()
    }
    /// The program can't be started.
    pub fn start_fails(message: &str) -> Self {
        Self { start_failure: Some(message.to_owned()), ..Self::default() }
    }
    /// The launch fails: [`LaunchError::Unreachable`].
    pub fn unreachable(why: &str) -> Self {
        Self { no_launch: Some(NoLaunch::Unreachable(why.to_owned())), ..Self::default() }
    }
    /// The launch fails: [`LaunchError::Refused`].
    pub fn refused(why: &str) -> Self {
        Self { no_launch: Some(NoLaunch::Refused(why.to_owned())), ..Self::default() }
    }
    /// The launch fails: [`LaunchError::Launcher`].
    pub fn launcher_fails(why: &str) -> Self {
        Self { no_launch: Some(NoLaunch::Launcher(why.to_owned())), ..Self::default() }
    }
    /// The first sign of life takes so long.
    pub fn alive_after(mut self, delay: Duration) -> Self {
        self.alive_after = delay;
        self
    }
    /// SIGTERM does nothing; the grace has to run out.
    pub fn ignores_stop(mut self) -> Self {
        self.ignores_stop = true;
        self
    }
    /// Writes a line.
    pub fn prints(self, after: Duration, line: &str) -> Self {
        self.then(after, Step::Line(line.to_owned()))
    }
    /// Is measured.
    pub fn sample(self, after: Duration, cpu_cores: f64, memory_bytes: u64) -> Self {
        self.then(after, Step::Sample { cpu_cores, memory_bytes })
    }
    /// Output is lost.
    pub fn loses(self, after: Duration, lines: u64) -> Self {
        self.then(after, Step::Lost { lines })
    }
    /// Exits by itself.
    pub fn exits(self, after: Duration, code: i32) -> Self {
        self.then(after, Step::End { code: Some(code), signal: None, cause: ExitCause::Exited })
    }
    /// Is killed by somebody else.
    pub fn dies_of(self, after: Duration, signal: i32) -> Self {
        self.then(after, Step::End { code: None, signal: Some(signal), cause: ExitCause::Signalled })
    }
    /// Its launcher dies without a record.
    pub fn loses_launcher(self, after: Duration) -> Self {
        self.then(after, Step::End { code: None, signal: None, cause: ExitCause::LauncherLost })
    }
    /// Its container ends and takes it along.
    pub fn loses_container(self, after: Duration, message: &str) -> Self {
        self.then(after, Step::container_lost(message))
    }
    /// A younger daemon takes it over.
    pub fn fenced(self, after: Duration) -> Self {
        self.then(after, Step::Fenced)
    }

    fn then(mut self, after: Duration, step: Step) -> Self {
        self.steps.push((after, step));
        self
    }
}
