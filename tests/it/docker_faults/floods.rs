//! Too much of something: output, the engine's events, data on a disk.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::{Value, json};

use super::harness::{Case, kill, share, shell, sleeper, swarm, until};
use crate::{faults::Disk, harness::skipped, hive::lives};

/// An agent that waits for the test's word, floods, says so, and lives on.
fn flood(what: &str) -> String {
    let script =
        format!("until [ -e /share/go ]; do sleep 0.05; done; {what}; echo done > /share/done; exec sleep 1000");
    swarm(&share(), &[shell("a", "", &script), sleeper("b", "")])
}

fn go(case: &Case) {
    fs::write(case.shared("go"), "").unwrap();
}

/// Nothing twice, nothing out of order, nothing gone without a word.
#[track_caller]
fn adds_up(case: &Case, total: u64) {
    let (mut kept, mut lost) = (Vec::new(), 0);
    for line in case.lines("s/a") {
        let text = line["text"].as_str().unwrap();
        if line["stream"] == "hivekeeper" {
            lost += text.split(' ').next().unwrap().parse::<u64>().unwrap();
        } else {
            kept.push(line["seq"].as_u64().unwrap());
        }
    }
    assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(kept.len() as u64 + lost, total, "kept {} and lost {lost}", kept.len());
    case.agent_until("s/a", &format!("shows that {lost} are lost"), |agent| agent["dropped"] == lost);
}

fn last(case: &Case) -> Value {
    case.get("/api/v1/swarms/s/agents/a/logs?tail=1").body["lines"][0]["seq"].clone()
}

#[test]
fn an_agent_that_writes_faster_than_it_is_read_is_not_blocked_and_its_loss_is_told() {
    let document = format!("[log]\nagent_max = \"64MiB\"\n{}", flood("yes $(printf '%099d' 0) | head -n 60000"));
    let Some(case) = Case::start(&document) else { return };
    let (a, b) = (case.outside("s/a"), case.outside("s/b"));
    case.signal_daemon(libc::SIGSTOP);
    go(&case);
    until("the flood has passed although nobody takes it", || case.said("done"));
    assert!(lives(a) && lives(b));
    case.signal_daemon(libc::SIGCONT);
    until("the last line arrives", || (last(&case) == 60_000).then_some(()));
    let dropped = |agent: &Value| agent["dropped"].as_u64() > Some(0);
    case.agent_until("s/a", "shows the loss", dropped);
    adds_up(&case, 60_000);
    assert_eq!((case.outside("s/a"), case.outside("s/b")), (a, b));
    case.end();
}

#[test]
fn an_agent_that_floods_is_stopped_in_mid_flood() {
    let Some(case) = Case::start(&flood("yes")) else { return };
    let b = case.outside("s/b");
    go(&case);
    case.agent_until("s/a", "has written", |_| last(&case).as_u64() > Some(10_000));
    let tree = case.tree("s/a");
    case.command("/swarms/s/agents/a/stop");
    assert!(tree.iter().all(|pid| !lives(*pid)), "said to be stopped while it lives");
    assert_eq!(case.outside("s/b"), b);
    case.end();
}

/// One call of the engine's API, without the client's own start.
fn call(method: &str, path: &str, body: &str) -> String {
    let mut engine = UnixStream::connect("/var/run/docker.sock").unwrap();
    engine.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    engine.write_all(head.as_bytes()).unwrap();
    engine.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    engine.read_to_string(&mut answer).unwrap();
    answer
}

/// Commands in a container by somebody else: three events each, of which the engine remembers 256 in all.
fn strangers(container: &str, many: usize) {
    for _ in 0..many {
        let made = call("POST", &format!("/containers/{container}/exec"), "{\"Cmd\":[\"true\"]}");
        let id = made.split("\"Id\":\"").nth(1).unwrap_or_else(|| panic!("{made}")).split('"').next().unwrap();
        let started = call("POST", &format!("/exec/{id}/start"), "{\"Detach\":true}");
        assert!(started.starts_with("HTTP/1.1 200"), "{started}");
    }
}

#[test]
fn a_flood_of_events_disturbs_nobody_and_hides_no_death() {
    if std::env::var("DOCKER_HOST").is_ok() {
        return skipped("needs the engine at its usual place, without DOCKER_HOST");
    }
    let Some(case) = Case::start(&swarm("", &[sleeper("a", ""), sleeper("b", "")])) else { return };
    let (a, b, container) = (case.outside("s/a"), case.outside("s/b"), case.container("s"));
    strangers(&container, 45);
    for id in ["s/a", "s/b"] {
        assert_eq!(case.runs_as(id, 1)["restarts"], 0);
    }
    assert_eq!((case.outside("s/a"), case.outside("s/b"), case.container("s")), (a, b, container.clone()));
    // The same while the daemon can't read them, and behind them what it must not miss.
    case.signal_daemon(libc::SIGSTOP);
    kill(b, libc::SIGKILL);
    strangers(&container, 90);
    case.ask(&["rm", "-f", &container]);
    case.signal_daemon(libc::SIGCONT);
    let a = case.runs_as("s/a", 2);
    assert_eq!((&a["last_exit"]["cause"], &a["restarts_in_window"]), (&json!("container_lost"), &json!(0)), "{a:#}");
    // Its own record was on its way before the container went.
    let b = case.runs_as("s/b", 2);
    let exit = &b["last_exit"];
    assert_eq!(
        (&exit["cause"], &exit["signal"], &b["restarts_in_window"]),
        (&json!("signalled"), &json!(9), &json!(1)),
        "{b:#}"
    );
    assert_ne!(case.container("s"), container);
    case.end();
}

#[test]
fn a_full_disk_stops_launches_and_commands_and_no_agent() {
    if !super::harness::is_there() {
        return;
    }
    let Some(disk) = Disk::small() else { return };
    let tick = "n=0; while :; do n=$((n+1)); echo tick $n; echo $n > /share/ticks; sleep 0.05; done";
    let Some(mut case) = Case::prepare(&swarm(&share(), &[shell("a", "", tick), sleeper("b", "")])) else { return };
    std::os::unix::fs::symlink(disk.path(), case.data()).unwrap();
    case.boot();
    let (a, b, container) = (case.outside("s/a"), case.outside("s/b"), case.container("s"));
    let ticks = |case: &Case| -> u64 { until("a tick", || case.said("ticks")?.parse().ok()) };
    disk.fill();
    kill(b, libc::SIGKILL);
    let waits = case.agent_until("s/b", "waits for the journal", |agent| {
        agent["reasons"][0]["detail"].as_str().is_some_and(|why| why.contains("no space left"))
    });
    assert_eq!((&waits["state"], &waits["last_exit"]["signal"]), (&json!("pending"), &json!(9)), "{waits:#}");
    assert_eq!(case.get("/readyz").status, 503);
    assert_eq!(case.get("/livez").status, 200);
    let refused = case.post("/api/v1/swarms/s/restart", json!({}));
    assert_eq!((refused.status, &refused.body["code"]), (503, &json!("journal_unavailable")), "{refused:?}");
    let before = ticks(&case);
    until("the agent works on", || (ticks(&case) > before + 5).then_some(()));
    assert_eq!((case.outside("s/a"), case.container("s")), (a, container.clone()));
    disk.free();
    assert_eq!(case.runs_as("s/b", 2)["restarts"], 1);
    until("readiness", || (case.get("/readyz").status == 200).then_some(()));
    case.command("/swarms/s/agents/b/restart");
    assert_eq!((case.outside("s/a"), case.container("s")), (a, container));
    case.end();
}
