//! A hive whose swarms live in containers, looked at from the engine's side, too; and the inventory that each case ends with.

use std::{
    fs,
    ops::{Deref, DerefMut},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    docker,
    hive::{Hive, lives},
};

pub(super) use crate::docker::harness::{BUSYBOX, DEBIAN, SCRATCH};
pub(super) use crate::hive::{PATIENCE, kill, until};

/// How long the engine may take to remove what has ended, on a loaded machine.
const REMOVAL: Duration = Duration::from_secs(40);
/// A call of the engine's client: 25 ms on an idle machine. One that hangs must not hang the tests.
const CALL_S: &str = "60";

/// A hive under test. Dropping it, also in a panic, ends its daemon and removes what it has in the engine.
pub(super) struct Case {
    hive: Option<Hive>,
    /// Where its containers are; `None` is where the client looks by itself.
    host: Option<String>,
}

impl Case {
    /// A running hive, or `None` where there is no engine. `swarms` is TOML.
    pub(super) fn start(swarms: &str) -> Option<Self> {
        let mut case = Self::prepare(swarms)?;
        case.boot();
        Some(case)
    }

    /// The same without a daemon.
    pub(super) fn prepare(swarms: &str) -> Option<Self> {
        is_there().then(|| Self::new(None, swarms))
    }

    /// In the engine at this address.
    pub(super) fn at(host: String, swarms: &str) -> Self {
        Self::new(Some(host), swarms)
    }

    fn new(host: Option<String>, swarms: &str) -> Self {
        let hive = Hive::prepare(swarms);
        let share = hive.file("share");
        fs::create_dir(&share).unwrap();
        fs::set_permissions(&share, fs::Permissions::from_mode(0o777)).unwrap();
        Self { hive: Some(hive), host }
    }

    /// A file of the directory that [`share`] mounts.
    pub(super) fn shared(&self, name: &str) -> PathBuf {
        self.file("share").join(name)
    }

    pub(super) fn said(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.shared(name))
            .ok()
            .filter(|text| text.ends_with('\n'))
            .map(|text| text.trim().to_owned())
    }

    /// The engine's client.
    pub(super) fn docker(&self, words: &[&str]) -> Output {
        client(self.host.as_deref(), words)
    }

    /// What the engine's client says; it must succeed.
    #[track_caller]
    pub(super) fn ask(&self, words: &[&str]) -> String {
        let output = self.docker(words);
        assert!(output.status.success(), "docker {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(super) fn hive_id(&self) -> String {
        fs::read_to_string(self.data().join("hive-id")).unwrap_or_default().trim().to_owned()
    }

    /// Ids of containers of this hive, in whatever state; of one swarm if it is named.
    #[track_caller]
    pub(super) fn containers(&self, swarm: Option<&str>) -> Vec<String> {
        let ours = format!("label=dev.hivekeeper.hive-id={}", self.hive_id());
        let swarm = swarm.map(|swarm| format!("label=dev.hivekeeper.swarm={swarm}"));
        let mut words = vec!["ps", "-aq", "--no-trunc", "--filter", ours.as_str()];
        if let Some(swarm) = &swarm {
            words.extend(["--filter", swarm.as_str()]);
        }
        self.ask(&words).lines().map(str::to_owned).collect()
    }

    /// The one container of a swarm.
    #[track_caller]
    pub(super) fn container(&self, swarm: &str) -> String {
        let found = self.containers(Some(swarm));
        assert_eq!(found.len(), 1, "containers of {swarm}: {found:?}\n{}", self.log());
        found[0].clone()
    }

    /// Ids on this machine of the processes of an agent, all incarnations; launchers are none.
    pub(super) fn tree(&self, id: &str) -> Vec<i32> {
        let agent = format!("HIVEKEEPER_AGENT={id}");
        self.processes().into_iter().filter(|pid| environ(*pid).contains(&agent)).collect()
    }

    /// The agent itself, by its id on this machine; what it is in its container, its document says.
    #[track_caller]
    pub(super) fn outside(&self, id: &str) -> i32 {
        let inside = self.agent_pid(id);
        let found: Vec<i32> = self.tree(id).into_iter().filter(|pid| namespaced(*pid) == Some(inside)).collect();
        assert_eq!(found.len(), 1, "{id} is {inside} in its container: {found:?}");
        found[0]
    }

    /// Its launcher, by its id on this machine.
    pub(super) fn launcher(&self, id: &str) -> i32 {
        parent(self.outside(id))
    }

    /// Waits until an agent runs as this incarnation.
    #[track_caller]
    pub(super) fn runs_as(&self, id: &str, incarnation: u64) -> Value {
        self.agent_until(id, &format!("runs as incarnation {incarnation}"), |agent| {
            agent["state"] == "running" && agent["incarnation"] == incarnation && agent["pid"].is_u64()
        })
    }

    /// Ends the daemon with SIGTERM; then nothing of the hive may be left.
    #[track_caller]
    pub(super) fn end(mut self) {
        let status = self.terminate();
        assert_eq!(status.code(), Some(0), "{}", self.log());
        self.is_empty_within(REMOVAL);
    }

    /// The daemon is dead and no other comes: when the leases are over nothing of the hive may be left.
    #[track_caller]
    pub(super) fn is_empty_within(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let left = self.inventory();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind after {patience:?}: {left:#?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything of this hive that is there. The launcher's volume is every hive's on this engine.
    #[track_caller]
    pub(super) fn inventory(&self) -> Vec<String> {
        let ours = format!("label=dev.hivekeeper.hive-id={}", self.hive_id());
        let mut left: Vec<String> =
            self.processes().iter().map(|pid| format!("process {pid}: {}", cmdline(*pid))).collect();
        let ask = |what: &str, words: &[&str]| -> Vec<String> {
            let found = self.ask(&[words, &["--filter", &ours]].concat());
            found.lines().map(|line| format!("{what} {line}")).collect()
        };
        left.extend(ask("container", &["ps", "-a", "--format", "{{.Names}} {{.Status}}"]));
        left.extend(ask("network", &["network", "ls", "--format", "{{.Name}}"]));
        let volumes = ask("volume", &["volume", "ls", "--format", "{{.Name}}"]);
        left.extend(volumes.into_iter().filter(|volume| !volume.starts_with("volume hivekeeper-launcher-")));
        left
    }
}

impl Deref for Case {
    type Target = Hive;
    fn deref(&self) -> &Hive {
        self.hive.as_ref().unwrap()
    }
}

impl DerefMut for Case {
    fn deref_mut(&mut self) -> &mut Hive {
        self.hive.as_mut().unwrap()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let id = self.hive_id();
        // The daemon first: it would mend what is removed under it.
        drop(self.hive.take());
        if id.is_empty() {
            return;
        }
        let ours = format!("label=dev.hivekeeper.hive-id={id}");
        let remove = |list: &[&str], remove: &[&str]| {
            let found = client(self.host.as_deref(), &[list, &["--filter", &ours]].concat());
            let found = String::from_utf8_lossy(&found.stdout).into_owned();
            let found: Vec<&str> = found.split_whitespace().collect();
            if !found.is_empty() {
                client(self.host.as_deref(), &[remove, &found].concat());
            }
        };
        remove(&["ps", "-aq"], &["rm", "-f"]);
        remove(&["network", "ls", "-q"], &["network", "rm"]);
    }
}

/// Whether there is an engine for this test; what happens if not is the business of the other tests' harness.
pub(super) fn is_there() -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(docker::harness::hive()).is_some()
}

/// The engine's client, under a deadline.
pub(super) fn client(host: Option<&str>, words: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args([CALL_S, "docker"]);
    if let Some(host) = host {
        command.args(["-H", host]);
    }
    command.args(words).stdin(Stdio::null()).output().unwrap()
}

/// A swarm `s` in a container of its own: small, so that many fit. `keys` are further ones of the swarm.
pub(super) fn swarm(keys: &str, agents: &[String]) -> String {
    swarm_of("s", DEBIAN, keys, agents)
}

pub(super) fn swarm_of(name: &str, image: &str, keys: &str, agents: &[String]) -> String {
    let limits = if keys.contains("limits") { "" } else { "limits = { memory = \"256MiB\", cpus = 1.0, pids = 64 }" };
    format!("[[swarm]]\nname = \"{name}\"\nimage = \"{image}\"\n{limits}\n{keys}\n{}", agents.concat())
}

/// A swarm `s` in a container that somebody else has made.
pub(super) fn sidecar(container: &str, agents: &[String]) -> String {
    format!("[[swarm]]\nname = \"s\"\ncontainer = \"{container}\"\n{}", agents.concat())
}

/// The key that mounts a directory of the machine, see [`Case::shared`].
pub(super) fn share() -> String {
    "mounts = [{ source = \"share\", target = \"/share\", read_only = false }]".to_owned()
}

/// An agent that runs a shell script; `keys` are further ones of the agent.
pub(super) fn shell(name: &str, keys: &str, script: &str) -> String {
    agent(name, keys, &["sh", "-c", script])
}

pub(super) fn agent(name: &str, keys: &str, command: &[&str]) -> String {
    let command = serde_json::to_string(command).unwrap();
    format!("[[swarm.agent]]\nname = \"{name}\"\nstop_grace = \"1s\"\ncommand = {command}\n{keys}\n")
}

/// One that does nothing.
pub(super) fn sleeper(name: &str, keys: &str) -> String {
    agent(name, keys, &["sleep", "1000"])
}

/// A swarm of two: `tick` writes numbered lines and has a grandchild in a session of its own, `quiet` does nothing.
pub(super) fn ticking(lease: &str) -> String {
    let lease = format!("lease = \"{lease}\"");
    let tick = "setsid sleep 1000 & n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.05; done";
    swarm("", &[shell("tick", &lease, tick), sleeper("quiet", &lease)])
}

/// The agent's own count, as far as it is in the log, must have no gap and no double.
#[track_caller]
pub(super) fn gap_free(case: &Case, at_least: usize) {
    let ticks = until("enough ticks", || {
        let lines = case.lines("s/tick");
        let tick = |line: &Value| line["text"].as_str()?.strip_prefix("tick ")?.parse().ok();
        let ticks: Vec<u64> = lines.iter().filter_map(tick).collect();
        (ticks.len() >= at_least).then_some(ticks)
    });
    assert_eq!(ticks, (1..=ticks.len() as u64).collect::<Vec<_>>());
}

fn environ(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|entry| String::from_utf8_lossy(entry).into_owned()).collect()
}

pub(super) fn cmdline(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")
}

/// The id of a process within its own namespace.
fn namespaced(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().next_back()?.parse().ok()
}

/// Field 4 of `stat`, counted behind the name, which may hold anything.
pub(super) fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}

#[track_caller]
pub(super) fn gone(what: &str, pids: &[i32]) {
    until(what, || pids.iter().all(|pid| !lives(*pid)).then_some(()));
}
