//! Who takes part, how each is started, and what each has said.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Failure, ours, rows::Job};

pub const OURS: &str = "hivekeeper";
pub const RACTOR: &str = "ractor";
pub const RACTOR_SUPERVISOR: &str = "ractor-supervisor";
pub const KAMEO: &str = "kameo";
pub const ERLANG: &str = "erlang";

/// One measurement of one program; the slowest take a few seconds on a busy machine.
const RUN_WAIT: Duration = Duration::from_secs(120);
/// How often a program's end is looked for. It measures itself; this only delays the next one.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Where programs are built, beside everything else that cargo makes.
const SCRATCH: &str = env!("CARGO_TARGET_TMPDIR");
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");

/// Everybody's figures: by name, one a round.
pub type Figures = BTreeMap<String, Vec<f64>>;

pub struct Lane {
    pub name: &'static str,
    /// `Err` says why it is left out.
    program: Result<PathBuf, String>,
    pub figures: Figures,
}

pub struct Field {
    pub lanes: Vec<Lane>,
}

impl Field {
    /// Builds and finds everybody.
    pub fn line_up() -> Self {
        let ours = std::env::current_exe().map_err(|error| format!("no path of our own: {error}"));
        let rust = build_rust();
        let erlang = build_erlang();
        let lane =
            |name, program: &Result<PathBuf, String>| Lane { name, program: program.clone(), figures: Figures::new() };
        let lanes = vec![
            lane(OURS, &ours),
            lane(RACTOR, &rust),
            lane(RACTOR_SUPERVISOR, &rust),
            lane(KAMEO, &rust),
            lane(ERLANG, &erlang),
        ];
        Self { lanes }
    }

    pub fn introduce(&self) {
        println!("peers: {}; erlang: {}", versions(), erlang_version());
        for lane in &self.lanes {
            if let Err(why) = &lane.program {
                println!("left out: {}: {why}", lane.name);
            }
        }
    }

    /// One measurement of everybody, beginning with another one each round.
    pub fn run(&mut self, job: &Job, round: usize) -> Result<(), Failure> {
        for turn in 0..self.lanes.len() {
            let at = (round + turn) % self.lanes.len();
            let lane = &mut self.lanes[at];
            if job.is_ours_alone() && lane.name != OURS {
                continue;
            }
            let Ok(program) = &lane.program else { continue };
            let Some(mut command) = command(lane.name, program, job) else { continue };
            let said = output(&mut command)
                .map_err(|error| format!("{}, {} {} {}: {error}", lane.name, job.what, job.place, job.count))?;
            for line in said.lines() {
                let (name, value) =
                    line.split_once(' ').ok_or_else(|| format!("{}: {line:?} is no figure", lane.name))?;
                lane.figures.entry(job.figure(name)).or_default().push(value.parse()?);
            }
        }
        Ok(())
    }

    pub fn figures(&self, lane: &str) -> Option<&Figures> {
        self.lanes.iter().find(|other| other.name == lane).map(|lane| &lane.figures)
    }
}

fn command(lane: &str, program: &Path, job: &Job) -> Option<Command> {
    let mut command = Command::new(program);
    match lane {
        OURS => command.arg(ours::WORD),
        ERLANG => {
            let schedulers = if job.place == "l" { "1:1" } else { "2:2" };
            command.args(["-noinput", "+S", schedulers, "-pa", SCRATCH, "-run", "bench", "main"])
        }
        // It adds nothing to messages: ractor's own figures are its.
        RACTOR_SUPERVISOR if !["start", "restart"].contains(&job.what) => return None,
        other => command.arg(other),
    };
    command.args([job.what, job.place, &job.count.to_string()]);
    Some(command)
}

/// What a program prints, if it ends well and in time.
fn output(command: &mut Command) -> Result<String, Failure> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + RUN_WAIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(format!("not done within {RUN_WAIT:?}").into());
        }
        thread::sleep(LOOK_EVERY);
    };
    // A few lines fit into the pipe: they are read when it has ended, so that nobody is disturbed.
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut said)?;
    }
    if status.success() { Ok(said) } else { Err(format!("ended with {status}").into()) }
}

fn build_rust() -> Result<PathBuf, String> {
    // The target is named so that the flags of the environment, if any, are for it alone, as they are for this executable.
    let target =
        format!("{}-unknown-linux-{}", std::env::consts::ARCH, if cfg!(target_env = "musl") { "musl" } else { "gnu" });
    let place = Path::new(SCRATCH).join("peers");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--quiet", "--target", &target]);
    command.current_dir(PEERS).env("CARGO_TARGET_DIR", &place);
    match command.status() {
        Ok(status) if status.success() => Ok(place.join(target).join("release/hivekeeper-peers")),
        Ok(status) => Err(format!("its program does not build: cargo ended with {status}")),
        Err(error) => Err(format!("cargo does not start: {error}")),
    }
}

fn build_erlang() -> Result<PathBuf, String> {
    let mut command = Command::new("erlc");
    command.args(["-o", SCRATCH, "bench.erl"]).current_dir(PEERS);
    match command.status() {
        Ok(status) if status.success() => Ok("erl".into()),
        Ok(status) => Err(format!("bench.erl does not compile: erlc ended with {status}")),
        Err(error) => Err(format!("erlc does not start (Debian: erlang-base): {error}")),
    }
}

/// The versions that the lock file of the peers names.
fn versions() -> String {
    let lock = std::fs::read_to_string(Path::new(PEERS).join("Cargo.lock")).unwrap_or_default();
    let version = |name: &str| {
        let at = lock.find(&format!("name = \"{name}\"\n"))?;
        lock[at..].lines().nth(1)?.split('"').nth(1).map(|version| format!("{name} {version}"))
    };
    let all: Vec<String> = [RACTOR, RACTOR_SUPERVISOR, KAMEO, "tokio"].into_iter().filter_map(version).collect();
    all.join(", ")
}

fn erlang_version() -> String {
    let ask = "io:format(\"OTP ~s, erts ~s\", [erlang:system_info(otp_release), erlang:system_info(version)]), halt().";
    match output(Command::new("erl").args(["-noinput", "-eval", ask])) {
        Ok(said) => said,
        Err(error) => format!("none ({error})"),
    }
}
