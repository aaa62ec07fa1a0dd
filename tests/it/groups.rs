//! Swarms whose agents are restarted together, on the real executable: who is restarted, who keeps its process, in which order, and what is shown.

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::hive::{Hive, PATIENCE, kill, lives, until};

/// Writes `+NAME` when it starts and `-NAME` when it was asked to end.
fn member(name: &str, rest: &str) -> String {
    let script = format!(
        "trap 'echo -{name} >> order; exit 0' TERM; echo +{name} >> order; while :; do sleep 0.05 & wait $!; done"
    );
    format!(
        "[[swarm.agent]]\nname = \"{name}\"\nstop_grace = \"5s\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\n{rest}\n"
    )
}

/// A swarm `g` of `a`, `b` and `c`, and a bystander of its own, `other/x`.
fn group(strategy: &str, rest: &str) -> String {
    let members: String = ["a", "b", "c"].map(|name| member(name, "")).concat();
    format!(
        "[[swarm]]\nname = \"g\"\nstrategy = \"{strategy}\"\n{rest}\n{members}\n\
         [[swarm]]\nname = \"other\"\n[[swarm.agent]]\nname = \"x\"\ncommand = [\"sleep\", \"1000\"]\n"
    )
}

/// A back-off of this long before the first restart, and little jitter after.
fn backoff(initial: &str) -> String {
    format!(
        "backoff = {{ initial = \"{initial}\", then = \"10ms\", factor = 1.0, max = \"10ms\", jitter = 0.0, reset_after = \"10m\" }}"
    )
}

const MEMBERS: [&str; 3] = ["g/a", "g/b", "g/c"];

fn order(hive: &Hive) -> Vec<String> {
    let path: PathBuf = hive.data().join("work/g/order");
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Waits until each has written its first line, so that its trap is set.
fn settled(hive: &Hive, lines: usize) -> Vec<String> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let order = order(hive);
        if order.len() >= lines {
            return order;
        }
        assert!(std::time::Instant::now() < deadline, "{lines} lines, and not these: {order:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pids(hive: &Hive) -> [i32; 3] {
    MEMBERS.map(|id| hive.agent_pid(id))
}

#[track_caller]
fn runs_as(hive: &Hive, id: &str, incarnation: u64) -> Value {
    hive.agent_until(id, &format!("runs as incarnation {incarnation}"), |agent| {
        agent["state"] == "running" && agent["incarnation"] == incarnation
    })
}

fn swarm(hive: &Hive) -> Value {
    let health = hive.get("/api/v1/health").body;
    let swarms = health["swarms"].as_array().unwrap();
    swarms.iter().find(|swarm| swarm["name"] == "g").unwrap().clone()
}

/// What agents of `g` came to, `a 2 running`, in the order in which it was told; a program's own first line comes when its shell gets round to it.
fn told(hive: &Hive) -> Vec<String> {
    let page = hive.get("/api/v1/events?after=0&limit=1000").body;
    let events = page["events"].as_array().unwrap().iter();
    let changes = events.filter(|event| event["kind"] == "agent_changed" && event["agent"]["swarm"] == "g");
    let said = changes.map(|event| {
        let agent = &event["agent"];
        format!("{} {} {}", agent["name"].as_str().unwrap(), agent["incarnation"], agent["state"].as_str().unwrap())
    });
    said.collect()
}

/// Each began behind the one before it.
#[track_caller]
fn began_in_order(hive: &Hive, began: &[&str]) {
    let told = until("the journal tells of the last one", || {
        let told = told(hive);
        began.last().is_none_or(|last| told.contains(&format!("{last} running"))).then_some(told)
    });
    let at =
        |what: String| told.iter().position(|said| *said == what).unwrap_or_else(|| panic!("no {what:?} in {told:#?}"));
    for pair in began.windows(2) {
        let (first, second) = (at(format!("{} running", pair[0])), at(format!("{} starting", pair[1])));
        assert!(first < second, "{pair:?}: {told:#?}");
    }
}

fn counts(agent: &Value) -> (u64, u64) {
    (agent["restarts"].as_u64().unwrap(), agent["restarts_in_window"].as_u64().unwrap())
}

#[test]
fn one_for_all_restarts_every_agent_of_the_swarm_in_order_and_no_other() {
    let hive = Hive::start(&group("one_for_all", &backoff("0s")));
    let (before, other) = (pids(&hive), hive.agent_pid("other/x"));
    settled(&hive, 3);
    began_in_order(&hive, &["a 1", "b 1", "c 1"]);
    let mut viewer = hive.viewer();
    viewer.next_that("is the first status", |frame| frame["type"] == "status_update");

    kill(before[1], libc::SIGKILL);

    let agents = MEMBERS.map(|id| runs_as(&hive, id, 2));
    assert_eq!(settled(&hive, 8)[3..5], ["-c", "-a"], "in reverse order");
    began_in_order(&hive, &["a 2", "b 2", "c 2"]);
    assert!(before.iter().all(|pid| !lives(*pid)), "{before:?}");
    assert_eq!(hive.agent_pid("other/x"), other);
    let causes = agents.clone().map(|agent| agent["last_exit"]["cause"].clone());
    assert_eq!(causes, [json!("stopped"), json!("signalled"), json!("stopped")]);
    let counted = agents.clone().map(|agent| counts(&agent));
    assert_eq!(counted, [(1, 1); 3], "each was restarted once, and the window is the swarm's: {agents:#?}");
    // A bystander says on whose account it ends.
    viewer.next_that("tells why a bystander ends", |frame| {
        frame["type"] == "session_update"
            && frame["agents"].as_array().into_iter().flatten().any(|agent| {
                let reason = &agent["reasons"][0];
                agent["name"] == "c"
                    && reason["code"] == "sibling_failed"
                    && reason["detail"].as_str().unwrap().contains("b killed by signal 9")
            })
    });
}

#[test]
fn rest_for_one_restarts_what_started_later_and_spares_what_started_before() {
    let hive = Hive::start(&group("rest_for_one", &backoff("0s")));
    let before = pids(&hive);
    settled(&hive, 3);
    kill(before[1], libc::SIGKILL);
    let (b, c) = (runs_as(&hive, "g/b", 2), runs_as(&hive, "g/c", 2));
    let seen = settled(&hive, 6);
    assert!(seen[3] == "-c" && !seen.contains(&"-a".to_owned()), "{seen:?}");
    began_in_order(&hive, &["b 2", "c 2"]);
    assert_eq!(hive.agent_pid("g/a"), before[0]);
    assert_eq!((counts(&b), counts(&c)), ((1, 1), (1, 1)));
    assert_eq!(hive.agent("g/a")["restarts"], 0);
    kill(hive.agent_pid("g/c"), libc::SIGKILL);
    let c = runs_as(&hive, "g/c", 3);
    assert_eq!(counts(&c), (2, 2), "the window is the swarm's: {c:#}");
    assert_eq!(pids(&hive)[0], before[0]);
    assert_eq!(hive.agent("g/b")["incarnation"], 2, "the last one's failure is its own affair");
}

#[test]
fn a_swarm_that_needs_too_many_restarts_is_stopped_in_reverse_and_fails_as_a_whole() {
    let hive =
        Hive::start(&group("rest_for_one", &format!("intensity = 1\non_exceeded = \"fail\"\n{}", backoff("0s"))));
    let other = hive.agent_pid("other/x");
    settled(&hive, 3);
    kill(hive.agent_pid("g/b"), libc::SIGKILL);
    MEMBERS[1..].iter().for_each(|id| _ = runs_as(&hive, id, 2));
    settled(&hive, 6);
    // Of another agent: under one_for_one each would have one restart left.
    kill(hive.agent_pid("g/c"), libc::SIGKILL);
    for id in MEMBERS {
        let agent = hive.agent_until(id, "has failed with its swarm", |agent| agent["state"] == "failed");
        assert_eq!((&agent["retry_at"], &agent["pid"]), (&json!(null), &json!(null)), "{agent:#}");
        let reason = agent["reasons"][0]["detail"].as_str().unwrap().to_owned();
        assert!(reason.contains("killed by signal 9"), "{id} says whose end was too many: {agent:#}");
    }
    assert_eq!(order(&hive)[6..], ["-b", "-a"], "in reverse order");
    let swarm = swarm(&hive);
    assert_eq!(swarm["level"], "critical", "{swarm:#}");
    let gave_up = swarm["reasons"].as_array().unwrap().iter().find(|reason| reason["code"] == "swarm_gave_up");
    let detail = gave_up.unwrap_or_else(|| panic!("{swarm:#}"))["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("c killed by signal 9"), "{swarm:#}");
    assert_eq!(hive.get("/api/v1/health").status, 503);
    assert_eq!(hive.agent_pid("other/x"), other, "no other swarm is touched");

    hive.command("/swarms/g/restart");
    let again = pids(&hive);
    assert_eq!(hive.agent("g/c")["restarts_in_window"], 0, "an operator's word gives a fresh window");
    settled(&hive, 11);
    kill(again[2], libc::SIGKILL);
    hive.agent_until("g/c", "is restarted once more", |agent| agent["state"] == "running" && agent["pid"] != again[2]);
    assert_eq!(pids(&hive)[..2], again[..2]);
}

#[test]
fn a_swarm_that_gave_up_tries_again_as_a_whole_and_in_order() {
    let rest = format!("intensity = 0\non_exceeded = {{ retry_after = \"2s\" }}\n{}", backoff("0s"));
    let mut hive = Hive::start(&group("one_for_all", &rest));
    settled(&hive, 3);
    kill(hive.agent_pid("g/a"), libc::SIGKILL);
    let waits: Vec<Value> =
        MEMBERS.map(|id| hive.agent_until(id, "waits out its pause", |agent| agent["state"] == "failed")).to_vec();
    assert!(waits.iter().all(|agent| agent["retry_at"].is_string()), "{waits:#?}");
    // A daemon that dies meanwhile changes nothing.
    hive.kill();
    hive.boot();
    let agents = MEMBERS.map(|id| runs_as(&hive, id, 2));
    assert_eq!(settled(&hive, 8)[3..5], ["-c", "-b"], "in reverse order");
    began_in_order(&hive, &["a 2", "b 2", "c 2"]);
    assert!(agents.iter().all(|agent| agent["restarts_in_window"] == 0), "{agents:#?}");
}

#[test]
fn a_daemon_that_dies_in_the_middle_of_a_group_restart_twice_ends_in_one_restart() {
    let mut hive = Hive::start(&group("one_for_all", &backoff("4s")));
    let before = pids(&hive);
    settled(&hive, 3);
    kill(before[1], libc::SIGKILL);
    hive.agent_until("g/b", "waits", |agent| agent["state"] == "backing_off");
    for _ in 0..2 {
        hive.kill();
        hive.boot();
        let waits = hive.agent("g/b");
        assert!(waits["state"] == "backing_off" || waits["incarnation"] == 2, "{waits:#}");
        assert_eq!(waits["restarts_in_window"], 1, "what is due is in the window: {waits:#}");
    }
    let agents = MEMBERS.map(|id| runs_as(&hive, id, 2));
    let seen = settled(&hive, 8);
    assert_eq!(seen.iter().filter(|line| line.starts_with('+')).count(), 6, "each was started once more: {seen:?}");
    began_in_order(&hive, &["a 2", "b 2", "c 2"]);
    assert!(before.iter().all(|pid| !lives(*pid)), "{before:?}");
    assert_eq!(agents[1]["restarts"], 1, "{agents:#?}");
    assert!(agents.iter().all(|agent| agent["restarts_in_window"] == 1), "{agents:#?}");
}

/// The last one takes its time to end, so that the first still lives when the daemon dies.
#[test]
fn a_group_whose_stop_was_cut_off_is_stopped_by_the_next_daemon_and_restarted() {
    let slow =
        "trap 'sleep 3; echo -c >> order; exit 0' TERM; echo +c >> order; while :; do sleep 0.05 & wait $!; done";
    let document = format!(
        "[[swarm]]\nname = \"g\"\nstrategy = \"one_for_all\"\n{}\n{}{}[[swarm.agent]]\nname = \"c\"\nstop_grace = \"20s\"\n\
         command = [\"sh\", \"-c\", \"{slow}\"]\n",
        backoff("0s"),
        member("a", ""),
        member("b", "")
    );
    let mut hive = Hive::start(&document);
    let before = pids(&hive);
    settled(&hive, 3);
    kill(before[1], libc::SIGKILL);
    hive.agent_until("g/c", "is being stopped", |agent| agent["state"] == "stopping");
    hive.kill();
    assert!(lives(before[0]), "its turn to end has not come");
    hive.boot();
    let agents = MEMBERS.map(|id| runs_as(&hive, id, 2));
    let seen = settled(&hive, 8);
    assert_eq!(seen[3..5], ["-c", "-a"], "each was asked to end, and ended once: {seen:?}");
    began_in_order(&hive, &["a 2", "b 2", "c 2"]);
    assert!(before.iter().all(|pid| !lives(*pid)), "{before:?}");
    assert!(agents.iter().all(|agent| agent["restarts_in_window"] == 1), "{agents:#?}");
}

/// The dead one's exit is a failure of the group, whoever was there to see it.
#[test]
fn an_agent_that_died_without_a_daemon_takes_its_group_along() {
    for (strategy, spared) in [("one_for_all", 0), ("rest_for_one", 1)] {
        let mut hive = Hive::start(&group(strategy, &backoff("0s")));
        let before = pids(&hive);
        settled(&hive, 3);
        hive.kill();
        kill(before[1], libc::SIGKILL);
        hive.boot();
        for id in &MEMBERS[spared..] {
            let agent = runs_as(&hive, id, 2);
            assert_eq!(agent["restarts_in_window"], 1, "{strategy}: {agent:#}");
        }
        for (id, pid) in MEMBERS[..spared].iter().zip(before) {
            assert_eq!(hive.agent_pid(id), pid, "{strategy}: it started before the one that died");
        }
        let seen = settled(&hive, 3 + 2 * (3 - spared) - 1);
        assert_eq!(seen.iter().filter(|line| line.starts_with('+')).count(), 6 - spared, "{strategy}: {seen:?}");
        assert!(seen.contains(&"-c".to_owned()), "{strategy}: it was asked to end, not killed: {seen:?}");
    }
}

#[test]
fn an_operators_word_for_one_agent_of_a_group_touches_that_agent_alone() {
    let hive = Hive::start(&group("one_for_all", &backoff("0s")));
    let before = pids(&hive);
    settled(&hive, 3);
    hive.command("/swarms/g/agents/b/restart");
    let after = pids(&hive);
    assert!(before[0] == after[0] && before[1] != after[1] && before[2] == after[2], "{before:?} {after:?}");
    assert_eq!(counts(&hive.agent("g/b")), (0, 0));
    hive.command("/swarms/g/agents/b/stop");
    assert_eq!(hive.agent("g/b")["state"], "stopped");
    settled(&hive, 6);
    // A group restart leaves stopped what an operator has stopped.
    kill(after[0], libc::SIGKILL);
    runs_as(&hive, "g/a", 2);
    runs_as(&hive, "g/c", 2);
    assert_eq!(hive.agent("g/b")["state"], "stopped");
    hive.command("/swarms/g/agents/b/start");
    runs_as(&hive, "g/b", 3);
    assert_eq!(
        (hive.agent("g/a")["incarnation"].as_u64(), hive.agent("g/c")["incarnation"].as_u64()),
        (Some(2), Some(2))
    );
}

#[test]
fn a_stop_overtakes_a_group_that_waits_for_its_restart() {
    let hive = Hive::start(&group("one_for_all", &backoff("5m")));
    settled(&hive, 3);
    kill(hive.agent_pid("g/b"), libc::SIGKILL);
    hive.agent_until("g/b", "waits", |agent| agent["state"] == "backing_off");
    let waits = hive.agent_until("g/a", "waits with it", |agent| {
        agent["pid"].is_null() && agent["reasons"][0]["code"] == "sibling_failed"
    });
    assert!(["pending", "backing_off"].contains(&waits["state"].as_str().unwrap()), "{waits:#}");
    hive.command("/swarms/g/stop");
    for id in MEMBERS {
        assert_eq!(hive.agent(id)["state"], "stopped");
    }
    hive.command("/swarms/g/start");
    let again = pids(&hive);
    assert!(again.iter().all(|pid| lives(*pid)));
    assert_eq!(settled(&hive, 8).len(), 8, "each was started once more");
    began_in_order(&hive, &["a 2", "b 2", "c 2"]);
}

/// Each agent, asked to end, waits for the word of the other swarm's agent: stopped one after the other, neither would hear it.
#[test]
fn a_daemon_that_ends_stops_its_swarms_side_by_side() {
    let met = |mine: &str, other: &str| {
        format!(
            "trap 'echo > $DIR/{mine}; until [ -e $DIR/{other} ]; do sleep 0.05; done; echo > $DIR/{mine}-met; exit 0' TERM; echo up; while :; do sleep 0.05 & wait $!; done"
        )
    };
    let one = |name: &str, other: &str, dir: &str| {
        format!(
            "[[swarm]]\nname = \"{name}\"\nenv = {{ DIR = \"{dir}\" }}\n[[swarm.agent]]\nname = \"x\"\nstop_grace = \"20s\"\n\
             command = [\"sh\", \"-c\", \"{}\"]\n",
            met(name, other)
        )
    };
    let mut hive = Hive::prepare("");
    let dir = hive.dir.path().display().to_string();
    hive.configure(&[one("s", "t", &dir), one("t", "s", &dir)].concat());
    hive.boot();
    for id in ["s/x", "t/x"] {
        hive.running(id);
        until("its trap is set", || (!hive.lines(id).is_empty()).then_some(()));
    }
    assert_eq!(hive.terminate().code(), Some(0));
    assert!(hive.file("s-met").exists() && hive.file("t-met").exists(), "one was stopped before the other was asked");
    hive.nothing_left(Duration::from_secs(10));
}
