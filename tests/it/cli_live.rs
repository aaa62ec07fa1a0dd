//! The command line as people use it: the real executable, a real daemon, a real terminal.

mod swarms;
mod terminal;

use std::time::Duration;

use serde_json::json;

use crate::hive::Hive;
use terminal::Terminal;

const SLEEPERS: &str = r#"
[[swarm]]
name = "demo"
[[swarm.agent]]
name = "sleeper"
command = ["sh", "-c", "echo one for the log; exec sleep 1000"]
[[swarm.agent]]
name = "other"
command = ["sleep", "1000"]
"#;

/// Leaves the alternate screen, which is how a full-screen program gives a terminal back.
const LEFT: &str = "\x1b[?1049l";

#[test]
fn top_is_driven_by_keys_and_gives_the_terminal_back() {
    let hive = Hive::start(SLEEPERS);
    let before = hive.agent_pid("demo/sleeper");
    let mut top = Terminal::start(&hive, &["top"], 100, 20);
    top.until("the agents are shown", |screen| screen.contains(&format!("{before}")) && screen.contains("demo/other"));
    top.keys("/sleep\r");
    top.until("the filter holds", |screen| screen.contains("1 of 2") && !screen.contains("demo/other"));
    top.keys("R");
    top.until("it is asked for", |screen| screen.contains("restart demo/sleeper? y / n"));
    assert_eq!(hive.agent_pid("demo/sleeper"), before, "nothing is done before the answer");
    top.keys("y");
    top.until("the restart is told of", |screen| screen.contains("restart demo/sleeper: succeeded"));
    let after = hive.agent_pid("demo/sleeper");
    assert_ne!(after, before);
    top.until("the new process is shown", |screen| screen.contains(&format!("{after}")));
    top.keys("\r");
    top.until("its log is shown", |screen| screen.contains("one for the log") && screen.contains("following"));
    top.resize(60, 8);
    top.keys("q");
    top.until("the list is back in the smaller window", |screen| {
        screen.contains("demo/sleeper") && screen.contains("STATE")
    });
    top.keys("q");
    assert_eq!(top.ended().code(), Some(0));
    assert!(top.raw().contains(LEFT), "{:?}", top.raw());
}

#[test]
fn top_gives_the_terminal_back_on_ctrl_c_and_when_it_is_ended_from_outside() {
    let hive = Hive::start(SLEEPERS);
    for signal in [None, Some(libc::SIGTERM), Some(libc::SIGINT)] {
        let mut top = Terminal::start(&hive, &["top"], 80, 10);
        top.until("the agents are shown", |screen| screen.contains("demo/other"));
        match signal {
            None => top.keys("\x03"),
            Some(signal) => top.signal(signal),
        }
        assert_eq!(top.ended().code(), Some(0), "{signal:?}");
        assert!(top.raw().contains(LEFT), "{signal:?}: {:?}", top.raw());
        assert!(top.is_cooked(), "{signal:?}: the terminal echoes again");
    }
}

#[test]
fn top_has_colours_unless_they_are_not_wanted() {
    let hive = Hive::start(SLEEPERS);
    for (env, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false)] {
        let mut top = Terminal::start_with(&hive, &["top"], env, 80, 10);
        top.until("the agents are shown", |screen| screen.contains("demo/other") && screen.contains("running"));
        top.keys("q");
        assert_eq!(top.ended().code(), Some(0));
        assert_eq!(top.raw().contains("\x1b[38;5;2"), coloured, "{:?}", top.raw());
    }
}

#[test]
fn ctrl_c_leaves_an_operation_running_and_a_second_look_follows_it() {
    let stubborn = "[[swarm]]\nname = \"demo\"\n[[swarm.agent]]\nname = \"a\"\nstop_grace = \"3s\"\n\
                    command = [\"sh\", \"-c\", \"trap '' TERM; while :; do sleep 0.05; done\"]\n";
    let hive = Hive::start(stubborn);
    hive.running("demo/a");
    let mut stop = Terminal::start(&hive, &["stop", "demo"], 80, 10);
    // Before it has its answer, Ctrl-C ends it as it ends any program.
    stop.until("it follows the stop", |screen| screen.contains("stop demo: running"));
    stop.keys("\x03");
    let status = stop.ended();
    assert_eq!(status.code(), Some(130), "{}", stop.raw());
    assert!(stop.raw().contains("goes on as operation"), "{}", stop.raw());
    let id = hive.get("/api/v1/operations").body["operations"][0]["id"].as_str().unwrap().to_owned();
    assert!(stop.raw().contains(&format!("hivekeeper operations watch {id}")), "{}", stop.raw());
    let mut watch = Terminal::start(&hive, &["operations", "watch", &id], 80, 10);
    assert_eq!(watch.ended().code(), Some(0), "{}", watch.raw());
    assert!(watch.raw().contains("stop demo: succeeded"), "{}", watch.raw());
}

#[test]
fn a_second_stop_with_a_shorter_grace_does_not_wait_behind_the_first() {
    let agent = |name: &str| {
        let ignores = "command = [\"sh\", \"-c\", \"trap '' TERM; while :; do sleep 0.05; done\"]";
        format!("[[swarm.agent]]\nname = \"{name}\"\nstop_grace = \"50s\"\n{ignores}\n")
    };
    let hive = Hive::start(&format!("[[swarm]]\nname = \"demo\"\n{}{}", agent("a"), agent("b")));
    hive.running("demo/b");
    let (status, ..) = terminal::piped(&hive, &["stop", "demo", "--no-wait"]);
    assert_eq!(status.code(), Some(0));
    hive.agent_until("demo/b", "is asked to end", |agent| agent["state"] == "stopping");
    let (status, out, err) = terminal::piped(&hive, &["stop", "demo", "--grace", "0s", "--timeout", "20s"]);
    assert_eq!((status.code(), out.as_str()), (Some(0), "stop demo: succeeded\n"), "{err}");
    for operation in hive.get("/api/v1/operations").body["operations"].as_array().unwrap() {
        assert_eq!(operation["state"], "succeeded", "{operation:#}");
    }
}

#[test]
fn wait_and_top_end_where_nobody_reads_or_nobody_sees() {
    let hive = Hive::start(SLEEPERS);
    let mut wait = Terminal::start(&hive, &["wait", "demo", "--for", "running", "--timeout", "20s"], 80, 10);
    assert_eq!(wait.ended().code(), Some(0), "{}", wait.raw());
    let (status, _, err) = terminal::piped(&hive, &["top"]);
    assert_eq!(status.code(), Some(2));
    assert!(err.contains("top needs a terminal"), "{err}");
    let (status, out, err) = terminal::piped(&hive, &["wait", "demo/none", "--timeout", "1s"]);
    assert_eq!((status.code(), out.as_str()), (Some(4), ""), "{err}");
    let head = terminal::headed(&hive, &["top", "--json"], Duration::from_secs(10));
    assert!(head.contains("connection_established"), "{head}");
    // Nothing is written to these that would tell them.
    for quiet in [
        &["logs", "-f", "demo/sleeper"][..],
        &["logs", "-f", "demo"],
        &["events", "-f", "--after", "0", "--kind", "daemon_started"],
    ] {
        assert!(!terminal::headed(&hive, quiet, Duration::from_secs(5)).is_empty(), "{quiet:?}");
    }
    hive.post("/api/v1/swarms/demo/stop?wait=20s", json!({}));
    let (status, out, err) = terminal::piped(&hive, &["wait", "demo", "--for", "stopped", "--timeout", "20s"]);
    assert_eq!((status.code(), out.as_str()), (Some(0), "demo is stopped\n"), "{err}");
}
