//! The configuration file, read again: by a request, by a signal, and by the next daemon when this one is killed over it.

use std::{fs, os::fd::FromRawFd, process::Stdio};

use serde_json::{Value, json};

use crate::hive::{Answer, Hive, until};

/// Swarms whose agents sleep for so many seconds.
fn swarms(all: &[(&str, &[(&str, &str)])]) -> String {
    let agent = |(name, seconds): &(&str, &str)| {
        let replicas = if name.starts_with('w') { "replicas = 2\n" } else { "" };
        format!(
            "[[swarm.agent]]\nname = \"{name}\"\n{replicas}command = [\"sleep\", \"{seconds}\"]\nstop_grace = \"1s\"\n"
        )
    };
    let swarm = |(name, agents): &(&str, &[(&str, &str)])| {
        format!("[[swarm]]\nname = \"{name}\"\n{}", agents.iter().map(agent).collect::<String>())
    };
    all.iter().map(swarm).collect()
}

fn reload(hive: &Hive, query: &str) -> Answer {
    hive.post(&format!("/api/v1/reload{query}"), json!({}))
}

/// What is told of a swarm: its change, and that of its agents.
fn told(answer: &Answer, swarm: &str) -> Option<(String, Vec<String>)> {
    let one = answer.body["changes"].as_array()?.iter().find(|one| one["swarm"] == swarm)?;
    let agents = one["agents"].as_array()?.iter();
    let agents =
        agents.map(|agent| format!("{} {}", agent["agent"].as_str().unwrap(), agent["change"].as_str().unwrap()));
    Some((one["change"].as_str()?.to_owned(), agents.collect()))
}

#[track_caller]
fn expect(answer: &Answer, swarm: &str, change: &str, agents: &[&str]) {
    let agents = agents.iter().map(|agent| (*agent).to_owned()).collect();
    assert_eq!(told(answer, swarm), Some((change.to_owned(), agents)), "{answer:?}");
}

/// Waits until every operation has ended, and well.
#[track_caller]
fn done(hive: &Hive) {
    until("all operations end", || {
        let page = hive.get("/api/v1/operations").body;
        let states: Vec<_> = page["operations"].as_array()?.iter().map(|one| one["state"].clone()).collect();
        assert!(!states.contains(&json!("failed")), "{page:#}\n{}", hive.log());
        states.iter().all(|state| *state == "succeeded").then_some(())
    });
}

fn names(hive: &Hive) -> Vec<Value> {
    hive.get("/api/v1/swarms").body["swarms"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect()
}

#[test]
fn the_file_is_followed_and_what_it_does_not_change_keeps_its_processes() {
    let mut hive = Hive::start(&swarms(&[
        ("kept", &[("a", "1001")]),
        ("changed", &[("a", "1001"), ("b", "1002"), ("w", "1003")]),
        ("gone", &[("a", "1001"), ("b", "1001")]),
    ]));
    let scaled = hive.post("/api/v1/swarms/changed/scale?wait=30s", json!({ "agent": "w", "replicas": 3 }));
    assert_eq!(scaled.body["state"], "succeeded", "{scaled:?}");
    let pids = |ids: &[&str]| ids.iter().map(|id| hive.agent_pid(id)).collect::<Vec<_>>();
    let keep = ["kept/a", "changed/a", "changed/w-1", "changed/w-3"];
    let (kept, replaced) = (pids(&keep), pids(&["changed/b", "gone/a"]));
    let same = reload(&hive, "");
    assert_eq!(same.status, 200, "{same:?}");
    for swarm in ["kept", "changed", "gone"] {
        assert_eq!(told(&same, swarm).unwrap().0, "keep", "{same:?}");
    }

    let text = swarms(&[
        ("kept", &[("a", "1001")]),
        ("changed", &[("a", "1001"), ("b", "2002"), ("c", "1004"), ("w", "1003")]),
        ("new", &[("a", "1001")]),
    ]);
    hive.configure(&text);
    let text = fs::read_to_string(hive.config()).unwrap().replace("\"200ms\"", "\"300ms\"");
    fs::write(hive.config(), text).unwrap();
    for (query, dry_run) in [("?dry_run=true", true), ("", false)] {
        let answer = reload(&hive, query);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["dry_run"], dry_run);
        assert_eq!(answer.body["file"], hive.config().display().to_string());
        assert_eq!(answer.body["needs_restart"], json!(["runtime.sample_interval"]));
        expect(&answer, "kept", "keep", &["a keep"]);
        let agents = ["a keep", "b replace", "c start", "w-1 keep", "w-2 keep", "w-3 keep"];
        expect(&answer, "changed", "update", &agents);
        expect(&answer, "gone", "remove", &["b stop", "a stop"]);
        expect(&answer, "new", "add", &["a start"]);
        let operations = answer.body["changes"].as_array().unwrap().iter().filter(|one| one["operation"].is_string());
        assert_eq!(operations.count(), if dry_run { 0 } else { 3 }, "{answer:?}");
        if dry_run {
            assert_eq!(names(&hive), ["changed", "gone", "kept"]);
            assert_eq!(pids(&["changed/b", "gone/a"]), replaced);
        }
    }
    done(&hive);
    assert_eq!(names(&hive), ["changed", "kept", "new"]);
    assert_eq!(pids(&keep), kept);
    assert_ne!(pids(&["changed/b"])[0], replaced[0]);
    hive.running("changed/c");
    hive.running("new/a");
    let asked = hive.get("/api/v1/operations?limit=1").body["operations"][0]["requested_by"].clone();
    assert_eq!(asked, "reload");
    assert_eq!(told(&reload(&hive, ""), "changed").unwrap().0, "keep");
    hive.terminate();
    hive.nothing_left(crate::hive::PATIENCE);
}

#[test]
fn a_file_that_is_wrong_anywhere_changes_nothing() {
    let mut hive = Hive::start(&swarms(&[("s", &[("a", "1001")])]));
    let pid = hive.agent_pid("s/a");
    let wrong = |hive: &Hive, keys: &[&str]| {
        let answer = reload(hive, "");
        assert_eq!((answer.status, answer.body["code"].as_str()), (422, Some("invalid_configuration")), "{answer:?}");
        let errors = answer.body["errors"].as_array().unwrap().clone();
        assert_eq!(errors.iter().map(|one| one["key"].as_str().unwrap()).collect::<Vec<_>>(), keys, "{answer:?}");
        errors
    };
    let more = swarms(&[("new", &[("a", "1001")])]);
    hive.configure(&format!("{more}lease = \"soon\"\nnonsense = 1\n"));
    let errors = wrong(&hive, &["swarm[new].agent[a].lease", "swarm[new].agent[a].nonsense"]);
    assert!(errors[0]["place"].as_str().unwrap().contains("config.toml:"), "{errors:?}");

    let api = json!({ "name": "api", "agent": [{ "name": "a", "command": ["sleep", "1000"] }] });
    assert_eq!(hive.post("/api/v1/swarms?wait=30s", api).status, 200);
    hive.configure(&swarms(&[("api", &[("a", "1001")]), ("new", &[("a", "1001")])]));
    let errors = wrong(&hive, &["swarm[api].name"]);
    assert!(errors[0]["allowed"].as_str().unwrap().contains("hivekeeper rm api"), "{errors:?}");

    // A file that has gone says nothing; it does not say that there is no swarm.
    let text = fs::read_to_string(hive.config()).unwrap();
    fs::remove_file(hive.config()).unwrap();
    wrong(&hive, &[""]);
    fs::write(hive.config(), text).unwrap();
    assert_eq!(names(&hive), ["api", "s"]);
    assert_eq!(hive.agent_pid("s/a"), pid);
    hive.terminate();
}

#[test]
fn a_hang_up_reads_the_file_again_and_leaves_a_word_of_it() {
    let mut hive = Hive::prepare(&swarms(&[("s", &[("a", "1001"), ("b", "1001")])]));
    hive.through = &["setsid"];
    hive.boot();
    let (a, b) = (hive.agent_pid("s/a"), hive.agent_pid("s/b"));
    let audited = |hive: &Hive, status: u16| {
        let told = format!("an audit of {status}");
        until(&told, || {
            let page = hive.get("/api/v1/events?limit=1000").body;
            let told =
                |one: &Value| one.to_string().contains("SIGHUP") && one.to_string().contains(&format!(":{status}"));
            page["events"].as_array()?.iter().any(told).then_some(())
        });
    };
    hive.configure("nonsense = 1\n");
    hive.signal_daemon(libc::SIGHUP);
    audited(&hive, 422);
    assert!(hive.log().contains("nonsense"), "{}", hive.log());
    hive.configure(&swarms(&[("s", &[("a", "1001"), ("b", "2001")])]));
    hive.signal_daemon(libc::SIGHUP);
    audited(&hive, 200);
    done(&hive);
    assert_eq!(hive.agent_pid("s/a"), a);
    assert_ne!(hive.agent_pid("s/b"), b);
    assert_eq!(hive.terminate().code(), Some(0));
}

#[test]
fn a_hang_up_stops_a_daemon_whose_terminal_goes_away() {
    let mut hive = Hive::prepare(&swarms(&[("s", &[("a", "1001")])]));
    let (mut ours, mut side) = (0, 0);
    // SAFETY: the pointers are to our own integers, null is allowed for the others, and both descriptors are ours alone.
    let (ours, side) = unsafe {
        let null = std::ptr::null_mut();
        assert_eq!(libc::openpty(&raw mut ours, &raw mut side, null, null.cast(), null.cast()), 0);
        libc::fcntl(ours, libc::F_SETFD, libc::FD_CLOEXEC);
        (fs::File::from_raw_fd(ours), fs::File::from_raw_fd(side))
    };
    let log = fs::File::create(hive.file("daemon.log")).unwrap();
    let mut command = std::process::Command::new("setsid");
    let daemon = [env!("CARGO_BIN_EXE_hivekeeper"), "serve", "--config", "config.toml"];
    command.arg("--ctty").args(daemon).current_dir(hive.dir.path());
    command.stdin(Stdio::from(side)).stdout(log.try_clone().unwrap()).stderr(log);
    let mut child = command.spawn().unwrap();
    drop(command);
    until("the agent runs", || {
        let text = fs::read_to_string(hive.data().join("endpoints.json")).ok()?;
        let http = serde_json::from_str::<Value>(&text).ok()?["http"].as_str()?.to_owned();
        hive.http = http;
        let agent = hive.get("/api/v1/swarms/s/agents/a");
        (agent.body["state"] == "running").then_some(())
    });
    drop(ours);
    let status = until("the daemon ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", hive.log());
    assert_eq!(hive.processes(), Vec::<i32>::new());
}

#[test]
fn what_a_killed_daemon_had_accepted_the_next_one_does() {
    let mut hive = Hive::start(&swarms(&[("s", &[("a", "1001"), ("b", "1001")]), ("gone", &[("a", "1001")])]));
    let (a, b) = (hive.agent_pid("s/a"), hive.agent_pid("s/b"));
    hive.running("gone/a");
    hive.configure(&swarms(&[("s", &[("a", "1001"), ("b", "2001")]), ("new", &[("a", "1001")])]));
    let answer = reload(&hive, "");
    hive.kill();
    assert_eq!(answer.status, 200, "{answer:?}");
    hive.boot();
    done(&hive);
    assert_eq!(names(&hive), ["new", "s"]);
    assert_eq!(hive.agent_pid("s/a"), a);
    assert_ne!(hive.agent_pid("s/b"), b);
    hive.running("new/a");
    for change in answer.body["changes"].as_array().unwrap() {
        let id = change["operation"].as_str().unwrap();
        assert_eq!(hive.get(&format!("/api/v1/operations/{id}")).body["state"], "succeeded");
    }
    hive.terminate();
    hive.nothing_left(crate::hive::PATIENCE);
}
