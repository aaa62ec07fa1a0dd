//! What a supervisor has to know about a child: its name, when to restart it, how to stop it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::flags::{Intensity, OnExceeded};

/// Deepest restart window that a child may ask for. The window keeps one instant per restart, so this bounds its memory (160 KiB a child).
pub const MAX_RESTARTS_LIMIT: u32 = 10_000;

/// Messages that wait for a child by default: more than a burst of its peers, small enough that a stuck child is noticed as `Full`.
pub const INBOX_CAPACITY_DEFAULT: usize = 1024;

/// Digits of the largest number in a name.
const DIGITS_MAX: usize = 20;

/// The name of a child, unique under its supervisor. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildId(Arc<str>);

impl ChildId {
    /// `front` and `number` as one name, such as `session-7`. A formatter would take longer than all else that is done with the name.
    pub(crate) fn numbered(front: &Self, number: u64) -> Self {
        let mut digits = [0; DIGITS_MAX];
        let (mut left, mut first) = (number, DIGITS_MAX);
        loop {
            first -= 1;
            digits[first] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        let digits = str::from_utf8(&digits[first..]).unwrap_or_default();
        Self([front.as_str(), "-", digits].concat().into())
    }

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
    /// Never, not even when a sibling's failure restarts the others. Once it has ended it is forgotten, unless its specification
    /// [retains](ChildSpec::retain) it.
    Temporary,
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

/// On which thread the incarnations of a child live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// One of the threads for children: the first incarnation in turn, the next ones where the one before was. A handler that blocks holds up its neighbours there, and no supervisor.
    #[default]
    Pool,
    /// The thread of the supervisor, which is that of every supervisor of the tree that does not live [apart](crate::Child::apart). A restart
    /// then waits for no other thread to wake up (0.1 to 0.2 ms each on a virtual machine whose cores sleep). Only for children whose handlers
    /// are short and never block.
    WithSupervisor,
    /// A thread of its own, made for each incarnation and ended with it (0.1 ms and 25 KiB each). For handlers that block.
    Dedicated,
}

/// What happens to a message for an inbox that is full. Each message that is dropped is counted ([`ChildRef::stats`](crate::ChildRef::stats)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// The sender waits for room ([`ChildRef::tell_wait`](crate::ChildRef::tell_wait)); one that can't wait is refused as `Full`.
    #[default]
    Block,
    /// The message that comes is dropped.
    DropNewest,
    /// The message that has waited longest is dropped.
    DropOldest,
    /// The child ends with [`ExitReason::Overflow`](crate::ExitReason::Overflow), as by a failure of its own; the message is refused as `Full`.
    Stop,
}

/// What happens to waiting messages when an incarnation ends and another one is to follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnRestart {
    /// The next incarnation handles them, in order.
    #[default]
    Keep,
    /// They are dropped and counted; asks among them are told `Restarting`.
    Drop,
    /// They go to the dead letters of the tree ([`Root::dead_letters`](crate::Root::dead_letters)); asks among them are told `Restarting`.
    DeadLetter,
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
    /// It is in back-off. Siblings that live are restarted with it, where a failure takes them along.
    Delayed {
        /// Time until the automatic restart.
        retry_in: Duration,
    },
    /// It ended through no fault of its own and is replaced at once, debited to nobody; siblings as under `Delayed`.
    Lost,
    /// It has given up.
    Failed {
        /// Time until it is tried again with a fresh window.
        retry_in: Option<Duration>,
    },
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
    /// Its end by itself counts for its supervisor's [`AutoShutdown`](crate::AutoShutdown) (OTP `significant`). Not for permanent children.
    pub significant: bool,
    /// A temporary child is kept when it has ended, as completed or failed, and can be started again by hand. OTP forgets it.
    pub retain: bool,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// How many automatic restarts of its own it may have; `None`: as many as its supervisor's limit allows.
    pub intensity: Option<Intensity>,
    /// How long each of them waits.
    pub backoff: Backoff,
    /// Children of one supervisor that name the same group share one back-off: a failure while the group backs off waits as long as the others
    /// and counts as the same one. For children that depend on one thing outside, such as a rate-limited provider.
    pub backoff_group: Option<Arc<str>>,
    /// What follows when it needs more than its own `intensity`.
    pub on_exceeded: OnExceeded,
    /// When it counts as started.
    pub ready: Ready,
    /// How long a start may take; a start that takes longer is stopped and counts as an exit. `None`: for ever.
    pub start_timeout: Option<Duration>,
    /// On which thread it lives.
    pub placement: Placement,
    /// Messages that may wait for it.
    pub inbox_capacity: usize,
    /// What happens to more.
    pub overflow: Overflow,
    /// What happens to waiting messages when it is restarted.
    pub on_restart: OnRestart,
    /// The name under which the tree's [`Registry`](crate::Registry) knows it while an incarnation lives.
    pub register: Option<Arc<str>>,
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
            significant: false,
            retain: false,
            shutdown: Shutdown::default(),
            intensity: None,
            backoff: Backoff::default(),
            backoff_group: None,
            on_exceeded: OnExceeded::default(),
            ready: Ready::default(),
            start_timeout: Some(START_TIMEOUT_DEFAULT),
            placement: Placement::default(),
            inbox_capacity: INBOX_CAPACITY_DEFAULT,
            overflow: Overflow::default(),
            on_restart: OnRestart::default(),
            register: None,
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
        if let Some(intensity) = self.intensity.filter(|intensity| !intensity.is_window()) {
            return Err(SpecError::Intensity { id: id(), intensity });
        }
        if self.significant && self.restart == RestartType::Permanent {
            return Err(SpecError::Significant { id: id() });
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

/// A specification under a name. Children of one template share one specification, and the id that counts is the one here.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its name, unique under the supervisor.
    pub id: ChildId,
    spec: Arc<ChildSpec>,
}

impl Named {
    pub(crate) fn new(id: ChildId, spec: Arc<ChildSpec>) -> Self {
        Self { id, spec }
    }

    pub(crate) fn place(&mut self, placement: Placement) {
        Arc::make_mut(&mut self.spec).placement = placement;
    }

    /// As one that stands alone.
    #[must_use]
    pub fn to_spec(&self) -> ChildSpec {
        ChildSpec { id: self.id.clone(), ..ChildSpec::clone(&self.spec) }
    }
}

impl From<ChildSpec> for Named {
    fn from(spec: ChildSpec) -> Self {
        Self { id: spec.id.clone(), spec: Arc::new(spec) }
    }
}

impl Deref for Named {
    type Target = ChildSpec;

    fn deref(&self) -> &ChildSpec {
        &self.spec
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
    /// A permanent child never ends by itself for good, so it can't be significant.
    #[error("child `{id}`: a permanent child can't be significant")]
    Significant {
        /// The child.
        id: ChildId,
    },
    /// A child is significant under a supervisor that never shuts down by itself.
    #[error("child `{id}` is significant, and its supervisor's auto_shutdown is `never`")]
    AutoShutdown {
        /// The child.
        id: ChildId,
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
    /// What a supervisor is told of its own limit is no window.
    #[error("a supervisor's {} restarts in {:?} are not a window (at most {MAX_RESTARTS_LIMIT}, period above zero)", intensity.max_restarts, intensity.period)]
    Limit {
        /// What was given.
        intensity: Intensity,
    },
    /// Children of a `simple_one_for_one` supervisor are added when it runs.
    #[error("child `{id}`: a simple_one_for_one supervisor starts without children")]
    Static {
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
        assert!(matches!(
            refused(|s| s.intensity = Some(Intensity { max_restarts: 1, period: Duration::ZERO })),
            SpecError::Intensity { .. }
        ));
        assert!(matches!(
            refused(|s| s.intensity = Some(Intensity { max_restarts: u32::MAX, period: Duration::from_secs(1) })),
            SpecError::Intensity { .. }
        ));
        assert!(matches!(refused(|s| s.backoff.factor = 0.5), SpecError::Backoff { .. }));
        assert!(matches!(refused(|s| s.backoff.factor = f64::NAN), SpecError::Backoff { .. }));
        assert!(matches!(refused(|s| s.backoff.jitter = 1.5), SpecError::Backoff { .. }));
        assert!(matches!(refused(|s| s.inbox_capacity = 0), SpecError::InboxCapacity { .. }));
        assert!(matches!(refused(|s| s.start_timeout = Some(Duration::ZERO)), SpecError::StartTimeout { .. }));
        assert!(matches!(refused(|s| s.seed.state = SeedState::Running), SpecError::Seed { .. }));
    }
}
