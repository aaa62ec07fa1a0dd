//! Agents that die: what becomes of them, of their siblings, and what is shown.

use serde_json::json;

use crate::hive::{Hive, kill, lives, until};

const TICKERS: &str = r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "a"
command = ["sh", "-c", "echo hello from $$; echo last words; while :; do sleep 0.1; done"]
[[swarm.agent]]
name = "b"
replicas = 2
command = ["sleep", "1000"]
[[swarm]]
name = "t"
[[swarm.agent]]
name = "c"
command = ["sleep", "1000"]
"#;

#[test]
fn a_killed_agent_is_restarted_and_its_siblings_are_not() {
    let hive = Hive::start(TICKERS);
    let before = hive.agent_pid("s/a");
    let siblings: Vec<i32> = ["s/b-1", "s/b-2", "t/c"].map(|id| hive.agent_pid(id)).to_vec();
    until("its lines are kept", || (hive.lines("s/a").len() >= 2).then_some(()));
    let mut viewer = hive.viewer();
    viewer.next_that("is the first status", |frame| frame["type"] == "status_update");

    kill(before, libc::SIGKILL);

    let frame = viewer.next_that("shows incarnation 2 running", |frame| {
        frame["type"] == "session_update"
            && frame["agents"].as_array().into_iter().flatten().any(|agent| {
                agent["swarm"] == "s"
                    && agent["name"] == "a"
                    && agent["incarnation"] == 2
                    && agent["state"] == "running"
            })
    });
    assert!(frame["seq"].as_u64().unwrap() > frame["prev_seq"].as_u64().unwrap(), "{frame:#}");
    let after = hive.agent_until("s/a", "runs again", |agent| agent["incarnation"] == 2 && agent["state"] == "running");
    assert_ne!(after["pid"], before);
    assert_eq!(after["restarts"], 1);
    assert_eq!(after["restarts_in_window"], 1);
    let exit = &after["last_exit"];
    assert_eq!((&exit["signal"], &exit["code"]), (&json!(9), &json!(null)), "{after:#}");
    assert_eq!(exit["cause"], "signalled");
    let last: Vec<&str> = exit["last_lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(last.last(), Some(&"last words"), "{after:#}");
    let now: Vec<i32> = ["s/b-1", "s/b-2", "t/c"].map(|id| hive.agent_pid(id)).to_vec();
    assert_eq!(now, siblings);
}

#[test]
fn an_agent_that_always_fails_is_given_up_and_a_restart_gives_it_a_fresh_window() {
    let hive = Hive::start(
        r#"
[[swarm]]
name = "s"
intensity = 5
period = "60s"
backoff = { initial = "0s", then = "10ms", factor = 2.0, max = "100ms", jitter = 0.25, reset_after = "10m" }
on_exceeded = "fail"
[[swarm.agent]]
name = "bad"
command = ["sh", "-c", "echo start >> starts; echo going down >&2; exit 3"]
[[swarm.agent]]
name = "good"
command = ["sleep", "1000"]
"#,
    );
    let starts = || {
        let path = hive.data().join("work/s/starts");
        std::fs::read_to_string(path).unwrap_or_default().lines().count()
    };
    let good = hive.agent_pid("s/good");
    let bad = hive.agent_until("s/bad", "is given up", |agent| agent["state"] == "failed");
    assert_eq!(starts(), 6, "{bad:#}");
    assert_eq!(bad["last_exit"]["code"], 3);
    assert_eq!(bad["last_exit"]["cause"], "exited");
    assert_eq!(bad["last_exit"]["last_lines"], json!(["going down"]));
    assert_eq!(bad["retry_at"], json!(null));
    assert_eq!(bad["restarts"], 5);
    assert_eq!(hive.agent_pid("s/good"), good);
    let health = hive.get("/api/v1/health");
    assert_eq!(health.status, 503, "{health:?}");

    let answer = hive.post("/api/v1/swarms/s/agents/bad/restart?wait=30s", json!({ "reason": "once more" }));
    assert!([200, 202].contains(&answer.status), "{answer:?}");
    until("six more starts", || (starts() == 12).then_some(()));
    hive.agent_until("s/bad", "is given up again", |agent| agent["state"] == "failed" && agent["incarnation"] == 12);
    assert_eq!(hive.agent_pid("s/good"), good);
}

#[test]
fn an_agent_that_was_given_up_tries_again_after_its_pause() {
    let hive = Hive::start(
        r#"
[[swarm]]
name = "s"
intensity = 1
period = "60s"
backoff = { initial = "0s", then = "10ms", factor = 2.0, max = "100ms", jitter = 0.0, reset_after = "10m" }
on_exceeded = { retry_after = "1s" }
[[swarm.agent]]
name = "bad"
command = ["sh", "-c", "test -e mended && exec sleep 1000; exit 4"]
"#,
    );
    let bad = hive.agent_until("s/bad", "waits out its pause", |agent| agent["state"] == "failed");
    assert!(bad["retry_at"].is_string(), "{bad:#}");
    std::fs::write(hive.data().join("work/s/mended"), "").unwrap();
    let mended = hive.running("s/bad");
    assert!(mended["incarnation"].as_u64().unwrap() >= 3);
}

#[test]
fn a_restart_of_a_swarm_touches_this_swarm_alone() {
    let hive = Hive::start(TICKERS);
    let s = ["s/a", "s/b-1", "s/b-2"];
    let before: Vec<i32> = s.map(|id| hive.agent_pid(id)).to_vec();
    let other = hive.agent_pid("t/c");
    let operation = hive.command("/swarms/s/restart");
    assert_eq!(operation["steps"].as_array().unwrap().len(), 3, "{operation:#}");
    let after: Vec<i32> = s.map(|id| hive.agent_pid(id)).to_vec();
    assert!(before.iter().all(|pid| !after.contains(pid) && !lives(*pid)), "{before:?} {after:?}");
    assert_eq!(hive.agent_pid("t/c"), other);
    let a = hive.agent("s/a");
    assert_eq!((&a["incarnation"], &a["restarts"], &a["restarts_in_window"]), (&json!(2), &json!(0), &json!(0)));
}

#[test]
fn stop_stays_and_start_brings_back() {
    let mut hive = Hive::start(TICKERS);
    let (a, b) = (hive.agent_pid("s/a"), hive.agent_pid("s/b-1"));
    hive.command("/swarms/s/agents/a/stop");
    assert!(!lives(a) && lives(b));
    assert_eq!(hive.agent("s/a")["state"], "stopped");
    hive.command("/swarms/t/stop");
    hive.kill();
    hive.boot();
    hive.running("s/b-1");
    assert_eq!(hive.agent("s/a")["state"], "stopped", "an operator's stop outlives the daemon");
    assert_eq!(hive.agent("t/c")["state"], "stopped");
    hive.command("/swarms/s/agents/a/start");
    hive.command("/swarms/t/start");
    hive.running("s/a");
    hive.running("t/c");
}

#[test]
fn pause_freezes_the_whole_tree_and_resume_thaws_it() {
    let hive = Hive::start(
        r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "a"
command = ["sh", "-c", "setsid sh -c 'while :; do echo x >> ticks; sleep 0.02; done' & while :; do sleep 1; done"]
"#,
    );
    let size = || std::fs::metadata(hive.data().join("work/s/ticks")).map_or(0, |meta| meta.len());
    until("it ticks", || (size() > 10).then_some(()));
    hive.command("/swarms/s/pause");
    assert_eq!(hive.agent("s/a")["state"], "paused");
    let frozen = size();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(size(), frozen, "a paused tree writes nothing");
    let refused = hive.post("/api/v1/swarms/s/restart", json!({}));
    assert_eq!(refused.status, 409, "{refused:?}");
    hive.command("/swarms/s/resume");
    until("it ticks again", || (size() > frozen).then_some(()));
    assert_eq!(hive.running("s/a")["incarnation"], 1);
}

#[test]
fn a_program_that_is_not_there_fails_its_start_and_says_so() {
    let hive = Hive::start(
        r#"
[[swarm]]
name = "s"
intensity = 1
backoff = { initial = "0s", then = "10ms", factor = 1.0, max = "10ms", jitter = 0.0, reset_after = "10m" }
on_exceeded = "fail"
[[swarm.agent]]
name = "ghost"
command = ["/no/such/program"]
[[swarm.agent]]
name = "after"
command = ["sleep", "1000"]
"#,
    );
    let ghost = hive.agent_until("s/ghost", "is given up", |agent| agent["state"] == "failed");
    assert_eq!(ghost["last_exit"]["cause"], "start_failed", "{ghost:#}");
    assert!(ghost.to_string().contains("/no/such/program"), "{ghost:#}");
    hive.running("s/after");
}

#[test]
fn a_transient_agent_that_ends_well_is_completed_and_stays_so() {
    let mut hive = Hive::start(
        r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "job"
restart = "transient"
command = ["sh", "-c", "echo ran >> runs"]
"#,
    );
    hive.agent_until("s/job", "completes", |agent| agent["state"] == "completed");
    assert_eq!(hive.get("/api/v1/health").body["swarms"][0]["reasons"], json!([]));
    hive.kill();
    hive.boot();
    let job = hive.agent_until("s/job", "is still completed", |agent| agent["state"] == "completed");
    assert_eq!(job["incarnation"], 1, "a finished job is not run again: {job:#}");
    assert_eq!(std::fs::read_to_string(hive.data().join("work/s/runs")).unwrap(), "ran\n");
}
