//! A seeded simulation of what the daemon knows and shows: sessions, the fold, the feed and viewers, in one thread and in a time of its own.
//!
//! A seed decides everything: what becomes of agents, how their connections are cut, delayed, doubled and left half open, what garbage they send,
//! where the health actor falls, when the daemon begins anew, which viewers stop reading and where they resume. The cores are the daemon's own; the
//! shells around them (sockets, tasks, timers) are played by `data_plane::simulated`, `health::simulated` and `stream::simulated`.
//!
//! `chance` decides and keeps the trace, `soul` is an agent's fate, `wire` its connections, `model` works out health once more, naively, `client`
//! is the other end of a viewer, and `world` lets all of it happen. [`Rule`] names what is checked.
//!
//! `cargo test simulation` runs 1,000 seeds; `HK_TEST_LONG=yes` runs 100,000, or as many as fit into two minutes; `HK_SEED=n` replays one and
//! prints its trace.

mod chance;
mod client;
mod model;
mod soul;
mod wire;
mod world;

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use world::World;

/// Seeds of a usual run.
const SEEDS: u64 = 1_000;
/// Seeds of a long run, if they fit into [`LONG`].
const SEEDS_LONG: u64 = 100_000;
/// How long a long run takes at most.
const LONG: Duration = Duration::from_secs(120);
/// Steps of one seed before everything is let come to rest.
const STEPS: u64 = 50;

/// What holds at every step, or when everything has come to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Every message that was not refused is received, and of these each is folded or counted as dropped, none twice.
    EveryMessageIsCounted,
    /// A session takes what it should and refuses the rest by the right code; each request is answered once.
    SessionsAnswer,
    /// Heartbeats and changes of state are never dropped and never refused for their rate.
    HeartbeatsPass,
    /// A connection gets through what its rate allows, and no more.
    RatesHold,
    /// A document shows no value that nobody reported, and none of another incarnation.
    ValuesWereReported,
    /// What was used is the sum of what was reported.
    UsageIsTheSum,
    /// States follow from facts: what was seen, and how much time has passed.
    StatesFollow,
    /// No agent is shown as running of which there was no sign of life.
    LifeIsSeenFirst,
    /// Levels follow from states.
    LevelsFollow,
    /// A stuck agent is restarted once, and only if its document asks for it.
    StuckRestartsAsAsked,
    /// No event shows a state in which its agent never was.
    EventsAreTrue,
    /// The documents are what the whole log of reports amounts to.
    FoldIsTheModel,
    /// The feed's numbers grow by one, and never come again in another epoch.
    NumbersGrow,
    /// What is shown is what is folded, once everything has been told.
    ShownIsFolded,
    /// Each frame follows on the one before it.
    FramesChain,
    /// No frame holds what its viewer did not ask for.
    FramesAreFiltered,
    /// What a viewer was sent leads to the document.
    FramesLeadToTheDocument,
    /// What does not read is dropped within 15 s; what reads never is.
    SlowViewersGo,
    /// No queue grows beyond its bound.
    QueuesAreBounded,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What became of one seed.
#[derive(Debug, Default)]
struct Outcome {
    hash: u64,
    broken: Option<(Rule, String)>,
    trace: Vec<String>,
    seen: Seen,
}

/// What a run has seen, so that nobody takes a simulation for thorough in which nothing happens.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    events: u64,
    frames: u64,
    messages: u64,
    refused: u64,
    late: u64,
    restarts: u64,
    epochs: u64,
    falls: u64,
    gaps: u64,
    dropped_viewers: u64,
    degraded: u64,
    stuck: u64,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        for (sum, more) in self.all().into_iter().zip(other.clone().all()) {
            *sum += *more;
        }
    }

    fn all(&mut self) -> [&mut u64; 12] {
        let Self {
            events,
            frames,
            messages,
            refused,
            late,
            restarts,
            epochs,
            falls,
            gaps,
            dropped_viewers,
            degraded,
            stuck,
        } = self;
        [events, frames, messages, refused, late, restarts, epochs, falls, gaps, dropped_viewers, degraded, stuck]
    }
}

/// Runs one seed.
fn run(seed: u64, is_kept: bool) -> Outcome {
    let mut world = World::new(seed, is_kept);
    let mut ended = world.begin();
    for _ in 0..STEPS {
        if ended.is_err() {
            break;
        }
        ended = world.step();
    }
    let ended = ended.and_then(|()| world.rest());
    world.into_outcome(ended.err())
}

/// What many seeds have come to.
#[derive(Debug, Default)]
struct Total {
    count: u64,
    seen: Seen,
    /// Of each broken rule how many seeds broke it, and the first of them.
    broken: BTreeMap<String, (u64, u64, String)>,
}

impl Total {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.seen.add(&other.seen);
        for (rule, (count, seed, detail)) in other.broken {
            let known = self.broken.entry(rule).or_insert((0, seed, detail.clone()));
            known.0 += count;
            if seed < known.1 {
                (known.1, known.2) = (seed, detail);
            }
        }
    }
}

/// Runs seeds side by side until `until`.
fn run_all(seeds: u64, until: Instant) -> Total {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let runs = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                scope.spawn(move || {
                    let mut total = Total::default();
                    let mut seed = first;
                    while seed < seeds && Instant::now() < until {
                        let Outcome { broken, seen, .. } = run(seed, false);
                        let broken = broken.map(|(rule, detail)| (rule.to_string(), (1, seed, detail)));
                        total.add(Total { count: 1, seen, broken: broken.into_iter().collect() });
                        seed += threads;
                    }
                    total
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a simulation does not panic")).collect::<Vec<_>>()
    });
    let mut total = Total::default();
    runs.into_iter().for_each(|run| total.add(run));
    total
}

#[test]
fn no_seed_breaks_a_rule() {
    if let Some(seed) = std::env::var("HK_SEED").ok().and_then(|seed| seed.parse().ok()) {
        let Outcome { broken, trace, seen, hash } = run(seed, true);
        println!("{}\nseed {seed}: hash {hash:016x}, {seen:?}", trace.join("\n"));
        assert_eq!(broken, None, "seed {seed}");
        return;
    }
    let is_long = std::env::var("HK_TEST_LONG").is_ok_and(|long| long == "yes");
    let (seeds, time) = if is_long { (SEEDS_LONG, LONG) } else { (SEEDS, Duration::from_secs(600)) };
    let began = Instant::now();
    let Total { count, mut seen, broken } = run_all(seeds, began + time);
    for (rule, (times, seed, detail)) in &broken {
        println!("{rule} is broken by {times} seeds; HK_SEED={seed} replays the first of them:\n{detail}\n");
    }
    println!("{count} seeds in {:.1} s: {seen:?}", began.elapsed().as_secs_f64());
    assert!(broken.is_empty(), "{:?}", broken.keys());
    assert!(is_long || count == SEEDS);
    assert!(seen.all().into_iter().all(|count| *count > 0), "something never happens: {seen:?}");
}

#[test]
fn a_seed_replays() {
    for seed in 0..20 {
        let (first, second) = (run(seed, true), run(seed, true));
        let differs = first.trace.iter().zip(&second.trace).find(|(one, other)| one != other);
        assert_eq!((differs, first.hash), (None, second.hash), "seed {seed}");
    }
    assert_ne!(run(1, false).hash, run(2, false).hash);
}
