//! One child in the core: its state and its record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Cause, NewChild, Refusal, Role, Token};
use crate::event::{EventKind, SupervisionEvent};
use crate::exit::ExitReason;
use crate::snapshot::{ChildKind, ChildState, LastExit, TreeNode};
use crate::spec::{ChildSpec, SeedState};
use crate::window::Window;

/// Further than any daemon runs; stands for instants that the clock can't name.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// `wait` after `now`, however long.
pub(super) fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now + FAR)
}

/// What an operator wants of one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Start,
    Stop,
    Restart,
    Delete,
}

/// What follows when a stopping incarnation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Rest,
    Launch,
    Remove,
    /// The start took too long: its end counts as an exit.
    CountStartTimeout,
}

/// How far a stop has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    Asked,
    /// Dropped at once, because its specification says so.
    Brutal,
    /// Dropped after its deadline.
    Overdue,
    /// Dropped and still not ended: nobody waits for it any more.
    GivenUp,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    Pending,
    Starting { give_up_at: Option<Instant> },
    Running,
    BackingOff { until: Instant, cause: Cause },
    Stopping { then: Then, force: Force, until: Option<Instant> },
    Stopped,
    Completed,
    Failed { retry_at: Option<Instant> },
}

impl State {
    /// An incarnation may live.
    pub(super) fn lives(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Running | Self::Stopping { .. })
    }

    /// Nobody will read its messages.
    pub(super) fn rests(&self) -> bool {
        matches!(self, Self::Stopped | Self::Completed | Self::Failed { .. })
    }

    /// When it wants to be looked at.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Starting { give_up_at } => *give_up_at,
            Self::BackingOff { until, .. } => Some(*until),
            Self::Stopping { until, .. } => *until,
            Self::Failed { retry_at } => *retry_at,
            Self::Pending | Self::Running | Self::Stopped | Self::Completed => None,
        }
    }

    fn public(&self) -> ChildState {
        match self {
            Self::Pending => ChildState::Pending,
            Self::Starting { .. } => ChildState::Starting,
            Self::Running => ChildState::Running,
            Self::BackingOff { .. } => ChildState::BackingOff,
            Self::Stopping { .. } => ChildState::Stopping,
            Self::Stopped => ChildState::Stopped,
            Self::Completed => ChildState::Completed,
            Self::Failed { .. } => ChildState::Failed,
        }
    }
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    Started,
    Ended,
    Removed,
}

pub(super) struct Slot<P> {
    pub(super) spec: Arc<ChildSpec>,
    pub(super) path: Arc<str>,
    pub(super) role: Role,
    pub(super) payload: P,
    pub(super) state: State,
    pub(super) since: Instant,
    pub(super) incarnation: u64,
    pub(super) restarts: u64,
    pub(super) attempt: u32,
    pub(super) window: Window,
    /// Why, when and which incarnation.
    pub(super) last_exit: Option<(ExitReason, Instant, u64)>,
    /// The next launch takes over the seed's incarnation.
    pub(super) adopt: bool,
    /// An ordered stop will reach it: an exit before that is not followed by a restart.
    pub(super) doomed: bool,
    pub(super) waiters: Vec<(Token, Until)>,
}

impl<P> Slot<P> {
    pub(super) fn new(now: Instant, path: Arc<str>, child: NewChild<P>) -> Self {
        let NewChild { spec, seed, role, payload } = child;
        let state = match seed.state {
            SeedState::Fresh | SeedState::Running => State::Pending,
            SeedState::Delayed { retry_in } => {
                State::BackingOff { until: later(now, retry_in), cause: Cause::Automatic }
            }
            SeedState::Failed => State::Failed { retry_at: None },
            SeedState::Completed => State::Completed,
            SeedState::Stopped => State::Stopped,
        };
        Self {
            window: spec.intensity.map(|intensity| Window::seeded(now, &seed.recent, intensity)).unwrap_or_default(),
            spec,
            path,
            role,
            payload,
            state,
            since: now,
            incarnation: seed.incarnation,
            restarts: seed.restarts,
            attempt: seed.attempt,
            last_exit: None,
            adopt: seed.state == SeedState::Running,
            doomed: false,
            waiters: Vec::new(),
        }
    }

    pub(super) fn event(&self, now: Instant, kind: EventKind) -> SupervisionEvent {
        SupervisionEvent {
            path: Arc::clone(&self.path),
            id: self.spec.id.clone(),
            incarnation: self.incarnation,
            restarts: self.restarts,
            restarts_in_window: self.restarts_in_window(now),
            kind,
        }
    }

    fn restarts_in_window(&self, now: Instant) -> u32 {
        self.spec.intensity.map_or(0, |intensity| self.window.count(now, intensity))
    }

    /// Forgets the failures so far, because somebody asked for a start.
    pub(super) fn clear_record(&mut self) {
        self.window.clear();
        self.attempt = 0;
    }

    /// Takes out everyone who waits for `until`.
    pub(super) fn take_waiters(&mut self, until: Until) -> Vec<Token> {
        self.waiters.extract_if(.., |(_, wanted)| *wanted == until).map(|(token, _)| token).collect()
    }

    pub(super) fn node(&self, now: Instant) -> TreeNode {
        let age = |at: Instant| now.saturating_duration_since(at);
        TreeNode {
            id: self.spec.id.clone(),
            path: Arc::clone(&self.path),
            kind: match self.role {
                Role::Worker => ChildKind::Worker,
                Role::Supervisor(_) => ChildKind::Supervisor,
            },
            strategy: match self.role {
                Role::Worker => None,
                Role::Supervisor(strategy) => Some(strategy),
            },
            restart: self.spec.restart,
            state: self.state.public(),
            in_state_for: age(self.since),
            incarnation: self.incarnation,
            restarts: self.restarts,
            restarts_in_window: self.restarts_in_window(now),
            retry_in: match self.state {
                State::BackingOff { until, .. } => Some(until.saturating_duration_since(now)),
                State::Failed { retry_at } => retry_at.map(|at| at.saturating_duration_since(now)),
                _ => None,
            },
            last_exit: self.last_exit.as_ref().map(|(reason, at, incarnation)| LastExit {
                reason: reason.clone(),
                age: age(*at),
                incarnation: *incarnation,
            }),
            children: Vec::new(),
        }
    }

    /// How long its incarnation has been ready.
    pub(super) fn ran_for(&self, now: Instant) -> Duration {
        match self.state {
            State::Running => now.saturating_duration_since(self.since),
            _ => Duration::ZERO,
        }
    }
}

/// The answer to a stop that came too late for whoever waited for a start.
pub(super) const SUPERSEDED: Result<(), Refusal> = Err(Refusal::Superseded);
