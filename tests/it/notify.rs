//! Notifications on a real daemon: who is told, how often, and what becomes of it when receivers, commands or the daemon itself fail.

mod receiver;

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::Value;

use crate::hive::{Hive, PATIENCE, lives, until};
use receiver::{How, Receiver};

/// An agent that is told by a file to run or to fail. It is not restarted by itself.
fn swarm(hive: &str) -> String {
    format!(
        "{hive}\n[[swarm]]\nname = \"s\"\n[[swarm.agent]]\nname = \"a\"\nrestart = \"temporary\"\n\
         command = [\"sh\", \"-c\", \"while [ ! -e fail ]; do sleep 0.05; done; exit 7\"]\nstop_grace = \"1s\"\n\
         [[swarm.agent]]\nname = \"b\"\ncommand = [\"sleep\", \"1000\"]\nstop_grace = \"1s\"\n"
    )
}

fn notify(receiver: &Receiver, more: &str) -> String {
    format!("[[notify]]\nname = \"oncall\"\nwebhook = \"{}\"\ntimeout = \"1s\"\n{more}\n", receiver.url())
}

/// Below the data directory the swarm has its working directory.
fn switch(hive: &Hive) -> PathBuf {
    hive.data().join("work/s/fail")
}

fn fail(hive: &Hive) {
    hive.running("s/a");
    fs::write(switch(hive), "").unwrap();
    hive.agent_until("s/a", "fails", |agent| agent["state"] == "failed");
}

fn recover(hive: &Hive) {
    fs::remove_file(switch(hive)).unwrap();
    hive.command("/swarms/s/agents/a/start");
}

fn failing(hive: &Hive) -> Option<String> {
    let health = hive.get("/api/v1/health").body;
    let reason = health["reasons"].as_array()?.iter().find(|reason| reason["code"] == "notify_failing")?;
    Some(reason["detail"].as_str()?.to_owned())
}

#[test]
fn a_failure_and_a_recovery_are_told_as_cloud_events() {
    let receiver = Receiver::start();
    let hive = Hive::prepare("");
    fs::write(hive.file("token"), "the-token\n").unwrap();
    fs::write(hive.file("secret"), "whsec_Zm9vYmFy\n").unwrap();
    let more = "recovered_after = \"200ms\"\nheaders = { X-Room = \"ops\" }\ntoken_file = \"token\"\nsecret_file = \"secret\"\n\
                on = [\"failed\", \"recovered\"]";
    hive.configure(&swarm(&notify(&receiver, more)));
    let mut hive = hive;
    hive.boot();
    fail(&hive);
    let got = receiver.next();
    assert_eq!(got.path, "/hook");
    assert_eq!(got.header("content-type"), "application/cloudevents+json; charset=utf-8");
    assert_eq!((got.header("x-room"), got.header("authorization")), ("ops", "Bearer the-token"));
    let event = got.json();
    assert_eq!((&event["specversion"], &event["type"]), (&"1.0".into(), &"dev.hivekeeper.agent.failed".into()));
    assert_eq!(event["subject"], "s/a");
    let agent = &event["data"]["agent"];
    assert_eq!((&agent["state"], &agent["last_exit"]["code"]), (&"failed".into(), &7.into()));
    assert_eq!(event["time"], hive.agent("s/a")["since"]);
    let health = hive.get("/api/v1/health").body;
    assert_eq!(event["source"], format!("/hives/{}", health["hive_id"].as_str().unwrap()));
    assert_eq!(got.header("webhook-id"), event["id"].as_str().unwrap());
    assert!(got.header("webhook-signature").starts_with("v1,"), "{got:?}");
    // The id is that of the event, so that a receiver can look it up.
    let (_, seq) = event["id"].as_str().unwrap().split_once('/').unwrap();
    let seq: u64 = seq.parse().unwrap();
    let page = hive.get(&format!("/api/v1/events?after={}&limit=1", seq - 1)).body;
    assert_eq!((&page["events"][0]["seq"], &page["events"][0]["subject"]), (&seq.into(), &"s/a".into()), "{page}");

    recover(&hive);
    let event = receiver.next().json();
    assert_eq!((&event["type"], &event["subject"]), (&"dev.hivekeeper.agent.recovered".into(), &"s/a".into()));
    assert_eq!((&event["data"]["was"], &event["data"]["now"]), (&"failed".into(), &"running".into()));
    assert_eq!(event["data"]["agent"]["incarnation"], 2);
    assert_eq!(failing(&hive), None);
    receiver.is_silent();
}

#[test]
fn a_swarm_and_the_hive_become_critical_and_a_filter_keeps_the_rest_away() {
    let (all, some) = (Receiver::start(), Receiver::start());
    let other = format!(
        "[[notify]]\nname = \"other\"\nwebhook = \"{}\"\nswarms = [\"else\"]\n{}",
        some.url(),
        notify(&all, "on = [\"critical\", \"recovered\"]\nrecovered_after = \"100ms\"")
    );
    let hive = Hive::start(&swarm(&other));
    fail(&hive);
    let told: Vec<String> = (0..2).map(|_| all.next().kind()).collect();
    assert_eq!(told, ["dev.hivekeeper.swarm.critical", "dev.hivekeeper.hive.critical"]);
    recover(&hive);
    let told: Vec<String> = (0..2).map(|_| all.next().kind()).collect();
    assert_eq!(told, ["dev.hivekeeper.hive.recovered", "dev.hivekeeper.swarm.recovered"]);
    all.is_silent();
    assert_eq!(some.got(), 0, "another swarm is none of its business");
}

/// Each way in which a receiver can be wrong; the message arrives once it is right again, with the same id, and health says so meanwhile.
#[test]
fn a_receiver_that_fails_is_asked_again() {
    let receiver = Receiver::start();
    receiver.will(&[How::Status(500), How::Cut, How::Ok]);
    let hive = Hive::start(&swarm(&notify(&receiver, "on = [\"failed\"]")));
    fail(&hive);
    let ids: Vec<Value> = (0..2).map(|_| receiver.next().json()["id"].clone()).collect();
    let said = until("health tells of it", || failing(&hive));
    assert!(said.starts_with("oncall: "), "{said}");
    assert!(!said.contains("/hook"), "an address may be a secret: {said}");
    let third = receiver.next();
    assert!(ids.iter().all(|id| *id == third.json()["id"]), "doubles are known by their id");
    until("it is over", || failing(&hive).is_none().then_some(()));
    receiver.is_silent();
}

#[test]
fn redirects_are_not_followed_and_huge_answers_are_not_read() {
    let elsewhere = Receiver::start();
    let receiver = Receiver::start();
    receiver.will(&[How::Redirect(elsewhere.url()), How::Huge]);
    let hive = Hive::start(&swarm(&notify(&receiver, "on = [\"failed\"]")));
    fail(&hive);
    receiver.next();
    receiver.next();
    // The huge answer has the status 200: the message has arrived.
    receiver.is_silent();
    assert_eq!(elsewhere.got(), 0, "what is meant for one is not carried to another");
    assert_eq!(failing(&hive), None);
}

/// A receiver that takes the request and says nothing costs its time-out, and nobody else anything.
#[test]
fn a_receiver_that_is_slow_holds_up_nobody() {
    let (slow, quick) = (Receiver::start(), Receiver::start());
    slow.will(&[How::Silent, How::Silent, How::Ok]);
    let both =
        format!("{}[[notify]]\nname = \"quick\"\nwebhook = \"{}\"\n", notify(&slow, "on = [\"failed\"]"), quick.url());
    let hive = Hive::start(&swarm(&both));
    fail(&hive);
    assert_eq!(quick.next().kind(), "dev.hivekeeper.agent.failed");
    let said = until("health tells of it", || failing(&hive));
    assert!(said.contains("in time"), "{said}");
    let _first_two = (slow.next(), slow.next());
    let third = slow.next();
    assert_eq!(third.kind(), "dev.hivekeeper.agent.failed");
}

/// The daemon is killed before anybody has taken the message; its successor tells it, with the id that it had.
#[test]
fn a_message_outlives_the_daemon() {
    let receiver = Receiver::start();
    receiver.will(&[How::Status(503)]);
    let mut hive =
        Hive::start(&swarm(&notify(&receiver, "on = [\"failed\", \"recovered\"]\nrecovered_after = \"100ms\"")));
    fail(&hive);
    let first = receiver.next().json();
    // It is in the journal before the daemon dies, so that what follows does not hang on a race.
    let id = first["id"].as_str().unwrap().to_owned();
    let (_, seq) = id.split_once('/').unwrap();
    let seq: u64 = seq.parse().unwrap();
    until("it is journaled", || {
        let db = rusqlite::Connection::open_with_flags(
            hive.data().join("hive.db"),
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
        );
        let found = db.unwrap().query_row("SELECT count(*) FROM events WHERE seq = ?1", [seq as i64], |row| row.get(0));
        (found == Ok(1_i64)).then_some(())
    });
    receiver.will(&[How::Refuse]);
    hive.kill();
    receiver.will(&[]);
    hive.boot();
    let second = until("it is told", || {
        let got = receiver.next().json();
        (got["id"] == first["id"]).then_some(got)
    });
    assert_eq!((&second["type"], &second["time"]), (&first["type"], &first["time"]));
    assert_eq!(second["data"]["agent"]["last_exit"]["code"], 7);
    receiver.is_silent();

    // What was told is not told again by the next one.
    until("it is noted down", || {
        let text = fs::read_to_string(hive.data().join("notify/oncall.json")).unwrap_or_default();
        text.contains("\"s/a\":\"failed\"").then_some(())
    });
    hive.kill();
    hive.boot();
    hive.agent_until("s/a", "is as it was", |agent| agent["state"] == "failed");
    receiver.is_silent();
    recover(&hive);
    assert_eq!(receiver.next().kind(), "dev.hivekeeper.agent.recovered");
}

#[test]
fn what_is_too_much_comes_as_a_summary() {
    let receiver = Receiver::start();
    let agents: String = (0..8)
        .map(|n| format!("[[swarm.agent]]\nname = \"a{n}\"\nrestart = \"temporary\"\ncommand = [\"false\"]\n"))
        .collect();
    let more = "on = [\"failed\"]\nper_minute = 2\n";
    let text = format!("{}[[swarm]]\nname = \"s\"\n{agents}", notify(&receiver, more));
    let hive = Hive::start(&text);
    for n in 0..8 {
        hive.agent_until(&format!("s/a{n}"), "fails", |agent| agent["state"] == "failed");
    }
    for _ in 0..2 {
        assert_eq!(receiver.next().kind(), "dev.hivekeeper.agent.failed");
    }
    receiver.is_silent();
    let page = hive.get("/api/v1/notifiers").body;
    let shown = &page["notifiers"][0];
    assert_eq!((&shown["name"], &shown["kind"]), (&"oncall".into(), &"webhook".into()), "{page}");
    assert_eq!((&shown["delivered"], &shown["waiting"], &shown["on"]), (&2.into(), &6.into(), &["failed"][..].into()));
    let metrics = hive.get("/metrics").body.as_str().unwrap().to_owned();
    for line in
        ["hivekeeper_notify_delivered_total{notifier=\"oncall\"} 2", "hivekeeper_notify_waiting{notifier=\"oncall\"} 6"]
    {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
}

/// An operator sees whether messages arrive before one is needed.
#[test]
fn a_test_says_whether_it_arrived() {
    let receiver = Receiver::start();
    let hive = Hive::start(&notify(&receiver, ""));
    let answer = hive.post("/api/v1/notifiers/oncall/test", serde_json::json!({}));
    assert_eq!((answer.status, &answer.body["delivered"]), (200, &true.into()), "{answer:?}");
    assert_eq!(receiver.next().kind(), "dev.hivekeeper.notify.test");
    receiver.will(&[How::Status(401)]);
    let answer = hive.post("/api/v1/notifiers/oncall/test", serde_json::json!({}));
    assert_eq!((answer.status, &answer.body["delivered"]), (200, &false.into()), "{answer:?}");
    assert!(answer.body["error"].as_str().unwrap().contains("401"), "{answer:?}");
    assert_eq!(hive.post("/api/v1/notifiers/nobody/test", serde_json::json!({})).status, 404);
}

fn script(hive: &Hive, name: &str, text: &str) -> String {
    let path = hive.file(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn a_command_finds_the_message_and_none_of_our_secrets() {
    let mut hive = Hive::prepare("");
    let program = script(&hive, "page", "cat > got.new; env > env; echo said something; mv got.new got");
    let dir = hive.dir.path().display().to_string();
    let text = format!(
        "[[notify]]\nname = \"pager\"\ncommand = [\"sh\", \"-c\", \"cd {dir} && exec {program}\"]\non = [\"failed\"]\n"
    );
    hive.configure(&swarm(&text));
    hive.boot();
    fail(&hive);
    let got = until("the program has run", || fs::read_to_string(hive.file("got")).ok());
    let event: Value = serde_json::from_str(&got).unwrap();
    assert_eq!((&event["type"], &event["subject"]), (&"dev.hivekeeper.agent.failed".into(), &"s/a".into()));
    let env = fs::read_to_string(hive.file("env")).unwrap();
    let id = event["id"].as_str().unwrap();
    for line in [format!("HIVEKEEPER_EVENT_ID={id}"), "HIVEKEEPER_EVENT_SUBJECT=s/a".to_owned()] {
        assert!(env.lines().any(|found| found == line), "{line}\n{env}");
    }
    assert!(!env.contains("HK_TEST_HIVE"), "{env}");
    until("its words are in the log", || hive.log().contains("said something").then_some(()));
    assert_eq!(failing(&hive), None);
}

/// One that hangs is killed at its deadline with what it has started, and run again.
#[test]
fn a_command_that_hangs_is_killed_with_its_children() {
    let mut hive = Hive::prepare("");
    let dir = hive.dir.path().display().to_string();
    let hang = format!(
        "cd {dir}; [ -e once ] && {{ touch done; exit 0; }}; touch once; sleep 1000 & echo $! > child; sleep 1000"
    );
    let program = script(&hive, "hang", &hang);
    let text =
        format!("[[notify]]\nname = \"pager\"\ncommand = [\"{program}\"]\ntimeout = \"500ms\"\non = [\"failed\"]\n");
    hive.configure(&swarm(&text));
    hive.boot();
    fail(&hive);
    let child = until("it has started another", || {
        fs::read_to_string(hive.file("child")).ok().and_then(|text| text.trim().parse::<i32>().ok())
    });
    until("both are killed", || (!lives(child)).then_some(()));
    until("it is run again", || hive.file("done").exists().then_some(()));
    assert_eq!(failing(&hive), None, "one hiccup is not shown");
}

#[test]
fn what_a_command_leaves_behind_is_killed_and_does_not_hold_it_up() {
    let mut hive = Hive::prepare("");
    let dir = hive.dir.path().display().to_string();
    let leave = format!("cd {dir}; sleep 1000 & echo $! > child; yes | head -c 1000000; exit 3");
    let program = script(&hive, "leave", &leave);
    let text = format!("[[notify]]\nname = \"pager\"\ncommand = [\"{program}\"]\non = [\"failed\"]\n");
    hive.configure(&swarm(&text));
    hive.boot();
    fail(&hive);
    let child = until("it has started another", || {
        fs::read_to_string(hive.file("child")).ok().and_then(|text| text.trim().parse::<i32>().ok())
    });
    until("it is killed", || (!lives(child)).then_some(()));
    let said = until("health tells of it", || failing(&hive));
    assert!(said.contains("exit status: 3"), "{said}");
    assert!(hive.log().len() < 200_000, "its output is bounded");
}

/// The daemon's end does not wait for a receiver.
#[test]
fn a_receiver_that_hangs_does_not_hold_up_the_end() {
    let receiver = Receiver::start();
    receiver.will(&[How::Silent]);
    let mut hive = Hive::start(&swarm(&notify(&receiver, "on = [\"failed\"]").replace("\"1s\"", "\"60s\"")));
    fail(&hive);
    receiver.next();
    let began = std::time::Instant::now();
    assert!(hive.terminate().success());
    assert!(began.elapsed() < PATIENCE / 3, "{:?}", began.elapsed());
}
