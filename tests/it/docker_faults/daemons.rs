//! More than one daemon on one engine, and one that slept.

use std::{fs, process::Command, time::Duration};

use serde_json::json;

use super::harness::{Case, gone, kill, sleeper, swarm, ticking, until};
use crate::hive::lives;

fn sleepy(lease: &str) -> String {
    swarm("", &[sleeper("a", &format!("lease = \"{lease}\""))])
}

#[test]
fn a_daemon_that_slept_past_its_lease_is_fenced_off() {
    let Some(mut case) = Case::start(&sleepy("3s")) else { return };
    let tree = case.tree("s/a");
    case.signal_daemon(libc::SIGSTOP);
    gone("its agents' leases run out", &tree);
    // A holder that touched the directory within the last five seconds counts as alive.
    let lock = case.data().join("lock");
    until("the old daemon has shown no life for long enough", || {
        let age = fs::metadata(&lock).unwrap().modified().unwrap().elapsed().ok()?;
        (age > Duration::from_secs(5)).then_some(())
    });
    let mut old = case.boot_beside();
    let before = case.running("s/a");
    let (agent, container) = (case.outside("s/a"), case.container("s"));
    kill(old.id(), libc::SIGCONT);
    let status = old.wait();
    assert!(!status.success(), "a fenced daemon says that it failed: {status}");
    let after = case.running("s/a");
    assert_eq!((&before["incarnation"], &before["restarts"]), (&after["incarnation"], &after["restarts"]));
    assert_eq!((case.outside("s/a"), case.container("s")), (agent, container), "it touched nothing");
    case.end();
}

#[test]
fn a_daemon_that_slept_within_its_lease_goes_on() {
    let Some(case) = Case::start(&sleepy("20s")) else { return };
    let agent = case.outside("s/a");
    case.signal_daemon(libc::SIGSTOP);
    std::thread::sleep(Duration::from_secs(3));
    assert!(lives(agent));
    case.signal_daemon(libc::SIGCONT);
    assert_eq!(case.runs_as("s/a", 1)["restarts"], 0);
    assert_eq!(case.outside("s/a"), agent);
    case.end();
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused_and_touches_nothing() {
    let Some(case) = Case::start(&sleepy("20s")) else { return };
    let (agent, container) = (case.outside("s/a"), case.container("s"));
    let output = Command::new(env!("CARGO_BIN_EXE_hivekeeper"))
        .args(["serve", "--config"])
        .arg(case.config())
        .current_dir(case.dir.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&case.pid.to_string()), "it names the daemon that is there: {said}");
    case.runs_as("s/a", 1);
    assert_eq!((case.outside("s/a"), case.container("s")), (agent, container));
    case.end();
}

/// Both are called `test`, and so are their swarms: only the ids tell them apart.
#[test]
fn two_hives_of_one_name_leave_each_other_alone() {
    let Some(mut one) = Case::start(&sleepy("20s")) else { return };
    let Some(mut other) = Case::start(&sleepy("20s")) else { return };
    assert_ne!(one.hive_id(), other.hive_id());
    let (first, second) = (one.outside("s/a"), other.outside("s/a"));
    let (first_home, second_home) = (one.container("s"), other.container("s"));
    assert_ne!(first_home, second_home);
    // Each thing that looks for what is its own: boot, restart, stop and start, the end.
    one.kill();
    one.boot();
    one.runs_as("s/a", 1);
    one.command("/swarms/s/restart");
    one.command("/swarms/s/stop");
    one.command("/swarms/s/start");
    one.running("s/a");
    assert!(!lives(first), "its own was restarted");
    assert_eq!((other.outside("s/a"), other.container("s")), (second, second_home.clone()));
    one.ask(&["rm", "-f", &one.container("s")]);
    one.agent_until("s/a", "is back", |agent| agent["incarnation"].as_u64() > Some(3) && agent["state"] == "running");
    one.end();
    other.runs_as("s/a", 1);
    assert_eq!(
        (other.outside("s/a"), other.container("s")),
        (second, second_home),
        "the other one's end took it along"
    );
    other.kill();
    other.boot();
    assert_eq!(other.runs_as("s/a", 1)["restarts"], json!(0));
    assert_eq!(other.outside("s/a"), second);
    other.end();
}

/// The data directory is another, but it has the same id: a copy. The engine can't tell them apart, the epoch can.
#[test]
fn a_younger_daemon_on_a_copy_of_the_directory_fences_the_older_one() {
    let Some(mut case) = Case::start(&sleepy("20s")) else { return };
    let agent = case.outside("s/a");
    case.kill();
    let copy = Case::prepare(&sleepy("20s")).unwrap();
    let copied = Command::new("cp").arg("-a").arg(case.data()).arg(copy.data()).status().unwrap();
    assert!(copied.success());
    case.boot();
    let mut copy = copy;
    fs::write(copy.data().join("epoch"), fs::read(case.data().join("epoch")).unwrap()).unwrap();
    copy.boot();
    assert_eq!(copy.runs_as("s/a", 1)["restarts"], 0, "the younger one takes the agents over");
    let status = case.wait();
    assert!(!status.success(), "the older one learns that it is fenced, and ends: {status}\n{}", case.log());
    assert!(lives(agent));
    copy.end();
}

/// The backup knows nothing of what happened since: what it knows is taken over, a later start is ended and its agent started anew.
#[test]
fn a_restored_hive_takes_over_what_lives_on_in_containers() {
    let Some(mut case) = Case::start(&ticking("20s")) else { return };
    let (kept, ended) = (case.outside("s/tick"), case.tree("s/quiet"));
    let container = case.container("s");
    let hivekeeper = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hivekeeper"));
        let output = command.args(words).arg("--config").arg(case.config()).current_dir(case.dir.path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
    };
    hivekeeper(&["backup", "--logs", "hive.tar"]);
    case.command("/swarms/s/agents/quiet/restart");
    gone("its first incarnation", &ended);
    let later = case.tree("s/quiet");
    case.signal_daemon(libc::SIGKILL);
    fs::rename(case.data(), case.file("lost")).unwrap();
    hivekeeper(&["restore", "hive.tar"]);
    case.wait();
    case.boot();

    assert_eq!(case.runs_as("s/tick", 1)["restarts"], 0, "{}", case.log());
    assert_eq!((case.outside("s/tick"), case.container("s")), (kept, container));
    gone("what was started after the backup", &later);
    case.runs_as("s/quiet", 2);
    assert_eq!(case.tree("s/quiet").len(), 1, "nobody runs twice");
    let lines = case.lines("s/tick").len();
    until("its lines are read again", || (case.lines("s/tick").len() > lines).then_some(()));
    case.end();
}
