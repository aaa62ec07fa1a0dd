//! Faults of the machine: a disk that is full or read-only, a killed launcher, a bad configuration, a port that is taken.

mod actor;
mod journal;
mod space;

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::skipped;
use crate::hive::{Hive, kill, lives, until};

/// A file system of its own, unmounted when dropped. Needs the right to mount; says so and gives nothing without it.
pub(crate) struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// In memory.
    pub(crate) fn small() -> Option<Self> {
        Self::mount(&["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
    }

    /// One that turns read-only by itself when it is ill, as most file systems on a disk do. A file system that is in use can't be made
    /// read-only otherwise.
    fn fragile(image: &Path) -> Option<Self> {
        fs::File::create(image).unwrap().set_len(32 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image).stderr(Stdio::null()).status();
        if !made.is_ok_and(|status| status.success()) {
            skipped("needs mkfs.ext4");
            return None;
        }
        Self::mount(&["-o", "loop", image.to_str().unwrap()])
    }

    fn mount(arguments: &[&str]) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("hkd").tempdir_in("/tmp").unwrap();
        let mounted = Command::new("mount").args(arguments).arg(dir.path()).stderr(Stdio::null()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self { dir });
        }
        skipped("needs the right to mount a file system: root, and loop devices for one on a disk");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Takes all space that is left.
    pub(crate) fn fill(&self) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.ballast()).unwrap();
        while file.write_all(&[b'x'; 4096]).is_ok() {}
        while file.write_all(b"x").is_ok() {}
    }

    pub(crate) fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn remount(&self, how: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(self.path()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a failed test may still hold files open.
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

const AGENTS: &str = r#"
[[swarm]]
name = "s"
workdir = "."
[[swarm.agent]]
name = "tick"
command = ["sh", "-c", "n=0; while :; do n=$((n+1)); echo tick $n; echo $n > ticks; sleep 0.02; done"]
[[swarm.agent]]
name = "quiet"
command = ["sleep", "1000"]
"#;

/// A hive whose data directory is this disk.
fn hive_on(disk: &Disk) -> Hive {
    let mut hive = Hive::prepare(AGENTS);
    std::os::unix::fs::symlink(disk.path(), hive.data()).unwrap();
    hive.boot();
    hive
}

fn ticks(hive: &Hive) -> u64 {
    until("a tick", || fs::read_to_string(hive.file("ticks")).ok()?.trim().parse().ok())
}

fn ticks_on(hive: &Hive) {
    let before = ticks(hive);
    until("the agent works on", || (ticks(hive) > before + 5).then_some(()));
}

fn refused(hive: &Hive, path: &str) {
    let answer = hive.post(&format!("/api/v1{path}"), json!({}));
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("journal_unavailable")), "{answer:?}");
}

fn reason_of(agent: &Value) -> String {
    agent["reasons"][0]["detail"].as_str().unwrap_or_default().to_owned()
}

/// The data directory can't be written for this reason: everything says so and nothing that runs is touched.
fn suffers(hive: &Hive, why: &str) {
    let (tick, sleeper) = (hive.agent_pid("s/tick"), hive.agent_pid("s/quiet"));
    kill(sleeper, libc::SIGKILL);
    let waits = hive.agent_until("s/quiet", "waits for the journal", |agent| reason_of(agent).contains(why));
    assert_eq!(waits["state"], "pending", "{waits:#}");
    assert_eq!(waits["last_exit"]["signal"], 9, "its end is known all the same: {waits:#}");
    until("health tells of it", || {
        let plane = &hive.get("/api/v1/health").body["control_plane"];
        (plane["reachable"] == false && plane["last_error"].as_str().is_some_and(|e| e.contains(why))).then_some(())
    });
    let ready = hive.get("/readyz?verbose");
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(ready.body.as_str().unwrap().contains(why), "{ready:?}");
    assert_eq!(hive.get("/livez").status, 200);
    for path in ["/swarms/s/restart", "/swarms/s/agents/tick/stop", "/swarms/s/pause"] {
        refused(hive, path);
    }
    for path in ["/api/v1/swarms", "/api/v1/tree", "/api/v1/events?after=0", "/api/v1/operations"] {
        assert_eq!(hive.get(path).status, 200, "{path}");
    }
    hive.agent_until("s/tick", "has lost output, and it is counted", |agent| agent["dropped"].as_u64() > Some(0));
    ticks_on(hive);
    assert_eq!(hive.agent_pid("s/tick"), tick, "who runs goes on");
    let quiet = hive.agent("s/quiet");
    assert_eq!((&quiet["state"], &quiet["pid"]), (&json!("pending"), &json!(null)), "launched without a journal");
}

#[test]
fn a_full_disk_stops_launches_and_commands_and_no_agent() {
    let Some(disk) = Disk::small() else { return };
    let mut hive = hive_on(&disk);
    let tick = hive.agent_pid("s/tick");
    ticks_on(&hive);
    disk.fill();
    suffers(&hive, "no space left");
    disk.free();
    let quiet = hive.agent_until("s/quiet", "comes back by itself", |agent| agent["state"] == "running");
    assert_eq!((&quiet["incarnation"], &quiet["restarts"]), (&json!(2), &json!(1)), "{quiet:#}");
    until("readiness", || (hive.get("/readyz").status == 200).then_some(()));
    until("health is well", || (hive.get("/api/v1/health").body["control_plane"]["reachable"] == true).then_some(()));
    assert_eq!(hive.agent_pid("s/tick"), tick);
    let now = ticks(&hive);
    until("output is kept again", || {
        let lines = hive.lines("s/tick");
        let noted = lines.iter().any(|line| line["stream"] == "hivekeeper");
        let kept = |line: &Value| line["text"].as_str()?.strip_prefix("tick ")?.parse::<u64>().ok();
        (lines.iter().filter_map(kept).any(|tick| tick > now) && noted).then_some(())
    });
    until("events are journaled again", || {
        let events = hive.get("/api/v1/events?after=0&limit=1000").body;
        let back = |event: &Value| {
            let agent = &event["agent"];
            agent["name"] == "quiet" && agent["incarnation"] == 2 && agent["state"] == "running"
        };
        events["events"].as_array()?.iter().any(back).then_some(())
    });
    hive.command("/swarms/s/agents/quiet/restart");
    assert_eq!(hive.terminate().code(), Some(0));
    hive.boot();
    let quiet = hive.running("s/quiet");
    assert_eq!((&quiet["incarnation"], &quiet["restarts"]), (&json!(4), &json!(1)), "nothing was forgotten: {quiet:#}");
}

#[test]
fn a_disk_that_turns_read_only_stops_launches_and_commands_and_no_agent() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let Some(disk) = Disk::fragile(image.path()) else { return };
    let mut hive = hive_on(&disk);
    let tick = hive.agent_pid("s/tick");
    ticks_on(&hive);
    disk.remount("abort");
    suffers(&hive, "mount it read-write");
    // A daemon that ends can't say so on this disk, and ends all the same.
    hive.signal_daemon(libc::SIGUSR2);
    assert_eq!(hive.wait().code(), Some(0), "{}", hive.log());
    assert!(lives(tick), "who runs waits for the next daemon");
    let output = serve(&hive.config());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("read-only file system"), "{}", stderr(&output));
    assert!(lives(tick));
    let said = hive.log().lines().filter(|line| line.contains("failed to keep output")).count();
    assert_eq!(said, 1, "the daemon's log is no place to pour an agent's lines into");
}

#[test]
fn a_daemon_does_not_start_on_a_read_only_directory() {
    let Some(disk) = Disk::small() else { return };
    let hive = Hive::prepare(AGENTS);
    std::os::unix::fs::symlink(disk.path(), hive.data()).unwrap();
    disk.remount("ro");
    let output = serve(&hive.config());
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("read-only") && said.contains(disk.path().to_str().unwrap()), "{said}");
    assert!(said.lines().count() == 1, "one line for people, no backtrace: {said}");
    assert!(!hive.file("ticks").exists(), "nothing was started");
}

#[test]
fn a_killed_launcher_takes_its_whole_tree_along_and_is_replaced() {
    let hive = Hive::start(
        r#"
[[swarm]]
name = "s"
workdir = "."
[[swarm.agent]]
name = "a"
command = ["sh", "-c", "setsid sleep 1000 & echo $! > grandchild.new; mv grandchild.new grandchild; exec sleep 1000"]
[[swarm.agent]]
name = "b"
command = ["sleep", "1000"]
"#,
    );
    let (a, b) = (hive.agent_pid("s/a"), hive.agent_pid("s/b"));
    let grandchild: i32 =
        until("the grandchild", || fs::read_to_string(hive.file("grandchild")).ok()?.trim().parse().ok());
    let launcher = parent(a);
    assert_ne!(u32::try_from(launcher).unwrap(), hive.pid);
    assert_ne!(launcher, parent(b), "each agent has a launcher of its own");
    kill(launcher, libc::SIGKILL);
    let agent = hive.agent_until("s/a", "runs again", |agent| agent["incarnation"] == 2 && agent["state"] == "running");
    assert_eq!(agent["last_exit"]["cause"], "launcher_lost", "{agent:#}");
    assert_eq!((&agent["last_exit"]["code"], &agent["last_exit"]["signal"]), (&json!(null), &json!(null)));
    assert_eq!(agent["restarts"], 1);
    assert!(!lives(a) && !lives(grandchild), "the next one came before the last one was gone");
    assert_eq!(hive.agent_pid("s/b"), b);
    hive.command("/swarms/s/stop");
    hive.nothing_left_but_daemon(Duration::from_secs(10));
}

/// Field 4 of `stat`, counted behind the name, which may hold anything.
fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, behind) = stat.rsplit_once(") ").unwrap();
    behind.split(' ').nth(1).unwrap().parse().unwrap()
}

fn hivekeeper(arguments: &[&str], config: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hivekeeper"))
        .args(arguments)
        .arg("--config")
        .arg(config)
        .current_dir(config.parent().unwrap())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn serve(config: &Path) -> Output {
    hivekeeper(&["serve"], config)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_mistake_of_a_configuration_is_told_at_once_and_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("bad.toml");
    fs::write(
        &config,
        r#"[hive]
data_dir = "data"
colour = "blue"
[http]
bind = "0.0.0.0:0"
token_file = "no-such-token"
[[swarm]]
name = "s"
image = "De bian"
limits = { memory = "1MiB" }
period = "60 parsecs"
[[swarm.agent]]
name = "a"
command = ["touch", "started"]
[[swarm.agent]]
name = "a"
command = ["touch", "started"]
[[swarm]]
name = "s"
[[swarm.agent]]
name = "b"
command = ["touch", "started"]
"#,
    )
    .unwrap();
    for verb in ["check", "serve"] {
        let output = hivekeeper(&[verb], &config);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{verb}: {said}");
        for mistake in [
            ["bad.toml:3", "hive.colour", "unknown key"],
            ["bad.toml:6", "http.token_file", "no-such-token"],
            ["bad.toml:9", "swarm[s].image", "De bian"],
            ["bad.toml:10", "swarm[s].limits.memory", "1MiB"],
            ["bad.toml:11", "swarm[s].period", "60 parsecs"],
            ["bad.toml:16", "swarm[s].agent[a].name", "second agent"],
            ["bad.toml:19", "swarm[s].name", "second"],
        ] {
            let told = said.lines().any(|line| mistake.iter().all(|word| line.contains(word)));
            assert!(told, "{verb} says nothing of {mistake:?}:\n{said}");
        }
        assert!(output.stdout.is_empty(), "mistakes go to stderr");
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["bad.toml"], "{verb} made something");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.toml");
    let garbage = dir.path().join("garbage.toml");
    fs::write(&garbage, [0xff, 0xfe, b'\n']).unwrap();
    for (file, why) in [(missing, "No such file"), (dir.path().join("."), "directory"), (garbage, "UTF-8")] {
        for verb in ["check", "serve"] {
            let output = hivekeeper(&[verb], &file);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(file.to_str().unwrap()) && said.contains(why), "{said}");
        }
    }
}

#[test]
fn an_address_that_others_can_reach_is_refused_without_a_token() {
    let hive = Hive::prepare(AGENTS);
    let text = fs::read_to_string(hive.config()).unwrap();
    fs::write(hive.config(), text.replace("127.0.0.1:0", "0.0.0.0:0")).unwrap();
    let output = serve(&hive.config());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for key in ["http.bind", "data_plane.bind"] {
        assert!(said.lines().any(|line| line.contains(key) && line.contains("token")), "{said}");
    }
    assert!(!hive.data().exists() && !hive.file("ticks").exists());
}

#[test]
fn a_port_that_is_taken_is_named_and_the_directory_is_given_back() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let mut hive = Hive::prepare(AGENTS);
    let good = fs::read_to_string(hive.config()).unwrap();
    for key in ["[http]", "[data_plane]"] {
        let bad = good.replace(&format!("{key}\nbind = \"127.0.0.1:0\""), &format!("{key}\nbind = \"{at}\""));
        assert_ne!(bad, good);
        fs::write(hive.config(), bad).unwrap();
        let output = serve(&hive.config());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&at) && said.contains(key) && said.contains("in use"), "{said}");
        assert!(output.stdout.is_empty() && !hive.data().join("endpoints.json").exists());
        assert!(!hive.file("ticks").exists(), "nothing was started");
    }
    fs::write(hive.config(), good).unwrap();
    hive.boot();
    assert_eq!(hive.running("s/tick")["incarnation"], 1);
}
