//! An agent's fate: what its program does, and what its supervisor and its runtime say of it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use hivekeeper_actors::{EventKind, ExitReason, SupervisionEvent};

use super::chance::Chance;
use crate::{
    health::{AgentSeed, Report, Standing},
    model::{AgentId, AgentSpec, Desired, ExitCause, ExitRecord, Observation, Ready, RestartType, Spent, Target},
};

/// Where an agent stands in truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not started, stopped, completed or failed.
    Off,
    /// Its restart waits.
    Waiting(u64),
    /// Its program is being started, or has not shown that it is ready.
    Starting {
        lives_at: u64,
    },
    Up,
    /// It was asked to end.
    Ending(u64),
}

pub(super) struct Soul {
    pub(super) id: AgentId,
    pub(super) spec: Arc<AgentSpec>,
    pub(super) fate: Fate,
    pub(super) incarnation: u64,
    pub(super) restarts: u64,
    pub(super) standing: Standing,
    pub(super) desired: Desired,
    pub(super) last_exit: Option<Arc<ExitRecord>>,
    /// What the journal knows of its usage.
    pub(super) spent: Option<Spent>,
    pub(super) paused: bool,
    /// Whether its program lives.
    pub(super) lives: bool,
    /// Whether `hive/open` was accepted in this incarnation.
    pub(super) opened: bool,
    /// It sends no heartbeats until then.
    pub(super) mute_until: u64,
    /// Its launcher takes no readings until then.
    pub(super) blind_until: u64,
    pub(super) next_beat: u64,
    next_sample: u64,
    /// Anything that it counts, so that each value is told once.
    pub(super) count: u64,
}

impl Soul {
    pub(super) fn new(id: AgentId, spec: Arc<AgentSpec>) -> Self {
        Self {
            id,
            spec,
            fate: Fate::Off,
            incarnation: 0,
            restarts: 0,
            standing: Standing::Active,
            desired: Desired::Running,
            last_exit: None,
            spent: None,
            paused: false,
            lives: false,
            opened: false,
            mute_until: 0,
            blind_until: 0,
            next_beat: 0,
            next_sample: 0,
            count: 0,
        }
    }

    pub(super) fn token(&self) -> String {
        format!("token-{}-{}", self.id.name, self.incarnation)
    }

    fn supervised(&self, kind: EventKind) -> Report {
        let event = SupervisionEvent {
            path: Arc::from(format!("root/swarms/{}", self.id)),
            id: self.id.name.as_str().into(),
            incarnation: self.incarnation,
            restarts: self.restarts,
            restarts_in_window: 0,
            kind,
        };
        Report::Supervision { agent: self.id.clone(), event }
    }

    fn seen(&self, event: Observation) -> Report {
        Report::Runtime { agent: self.id.clone(), incarnation: self.incarnation, event }
    }

    /// What the journal would say of it to the next daemon.
    pub(super) fn seed(&self, now: SystemTime) -> AgentSeed {
        let standing = match self.fate {
            Fate::Waiting(_) => Standing::BackingOff { retry_at: now },
            Fate::Off => self.standing,
            Fate::Starting { .. } | Fate::Up | Fate::Ending(_) => Standing::Active,
        };
        AgentSeed {
            incarnation: self.incarnation,
            restarts: self.restarts,
            lives: self.lives,
            recent: Vec::new(),
            last_exit: self.last_exit.clone(),
            standing,
            spent: self.spent.clone(),
        }
    }

    /// A new daemon takes it over, or starts it.
    pub(super) fn adopted(&mut self, ms: u64, wall: SystemTime, out: &mut Vec<Report>) {
        self.opened = false;
        match self.fate {
            Fate::Up | Fate::Ending(_) | Fate::Starting { .. } if self.lives => {
                self.fate = Fate::Starting { lives_at: ms };
                out.push(self.supervised(EventKind::Starting { attempt: 0 }));
                self.lives_now(wall, out);
                if self.paused {
                    out.push(self.seen(Observation::Paused(true)));
                }
            }
            Fate::Starting { .. } | Fate::Up | Fate::Ending(_) => self.start(ms, 0, out),
            Fate::Off | Fate::Waiting(_) => {}
        }
    }

    fn start(&mut self, ms: u64, attempt: u32, out: &mut Vec<Report>) {
        self.incarnation += 1;
        (self.lives, self.opened, self.paused) = (false, false, false);
        self.fate = Fate::Starting { lives_at: ms };
        out.push(self.supervised(EventKind::Starting { attempt }));
    }

    fn lives_now(&mut self, wall: SystemTime, out: &mut Vec<Report>) {
        self.lives = true;
        let pid = u32::try_from(self.incarnation * 10 + 1).unwrap_or(1);
        out.push(self.seen(Observation::Alive { pid, at: wall }));
    }

    fn ended(&mut self, code: i32, cause: ExitCause, wall: SystemTime, chance: &mut Chance, out: &mut Vec<Report>) {
        (self.lives, self.paused, self.opened) = (false, false, false);
        let record = ExitRecord { code: Some(code), ..ExitRecord::unseen(self.incarnation, wall, cause) };
        let record = Arc::new(record);
        self.last_exit = Some(Arc::clone(&record));
        let reason = match code {
            0 => ExitReason::Normal,
            _ => ExitReason::Error(Arc::from("its process ended")),
        };
        let mut both = [self.seen(Observation::Exited(record)), self.supervised(EventKind::Exited { reason })];
        if chance.permille(300) {
            both.swap(0, 1);
        }
        out.extend(both);
    }

    /// What happens to it in one step.
    pub(super) fn step(&mut self, ms: u64, wall: SystemTime, chance: &mut Chance, out: &mut Vec<Report>) {
        match self.fate {
            Fate::Off => {
                let rests = self.standing != Standing::Active || self.desired == Desired::Stopped;
                if chance.permille(if rests { 60 } else { 500 }) {
                    if self.desired != Desired::Running {
                        self.desire(Desired::Running, out);
                    }
                    self.standing = Standing::Active;
                    self.start(ms + chance.below(400), 0, out);
                }
            }
            Fate::Waiting(until) if ms >= until => {
                self.restarts += 1;
                self.start(ms + chance.below(400), 1, out);
            }
            Fate::Waiting(_) => {}
            Fate::Starting { lives_at } => self.starting(lives_at, ms, wall, chance, out),
            Fate::Up => self.up(ms, wall, chance, out),
            Fate::Ending(at) if ms >= at => {
                self.ended(0, ExitCause::Stopped, wall, chance, out);
                self.fate = Fate::Off;
                self.standing = Standing::Stopped;
                out.push(self.supervised(EventKind::Stopped));
            }
            Fate::Ending(_) => {}
        }
        if self.lives && !self.paused && ms >= self.next_sample && ms >= self.blind_until {
            self.next_sample = ms + 1_000;
            self.sample(wall, chance, out);
        }
        if self.lives && chance.permille(120) && !self.paused {
            out.push(self.seen(Observation::Output { at: wall, lines: chance.between(0, 3) }));
        }
        if self.incarnation > 1 && chance.permille(30) {
            self.late_word(wall, chance, out);
        }
    }

    fn starting(&mut self, lives_at: u64, ms: u64, wall: SystemTime, chance: &mut Chance, out: &mut Vec<Report>) {
        if !self.lives {
            if ms >= lives_at {
                if chance.permille(150) {
                    self.ended(1, ExitCause::StartFailed { message: "no such file".to_owned() }, wall, chance, out);
                    return self.judged(1, ms, chance, out);
                }
                self.lives_now(wall, out);
            } else if chance.permille(200) {
                out.push(self.seen(Observation::Waiting { code: "start_waits", reason: "the journal".to_owned() }));
            }
        }
        if self.lives && (self.spec.ready == Ready::Process || self.opened) {
            self.fate = Fate::Up;
            out.push(self.supervised(EventKind::Started { took: Duration::from_millis(5) }));
        }
    }

    fn up(&mut self, ms: u64, wall: SystemTime, chance: &mut Chance, out: &mut Vec<Report>) {
        match chance.below(1000) {
            0..25 => {
                let code = i32::from(chance.permille(600));
                self.ended(code, ExitCause::Exited, wall, chance, out);
                self.judged(code, ms, chance, out);
            }
            25..37 => {
                self.desire(Desired::Stopped, out);
                out.push(self.supervised(EventKind::Stopping));
                self.fate = Fate::Ending(ms + chance.below(1500));
            }
            37..57 => {
                self.paused = !self.paused;
                self.desire(if self.paused { Desired::Paused } else { Desired::Running }, out);
                out.push(self.seen(Observation::Paused(self.paused)));
            }
            57..67 => out.push(self.seen(Observation::Unreachable)),
            67..107 => self.mute_until = ms + chance.below(9_000),
            107..122 => {
                self.blind_until = ms + chance.below(14_000);
                self.mute_until = self.blind_until;
            }
            122..132 => out.push(self.seen(Observation::Lost { lines: chance.between(1, 50), bytes: 100 })),
            _ if self.paused && chance.permille(150) => {
                self.paused = false;
                self.desire(Desired::Running, out);
                out.push(self.seen(Observation::Paused(false)));
            }
            _ => {}
        }
    }

    /// It makes no progress and its document asks for a restart.
    pub(super) fn restart_stuck(&mut self, ms: u64, wall: SystemTime, chance: &mut Chance, out: &mut Vec<Report>) {
        self.ended(137, ExitCause::Stuck, wall, chance, out);
        self.judged(137, ms, chance, out);
    }

    /// What happens to it while nothing goes wrong: what is under way goes on.
    pub(super) fn rest(&mut self, ms: u64, wall: SystemTime, chance: &mut Chance, out: &mut Vec<Report>) {
        match self.fate {
            Fate::Starting { lives_at } => self.starting(lives_at, ms, wall, chance, out),
            Fate::Ending(_) | Fate::Waiting(_) => self.step(ms, wall, chance, out),
            Fate::Off | Fate::Up => {}
        }
    }

    /// What its supervisor makes of its end.
    fn judged(&mut self, code: i32, ms: u64, chance: &mut Chance, out: &mut Vec<Report>) {
        let reason = ExitReason::Error(Arc::from("its process ended"));
        let restarts = match self.spec.restart {
            RestartType::Permanent => true,
            RestartType::Transient => code != 0,
            RestartType::Temporary => false,
        };
        if restarts && chance.permille(900) {
            let delay = chance.below(2500);
            self.fate = Fate::Waiting(ms + delay);
            out.push(self.supervised(EventKind::BackingOff { attempt: 1, delay: Duration::from_millis(delay) }));
        } else if code == 0 && !restarts {
            (self.fate, self.standing) = (Fate::Off, Standing::Completed);
            out.push(self.supervised(EventKind::Completed));
        } else {
            (self.fate, self.standing) = (Fate::Off, Standing::Failed { retry_at: None });
            out.push(self.supervised(EventKind::Failed { reason, retry_in: None }));
        }
    }

    fn desire(&mut self, desired: Desired, out: &mut Vec<Report>) {
        self.desired = desired;
        out.push(Report::Desired { target: Target::Agent(self.id.clone()), desired });
    }

    fn sample(&mut self, wall: SystemTime, chance: &mut Chance, out: &mut Vec<Report>) {
        self.count += 1;
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let cores = (!chance.permille(200)).then_some(self.count as f64 / 64.0);
        let memory_bytes = self.incarnation * 1_000_000 + self.count;
        out.push(self.seen(Observation::Sample { at: wall, cpu_cores: cores, memory_bytes, processes: 1 }));
    }

    /// Somebody tells late of an incarnation that is over.
    fn late_word(&mut self, wall: SystemTime, chance: &mut Chance, out: &mut Vec<Report>) {
        let incarnation = self.incarnation;
        self.incarnation -= 1;
        match chance.below(5) {
            0 => self.sample(wall, chance, out),
            1 => out.push(self.seen(Observation::Output { at: wall, lines: 1 })),
            2 => out.push(self.seen(Observation::Paused(true))),
            3 => out.push(self.supervised(EventKind::Stopped)),
            _ => out.push(self.seen(Observation::Unreachable)),
        }
        self.incarnation = incarnation;
    }
}
