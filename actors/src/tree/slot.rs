//! One child in the core: its state and its record. A supervisor may have 100,000 of them, so what few children need is boxed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Action, Cause, Key, NewChild, Refusal, Role, Token};
use crate::event::{EventKind, SupervisionEvent};
use crate::exit::ExitReason;
use crate::flags::Strategy;
use crate::snapshot::{ChildKind, ChildState, LastExit, TreeNode};
use crate::spec::{Named, RestartType, SeedState};
use crate::window::Window;

/// Further than any daemon runs; stands for instants that the clock can't name.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// `wait` after `now`, however long.
pub(super) fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now + FAR)
}

/// What follows when a stopping incarnation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Rest,
    Launch,
    Remove,
    /// The start took too long: its end counts as an exit.
    CountStartTimeout,
    /// It comes back with its group, in its turn.
    Return,
    /// It is failed along with its group.
    Fail,
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
    Pending { cause: Cause },
    Starting { give_up_at: Option<Instant>, cause: Cause },
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

    /// It has ended for good, unless somebody starts it.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Stopped | Self::Completed | Self::Failed { retry_at: None })
    }

    /// It has no incarnation that is ready, because one has failed: OTP's `restarting`.
    pub(super) fn is_restarting(&self) -> bool {
        match self {
            Self::BackingOff { .. } => true,
            Self::Pending { cause } | Self::Starting { cause, .. } => {
                matches!(cause, Cause::Automatic | Cause::Replacement)
            }
            _ => false,
        }
    }

    /// When it wants to be looked at.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Starting { give_up_at, .. } => *give_up_at,
            Self::BackingOff { until, .. } => Some(*until),
            Self::Stopping { until, .. } => *until,
            Self::Failed { retry_at } => *retry_at,
            Self::Pending { .. } | Self::Running | Self::Stopped | Self::Completed => None,
        }
    }

    fn public(&self) -> ChildState {
        match self {
            Self::Pending { .. } => ChildState::Pending,
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

/// What an ordered stop under way, which has not reached it yet, will make of a living child. An end before that leads to the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    #[default]
    Free,
    Rest,
    Return,
    Fail,
}

/// What follows when a start that somebody waits for fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trial {
    /// What follows any exit.
    #[default]
    None,
    /// It rests (OTP `restart_child`).
    Rest,
    /// It is forgotten (OTP `start_child`).
    Discard,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    Started,
    Ended,
    Removed,
}

pub(super) struct Slot<P> {
    pub(super) spec: Named,
    pub(super) path: Arc<str>,
    pub(super) payload: P,
    pub(super) state: State,
    pub(super) since: Instant,
    pub(super) incarnation: u64,
    pub(super) restarts: u64,
    past: Option<Box<Past>>,
    waiters: Waiters,
    pub(super) role: Role,
    pub(super) fate: Fate,
    pub(super) trial: Trial,
    /// The next launch takes over the seed's incarnation.
    pub(super) adopt: bool,
}

/// Who waits for something of a child: mostly nobody, or whoever has it started, for whom nothing is allocated.
#[derive(Default)]
enum Waiters {
    #[default]
    None,
    One(Token, Until),
    Many(Vec<(Token, Until)>),
}

impl Waiters {
    fn push(&mut self, token: Token, until: Until) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(token, until),
            Self::One(first, its) => Self::Many(vec![(first, its), (token, until)]),
            Self::Many(mut all) => {
                all.push((token, until));
                Self::Many(all)
            }
        };
    }

    /// Takes out those who wait for `wanted`, in the order in which they came.
    fn take(&mut self, wanted: Until, mut taken: impl FnMut(Token)) {
        match self {
            Self::One(token, until) if *until == wanted => {
                taken(*token);
                *self = Self::None;
            }
            Self::None | Self::One(..) => {}
            Self::Many(all) => {
                all.extract_if(.., |(_, until)| *until == wanted).for_each(|(token, _)| taken(token));
                if all.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }
}

/// What a child that has never ended does not need.
#[derive(Default)]
pub(super) struct Past {
    /// Its own automatic restarts; empty without a limit of its own.
    pub(super) window: Window,
    /// Automatic restarts since the back-off started over.
    pub(super) attempt: u32,
    /// Why, when and which incarnation.
    pub(super) last_exit: Option<(ExitReason, Instant, u64)>,
}

impl<P> Slot<P> {
    pub(super) fn new(now: Instant, path: Arc<str>, child: NewChild<P>) -> Self {
        let NewChild { spec, seed, role, payload } = child;
        let seed = seed.as_deref().unwrap_or(&spec.seed);
        let (incarnation, restarts, adopt) = (seed.incarnation, seed.restarts, seed.state == SeedState::Running);
        let state = match seed.state {
            SeedState::Fresh | SeedState::Running => State::Pending { cause: Cause::Asked },
            SeedState::Delayed { retry_in } => {
                State::BackingOff { until: later(now, retry_in), cause: Cause::Automatic }
            }
            SeedState::Lost => State::BackingOff { until: now, cause: Cause::Replacement },
            SeedState::Failed { retry_in } => State::Failed { retry_at: retry_in.map(|wait| later(now, wait)) },
            SeedState::Completed => State::Completed,
            SeedState::Stopped => State::Stopped,
        };
        let window = spec.intensity.map(|intensity| Window::seeded(now, &seed.recent, intensity)).unwrap_or_default();
        let past = Past { window, attempt: seed.attempt, last_exit: None };
        let fresh = past.attempt == 0 && past.window.is_empty();
        Self {
            spec,
            path,
            payload,
            state,
            since: now,
            incarnation,
            restarts,
            past: (!fresh).then(|| Box::new(past)),
            waiters: Waiters::default(),
            role,
            fate: Fate::default(),
            trial: Trial::default(),
            adopt,
        }
    }

    pub(super) fn past(&self) -> Option<&Past> {
        self.past.as_deref()
    }

    pub(super) fn past_mut(&mut self) -> &mut Past {
        self.past.get_or_insert_default()
    }

    pub(super) fn attempt(&self) -> u32 {
        self.past().map_or(0, |past| past.attempt)
    }

    /// Whether nothing of it is kept when it has ended for good.
    pub(super) fn is_forgettable(&self, strategy: Strategy) -> bool {
        !self.spec.retain && (self.spec.restart == RestartType::Temporary || strategy == Strategy::SimpleOneForOne)
    }

    /// Automatic restarts in its own window; `None` when it has no limit of its own.
    fn own_restarts_in_window(&self, now: Instant) -> Option<u32> {
        self.spec.intensity.map(|intensity| self.past().map_or(0, |past| past.window.count(now, intensity)))
    }

    /// `shared` is the count of the supervisor's window, for a child without a limit of its own.
    pub(super) fn event(&self, now: Instant, shared: u32, kind: EventKind) -> SupervisionEvent {
        SupervisionEvent {
            path: Arc::clone(&self.path),
            id: self.spec.id.clone(),
            incarnation: self.incarnation,
            restarts: self.restarts,
            restarts_in_window: self.own_restarts_in_window(now).unwrap_or(shared),
            kind,
        }
    }

    /// Forgets the failures so far, because somebody asked for a start.
    pub(super) fn clear_record(&mut self) {
        if let Some(past) = &mut self.past {
            past.window.clear();
            past.attempt = 0;
        }
    }

    pub(super) fn wait_for(&mut self, token: Token, until: Until) {
        self.waiters.push(token, until);
    }

    /// Takes out everyone who waits for `until`, with their answers; `key` is its own.
    pub(super) fn answer_waiters(
        &mut self,
        (key, until): (Key, Until),
        result: &Result<(), Refusal>,
        out: &mut Vec<Action<P>>,
    ) {
        self.waiters.take(until, |token| {
            out.push(Action::Answer { token, child: Some(key), result: result.clone() });
        });
    }

    /// `shared` as for [`Slot::event`].
    pub(super) fn node(&self, now: Instant, shared: u32) -> TreeNode {
        let age = |at: Instant| now.saturating_duration_since(at);
        let last_exit = self.past().and_then(|past| past.last_exit.as_ref());
        TreeNode {
            id: self.spec.id.clone(),
            path: Arc::clone(&self.path),
            kind: match self.role {
                Role::Worker => ChildKind::Worker,
                Role::Supervisor(_) => ChildKind::Supervisor,
            },
            strategy: match self.role {
                Role::Worker => None,
                Role::Supervisor(strategy) => strategy,
            },
            supervision: None,
            restart: self.spec.restart,
            significant: self.spec.significant,
            state: self.state.public(),
            in_state_for: age(self.since),
            incarnation: self.incarnation,
            restarts: self.restarts,
            restarts_in_window: self.own_restarts_in_window(now).unwrap_or(shared),
            retry_in: match self.state {
                State::BackingOff { until, .. } => Some(until.saturating_duration_since(now)),
                State::Failed { retry_at } => retry_at.map(|at| at.saturating_duration_since(now)),
                _ => None,
            },
            last_exit: last_exit.map(|(reason, at, incarnation)| LastExit {
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
