//! Documents, numbers and programs that come and go through the command line.

use std::{fs, process::Stdio, time::Duration};

use serde_json::Value;

use super::terminal::{Terminal, piped, started};
use crate::hive::{Hive, lives, until};

const IDLE: &str = "command = [\"sleep\", \"1000\"]\n";

fn swarms(hive: &Hive) -> Vec<String> {
    let list = hive.get("/api/v1/swarms").body;
    list["swarms"].as_array().unwrap().iter().map(|swarm| swarm["name"].as_str().unwrap().to_owned()).collect()
}

fn ok(hive: &Hive, args: &[&str]) -> String {
    let (status, out, err) = piped(hive, args);
    assert_eq!(status.code(), Some(0), "{args:?}: {out}{err}\n{}", hive.log());
    out
}

#[test]
fn up_again_touches_what_has_changed_and_nothing_else() {
    let hive = Hive::start("");
    let write = |a: &str| {
        let text = format!(
            "[[swarm]]\nname = \"s\"\nworkdir = \".\"\n[[swarm.agent]]\nname = \"a\"\ncommand = [\"sleep\", \"{a}\"]\n\
             [[swarm.agent]]\nname = \"b\"\nreplicas = 2\n{IDLE}"
        );
        fs::write(hive.file("s.toml"), text).unwrap();
    };
    write("1000");
    assert_eq!(ok(&hive, &["up", "s.toml", "--dry-run"]), "s: would be launched: start a, b-1 to b-2\n");
    assert!(swarms(&hive).is_empty());
    assert_eq!(ok(&hive, &["up", "s.toml"]), "launch s: succeeded\n");
    let (a, b) = (hive.agent_pid("s/a"), hive.agent_pid("s/b-2"));
    assert_eq!(ok(&hive, &["up", "s.toml"]), "s: unchanged\n");
    write("2000");
    assert_eq!(ok(&hive, &["up", "s.toml", "--dry-run"]), "s: would be updated: replace a; keep 2\n");
    assert_eq!(hive.agent_pid("s/a"), a);
    assert_eq!(ok(&hive, &["up", "s.toml"]), "update s: succeeded\n");
    assert_ne!(hive.agent_pid("s/a"), a);
    assert_eq!(hive.agent_pid("s/b-2"), b);

    assert_eq!(ok(&hive, &["scale", "s/b=3"]), "scale s: succeeded\n");
    hive.running("s/b-3");
    assert_eq!(hive.agent_pid("s/b-2"), b);
    assert_eq!(ok(&hive, &["restart", "s", "--rolling"]), "restart s: succeeded\n");
    assert_ne!(hive.agent_pid("s/b-2"), b);
    assert_eq!(ok(&hive, &["rm", "s"]), "delete s: succeeded\n");
    assert!(swarms(&hive).is_empty());
    hive.nothing_left_but_daemon(Duration::from_secs(20));
}

#[test]
fn a_wrong_document_is_told_with_every_mistake() {
    let hive = Hive::start("");
    let text = "[[swarm]]\nname = \"s\"\nimago = \"x\"\n[[swarm.agent]]\nname = \"a\"\nrestart = \"always\"\n";
    fs::write(hive.file("s.toml"), text).unwrap();
    let (status, out, err) = piped(&hive, &["up", "s.toml"]);
    assert_eq!((status.code(), out.as_str()), (Some(4), ""), "{err}");
    for piece in ["imago", "command", "restart", "invalid_document"] {
        assert!(err.contains(piece), "{piece:?} is not in {err}");
    }
    assert!(swarms(&hive).is_empty());
}

#[test]
fn run_is_as_if_the_program_had_been_started_by_the_shell() {
    let hive = Hive::start("");
    let script = "pwd; echo $A; echo complaint >&2; printf unfinished; exit 7";
    let (status, out, err) = piped(&hive, &["run", "-e", "A=b", "--", "sh", "-c", script]);
    let here = hive.dir.path().canonicalize().unwrap();
    assert_eq!(status.code(), Some(7), "{err}\n{}", hive.log());
    assert_eq!((out, err.as_str()), (format!("{}\nb\nunfinished\n", here.display()), "complaint\n"));
    let (status, ..) = piped(&hive, &["run", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(status.code(), Some(137));
    let (status, out, err) = piped(&hive, &["run", "--", "no-such-program-here"]);
    assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("no-such-program-here"), "{err}");
    // More than a page of them, and fewer than the launcher keeps of a burst that is over before anybody reads.
    let (_, out, err) = piped(&hive, &["run", "--", "seq", "10000"]);
    assert_eq!((out.lines().count(), err.as_str()), (10_000, ""), "every line, the last ones, too");
    assert!(swarms(&hive).is_empty());
    hive.nothing_left_but_daemon(Duration::from_secs(20));
}

#[test]
fn ctrl_c_stops_what_runs_attached_and_twice_kills_it() {
    let hive = Hive::start("");
    let gentle = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let mut run = Terminal::start(&hive, &["run", "--name", "gentle", "--", "sh", "-c", gentle], 80, 10);
    run.until("it runs", |screen| screen.contains("up"));
    run.keys("\x03");
    assert_eq!(run.ended().code(), Some(3), "{}", run.raw());
    assert!(run.raw().contains("bye"), "what it wrote at its end is shown, too: {}", run.raw());

    let stubborn = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let mut run = Terminal::start(&hive, &["run", "--name", "stubborn", "--", "sh", "-c", stubborn], 80, 10);
    run.until("it runs", |screen| screen.contains("up"));
    let pid = hive.agent_pid("stubborn/sh");
    run.keys("\x03");
    hive.agent_until("stubborn/sh", "is asked to end", |agent| agent["state"] == "stopping");
    run.keys("\x03");
    assert_eq!(run.ended().code(), Some(137), "{}", run.raw());
    assert!(!lives(pid) && swarms(&hive).is_empty());
}

#[test]
fn run_detached_is_left_to_the_daemon_and_its_reader_takes_an_attached_one_along() {
    let hive = Hive::start("");
    assert_eq!(ok(&hive, &["run", "--detach", "--name", "left", "--", "sleep", "1000"]), "left/sleep\n");
    hive.running("left/sleep");
    assert_eq!(ok(&hive, &["wait", "left", "--for", "healthy"]), "left is healthy\n");
    ok(&hive, &["rm", "left"]);

    let args = ["run", "--name", "cut", "--", "sh", "-c", "while :; do echo line; sleep 0.02; done"];
    let mut run = started(&hive, &args, Stdio::piped());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(run.stdout.take().unwrap()), &mut first).unwrap();
    assert_eq!(first, "line\n");
    let status = until("it ends without its reader", || run.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(swarms(&hive).is_empty());
}

#[test]
fn an_operation_that_waits_is_called_off() {
    let stubborn = "trap '' TERM; while :; do sleep 0.05; done";
    let hive = Hive::start(&format!(
        "[[swarm]]\nname = \"demo\"\n[[swarm.agent]]\nname = \"a\"\nstop_grace = \"2s\"\n\
         command = [\"sh\", \"-c\", \"{stubborn}\"]\n"
    ));
    hive.running("demo/a");
    ok(&hive, &["stop", "demo", "--no-wait"]);
    let accepted: Value = serde_json::from_str(&ok(&hive, &["start", "demo", "--no-wait", "--json"])).unwrap();
    let id = accepted["id"].as_str().unwrap();
    assert!(ok(&hive, &["operations", "cancel", id]).starts_with("start demo: cancelled"));
    let (status, out, _) = piped(&hive, &["operations", "watch", id]);
    assert_eq!(status.code(), Some(1), "{out}");
    let (status, _, err) = piped(&hive, &["operations", "cancel", id]);
    assert_eq!(status.code(), Some(4), "{err}");
}
