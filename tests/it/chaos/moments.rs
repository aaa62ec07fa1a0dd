//! Deaths of the daemon at moments that chance seldom hits, each made by hand.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::hive::{Hive, kill, lives, until};

const SLEEPER: &str = r#"
[[swarm]]
name = "s"
backoff = { initial = "0s", then = "20ms", factor = 1.0, max = "20ms", jitter = 0.0, reset_after = "10m" }
[[swarm.agent]]
name = "a"
command = ["sleep", "1000"]
"#;

fn journal(hive: &Hive) -> rusqlite::Connection {
    rusqlite::Connection::open(hive.data().join("hive.db")).unwrap()
}

fn time(text: &Value) -> SystemTime {
    humantime::parse_rfc3339(text.as_str().unwrap()).unwrap()
}

fn frozen(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('T')
}

#[test]
fn dead_between_the_journal_and_the_launch_nothing_ran_and_nothing_is_counted() {
    let mut hive = Hive::start(SLEEPER);
    hive.running("s/a");
    assert!(hive.terminate().success());
    let db = journal(&hive);
    db.execute(
        "INSERT INTO incarnations (launch_id, agent, incarnation, token_hash, begun_at_ms, automatic)
         SELECT '0199aaaa-0000-7000-8000-000000000001', agent, 2, token_hash, begun_at_ms, 0 FROM incarnations",
        [],
    )
    .unwrap();
    db.execute("UPDATE agents SET incarnation = 2", []).unwrap();
    drop(db);
    hive.boot();
    let agent = hive.agent_until("s/a", "runs again", |agent| agent["state"] == "running" && agent["incarnation"] == 3);
    assert_eq!((&agent["restarts"], &agent["restarts_in_window"]), (&json!(0), &json!(0)), "{agent:#}");
    assert_eq!(agent["last_exit"]["cause"], "never_started", "{agent:#}");
}

#[test]
fn dead_between_an_exit_in_the_journal_and_its_judgement_the_restart_is_counted() {
    let mut hive = Hive::start(SLEEPER);
    kill(hive.agent_pid("s/a"), libc::SIGKILL);
    let agent = hive.agent_until("s/a", "runs again", |agent| agent["state"] == "running" && agent["incarnation"] == 2);
    hive.kill();
    kill(i32::try_from(agent["pid"].as_u64().unwrap()).unwrap(), libc::SIGKILL);
    until("its launcher ends, too", || hive.processes().is_empty().then_some(()));
    let db = journal(&hive);
    let first: String =
        db.query_row("SELECT exit FROM incarnations WHERE incarnation = 1", [], |row| row.get(0)).unwrap();
    let second = first.replace("\"incarnation\":1", "\"incarnation\":2");
    let ended = "UPDATE incarnations SET exit = ?1, ended_at_ms = begun_at_ms WHERE incarnation = 2";
    assert_eq!(db.execute(ended, [second]).unwrap(), 1);
    drop(db);
    hive.boot();
    let agent = hive.agent_until("s/a", "runs again", |agent| agent["state"] == "running" && agent["incarnation"] == 3);
    assert_eq!((&agent["restarts"], &agent["restarts_in_window"]), (&json!(2), &json!(2)), "{agent:#}");
}

/// It takes a while to end, as a program that tidies up does.
const TIDY: &str = r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "a"
stop_grace = "20s"
command = ["sh", "-c", "trap 'echo asked >> asked; sleep 1; echo tidied; exit 0' TERM; while :; do sleep 0.02; done"]
"#;

fn asked(hive: &Hive) {
    until("the agent is asked to end", || fs::metadata(hive.data().join("work/s/asked")).ok().map(|_| ()));
}

#[test]
fn an_end_that_a_dead_daemon_had_asked_for_is_no_failure() {
    let mut hive = Hive::start(TIDY);
    hive.running("s/a");
    hive.signal_daemon(libc::SIGTERM);
    asked(&hive);
    hive.kill();
    hive.boot();
    let agent = hive.agent_until("s/a", "runs again", |agent| agent["state"] == "running" && agent["incarnation"] == 2);
    assert_eq!(agent["restarts"], 0, "{agent:#}");
    assert_eq!(agent["last_exit"]["cause"], "stopped", "{agent:#}");
    assert!(hive.lines("s/a").iter().any(|line| line["text"] == "tidied"), "its last words are kept");
    hive.kill();
    hive.boot();
    assert_eq!(hive.running("s/a")["incarnation"], 2);
}

#[test]
fn a_restart_that_a_dead_daemon_had_begun_is_no_failure() {
    let mut hive = Hive::start(TIDY);
    hive.running("s/a");
    assert_eq!(hive.post("/api/v1/swarms/s/agents/a/restart", json!({})).status, 202);
    asked(&hive);
    hive.kill();
    hive.boot();
    let agent = hive.agent_until("s/a", "runs again", |agent| agent["state"] == "running" && agent["incarnation"] == 2);
    assert_eq!(agent["restarts"], 0, "{agent:#}");
}

#[test]
fn a_pause_before_a_retry_is_kept_and_comes_with_a_fresh_window() {
    let mut hive = Hive::start(
        r#"
[[swarm]]
name = "s"
intensity = 1
on_exceeded = { retry_after = "3s" }
backoff = { initial = "0s", then = "20ms", factor = 1.0, max = "20ms", jitter = 0.0, reset_after = "10m" }
[[swarm.agent]]
name = "a"
restart = "permanent"
command = ["sh", "-c", "exit 3"]
"#,
    );
    let failed = |incarnation: u64| {
        move |agent: &Value| {
            agent["state"] == "failed" && agent["incarnation"] == incarnation && agent["retry_at"].is_string()
        }
    };
    let before = hive.agent_until("s/a", "gives up", failed(2));
    hive.kill();
    hive.boot();
    let after = hive.agent_until("s/a", "is as it was", failed(2));
    let (was, is) = (time(&before["retry_at"]), time(&after["retry_at"]));
    let moved = was.duration_since(is).or_else(|_| is.duration_since(was)).unwrap();
    assert!(moved < Duration::from_millis(100), "{before:#} {after:#}");
    let again = hive.agent_until("s/a", "gives up again", failed(4));
    assert!(time(&again["retry_at"]) > is, "{again:#}");
}

#[test]
fn a_pending_back_off_keeps_its_date_and_its_place() {
    let mut hive = Hive::start(
        r#"
[[swarm]]
name = "s"
intensity = 2
backoff = { initial = "4s", then = "60s", factor = 2.0, max = "60s", jitter = 0.0, reset_after = "10m" }
[[swarm.agent]]
name = "a"
command = ["sleep", "1000"]
"#,
    );
    let backs_off = |agent: &Value| agent["state"] == "backing_off" && agent["retry_at"].is_string();
    kill(hive.agent_pid("s/a"), libc::SIGKILL);
    let before = hive.agent_until("s/a", "backs off", backs_off);
    hive.kill();
    hive.boot();
    let after = hive.agent_until("s/a", "backs off still", backs_off);
    let (was, is) = (time(&before["retry_at"]), time(&after["retry_at"]));
    let moved = was.duration_since(is).or_else(|_| is.duration_since(was)).unwrap();
    assert!(moved < Duration::from_millis(100), "{before:#} {after:#}");
    assert_eq!(after["restarts_in_window"], 1, "the restart that is due is in the window already: {after:#}");
    let agent = hive.agent_until("s/a", "runs again", |agent| agent["state"] == "running" && agent["incarnation"] == 2);
    assert_eq!((&agent["restarts"], &agent["restarts_in_window"]), (&json!(1), &json!(1)), "{agent:#}");
    kill(hive.agent_pid("s/a"), libc::SIGKILL);
    let third = hive.agent_until("s/a", "backs off longer", backs_off);
    let delay = time(&third["retry_at"]).duration_since(time(&third["last_exit"]["at"])).unwrap();
    assert!(delay > Duration::from_secs(50), "the second restart of a row waits `then`: {third:#}");
}

#[test]
fn a_paused_swarm_is_paused_after_a_take_over() {
    let mut hive = Hive::start(SLEEPER);
    let pid = hive.agent_pid("s/a");
    hive.command("/swarms/s/pause");
    hive.kill();
    hive.boot();
    let agent = hive.agent_until("s/a", "is paused", |agent| agent["state"] == "paused");
    assert_eq!((&agent["pid"], &agent["desired"]), (&json!(pid), &json!("paused")), "{agent:#}");
    assert!(frozen(pid));
    hive.command("/swarms/s/resume");
    assert!(!frozen(pid) && hive.agent_pid("s/a") == pid);
}

#[test]
fn dead_between_the_journal_and_the_order_to_resume_it_is_resumed_by_the_next_daemon() {
    let mut hive = Hive::start(SLEEPER);
    let pid = hive.agent_pid("s/a");
    hive.command("/swarms/s/pause");
    hive.kill();
    assert_eq!(journal(&hive).execute("UPDATE swarms SET desired = 'running'", []).unwrap(), 1);
    assert!(frozen(pid));
    hive.boot();
    hive.running("s/a");
    until("it is thawed", || (!frozen(pid)).then_some(()));
    assert_eq!(hive.agent_pid("s/a"), pid);
}

#[test]
fn a_frozen_agent_is_not_judged_by_its_start() {
    let mut hive = Hive::start(
        r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "a"
ready = "session"
start_timeout = "1s"
command = ["sleep", "1000"]
"#,
    );
    let pid = |hive: &Hive| hive.agent("s/a")["pid"].as_i64();
    until("it is being started", || pid(&hive));
    hive.post("/api/v1/swarms/s/pause", json!({}));
    let paused = hive.agent_until("s/a", "is paused", |agent| agent["state"] == "paused");
    std::thread::sleep(Duration::from_millis(1500));
    let still = hive.agent("s/a");
    assert_eq!((&still["state"], &still["pid"]), (&json!("paused"), &paused["pid"]), "{still:#}");
    assert!(hive.terminate().success());
    hive.boot();
    let paused = hive.agent_until("s/a", "is paused", |agent| agent["state"] == "paused" && agent["pid"].is_i64());
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(pid(&hive), paused["pid"].as_i64(), "{}", hive.log());
    // Its clock goes on when it does.
    hive.post("/api/v1/swarms/s/resume", json!({}));
    let judged = hive.agent_until("s/a", "is judged", |agent| agent["last_exit"]["cause"] == "start_timeout");
    assert!(!lives(i32::try_from(paused["pid"].as_i64().unwrap()).unwrap()), "{judged:#}");
}

#[test]
fn a_command_is_judged_by_what_holds_when_its_turn_comes() {
    let hive = Hive::start(TIDY);
    hive.running("s/a");
    let post = |word: &str| {
        let answer = hive.post(&format!("/api/v1/swarms/s/{word}"), json!({}));
        assert_eq!(answer.status, 202, "{word}: {answer:?}");
        answer.body["id"].as_str().unwrap().to_owned()
    };
    post("restart");
    let (pause, start) = (post("pause"), post("start"));
    let ended = |id: &str| {
        until("the operation ends", || {
            let operation = hive.get(&format!("/api/v1/operations/{id}")).body;
            ["succeeded", "failed"].contains(&operation["state"].as_str().unwrap()).then_some(operation)
        })
    };
    assert_eq!(ended(&pause)["state"], "succeeded");
    let start = ended(&start);
    assert_eq!(start["state"], "failed", "{start:#}");
    let agent = hive.agent("s/a");
    assert_eq!((&agent["state"], &agent["desired"]), (&json!("paused"), &json!("paused")), "{agent:#}");
}

#[test]
fn a_stopped_agent_stays_stopped_when_its_swarm_is_paused_and_resumed() {
    let mut hive = Hive::start(
        "[[swarm]]\nname = \"s\"\n[[swarm.agent]]\nname = \"a\"\ncommand = [\"sleep\", \"1000\"]\n\
         [[swarm.agent]]\nname = \"b\"\ncommand = [\"sleep\", \"1000\"]\n",
    );
    let b = hive.agent_pid("s/b");
    hive.running("s/a");
    let is_stopped = |hive: &Hive| {
        let agent = hive.agent("s/a");
        assert_eq!((&agent["state"], &agent["desired"]), (&json!("stopped"), &json!("stopped")), "{agent:#}");
    };
    hive.command("/swarms/s/agents/a/stop");
    hive.command("/swarms/s/pause");
    is_stopped(&hive);
    hive.kill();
    hive.boot();
    is_stopped(&hive);
    hive.command("/swarms/s/resume");
    is_stopped(&hive);
    assert_eq!(hive.agent_pid("s/b"), b);
    hive.command("/swarms/s/start");
    hive.running("s/a");
}

#[test]
fn an_exit_that_the_journal_cannot_take_is_not_forgotten() {
    let mut hive = Hive::start(SLEEPER);
    let first = hive.agent_pid("s/a");
    let mut held = journal(&hive);
    let lock = held.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    kill(first, libc::SIGKILL);
    until("its tree is gone", || (!lives(first)).then_some(()));
    // Longer than a write waits for its lock, so that at least one is refused.
    std::thread::sleep(Duration::from_millis(6500));
    let held_back = hive.agent("s/a");
    assert_eq!(held_back["pid"], Value::Null, "nothing starts that is not journaled: {held_back:#}");
    hive.kill();
    drop(lock);
    hive.boot();
    let agent = hive.agent_until("s/a", "runs again", |agent| agent["state"] == "running" && agent["incarnation"] == 2);
    assert_eq!((&agent["restarts"], &agent["last_exit"]["signal"]), (&json!(1), &json!(9)), "{agent:#}");
    let open = "SELECT count(*) FROM incarnations WHERE exit IS NULL";
    assert_eq!(journal(&hive).query_row(open, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}

#[test]
fn lines_of_a_flood_through_deaths_of_the_daemon_are_kept_once_or_counted() {
    let mut hive = Hive::start(
        r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "flood"
command = ["sh", "-c", "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); echo n $i; [ $((i % 2000)) = 0 ] && sleep 0.1; done; exec sleep 1000"]
"#,
    );
    let pid = hive.agent_pid("s/flood");
    for pause in [50, 400, 120, 700, 10] {
        std::thread::sleep(Duration::from_millis(pause));
        hive.kill();
        std::thread::sleep(Duration::from_millis(pause / 2));
        hive.boot();
    }
    let lines = until("the last line", || {
        let lines = hive.lines("s/flood");
        lines.iter().rev().take(3).any(|line| line["text"] == "n 40000").then_some(lines)
    });
    let (mut last, mut lost) = (0, 0);
    for line in &lines {
        let text = line["text"].as_str().unwrap();
        if let Some(number) = text.strip_prefix("n ") {
            let number: u64 = number.parse().unwrap();
            assert_eq!(number, last + lost + 1, "behind line {last}, with {lost} lines counted as lost");
            (last, lost) = (number, 0);
        } else {
            assert!(text.contains("of output were lost here"), "{text}");
            lost += text.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
    }
    assert_eq!(hive.agent_pid("s/flood"), pid);
}
