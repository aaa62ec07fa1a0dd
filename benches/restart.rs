//! How fast a killed agent is back, and how fast a viewer knows.
//!
//! **Restart.** SIGKILL of an agent to the first sign of life of its successor. Everybody keeps the same agent: this executable, whose first act is
//! to read CLOCK_MONOTONIC and whose second is to send that time to us. Measured is from just before kill(2) to that reading, so the sign is the
//! same for all and nobody's own reporting counts. In each round everybody's agent is killed once, in turn and beginning with another one each
//! time, so that noise of the machine hits all alike.
//! - `runit (script)`: runsv with a `run` in sh that execs the agent, as its manual has it. `runit`: runsv whose `run` is the agent itself.
//! - `s6`: s6-supervise whose `run` is the agent itself.
//! - `supervisord`: in the foreground, autorestart.
//! - `floor`: a thread that spawns, waits, and spawns again.
//! - `hivekeeper`: the daemon with one agent. Its restart is due at once and the window never runs out (`backoff` of 0 s, `intensity` 1000 in 1 s);
//!   everything else is the default. It does what the peers don't: a launcher for each incarnation, and a journal.
//!
//! Before each kill an agent has lived for 1.25 s: runsv and s6-supervise wait for a second when a service ended younger than that, by design, and
//! here they show their best.
//!
//! **Viewer.** From just before kill(2) to when a client of `/ws/hybrid-health` has whole the first frame that shows the exit, the first that shows
//! the new incarnation, and the first that shows it `running`. Measured after the first part, so that no viewer disturbs it.
//!
//! `cargo bench --bench restart`; a quick look: `cargo bench --bench restart -- --rounds 10`.

mod support;

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, bail, ensure};

use support::{
    agent::{self, Ear},
    clock,
    figures::{self, Samples, ms, ratio, table, verdict},
    hive::Hive,
    keepers::{self, Begin, Floor, Keeper, Start},
    machine, processes,
    viewer::Viewer,
};

/// The issue asks for median and p99 of 100.
const ROUNDS: usize = 100;
/// What an agent has lived before it is killed, so that no peer takes it for one that can't start.
const LIFE: Duration = Duration::from_millis(1250);
/// How long a successor may take: ten times what the slowest peers take.
const SUCCESSOR_WAIT: Duration = Duration::from_secs(10);
/// Between two kills before a viewer: several times what a restart takes, and not in step with any second of the daemon's.
const VIEWER_REST: Duration = Duration::from_millis(370);

/// A peer that this machine does not have is shown, too.
const NOT_INSTALLED: &str = "not installed";

/// Everybody, in the order of the table.
const FIELD: [(&str, Begin); 6] = [
    ("hivekeeper", keepers::hivekeeper),
    ("runit", keepers::runit),
    ("runit-script", keepers::runit_script),
    ("s6", keepers::s6),
    ("supervisord", keepers::supervisord),
    ("floor", Floor::begin),
];

fn main() -> anyhow::Result<()> {
    agent::be_one_if_asked();
    let rounds = figures::rounds(ROUNDS)?;
    let scratch = figures::scratch()?;
    println!("machine: {}", machine::describe(scratch.path()));
    let ear = Ear::open(scratch.path())?;

    let mut race = Race::line_up(scratch.path(), &ear)?;
    let ran = race.run(rounds);
    let report = race.finish();
    ran?;
    report?;

    let dir = scratch.path().join("viewed");
    fs::create_dir(&dir)?;
    view(rounds, &dir, &ear)?;
    let left = ear.carriers();
    ensure!(left.is_empty(), "left behind: {left:?}");
    println!("\nload at the end: {}", machine::load());
    Ok(())
}

/// One keeper, as far as it has come.
struct Lane {
    name: &'static str,
    /// `Err` says why it is not in the race.
    keeper: Result<Keeper, String>,
    samples: Samples,
}

/// The agent of a lane that lives now.
#[derive(Clone, Copy)]
struct Living {
    pid: i32,
    since: Duration,
}

struct Race<'e> {
    ear: &'e Ear,
    lanes: Vec<Lane>,
    living: BTreeMap<String, Living>,
}

impl<'e> Race<'e> {
    fn line_up(scratch: &std::path::Path, ear: &'e Ear) -> anyhow::Result<Self> {
        let mut race = Self { ear, lanes: Vec::new(), living: BTreeMap::new() };
        for (name, begin) in FIELD {
            let dir = scratch.join(name);
            fs::create_dir(&dir)?;
            let keeper = match begin(&dir, ear, name) {
                Ok(Start::Started(keeper)) => {
                    race.successor(name, 0).map(|_| keeper).map_err(|error| format!("{error:#}"))
                }
                Ok(Start::NotInstalled) => Err(NOT_INSTALLED.to_owned()),
                Err(error) => Err(format!("{error:#}")),
            };
            race.lanes.push(Lane { name, keeper, samples: Samples::default() });
        }
        Ok(race)
    }

    /// Waits for an agent of this name with another process id than `old`.
    fn successor(&mut self, name: &str, old: i32) -> anyhow::Result<Living> {
        let deadline = clock::now() + SUCCESSOR_WAIT;
        loop {
            let left = deadline.saturating_sub(clock::now());
            let Some(sign) = self.ear.hear(left)? else { bail!("no agent within {SUCCESSOR_WAIT:?}") };
            let living = Living { pid: sign.pid, since: sign.at };
            let found = sign.name == name && sign.pid != old;
            self.living.insert(sign.name, living);
            if found {
                return Ok(living);
            }
        }
    }

    fn run(&mut self, rounds: usize) -> anyhow::Result<()> {
        for round in 0..rounds {
            for turn in 0..self.lanes.len() {
                let lane = (round + turn) % self.lanes.len();
                if self.lanes[lane].keeper.is_ok() {
                    let name = self.lanes[lane].name;
                    let took = self.kill(name).with_context(|| format!("{name}, round {}", round + 1))?;
                    self.lanes[lane].samples.add(took);
                }
            }
        }
        Ok(())
    }

    fn kill(&mut self, name: &str) -> anyhow::Result<Duration> {
        let Living { pid, since } = *self.living.get(name).context("no agent")?;
        std::thread::sleep((since + LIFE).saturating_sub(clock::now()));
        let killed = clock::now();
        processes::signal(pid, libc::SIGKILL);
        let next = self.successor(name, pid)?;
        ensure!(next.since > killed, "agent {} had begun before the kill", next.pid);
        Ok(next.since - killed)
    }

    /// Ends everybody and prints what was measured.
    fn finish(self) -> anyhow::Result<()> {
        let of = |name: &str| self.lanes.iter().find(|lane| lane.name == name).and_then(|lane| lane.samples.median());
        let (ours, runit, script, floor) = (of("hivekeeper"), of("runit"), of("runit-script"), of("floor"));
        let rows: Vec<Vec<String>> = self
            .lanes
            .iter()
            .map(|lane| {
                let mut row = vec![lane.name.to_owned()];
                match &lane.keeper {
                    Ok(_) => {
                        row.extend(lane.samples.cells());
                        row.push(ratio(lane.samples.median(), runit));
                        row.push(ratio(lane.samples.median(), floor));
                    }
                    Err(why) if why == NOT_INSTALLED => row.push(NOT_INSTALLED.to_owned()),
                    // Why is said at the end, where there is room.
                    Err(_) => row.push("failed".to_owned()),
                }
                row
            })
            .collect();
        let head = ["keeper", "kills", "min", "median", "p99", "max", "/runit", "/floor"];
        table("kill -9 to the successor's first sign of life, ms", &head, &rows);
        for (peer, theirs) in [("runit", runit), ("runit-script", script)] {
            if let (Some(ours), Some(theirs)) = (ours, theirs) {
                println!(
                    "goal: at most {peer}'s median: {} ({} / {} ms)",
                    verdict(ours <= theirs),
                    ms(ours),
                    ms(theirs)
                );
            }
        }
        let mut failed = Vec::new();
        for lane in self.lanes {
            match lane.keeper {
                Ok(keeper) => keeper.stop().with_context(|| format!("{} does not end", lane.name))?,
                Err(why) if why == NOT_INSTALLED => {}
                Err(why) => failed.push(format!("{}: {why}", lane.name)),
            }
        }
        ensure!(failed.is_empty(), "not measured: {}", failed.join("; "));
        Ok(())
    }
}

fn view(rounds: usize, dir: &std::path::Path, ear: &Ear) -> anyhow::Result<()> {
    let config = format!("{}{}", Hive::AT_ONCE, Hive::swarm("bench", "agent", None, &ear.env("viewed"))?);
    let mut hive = Hive::start(dir, &config)?;
    let mut pid = ear.hear_all("viewed", 1, SUCCESSOR_WAIT)?.pop().context("no agent")?.pid;
    hive.until_running(1, SUCCESSOR_WAIT)?;
    let mut viewer = Viewer::connect(hive.address())?;
    let (mut exits, mut begins, mut runs) = (Samples::default(), Samples::default(), Samples::default());
    for round in 0..rounds {
        viewer.rest(VIEWER_REST)?;
        let killed = clock::now();
        processes::signal(pid, libc::SIGKILL);
        let seen = watch(&mut viewer, pid).with_context(|| format!("round {}", round + 1))?;
        exits.add(seen.exit - killed);
        begins.add(seen.begin - killed);
        runs.add(seen.running - killed);
        pid = seen.pid;
        // Its own sign, so that the socket's queue never fills.
        ear.hear_all("viewed", 1, SUCCESSOR_WAIT)?;
    }
    let row = |name: &str, samples: &Samples| [vec![name.to_owned()], samples.cells()].concat();
    let rows = [row("the exit", &exits), row("the new incarnation", &begins), row("it running", &runs)];
    table(
        "kill -9 to the viewer's first frame that shows ..., ms",
        &["frame", "kills", "min", "median", "p99", "max"],
        &rows,
    );
    hive.stop()
}

/// When the viewer had what.
struct Seen {
    exit: Duration,
    begin: Duration,
    running: Duration,
    pid: i32,
}

/// Reads until the successor of `old` runs.
fn watch(viewer: &mut Viewer, old: i32) -> anyhow::Result<Seen> {
    let deadline = clock::now() + SUCCESSOR_WAIT;
    let (mut exit, mut begin) = (None, None);
    let mut before: Option<u64> = None;
    loop {
        let left = deadline.saturating_sub(clock::now());
        let Some(frame) = viewer.next(left)? else { bail!("the viewer saw no successor within {SUCCESSOR_WAIT:?}") };
        let Some(agent) = frame.agent("bench", "agent") else { continue };
        let incarnation = agent["incarnation"].as_u64().context("an agent without an incarnation")?;
        let ended = agent["last_exit"]["incarnation"].as_u64();
        // The first frame after the kill names the old incarnation or its exit.
        let old_incarnation = *before.get_or_insert(if agent["pid"] == old { incarnation } else { ended.unwrap_or(0) });
        if ended == Some(old_incarnation) {
            exit.get_or_insert(frame.at);
        }
        if incarnation > old_incarnation {
            let begin = *begin.get_or_insert(frame.at);
            if agent["state"] == "running"
                && let Some(pid) = agent["pid"].as_i64().filter(|pid| *pid != i64::from(old))
            {
                let exit = exit.context("no frame showed the exit")?;
                return Ok(Seen { exit, begin, running: frame.at, pid: i32::try_from(pid)? });
            }
        }
    }
}
