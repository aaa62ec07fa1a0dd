//! A supervisor, its children and what happens to them, made from one number.

use std::time::Duration;

use hivekeeper_actors::{
    AutoShutdown, Backoff, ChildSpec, Intensity, Meltdown, OnExceeded, RestartType, Seed, SeedState, Shutdown,
    Strategy, SupervisorFlags,
};

pub(crate) const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
pub(crate) const PERIOD: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(crate) enum Move {
    Ready(usize),
    FailStart(usize),
    Ignore(usize),
    Crash(usize),
    Finish(usize),
    Lose(usize),
    /// A notice that was said before is said again.
    Echo(usize),
    Pass(u64),
    Ask(Ask, usize),
    /// New flags and specifications, made from this number.
    Change(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ask {
    Start,
    Add,
    Restart,
    StartExisting,
    Terminate,
    ForceRestart,
    Delete,
    Remove,
    StartAll,
    StopAll,
    RestartAll,
}

const ASKS: [Ask; 11] = [
    Ask::Start,
    Ask::Add,
    Ask::Restart,
    Ask::StartExisting,
    Ask::Terminate,
    Ask::ForceRestart,
    Ask::Delete,
    Ask::Remove,
    Ask::StartAll,
    Ask::StopAll,
    Ask::RestartAll,
];

#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) number: u64,
    pub(crate) flags: SupervisorFlags,
    pub(crate) children: Vec<ChildSpec>,
    pub(crate) moves: Vec<Move>,
}

impl History {
    pub(crate) fn new(number: u64, strategy: Strategy) -> Self {
        let mut dice = Dice(number);
        let flags = flags(&mut dice, strategy);
        let count = 1 + dice.below(5);
        let children = NAMES[..count].iter().map(|name| child(&mut dice, name, &flags)).collect();
        // A third of the histories know no operators, so that what failures alone lead to has its share.
        let asks = if dice.one_in(3) { 0 } else { 6 };
        let moves = (0..dice.below(60)).map(|_| a_move(&mut dice, asks)).collect();
        Self { number, flags, children, moves }
    }
}

fn a_move(dice: &mut Dice, asks: usize) -> Move {
    let n = dice.below(NAMES.len());
    match dice.below(27 + asks) {
        0..6 => Move::Ready(n),
        6..8 => Move::FailStart(n),
        8 => Move::Ignore(n),
        9..14 => Move::Crash(n),
        14..18 => Move::Finish(n),
        18..20 => Move::Lose(n),
        20 => Move::Echo(dice.below(20)),
        21..27 => Move::Pass(dice.below(4000) as u64),
        27 if dice.one_in(2) => Move::Change(dice.next()),
        _ => Move::Ask(ASKS[dice.below(ASKS.len())], n),
    }
}

pub(crate) fn flags(dice: &mut Dice, strategy: Strategy) -> SupervisorFlags {
    let meltdown = match dice.below(3) {
        0 => Meltdown::Escalate,
        1 => Meltdown::Contain(OnExceeded::Fail),
        _ => Meltdown::Contain(OnExceeded::RetryAfter(Duration::from_secs(dice.below(6) as u64))),
    };
    let auto_shutdown = match dice.below(6) {
        0 => AutoShutdown::AnySignificant,
        1 => AutoShutdown::AllSignificant,
        _ => AutoShutdown::Never,
    };
    let intensity = (!dice.one_in(3)).then(|| Intensity { max_restarts: dice.below(5) as u32, period: PERIOD });
    SupervisorFlags { intensity, meltdown, auto_shutdown, ..SupervisorFlags::new(strategy) }
}

pub(crate) fn child(dice: &mut Dice, name: &str, flags: &SupervisorFlags) -> ChildSpec {
    let restart = match dice.below(5) {
        0 => RestartType::Transient,
        1 => RestartType::Temporary,
        _ => RestartType::Permanent,
    };
    let retain = dice.one_in(2);
    let state = match dice.below(16) {
        0 => SeedState::Running,
        1 => SeedState::Delayed { retry_in: Duration::from_secs(dice.below(4) as u64) },
        2 if retain => SeedState::Failed { retry_in: None },
        3 if retain => SeedState::Completed,
        4 if retain => SeedState::Stopped,
        _ => SeedState::Fresh,
    };
    ChildSpec {
        restart,
        retain,
        significant: flags.auto_shutdown != AutoShutdown::Never && restart != RestartType::Permanent && dice.one_in(2),
        shutdown: match dice.below(3) {
            0 => Shutdown::Brutal,
            n => Shutdown::Deadline(Duration::from_secs(n as u64)),
        },
        intensity: dice.one_in(2).then(|| Intensity { max_restarts: dice.below(4) as u32, period: PERIOD }),
        on_exceeded: if dice.one_in(3) { OnExceeded::RetryAfter(Duration::from_secs(2)) } else { OnExceeded::Fail },
        backoff: Backoff { reset_after: Duration::from_secs(30), ..Backoff::default() },
        backoff_group: dice.one_in(4).then(|| "provider".into()),
        start_timeout: (!dice.one_in(3)).then(|| Duration::from_secs(3)),
        seed: Seed { incarnation: u64::from(state == SeedState::Running), state, ..Seed::default() },
        ..ChildSpec::new(name)
    }
}

/// Small, fast, and the same everywhere (splitmix64).
#[derive(Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
