//! The decisions of a launcher: who leads, how long the lease runs, how the tree is frozen and ended. Pure: `step(now, event) -> actions`.

use std::time::{Duration, Instant};

use super::{memory, sys::Ended};
use crate::wire::channel::{Attach, ExitWhy, FromLauncher, Launch, ToLauncher, VERSION, VERSION_MIN};

/// How long descendants may take to end after their SIGKILL; what is left then is stuck in the kernel, and the record says so.
const SWEEP_MAX: Duration = Duration::from_secs(5);
/// First wait before a tree is signalled again: a process that was being forked during the pass needs about that long to show up.
const AGAIN_MIN: Duration = Duration::from_millis(1);
/// Longest such wait: what resists so long sits in the kernel, and asking more often only costs CPU.
const AGAIN_MAX: Duration = Duration::from_millis(250);
/// The first reading comes early, so that a fresh agent is not without numbers for a whole interval.
const FIRST_SAMPLE: Duration = Duration::from_millis(250);
/// Shortest interval of readings: each one walks the tree in `/proc`.
const SAMPLE_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Stands in for a time that is too large to add to a clock; nobody waits a year.
const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Names a channel within one launcher's life.
pub(super) type LinkId = u32;

/// What has happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A channel brought a frame.
    Frame { link: LinkId, frame: ToLauncher },
    /// A channel brought something that is no frame.
    BadFrame { link: LinkId, message: String },
    /// A channel was closed from the other side.
    Closed { link: LinkId },
    /// execve succeeded.
    Execed { pid: u32, at_ms: u64 },
    /// It did not; the child ends by itself.
    ExecFailed(String),
    /// The agent has been reaped. `alone`: no descendant is left. `starved`: memory has run out since the last look, if that can be seen.
    AgentEnded { ended: Ended, alone: bool, starved: Option<bool> },
    /// `waitpid` has no children any more.
    NoDescendants,
    /// The answer to [`Action::Freeze`].
    Froze { stable: bool },
    /// SIGTERM, SIGINT or SIGHUP to the launcher.
    AskedToEnd,
    /// The launcher itself has not run for a while; all that waited in its channels comes before this.
    Woke,
    /// Time has gone on. Last in each turn.
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// SIGTERM to the agent's process group.
    Term,
    /// SIGKILL to every descendant.
    Kill,
    /// SIGSTOP to every descendant; answered by [`Event::Froze`].
    Freeze,
    /// SIGCONT to every descendant.
    Thaw,
    /// Read the tree and tell the leader.
    Sample,
    /// Tell the leader, if there is one.
    Send(FromLauncher),
    /// Say why, and close the channel behind it.
    Refuse { link: LinkId, code: &'static str, message: String },
    /// This channel leads now: state, then the output behind `last_seq`.
    Lead { link: LinkId, last_seq: u64 },
    /// Close the agent's relayed connections; it connects again once somebody leads.
    DropRelays,
    /// Output up to and with this number may leave the ring.
    Ack(u64),
    /// A frame of a relayed connection.
    Relay(ToLauncher),
    /// No descendant is left, or `unswept`: record, last words, end.
    Finish(End),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The program was never run.
    StartFailed { message: String },
    /// It ran and ended.
    Exited { ended: Ended, why: ExitWhy, oom: Option<bool>, unswept: bool },
}

#[derive(Debug, Clone, Copy)]
enum Life {
    /// The agent lives and nobody wants its end.
    Running,
    /// SIGTERM has been sent.
    Terminating { kill_at: Instant, unled: bool },
    /// SIGKILL has been sent.
    Killing { again: Again },
    /// The agent has ended, descendants have not.
    Sweeping { ended: Ended, oom: Option<bool>, deadline: Instant, again: Again },
    /// Nothing is left to decide.
    Over,
}

#[derive(Debug, Clone, Copy)]
enum Pause {
    Off,
    Freezing(Again),
    Frozen,
}

/// When to try again, ever less often.
#[derive(Debug, Clone, Copy)]
struct Again {
    at: Instant,
    wait: Duration,
}

impl Again {
    fn first(now: Instant) -> Self {
        Self { at: now + AGAIN_MIN, wait: AGAIN_MIN }
    }

    fn is_due(self, now: Instant) -> bool {
        now >= self.at
    }

    fn next(self, now: Instant) -> Self {
        let wait = (self.wait * 2).min(AGAIN_MAX);
        Self { at: now + wait, wait }
    }
}

/// The state behind the decisions.
pub(super) struct Core {
    lease: Duration,
    grace: Duration,
    sample_interval: Duration,
    epoch: u64,
    leader: Option<LinkId>,
    lease_until: Instant,
    /// A gap has been forgiven since the last renewal. Once only: gaps in a row must not keep an agent alive that nobody leads.
    forgiven: bool,
    life: Life,
    pause: Pause,
    why: Option<ExitWhy>,
    start_failure: Option<String>,
    sample_at: Instant,
}

impl Core {
    /// The agent has just been forked; `leader` sent the launch.
    pub(super) fn new(now: Instant, launch: &Launch, leader: LinkId) -> Self {
        let lease = millis(launch.lease_ms);
        let sample_interval = millis(launch.sample_interval_ms).max(SAMPLE_INTERVAL_MIN);
        Self {
            lease,
            grace: millis(launch.grace_ms),
            sample_interval,
            epoch: launch.epoch,
            leader: Some(leader),
            lease_until: now + lease,
            forgiven: false,
            life: Life::Running,
            pause: Pause::Off,
            why: None,
            start_failure: None,
            sample_at: now + sample_interval.min(FIRST_SAMPLE),
        }
    }

    /// Whether the whole tree is frozen.
    pub(super) fn paused(&self) -> bool {
        matches!(self.pause, Pause::Frozen)
    }

    /// Whether the agent has been told to end.
    pub(super) fn ending(&self) -> bool {
        self.why.is_some()
    }

    /// The lease, for who takes over.
    pub(super) fn lease_ms(&self) -> u64 {
        u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX)
    }

    /// When [`Event::Tick`] has something to say without any other event.
    pub(super) fn next_wake(&self) -> Instant {
        let life = match self.life {
            Life::Running => self.lease_until,
            Life::Terminating { kill_at, unled: false } => kill_at.min(self.lease_until),
            Life::Terminating { kill_at, unled: true } => kill_at,
            Life::Killing { again } => again.at,
            Life::Sweeping { deadline, again, .. } => deadline.min(again.at),
            Life::Over => self.sample_at,
        };
        let pause = match self.pause {
            Pause::Freezing(again) => again.at,
            Pause::Off | Pause::Frozen => life,
        };
        life.min(pause).min(self.sample_at)
    }

    /// Decides.
    pub(super) fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        match event {
            Event::Frame { link, frame } if Some(link) == self.leader => self.lead(now, link, frame),
            Event::Frame { link, frame: ToLauncher::Attach(attach) } => self.attach(now, link, &attach),
            Event::Frame { link, .. } => vec![refuse(link, "bad_frame", "the first frame must be an attach")],
            Event::BadFrame { link, message } => self.bad_frame(now, link, &message),
            Event::Closed { link } => self.unled(now, link),
            Event::Execed { pid, at_ms } => vec![Action::Send(FromLauncher::Started { pid, at_ms })],
            Event::ExecFailed(message) => {
                self.start_failure = Some(message);
                Vec::new()
            }
            Event::AgentEnded { ended, alone, starved } => {
                let ours = matches!(self.life, Life::Killing { .. });
                self.agent_ended(now, ended, memory::ran_out(starved, ended, ours), alone)
            }
            Event::NoDescendants => match self.life {
                Life::Sweeping { ended, oom, .. } => self.finish(ended, oom, false),
                Life::Running | Life::Terminating { .. } | Life::Killing { .. } | Life::Over => Vec::new(),
            },
            Event::Froze { stable } => self.froze(now, stable),
            Event::AskedToEnd => self.stop(now, self.grace, ExitWhy::Asked),
            Event::Woke => {
                if !self.forgiven {
                    self.forgiven = true;
                    self.lease_until = self.lease_until.max(now + self.lease);
                }
                Vec::new()
            }
            Event::Tick => self.tick(now),
        }
    }

    fn lead(&mut self, now: Instant, link: LinkId, frame: ToLauncher) -> Vec<Action> {
        match frame {
            ToLauncher::Renew { epoch } if epoch < self.epoch => {
                self.leader = None;
                vec![Action::DropRelays, self.refuse_stale(link)]
            }
            ToLauncher::Renew { epoch } => {
                self.epoch = epoch;
                self.renew(now);
                Vec::new()
            }
            ToLauncher::Ack { seq } => vec![Action::Ack(seq)],
            ToLauncher::Stop { grace_ms } => self.stop(now, millis(grace_ms), ExitWhy::Asked),
            ToLauncher::Kill => self.kill(now),
            ToLauncher::Pause => self.freeze(now),
            ToLauncher::Resume => self.thaw(),
            relay @ (ToLauncher::RelayData { .. } | ToLauncher::RelayClose { .. } | ToLauncher::RelayCredit { .. }) => {
                vec![Action::Relay(relay)]
            }
            ToLauncher::Launch(_) | ToLauncher::Attach(_) => {
                self.bad_frame(now, link, "this channel has had its first frame")
            }
        }
    }

    fn bad_frame(&mut self, now: Instant, link: LinkId, message: &str) -> Vec<Action> {
        let mut actions = self.unled(now, link);
        actions.push(refuse(link, "bad_frame", message));
        actions
    }

    /// When it was the leader that went, the lease clock starts, and nothing else.
    fn unled(&mut self, now: Instant, link: LinkId) -> Vec<Action> {
        if self.leader != Some(link) {
            return Vec::new();
        }
        self.leader = None;
        self.lease_until = now + self.lease;
        vec![Action::DropRelays]
    }

    fn attach(&mut self, now: Instant, link: LinkId, attach: &Attach) -> Vec<Action> {
        if let Some(message) = unsupported(attach.version) {
            return vec![refuse(link, "unsupported_version", &message)];
        }
        if attach.epoch < self.epoch {
            return vec![self.refuse_stale(link)];
        }
        self.epoch = attach.epoch;
        self.renew(now);
        self.sample_at = now;
        let mut actions = vec![Action::DropRelays];
        if let Some(old) = self.leader.replace(link) {
            actions.push(self.refuse_stale(old));
        }
        actions.push(Action::Lead { link, last_seq: attach.last_seq });
        actions
    }

    fn refuse_stale(&self, link: LinkId) -> Action {
        refuse(link, "stale_epoch", &format!("a daemon with epoch {} leads this agent", self.epoch))
    }

    fn renew(&mut self, now: Instant) {
        self.lease_until = now + self.lease;
        self.forgiven = false;
    }

    /// The gentle end. The first reason stays; a shorter grace wins.
    fn stop(&mut self, now: Instant, grace: Duration, why: ExitWhy) -> Vec<Action> {
        match &mut self.life {
            Life::Running => {
                self.why = Some(why);
                self.life = Life::Terminating { kill_at: now + grace, unled: why == ExitWhy::LeaseLost };
                // A stopped process gets its SIGTERM only once it runs again.
                let frozen = !matches!(self.pause, Pause::Off);
                let mut actions = vec![Action::Term];
                if frozen {
                    actions.extend(self.thaw());
                }
                actions
            }
            Life::Terminating { kill_at, .. } => {
                *kill_at = (*kill_at).min(now + grace);
                Vec::new()
            }
            Life::Killing { .. } | Life::Sweeping { .. } | Life::Over => Vec::new(),
        }
    }

    /// The end. SIGKILL reaches frozen processes, too.
    fn kill(&mut self, now: Instant) -> Vec<Action> {
        match self.life {
            Life::Running | Life::Terminating { .. } => {
                self.why = self.why.or(Some(ExitWhy::Asked));
                self.life = Life::Killing { again: Again::first(now) };
                self.pause = Pause::Off;
                vec![Action::Kill]
            }
            Life::Killing { .. } | Life::Sweeping { .. } | Life::Over => Vec::new(),
        }
    }

    fn freeze(&mut self, now: Instant) -> Vec<Action> {
        match (self.life, self.pause) {
            (Life::Running, Pause::Off) => {
                self.pause = Pause::Freezing(Again::first(now));
                vec![Action::Freeze]
            }
            (Life::Running, Pause::Frozen) => vec![Action::Send(FromLauncher::Paused { paused: true })],
            _ => Vec::new(),
        }
    }

    fn froze(&mut self, now: Instant, stable: bool) -> Vec<Action> {
        match &mut self.pause {
            Pause::Freezing(_) if stable => {
                self.pause = Pause::Frozen;
                vec![Action::Send(FromLauncher::Paused { paused: true })]
            }
            Pause::Freezing(again) => {
                again.at = now + again.wait;
                Vec::new()
            }
            Pause::Off | Pause::Frozen => Vec::new(),
        }
    }

    fn thaw(&mut self) -> Vec<Action> {
        self.pause = Pause::Off;
        vec![Action::Thaw, Action::Send(FromLauncher::Paused { paused: false })]
    }

    fn agent_ended(&mut self, now: Instant, ended: Ended, oom: Option<bool>, alone: bool) -> Vec<Action> {
        self.pause = Pause::Off;
        if alone {
            return self.finish(ended, oom, false);
        }
        self.life = Life::Sweeping { ended, oom, deadline: now + SWEEP_MAX, again: Again::first(now) };
        vec![Action::Kill]
    }

    fn finish(&mut self, ended: Ended, oom: Option<bool>, unswept: bool) -> Vec<Action> {
        self.life = Life::Over;
        let end = match self.start_failure.take() {
            Some(message) => End::StartFailed { message },
            None => End::Exited { ended, why: self.why.unwrap_or(ExitWhy::Own), oom, unswept },
        };
        vec![Action::Finish(end)]
    }

    fn tick(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if now >= self.lease_until {
            match &mut self.life {
                Life::Running => actions.extend(self.stop(now, self.grace, ExitWhy::LeaseLost)),
                // The one who asked is gone; its grace may be far longer than what the lease allows.
                Life::Terminating { kill_at, unled } if !*unled => {
                    *unled = true;
                    *kill_at = (*kill_at).min(now + self.grace);
                }
                _ => {}
            }
        }
        match &mut self.life {
            Life::Terminating { kill_at, .. } if now >= *kill_at => actions.extend(self.kill(now)),
            Life::Killing { again } if again.is_due(now) => {
                *again = again.next(now);
                actions.push(Action::Kill);
            }
            Life::Sweeping { ended, oom, deadline, .. } if now >= *deadline => {
                let (ended, oom) = (*ended, *oom);
                actions.extend(self.finish(ended, oom, true));
            }
            Life::Sweeping { again, .. } if again.is_due(now) => {
                *again = again.next(now);
                actions.push(Action::Kill);
            }
            _ => {}
        }
        if let Pause::Freezing(again) = &mut self.pause
            && again.is_due(now)
        {
            *again = again.next(now);
            actions.push(Action::Freeze);
        }
        if now >= self.sample_at {
            self.sample_at = now + self.sample_interval;
            if self.leader.is_some() && matches!(self.life, Life::Running | Life::Terminating { .. }) {
                actions.push(Action::Sample);
            }
        }
        actions
    }
}

/// Why a first frame of this version is not obeyed; `None` when it is.
pub(super) fn unsupported(version: u16) -> Option<String> {
    (!(VERSION_MIN..=VERSION).contains(&version))
        .then(|| format!("version {version} of the channel is not spoken here, only {VERSION_MIN} to {VERSION}"))
}

fn refuse(link: LinkId, code: &'static str, message: &str) -> Action {
    Action::Refuse { link, code, message: message.to_owned() }
}

/// A time that fits on a clock.
pub(super) fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms).min(TIME_MAX)
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
