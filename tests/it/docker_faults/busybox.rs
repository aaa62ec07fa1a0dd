//! An image like Alpine's: no glibc, and busybox for the shell and everything else. The launcher brings all that it needs, and its own scripts keep to
//! what a plain `sh` can do.

use serde_json::{Value, json};

use super::harness::{BUSYBOX, Case, gone, shell, sidecar, swarm_of, until};
use crate::{docker::beside::Beside, hive::lives};

/// Says a line on each stream, has a grandchild in a session of its own, and fails when it is told to.
const SCRIPT: &str =
    "setsid sleep 1000 & echo to out; echo to err >&2; until [ -e /tmp/go ]; do sleep 0.1; done; rm /tmp/go; exit 7";

fn agents() -> [String; 2] {
    [shell("a", "", SCRIPT), shell("b", "", "exec sleep 1000")]
}

/// Agent and grandchild; a shell that waits has a child more from time to time.
fn tree(case: &Case) -> Vec<i32> {
    until("agent and grandchild", || Some(case.tree("s/a")).filter(|tree| tree.len() >= 2))
}

/// Everything that happens to an agent.
fn lives_as_anywhere(case: &Case, container: &str) {
    let without_libraries = case.ask(&[
        "exec",
        container,
        "sh",
        "-c",
        "readlink -f /bin/sh; ls -d /lib* /usr/lib* 2>/dev/null || echo none",
    ]);
    assert_eq!(without_libraries, "/bin/busybox\nnone", "this image is not what the case is about");
    let b = case.outside("s/b");

    case.runs_as("s/a", 1);
    let said = |stream: &str, text: &str| {
        until(text, || {
            case.lines("s/a").iter().any(|line| line["stream"] == stream && line["text"] == text).then_some(())
        });
    };
    said("stdout", "to out");
    said("stderr", "to err");

    let first = tree(case);
    case.ask(&["exec", container, "sh", "-c", ": >/tmp/go"]);
    let agent = case.runs_as("s/a", 2);
    let exit = |agent: &Value| (agent["last_exit"]["cause"].clone(), agent["last_exit"]["code"].clone());
    assert_eq!(exit(&agent), (json!("exited"), json!(7)), "{agent:#}");
    assert_eq!(agent["restarts_in_window"], 1, "{agent:#}");
    assert!(first.iter().all(|pid| !lives(*pid)), "the next one came before the last one's tree was gone: {first:?}");

    let second = tree(case);
    case.command("/swarms/s/agents/a/restart");
    case.runs_as("s/a", 3);
    assert!(second.iter().all(|pid| !lives(*pid)), "left of the one before: {second:?}");

    let third = tree(case);
    case.command("/swarms/s/agents/a/stop");
    gone("the grandchild is swept", &third);
    assert_eq!((&case.agent("s/a")["state"], case.tree("s/a")), (&json!("stopped"), Vec::new()));
    case.command("/swarms/s/agents/a/start");
    case.runs_as("s/a", 4);
    assert_eq!(case.outside("s/b"), b, "its sibling is left alone");
}

#[test]
fn agents_live_in_a_container_of_it_as_anywhere() {
    let Some(case) = Case::start(&swarm_of("s", BUSYBOX, "", &agents())) else { return };
    case.running("s/a");
    lives_as_anywhere(&case, &case.container("s"));
    case.end();
}

/// Nothing but a directory in memory can be written, so the launcher comes through the container's own shell.
#[test]
fn its_shell_takes_the_launcher_in_where_the_root_is_read_only() {
    let Some(mut case) = Case::prepare("") else { return };
    let options =
        ["--read-only", "--network", "none", "--tmpfs", "/run", "--tmpfs", "/tmp:exec", "--user", "10001:10001"];
    let beside = Beside::made(&options, BUSYBOX, &["sleep", "1000000"]);
    let before = (beside.started_at(), beside.processes());
    case.configure(&sidecar(&beside.name, &agents()));
    case.boot();
    case.running("s/a");
    assert_eq!(beside.says("ls -d /tmp/hivekeeper-*/*/hivekeeper").lines().count(), 1, "not where it can be executed");
    lives_as_anywhere(&case, &beside.name);
    case.end();
    beside.is_untouched(&before.0);
    assert_eq!(beside.processes(), before.1);
    assert_eq!(beside.says("ls -A /run /tmp /var/tmp /dev/shm"), "/dev/shm:\n\n/run:\n\n/tmp:\n\n/var/tmp:");
}
