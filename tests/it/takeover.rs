//! Daemons that die, are told to go, or come back from the dead.

use std::time::Duration;

use crate::hive::{Hive, kill, lives, until};

/// An agent that ticks numbered lines and has a grandchild in a session of its own.
fn ticking(lease: &str) -> String {
    format!(
        r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "tick"
lease = "{lease}"
stop_grace = "1s"
command = ["sh", "-c", "setsid sleep 1000 & echo $! > grandchild; n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.02; done"]
[[swarm.agent]]
name = "quiet"
lease = "{lease}"
stop_grace = "1s"
command = ["sleep", "1000"]
"#
    )
}

fn grandchild(hive: &Hive) -> i32 {
    until("the grandchild's pid", || {
        std::fs::read_to_string(hive.data().join("work/s/grandchild")).ok()?.trim().parse().ok()
    })
}

/// The agent's own count, as far as it is in the log, must have no gap and no double.
#[track_caller]
fn gap_free(hive: &Hive, at_least: usize) {
    let ticks = until("enough ticks", || {
        let ticks: Vec<u64> = hive
            .lines("s/tick")
            .iter()
            .filter_map(|line| line["text"].as_str()?.strip_prefix("tick ")?.parse().ok())
            .collect();
        (ticks.len() >= at_least).then_some(ticks)
    });
    let expected: Vec<u64> = (1..=ticks.len() as u64).collect();
    assert_eq!(ticks, expected);
}

#[test]
fn a_killed_daemon_is_replaced_and_agents_run_on() {
    let mut hive = Hive::start(&ticking("20s"));
    let (tick, quiet, grandchild) = (hive.agent_pid("s/tick"), hive.agent_pid("s/quiet"), grandchild(&hive));
    let history = hive.get("/api/v1/events?after=0&limit=1000").body;
    gap_free(&hive, 20);

    hive.kill();
    std::thread::sleep(Duration::from_millis(500));
    assert!(lives(tick) && lives(grandchild), "agents go on without a daemon");
    hive.boot();

    assert_eq!((hive.agent_pid("s/tick"), hive.agent_pid("s/quiet")), (tick, quiet));
    assert!(lives(grandchild));
    for id in ["s/tick", "s/quiet"] {
        let agent = hive.running(id);
        assert_eq!((agent["incarnation"].as_u64(), agent["restarts"].as_u64()), (Some(1), Some(0)), "{agent:#}");
        assert_eq!(agent["last_exit"], serde_json::Value::Null);
    }
    let so_far = hive.lines("s/tick").len();
    gap_free(&hive, so_far + 30);
    let again = hive.get("/api/v1/events?after=0&limit=1000").body;
    let (first, second) = (history["events"].as_array().unwrap(), again["events"].as_array().unwrap());
    assert!(second.len() >= first.len() && second[..first.len().min(3)] == first[..first.len().min(3)]);
    let seqs: Vec<u64> = second.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "numbers grow across daemons: {seqs:?}");
}

#[test]
fn a_session_is_opened_again_with_the_next_daemon() {
    let reporter = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo/reporter.sh");
    let mut hive = Hive::start(&format!(
        r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "r"
command = ["bash", "{reporter}"]
ready = "session"
"#
    ));
    let by_agent = |agent: &serde_json::Value| agent["last_heartbeat"]["source"] == "agent";
    let reports = |agent: &serde_json::Value| agent["progress"]["value"]["reports"].as_u64().unwrap_or_default();
    let before = hive.agent_until("s/r", "speaks itself", |agent| by_agent(agent) && reports(agent) > 0);
    hive.kill();
    // By now it knocks at its launcher's port again, and is let in before anything else happens.
    std::thread::sleep(Duration::from_millis(1500));
    hive.boot();
    let after = hive.agent_until("s/r", "speaks again", |agent| by_agent(agent) && reports(agent) > reports(&before));
    assert_eq!(after["pid"], before["pid"]);
    let data_plane = hive.get("/api/v1/health").body["data_plane"].clone();
    assert_eq!((&data_plane["sessions"], &data_plane["refused"]), (&1.into(), &0.into()), "{data_plane:#}");
}

#[test]
fn without_a_new_daemon_nothing_is_left_after_the_lease() {
    let mut hive = Hive::start(&ticking("2s"));
    let (tick, grandchild) = (hive.agent_pid("s/tick"), grandchild(&hive));
    hive.kill();
    assert!(lives(tick));
    hive.nothing_left(Duration::from_secs(20));
    assert!(!lives(grandchild));
    hive.boot();
    let agent =
        hive.agent_until("s/tick", "runs again", |agent| agent["incarnation"] == 2 && agent["state"] == "running");
    assert_eq!(agent["last_exit"]["cause"], "lease_lost", "{agent:#}");
}

#[test]
fn an_agent_that_died_meanwhile_is_found_dead_with_its_record() {
    let mut hive = Hive::start(&ticking("20s"));
    let (tick, quiet) = (hive.agent_pid("s/tick"), hive.agent_pid("s/quiet"));
    hive.kill();
    kill(quiet, libc::SIGKILL);
    until("it is dead", || (!lives(quiet)).then_some(()));
    hive.boot();
    let agent =
        hive.agent_until("s/quiet", "runs again", |agent| agent["state"] == "running" && agent["incarnation"] == 2);
    assert_eq!(agent["last_exit"]["signal"], 9, "{agent:#}");
    assert_eq!(agent["restarts"], 1);
    assert_eq!(hive.agent_pid("s/tick"), tick);
}

#[test]
fn sigterm_stops_everything_in_reverse_and_leaves_nothing() {
    let mut hive = Hive::start(
        r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "a"
command = ["sh", "-c", "trap 'echo a >> ../order; exit 0' TERM; while :; do sleep 0.02; done"]
[[swarm.agent]]
name = "b"
command = ["sh", "-c", "trap 'sleep 0.3; echo b >> ../order; exit 0' TERM; setsid sleep 1000 & while :; do sleep 0.02; done"]
[[swarm.agent]]
name = "deaf"
stop_grace = "500ms"
command = ["sh", "-c", "trap '' TERM; while :; do sleep 0.02; done"]
"#,
    );
    for id in ["s/a", "s/b", "s/deaf"] {
        hive.running(id);
    }
    let status = hive.terminate();
    assert_eq!(status.code(), Some(0), "{}", hive.log());
    assert_eq!(hive.processes(), Vec::<i32>::new());
    assert_eq!(std::fs::read_to_string(hive.data().join("work/order")).unwrap(), "b\na\n");
    hive.boot();
    for id in ["s/a", "s/b", "s/deaf"] {
        let agent = hive.running(id);
        assert_eq!(agent["restarts"], 0, "a shutdown is no failure: {agent:#}");
    }
}

#[test]
fn sigusr2_leaves_the_agents_to_the_next_daemon() {
    let mut hive = Hive::start(&ticking("20s"));
    let (tick, grandchild) = (hive.agent_pid("s/tick"), grandchild(&hive));
    hive.signal_daemon(libc::SIGUSR2);
    assert_eq!(hive.wait().code(), Some(0));
    assert!(lives(tick) && lives(grandchild));
    hive.boot();
    assert_eq!(hive.agent_pid("s/tick"), tick);
    assert_eq!(hive.agent("s/tick")["incarnation"], 1);
    gap_free(&hive, 30);
}

#[test]
fn a_daemon_that_slept_past_its_lease_is_fenced_off() {
    let mut hive = Hive::start(&ticking("3s"));
    let tick = hive.agent_pid("s/tick");
    hive.signal_daemon(libc::SIGSTOP);
    hive.nothing_left_but_daemon(Duration::from_secs(20));
    // A holder that touched the directory within the last five seconds counts as alive.
    let lock = hive.data().join("lock");
    until("the old daemon has shown no life for long enough", || {
        let age = std::fs::metadata(&lock).unwrap().modified().unwrap().elapsed().ok()?;
        (age > Duration::from_secs(5)).then_some(())
    });
    assert!(!lives(tick));
    let mut old = hive.boot_beside();
    let tick = hive.agent_pid("s/tick");
    let before = hive.agent("s/tick");
    kill(old.id(), libc::SIGCONT);
    let status = old.wait();
    assert!(!status.success(), "a fenced daemon says that it failed: {status}");
    let after = hive.agent("s/tick");
    assert_eq!(hive.agent_pid("s/tick"), tick, "it touched nothing");
    assert_eq!((&before["incarnation"], &before["restarts"]), (&after["incarnation"], &after["restarts"]));
}

#[test]
fn a_second_daemon_beside_a_living_one_is_refused() {
    let hive = Hive::start(&ticking("20s"));
    let tick = hive.agent_pid("s/tick");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hivekeeper"))
        .args(["serve", "--config"])
        .arg(hive.config())
        .current_dir(hive.dir.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&hive.pid.to_string()), "it names the daemon that is there: {said}");
    assert_eq!(hive.agent_pid("s/tick"), tick);
}

#[test]
fn a_changed_command_is_replaced_at_boot_and_the_rest_is_taken_over() {
    let mut hive = Hive::start(&ticking("20s"));
    let (tick, quiet) = (hive.agent_pid("s/tick"), hive.agent_pid("s/quiet"));
    hive.kill();
    hive.configure(&ticking("20s").replace("\"sleep\", \"1000\"", "\"sleep\", \"2000\""));
    hive.boot();
    hive.agent_until("s/quiet", "runs the new command", |agent| {
        agent["incarnation"] == 2 && agent["state"] == "running"
    });
    assert!(!lives(quiet));
    assert_eq!(hive.agent_pid("s/tick"), tick);
    hive.kill();
    hive.configure("");
    hive.boot();
    hive.nothing_left_but_daemon(Duration::from_secs(20));
    assert_eq!(hive.get("/api/v1/swarms/s").status, 404, "removed from the file: stopped and removed");
}

#[test]
fn a_failed_agent_whose_command_is_mended_in_the_file_is_tried_again() {
    let swarm = |command: &str| {
        format!(
            r#"
[[swarm]]
name = "s"
intensity = 0
on_exceeded = "fail"
[[swarm.agent]]
name = "bad"
command = {command}
[[swarm.agent]]
name = "job"
restart = "transient"
command = ["sh", "-c", "echo ran >> runs"]
"#
        )
    };
    let mut hive = Hive::start(&swarm("[\"false\"]"));
    hive.agent_until("s/bad", "is given up", |agent| agent["state"] == "failed");
    hive.agent_until("s/job", "is done", |agent| agent["state"] == "completed");
    hive.kill();
    hive.boot();
    assert_eq!(hive.agent("s/bad")["state"], "failed", "what is the same fails the same");
    hive.kill();
    hive.configure(&swarm("[\"sleep\", \"1000\"]"));
    hive.boot();
    let mended = hive.running("s/bad");
    assert_eq!((&mended["incarnation"], &mended["restarts_in_window"]), (&2.into(), &0.into()), "{mended:#}");
    assert_eq!(hive.agent("s/job")["state"], "completed", "its neighbour is as it was");
    hive.kill();
    hive.configure("");
    hive.boot();
    hive.kill();
    hive.configure(&swarm("[\"sleep\", \"1000\"]"));
    hive.boot();
    hive.agent_until("s/job", "is done once more", |agent| agent["state"] == "completed" && agent["incarnation"] == 2);
}

/// It has no order, so it is nobody's agent: it ends with its daemon, whatever becomes of that, and is never shown.
#[test]
fn the_launcher_that_is_started_ahead_ends_with_its_daemon() {
    let mut hive = Hive::start(&ticking("20s"));
    let (tick, quiet, spare) = (hive.agent_pid("s/tick"), hive.agent_pid("s/quiet"), hive.spare());
    assert_eq!(hive.sockets(), 2, "it has none");
    hive.kill();
    until("the spare ends", || (!lives(spare)).then_some(()));
    assert!(lives(tick) && lives(quiet));
    assert_eq!(hive.sockets(), 2);

    hive.boot();
    assert_eq!((hive.agent_pid("s/tick"), hive.agent_pid("s/quiet")), (tick, quiet));
    let parent = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse::<i32>().unwrap()
    };
    // One that has only just been started may not have introduced itself yet; the launch then does without.
    let used = (0..3).any(|_| {
        let (old, spare) = (hive.agent_pid("s/quiet"), hive.spare());
        kill(old, libc::SIGKILL);
        let again = |agent: &serde_json::Value| agent["pid"].as_i64().is_some_and(|pid| pid != i64::from(old));
        let next = hive.agent_until("s/quiet", "runs again", again);
        parent(i32::try_from(next["pid"].as_i64().unwrap()).unwrap()) == spare
    });
    assert!(used, "no spare took a launch");

    let spare = hive.spare();
    let swarm = hive.get("/api/v1/swarms/s").body;
    assert_eq!(swarm["agents"].as_array().map(Vec::len), Some(2), "{swarm:#}");
    hive.signal_daemon(libc::SIGUSR2);
    assert_eq!(hive.wait().code(), Some(0));
    until("the spare ends", || (!lives(spare)).then_some(()));
    assert!(lives(tick));

    hive.boot();
    let spare = hive.spare();
    assert_eq!(hive.terminate().code(), Some(0));
    assert!(!lives(spare), "left behind by SIGTERM");
    assert_eq!((hive.processes(), hive.sockets()), (Vec::new(), 0));
}
