//! What an agent in a container is given by reference is seen by the agent, and in nothing that the engine shows.

use std::fs;

use super::harness::{Case, share, shell, swarm, until};

const PLANTED: &str = "sk-planted-in-a-container-77d1";

#[test]
fn the_engine_is_shown_no_secret_of_an_agent() {
    let script = "printf '%s\\n' \"$KEY\" > /share/got; echo \"my key is $KEY\"; exec sleep 1000";
    let keys = format!("env = {{ KEY = {{ file = \"key\" }} }}\n{}", share());
    let Some(mut case) = Case::prepare(&swarm(&keys, &[shell("a", "", script)])) else { return };
    fs::write(case.file("key"), format!("{PLANTED}\n")).unwrap();
    case.boot();
    case.runs_as("s/a", 1);
    until("the agent has its secret", || (case.said("got")? == PLANTED).then_some(()));
    until("its line is kept", || {
        case.lines("s/a").iter().any(|line| line["text"] == "my key is [redacted]").then_some(())
    });
    let container = case.container("s");
    let shown = case.ask(&["inspect", &container]);
    assert!(shown.contains("dev.hivekeeper.hive-id") && !shown.contains(PLANTED), "{shown}");
    let execs = case.ask(&["inspect", "--format", "{{range .ExecIDs}}{{.}} {{end}}", &container]);
    assert!(!execs.trim().is_empty(), "its launcher is an exec");
    for words in [&["top", &container, "-eo", "pid,args"][..], &["logs", &container]] {
        assert!(!case.ask(words).contains(PLANTED), "{words:?}");
    }
    case.end();
}
