//! What a supervisor has to know about a child: its name, when to restart it, how to stop it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Deepest restart window that a child may ask for. The window keeps one instant per restart, so this bounds its memory (160 KiB a child).
pub const MAX_RESTARTS_LIMIT: u32 = 10_000;

/// Messages that wait for a child by default: more than a burst of its peers, small enough that a stuck child is noticed as `Full`.
pub const INBOX_CAPACITY_DEFAULT: usize = 1024;

/// The name of a child, unique under its supervisor. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildId(Arc<str>);

impl ChildId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ChildId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for ChildId {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<Arc<str>> for ChildId {
    fn from(name: Arc<str>) -> Self {
        Self(name)
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// When an exit is followed by an automatic restart (OTP `restart`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RestartType {
    /// After every exit, also a normal one.
    #[default]
    Permanent,
    /// After an abnormal exit only.
    Transient,
    /// Never.
    Temporary,
}

/// Which children a failure touches (OTP `strategy`).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// The failed child alone is restarted, and each child has a restart window of its own.
    #[default]
    OneForOne,
}

/// How many automatic restarts are allowed within a sliding period. The exit that would need one more makes the child `failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Automatic restarts allowed within `period`; 0 means that the first exit is the last.
    pub max_restarts: u32,
    /// Length of the sliding window.
    pub period: Duration,
}

impl Default for Intensity {
    /// Five restarts a minute.
    fn default() -> Self {
        Self { max_restarts: 5, period: Duration::from_secs(60) }
    }
}

/// The delay before an automatic restart; see [`Backoff::delay`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Delay before the first restart.
    pub initial: Duration,
    /// Delay before the second restart, from which the later ones grow.
    pub then: Duration,
    /// The delay grows no further than this (jitter comes on top).
    pub max: Duration,
    /// A child that ran this long before it exited starts over at the first restart.
    pub reset_after: Duration,
    /// Growth from one restart to the next, at least 1.
    pub factor: f64,
    /// Share by which a delay after the first is stretched or shrunk at random, 0 to 1.
    pub jitter: f64,
}

impl Default for Backoff {
    /// At once, then 1 s doubling to 60 s with a jitter of a quarter; forgotten after ten minutes of running.
    fn default() -> Self {
        Self {
            initial: Duration::ZERO,
            then: Duration::from_secs(1),
            max: Duration::from_secs(60),
            reset_after: Duration::from_secs(600),
            factor: 2.0,
            jitter: 0.25,
        }
    }
}

/// What happens to a permanent child that needs more restarts than its [`Intensity`] allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExceeded {
    /// It stays `failed` until somebody starts it.
    #[default]
    Fail,
    /// It is `failed` for this long, then is tried again with a fresh window.
    RetryAfter(Duration),
}

/// On which thread the incarnations of a child live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// One of the threads for children, in turn. A handler that blocks holds up its neighbours there, and no supervisor.
    #[default]
    Pool,
    /// The thread of the supervisor, which is that of every supervisor of the tree. A restart then waits for no other thread to wake up (0.1 to
    /// 0.2 ms each on a virtual machine whose cores sleep). Only for children whose handlers are short and never block.
    WithSupervisor,
}

/// How a child is stopped (OTP `shutdown`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Its incarnation is dropped at once, without hooks.
    Brutal,
    /// It is asked to stop and dropped when it still lives after this long.
    Deadline(Duration),
    /// It is asked to stop and awaited for as long as it takes.
    Infinity,
}

impl Default for Shutdown {
    /// Five seconds, as in OTP.
    fn default() -> Self {
        Self::Deadline(Duration::from_secs(5))
    }
}

/// When a child counts as started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ready {
    /// When its `started()` hook has returned.
    #[default]
    Started,
    /// When it calls [`ChildCtx::ready`](crate::ChildCtx::ready).
    Signalled,
}

/// What is known of a child from an earlier life of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seed {
    /// The last incarnation that was used; 0 means none.
    pub incarnation: u64,
    /// Automatic restarts so far.
    pub restarts: u64,
    /// Ages of the automatic restarts that may still lie in the restart window.
    pub recent: Vec<Duration>,
    /// Automatic restarts since the back-off last started over.
    pub attempt: u32,
    /// What to do with the child first.
    pub state: SeedState,
}

/// The state in which a child comes under its supervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeedState {
    /// To be started as the next incarnation.
    #[default]
    Fresh,
    /// It lives: the first start takes the seed's incarnation itself, and the actor adopts what runs
    /// ([`ChildCtx::adopted`](crate::ChildCtx::adopted)).
    Running,
    /// It is in back-off.
    Delayed {
        /// Time until the automatic restart.
        retry_in: Duration,
    },
    /// It has given up.
    Failed,
    /// It has done its work.
    Completed,
    /// It was stopped by an operator.
    Stopped,
}

/// Everything a supervisor knows about a child in advance.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildSpec {
    /// Its name, unique under the supervisor.
    pub id: ChildId,
    /// When it is restarted.
    pub restart: RestartType,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// How many automatic restarts it may have.
    pub intensity: Intensity,
    /// How long each of them waits.
    pub backoff: Backoff,
    /// What follows when it needs more.
    pub on_exceeded: OnExceeded,
    /// When it counts as started.
    pub ready: Ready,
    /// How long a start may take; a start that takes longer is stopped and counts as an exit. `None`: for ever.
    pub start_timeout: Option<Duration>,
    /// On which thread it lives.
    pub placement: Placement,
    /// Messages that may wait for it; more are refused as `Full`.
    pub inbox_capacity: usize,
    /// What is known of it from before.
    pub seed: Seed,
}

/// How long a start may take by default; an agent that needs longer says so.
const START_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

impl ChildSpec {
    /// A permanent child with the defaults of this crate.
    pub fn new(id: impl Into<ChildId>) -> Self {
        Self {
            id: id.into(),
            restart: RestartType::default(),
            shutdown: Shutdown::default(),
            intensity: Intensity::default(),
            backoff: Backoff::default(),
            on_exceeded: OnExceeded::default(),
            ready: Ready::default(),
            start_timeout: Some(START_TIMEOUT_DEFAULT),
            placement: Placement::default(),
            inbox_capacity: INBOX_CAPACITY_DEFAULT,
            seed: Seed::default(),
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that no supervisor could honour.
    pub fn validate(&self) -> Result<(), SpecError> {
        let id = || self.id.clone();
        if self.id.as_str().is_empty() || self.id.as_str().contains('/') {
            return Err(SpecError::Id { id: id() });
        }
        if self.intensity.max_restarts > MAX_RESTARTS_LIMIT || self.intensity.period.is_zero() {
            return Err(SpecError::Intensity { id: id(), intensity: self.intensity });
        }
        let Backoff { factor, jitter, .. } = self.backoff;
        if !(factor.is_finite() && factor >= 1.0 && (0.0..=1.0).contains(&jitter)) {
            return Err(SpecError::Backoff { id: id(), factor, jitter });
        }
        if self.inbox_capacity == 0 {
            return Err(SpecError::InboxCapacity { id: id() });
        }
        if self.start_timeout.is_some_and(|limit| limit.is_zero()) {
            return Err(SpecError::StartTimeout { id: id() });
        }
        if self.seed.state == SeedState::Running && self.seed.incarnation == 0 {
            return Err(SpecError::Seed { id: id() });
        }
        Ok(())
    }
}

/// Why a child specification was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// The name is empty or holds the separator of paths.
    #[error("the id `{id}` is empty or holds a slash")]
    Id {
        /// The name that was given.
        id: ChildId,
    },
    /// The window is deeper than [`MAX_RESTARTS_LIMIT`] or has no length.
    #[error("child `{id}`: {} restarts in {:?} is not a window (at most {MAX_RESTARTS_LIMIT}, period above zero)", intensity.max_restarts, intensity.period)]
    Intensity {
        /// The child.
        id: ChildId,
        /// What was given.
        intensity: Intensity,
    },
    /// The back-off would shrink or is not a number.
    #[error("child `{id}`: back-off factor {factor} (at least 1) or jitter {jitter} (0 to 1) is out of range")]
    Backoff {
        /// The child.
        id: ChildId,
        /// The factor that was given.
        factor: f64,
        /// The jitter that was given.
        jitter: f64,
    },
    /// No message could ever be accepted.
    #[error("child `{id}`: the inbox has no room")]
    InboxCapacity {
        /// The child.
        id: ChildId,
    },
    /// Every start would be too late.
    #[error("child `{id}`: the start timeout is zero")]
    StartTimeout {
        /// The child.
        id: ChildId,
    },
    /// A child said to be running has no incarnation to adopt.
    #[error("child `{id}`: the seed says running but names no incarnation")]
    Seed {
        /// The child.
        id: ChildId,
    },
    /// Two children of one supervisor have the same name.
    #[error("the id `{id}` is used twice")]
    Duplicate {
        /// The name.
        id: ChildId,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn defaults_are_valid() {
        ChildSpec::new("a").validate().unwrap();
    }

    #[test]
    fn each_faulty_field_is_named() {
        let refused = |change: fn(&mut ChildSpec)| {
            let mut spec = ChildSpec::new("a");
            change(&mut spec);
            spec.validate().unwrap_err()
        };
        assert!(matches!(refused(|s| s.id = "".into()), SpecError::Id { .. }));
        assert!(matches!(refused(|s| s.id = "a/b".into()), SpecError::Id { .. }));
        assert!(matches!(refused(|s| s.intensity.period = Duration::ZERO), SpecError::Intensity { .. }));
        assert!(matches!(refused(|s| s.intensity.max_restarts = u32::MAX), SpecError::Intensity { .. }));
        assert!(matches!(refused(|s| s.backoff.factor = 0.5), SpecError::Backoff { .. }));
        assert!(matches!(refused(|s| s.backoff.factor = f64::NAN), SpecError::Backoff { .. }));
        assert!(matches!(refused(|s| s.backoff.jitter = 1.5), SpecError::Backoff { .. }));
        assert!(matches!(refused(|s| s.inbox_capacity = 0), SpecError::InboxCapacity { .. }));
        assert!(matches!(refused(|s| s.start_timeout = Some(Duration::ZERO)), SpecError::StartTimeout { .. }));
        assert!(matches!(refused(|s| s.seed.state = SeedState::Running), SpecError::Seed { .. }));
    }
}
