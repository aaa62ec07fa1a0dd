//! What a supervisor is told about itself: OTP's supervisor flags.

use std::time::Duration;

use crate::spec::MAX_RESTARTS_LIMIT;

/// Which children a failure touches (OTP `strategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// The failed child alone is restarted.
    #[default]
    OneForOne,
    /// Every child is stopped, in reverse order, and all are started again in order.
    OneForAll,
    /// The failed child and those that were started after it are stopped, in reverse order, and started again in order.
    RestForOne,
    /// Children come and go: the failed one alone is restarted, one that has ended for good is forgotten, and a shutdown stops all side by side.
    SimpleOneForOne,
}

impl Strategy {
    /// Whether a failure takes siblings along.
    #[must_use]
    pub fn is_group(self) -> bool {
        matches!(self, Self::OneForAll | Self::RestForOne)
    }
}

/// How many automatic restarts are allowed within a sliding period. The exit that would need one more is too many: see [`OnExceeded`] and
/// [`Meltdown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Automatic restarts allowed within `period`; 0 means that the first exit is the last.
    pub max_restarts: u32,
    /// Length of the sliding window.
    pub period: Duration,
}

impl Intensity {
    /// Three restarts in 5 s: a supervisor's own default (Elixir's; OTP's 1 in 5 s is spent by one unlucky coincidence).
    pub const SUPERVISOR: Self = Self { max_restarts: 3, period: Duration::from_secs(5) };

    /// Whether it has a length and a depth that memory allows.
    #[must_use]
    pub fn is_window(&self) -> bool {
        self.max_restarts <= MAX_RESTARTS_LIMIT && !self.period.is_zero()
    }
}

impl Default for Intensity {
    /// Five restarts a minute: a child's.
    fn default() -> Self {
        Self { max_restarts: 5, period: Duration::from_secs(60) }
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

/// What a supervisor does when its children need more restarts than its own [`Intensity`] allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Meltdown {
    /// It stops every child and ends with [`ExitReason::GaveUp`](crate::ExitReason::GaveUp); its own supervisor decides what follows (OTP).
    #[default]
    Escalate,
    /// It stops every child and lives on; the children are `failed`, and what follows is as for one child that exceeds a limit of its own.
    Contain(OnExceeded),
}

/// Whether a supervisor ends when significant children have ended by themselves (OTP `auto_shutdown`). It then stops the others and ends with
/// [`ExitReason::Shutdown`](crate::ExitReason::Shutdown).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AutoShutdown {
    /// It doesn't, and none of its children may be significant.
    #[default]
    Never,
    /// When the first of them has.
    AnySignificant,
    /// When the last of them has.
    AllSignificant,
}

/// What a supervisor is told about itself (OTP `sup_flags`).
#[derive(Clone, Debug, PartialEq)]
pub struct SupervisorFlags {
    /// Which children a failure touches.
    pub strategy: Strategy,
    /// Automatic restarts of all children together that are allowed; `None`: only the children's own limits count.
    pub intensity: Option<Intensity>,
    /// What follows when they need more.
    pub meltdown: Meltdown,
    /// Whether it ends with its significant children.
    pub auto_shutdown: AutoShutdown,
    /// Ages of automatic restarts, from an earlier life, that may still lie in the window of `intensity`.
    pub recent: Vec<Duration>,
}

impl SupervisorFlags {
    /// OTP's defaults, save for the [intensity](Intensity::SUPERVISOR).
    #[must_use]
    pub fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            intensity: Some(Intensity::SUPERVISOR),
            meltdown: Meltdown::default(),
            auto_shutdown: AutoShutdown::default(),
            recent: Vec::new(),
        }
    }

    /// Without a limit of its own: each child's own decides.
    #[must_use]
    pub fn unlimited(strategy: Strategy) -> Self {
        Self { intensity: None, ..Self::new(strategy) }
    }
}

impl Default for SupervisorFlags {
    fn default() -> Self {
        Self::new(Strategy::default())
    }
}
