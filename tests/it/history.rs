//! The history on a real daemon: what is shown is what was measured, a restart of the daemon keeps it, and trouble with it harms nothing else.

use std::fs;

use serde_json::Value;

use crate::hive::{Hive, until};

const SWARM: &str = "[[swarm]]\nname = \"s\"\n[[swarm.agent]]\nname = \"a\"\ncommand = [\"sleep\", \"1000\"]\n\
                     [[swarm.agent]]\nname = \"b\"\ncommand = [\"sleep\", \"1000\"]\n";

fn history(hive: &Hive, path: &str) -> Value {
    let answer = hive.get(&format!("/api/v1/swarms/{path}"));
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.body
}

fn points(page: &Value) -> &[Value] {
    page["points"].as_array().unwrap()
}

/// The points in which memory was measured.
fn measured(page: &Value) -> Vec<&Value> {
    points(page).iter().filter(|point| !point["memory"].is_null()).collect()
}

fn restarts(page: &Value) -> u64 {
    points(page).iter().filter_map(|point| point["restarts"].as_u64()).sum()
}

fn has_measures(hive: &Hive) -> Value {
    until("memory of the agent is in the history", || {
        let page = history(hive, "s/agents/a/history?since=5m");
        (!measured(&page).is_empty()).then_some(page)
    })
}

#[test]
fn what_was_measured_is_shown_at_three_resolutions() {
    let hive = Hive::start(SWARM);
    hive.running("s/a");
    let page = has_measures(&hive);
    assert_eq!((page["swarm"].as_str(), page["agent"].as_str()), (Some("s"), Some("a")));
    assert_eq!(page["resolution"], "10s");
    assert!((30..=31).contains(&points(&page).len()), "five minutes of ten seconds: {}", points(&page).len());
    let point = measured(&page)[0];
    let now = hive.agent_until("s/a", "shows memory", |agent| agent["memory"]["value"].is_u64());
    let (mean, max) = (point["memory"]["mean"].as_u64().unwrap(), point["memory"]["max"].as_u64().unwrap());
    assert!(mean > 0 && mean <= max, "{point}");
    assert!(max < 10 * now["memory"]["value"].as_u64().unwrap(), "{point} beside {now}");
    assert!(point["cpu"]["mean"].as_f64().unwrap() <= point["cpu"]["max"].as_f64().unwrap(), "{point}");
    assert_eq!(point["restarts"], 0);
    assert!(point["heartbeat_latency_ms"].is_null() && point["tokens"].is_null(), "a sleep says nothing: {point}");
    let before = &points(&page)[0];
    for key in ["cpu", "memory", "heartbeat_latency_ms", "tokens", "restarts"] {
        assert!(before[key].is_null(), "nothing was measured five minutes ago: {before}");
    }

    // An automatic restart counts where it happened, for the agent and its swarm, and for nobody else.
    crate::hive::kill(hive.agent_pid("s/a"), libc::SIGKILL);
    hive.agent_until("s/a", "is back", |agent| agent["incarnation"] == 2 && agent["state"] == "running");
    for resolution in ["10s", "1m", "10m", "auto"] {
        let query = format!("history?since=59m&resolution={resolution}");
        until("the restart is in the history", || {
            (restarts(&history(&hive, &format!("s/agents/a/{query}"))) == 1).then_some(())
        });
        assert_eq!(restarts(&history(&hive, &format!("s/{query}"))), 1, "{resolution}");
        assert_eq!(restarts(&history(&hive, &format!("s/agents/b/{query}"))), 0, "{resolution}");
    }

    // Of a swarm: what its agents take together.
    let both = until("the swarm shows both", || {
        let page = history(&hive, "s/history?since=1m");
        let sum = measured(&page).last()?["memory"]["max"].as_u64()?;
        (sum > max + max / 2).then_some(page)
    });
    assert!(both["agent"].is_null());
    let day = history(&hive, "s/history?since=24h");
    assert_eq!((day["resolution"].as_str(), points(&day).len() >= 144), (Some("10m"), true));
    assert_eq!(history(&hive, "s/history?since=2h")["resolution"], "1m");
    assert_eq!(history(&hive, "s/history")["resolution"], "10s");
    assert_eq!(points(&history(&hive, "s/history?since=2h&until=1h&resolution=10s")).len(), 0, "kept for an hour");
}

#[test]
fn what_can_not_be_answered_is_refused_by_name() {
    let hive = Hive::start(SWARM);
    let refused = |path: &str, status: u16, code: &str, words: &str| {
        let answer = hive.get(&format!("/api/v1/swarms/{path}"));
        assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{path}: {answer:?}");
        assert!(answer.body["detail"].as_str().unwrap().contains(words), "{path}: {answer:?}");
    };
    refused("x/history", 404, "not_found", "swarm x");
    refused("s/agents/x/history", 404, "not_found", "agent s/x");
    refused("s/history?resolution=5s", 400, "invalid_query", "10s, 1m, 10m, auto");
    refused("s/history?since=yesterday", 400, "invalid_query", "since");
    refused("s/history?until=tomorrow", 400, "invalid_query", "until");
    refused("s/history?since=1m&until=2m", 400, "invalid_query", "not after until");
    refused("s/history?sinc=1m", 400, "invalid_query", "sinc");
    let post = hive.post("/api/v1/swarms/s/history", serde_json::json!({}));
    assert_eq!((post.status, post.body["code"].as_str()), (405, Some("method_not_allowed")));
    // What lies ahead is left out, not invented.
    let ahead = history(&hive, "s/history?since=2099-01-01T00:00:00Z&until=2099-01-02T00:00:00Z");
    assert_eq!(points(&ahead).len(), 0);
}

#[test]
fn a_restart_of_the_daemon_keeps_the_history() {
    for kill in [false, true] {
        let mut hive = Hive::start(SWARM);
        hive.running("s/a");
        crate::hive::kill(hive.agent_pid("s/a"), libc::SIGKILL);
        hive.agent_until("s/a", "is back", |agent| agent["incarnation"] == 2 && agent["state"] == "running");
        has_measures(&hive);
        let before = until("a bucket is on the disk", || {
            let db = rusqlite::Connection::open_with_flags(
                hive.data().join("history.sqlite"),
                rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
            );
            let count = "SELECT coalesce(sum(memory_n), 0) FROM buckets WHERE span_s = 600";
            let count: i64 = db.ok()?.query_row(count, [], |row| row.get(0)).ok()?;
            (count > 0).then_some(count)
        });
        if kill {
            hive.kill();
        } else {
            assert!(hive.terminate().success());
        }
        hive.boot();
        hive.running("s/a");
        let page = history(&hive, "s/agents/a/history?since=10m");
        let seen = measured(&page);
        assert!(before > 0 && !seen.is_empty(), "{page:#}");
        if kill {
            until("the point in which nobody looked for a while does not count restarts", || {
                let page = history(&hive, "s/agents/a/history?since=20m&resolution=10m");
                measured(&page).iter().any(|point| point["restarts"].is_null()).then_some(())
            });
        } else {
            assert_eq!(restarts(&page), 1, "nothing ran on without the daemon, so nothing is missing: {page:#}");
        }
    }
}

#[test]
fn a_damaged_history_is_set_aside_and_the_daemon_runs() {
    let mut hive = Hive::start(SWARM);
    has_measures(&hive);
    assert!(hive.terminate().success());
    let path = hive.data().join("history.sqlite");
    fs::write(&path, "no database at all, and long enough to be taken for none of any version that there is....")
        .unwrap();
    hive.boot();
    has_measures(&hive);
    assert!(hive.data().join("history.sqlite.damaged").exists());
    assert!(hive.log().contains("set aside"), "{}", hive.log());
}

#[test]
fn a_history_that_can_not_be_opened_is_said_and_nothing_else_suffers() {
    let mut hive = Hive::prepare(SWARM);
    fs::create_dir_all(hive.data()).unwrap();
    let path = hive.data().join("history.sqlite");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    hive.boot();
    hive.running("s/a");
    let health = until("the hive is degraded by it", || {
        let health = hive.get("/api/v1/health");
        (health.body["level"] == "degraded").then_some(health)
    });
    assert_eq!(health.status, 200);
    let reasons = health.body["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason["code"] == "history_failing"), "{reasons:?}");
    let answer = hive.get("/api/v1/swarms/s/history");
    assert_eq!((answer.status, answer.body["code"].as_str()), (503, Some("unavailable")));
    assert!(answer.body["detail"].as_str().unwrap().contains("schema 99"), "{answer:?}");
    hive.command("/swarms/s/agents/a/restart");
    // Once it is out of the way, the history begins by itself.
    fs::remove_file(&path).unwrap();
    until("it is opened", || (hive.get("/api/v1/swarms/s/history").status == 200).then_some(()));
    has_measures(&hive);
    until("the hive is well again", || (hive.get("/api/v1/health").body["level"] == "healthy").then_some(()));
    assert!(hive.terminate().success());
    assert_eq!(hive.processes(), Vec::<i32>::new());
}

#[test]
fn a_point_is_shown_with_its_units() {
    let hive = crate::http_support::hive(crate::http_support::Setup::default());
    let page = hive.get("/api/v1/swarms/review/history?since=2026-01-01T00:00:00Z&resolution=1m").json();
    let expected = serde_json::json!({
        "at": "2026-01-01T00:00:00.000Z",
        "cpu": { "mean": 0.25, "max": 0.5 },
        "memory": { "mean": 1000, "max": 2000 },
        "heartbeat_latency_ms": null,
        "tokens": { "input": 1, "output": 2 },
        "restarts": null,
    });
    assert_eq!((&page["resolution"], &page["points"][0]), (&serde_json::json!("1m"), &expected));
}
