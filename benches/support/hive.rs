//! The real executable on a directory of its own, spoken to over its real ports.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{agent::program, clock, processes};

/// How long the daemon may take to bind and to be ready: several hundred times what it takes.
const BOOT_WAIT: Duration = Duration::from_secs(60);
/// How long it may take to stop its agents and to end.
const STOP_WAIT: Duration = Duration::from_secs(60);
/// One answer of the API.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Lines of the daemon's log that an error shows.
const LOG_LINES: usize = 10;

/// A daemon under measurement.
pub struct Hive {
    dir: PathBuf,
    daemon: Child,
    http: String,
    client: ureq::Agent,
    /// Just before the daemon was spawned.
    pub began: Duration,
    /// When it was seen to be ready.
    pub ready: Duration,
}

impl Hive {
    /// Restarts are due at once and the window never runs out.
    pub const AT_ONCE: &str = "[supervision]\nintensity = 1000\nperiod = \"1s\"\n\
        backoff = { initial = \"0s\", then = \"0s\", factor = 1.0, max = \"0s\", jitter = 0.0, reset_after = \"1s\" }\n";

    /// A swarm of one kind of agent, which is this executable; `replicas` numbers them.
    pub fn swarm(
        swarm: &str,
        agent: &str,
        replicas: Option<usize>,
        env: &BTreeMap<String, String>,
    ) -> anyhow::Result<String> {
        // A JSON string of these is a TOML string, too.
        let command = serde_json::to_string(&program()?.display().to_string())?;
        let env: Vec<String> = env.iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
        let env = env.join(", ");
        let mut text =
            format!("[[swarm]]\nname = \"{swarm}\"\nenv = {{ {env} }}\n[[swarm.agent]]\nname = \"{agent}\"\n");
        if let Some(replicas) = replicas {
            writeln!(text, "replicas = {replicas}")?;
        }
        writeln!(text, "command = [{command}]")?;
        Ok(text)
    }

    /// Starts the daemon in a directory and waits until it is ready. `more` is TOML behind directories and ports; all else is the default.
    pub fn start(dir: &Path, more: &str) -> anyhow::Result<Self> {
        Self::start_as("bench", dir, more)
    }

    /// The same for a hive of this name. The API's rates are as high as they go: what is measured is how fast it is, not how fast it may be.
    pub fn start_as(name: &str, dir: &Path, more: &str) -> anyhow::Result<Self> {
        let config = dir.join("config.toml");
        let text = format!(
            "[hive]\nname = \"{name}\"\ndata_dir = \"data\"\n[http]\nbind = \"127.0.0.1:0\"\nreads_per_second = 1000000\ncommands_per_second = 1000000\n[data_plane]\nbind = \"127.0.0.1:0\"\n{more}"
        );
        fs::write(&config, text)?;
        let client = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_WAIT))
            .build()
            .new_agent();
        let (began, daemon) = spawn(dir)?;
        let mut hive = Self { dir: dir.to_owned(), daemon, http: String::new(), client, began, ready: Duration::ZERO };
        hive.find()?;
        Ok(hive)
    }

    fn find(&mut self) -> anyhow::Result<()> {
        self.http = processes::until("the daemon writes its endpoints", BOOT_WAIT, || self.endpoint())?;
        processes::until("the daemon is ready", BOOT_WAIT, || Ok((self.get("/readyz")?.0 == 200).then_some(())))?;
        self.ready = clock::now();
        Ok(())
    }

    /// `kill -9` of the daemon; its agents wait for the next.
    pub fn crash(&mut self) -> anyhow::Result<()> {
        self.daemon.kill()?;
        self.daemon.wait()?;
        Ok(())
    }

    /// The next daemon on the same directory, and until it is ready.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        (self.began, self.daemon) = spawn(&self.dir)?;
        self.find()
    }

    /// What a route answers.
    pub fn body(&self, path: &str) -> anyhow::Result<String> {
        let (status, body) = self.get(path)?;
        ensure!(status == 200, "{path}: {status} {body}");
        Ok(body)
    }

    fn endpoint(&mut self) -> anyhow::Result<Option<String>> {
        if let Some(status) = self.daemon.try_wait()? {
            bail!("the daemon ended at once ({status}): {}", self.log_tail());
        }
        // It is written in one piece, but need not be there yet.
        let Ok(text) = fs::read_to_string(self.dir.join("data/endpoints.json")) else { return Ok(None) };
        let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
        Ok(value["http"].as_str().filter(|_| value["pid"] == self.daemon.id()).map(str::to_owned))
    }

    pub fn pid(&self) -> anyhow::Result<i32> {
        Ok(i32::try_from(self.daemon.id())?)
    }

    /// `IP:PORT` of the API.
    pub fn address(&self) -> &str {
        &self.http
    }

    fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let mut answer = self.client.get(format!("http://{}{path}", self.http)).call()?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
    }

    /// Gives a command, which the daemon accepts and does afterwards.
    pub fn command(&self, path: &str) -> anyhow::Result<()> {
        let mut answer = self
            .client
            .post(format!("http://{}/api/v1/{path}", self.http))
            .content_type("application/json")
            .send("{}")?;
        let text = answer.body_mut().read_to_string()?;
        ensure!(answer.status().as_u16() == 202, "{path}: {} {text}", answer.status());
        Ok(())
    }

    /// Waits until so many agents of a swarm are in this state.
    pub fn until_state(&self, swarm: &str, state: &str, count: usize, within: Duration) -> anyhow::Result<()> {
        processes::until(&format!("{count} agents of {swarm} are {state}"), within, || {
            let health = self.health()?;
            let agents = health["agents"].as_array().context("no agents in the health document")?;
            let found = agents.iter().filter(|agent| agent["swarm"] == swarm && agent["state"] == state).count();
            Ok((found == count).then_some(()))
        })
    }

    /// The whole health document.
    pub fn health(&self) -> anyhow::Result<Value> {
        // 503 says how the hive is, not that the answer failed.
        Ok(serde_json::from_str(&self.get("/api/v1/health")?.1)?)
    }

    /// How many agents are `running` now.
    pub fn running(&self) -> anyhow::Result<usize> {
        let health = self.health()?;
        let agents = health["agents"].as_array().context("no agents in the health document")?;
        Ok(agents.iter().filter(|agent| agent["state"] == "running").count())
    }

    /// Waits until so many agents are `running`, and says when that was seen.
    pub fn until_running(&self, count: usize, within: Duration) -> anyhow::Result<Duration> {
        let what = format!("{count} agents are running");
        processes::until(&what, within, || Ok((self.running()? == count).then(clock::now)))
    }

    /// Its launchers.
    pub fn launchers(&self) -> anyhow::Result<Vec<i32>> {
        Ok(processes::children(self.pid()?))
    }

    /// SIGTERM: the daemon stops every agent and exits with 0, and nothing is left.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let launchers = self.launchers()?;
        processes::signal(self.pid()?, libc::SIGTERM);
        let status = processes::end(&mut self.daemon, STOP_WAIT)?;
        ensure!(status.success(), "the daemon ended with {status}: {}", self.log_tail());
        for launcher in launchers {
            ensure!(!Path::new(&format!("/proc/{launcher}")).exists(), "launcher {launcher} was left behind");
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

/// A daemon on a directory that has its configuration, and just before when.
fn spawn(dir: &Path) -> anyhow::Result<(Duration, Child)> {
    let log = fs::File::options().create(true).append(true).open(dir.join("daemon.log"))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_hivekeeper"));
    command.args(["serve", "--config"]).arg(dir.join("config.toml")).current_dir(dir);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    processes::end_with_us(&mut command);
    let began = clock::now();
    Ok((began, command.spawn().context("cannot start hivekeeper")?))
}

impl Drop for Hive {
    fn drop(&mut self) {
        if !matches!(self.daemon.try_wait(), Ok(None)) {
            return;
        }
        // The measurement failed. Launchers would wait for the next daemon until their lease ends; agents end with them.
        let launchers = self.launchers().unwrap_or_default();
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        for launcher in launchers {
            processes::signal(launcher, libc::SIGKILL);
        }
    }
}
