//! Agents that speak for themselves out of a container that no network reaches.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use super::harness::{Case, share, shell, sleeper, swarm, until};
use crate::hive::lives;

/// The example for people who write their own.
const REPORTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/agents/agent.sh");

fn by_itself(agent: &Value) -> bool {
    agent["last_heartbeat"]["source"] == "agent"
}

fn done(agent: &Value) -> u64 {
    agent["progress"]["value"]["done"].as_u64().unwrap_or_default()
}

fn address(pid: i32) -> String {
    let environ = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    environ.split('\0').find_map(|entry| entry.strip_prefix("HIVEKEEPER_ADDR=")).unwrap().to_owned()
}

#[test]
fn an_agent_without_network_is_ready_by_its_session_and_reports_to_the_next_daemon_too() {
    let Some(mut case) = Case::prepare("") else { return };
    let waits = "until [ -e /share/go ]; do sleep 0.1; done; exec bash /share/agent.sh";
    let agents = [shell("r", "ready = \"session\"\nlease = \"30s\"", waits), sleeper("later", "lease = \"30s\"")];
    case.configure(&swarm(&format!("network = \"none\"\n{}", share()), &agents));
    fs::copy(REPORTER, case.shared("agent.sh")).unwrap();
    case.boot();
    let container = case.container("s");
    assert_eq!(case.ask(&["inspect", "--format", "{{.HostConfig.NetworkMode}}", &container]), "none");

    // It lives, and that is not enough.
    let agent = case.agent_until("s/r", "lives", |agent| agent["pid"].is_u64());
    assert_eq!(
        (&agent["state"], &case.agent("s/later")["state"]),
        (&json!("starting"), &json!("pending")),
        "{agent:#}"
    );
    fs::write(case.shared("go"), "").unwrap();
    let before =
        case.agent_until("s/r", "reports", |agent| agent["state"] == "running" && by_itself(agent) && done(agent) > 0);
    case.running("s/later");
    let (pid, sessions) = (case.outside("s/r"), |case: &Case| case.get("/api/v1/health").body["data_plane"].clone());
    assert_eq!(sessions(&case)["sessions"], 1);
    let asked = address(pid);

    case.kill();
    // By now it has lost its connection and knocks again.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(lives(pid), "agents go on without a daemon");
    case.boot();
    let after = case.agent_until("s/r", "reports again", |agent| by_itself(agent) && done(agent) > done(&before));
    assert_eq!(
        (&after["state"], &after["incarnation"], &after["restarts"]),
        (&json!("running"), &json!(1), &json!(0)),
        "{after:#}"
    );
    assert_eq!((case.outside("s/r"), address(pid)), (pid, asked));
    let opened = until("its own word on both sessions", || {
        let lines = case.lines("s/r");
        let opened = lines.iter().filter(|line| line["text"] == "session open").count();
        (opened >= 2).then_some(opened)
    });
    let plane = sessions(&case);
    assert_eq!((opened, &plane["sessions"], &plane["refused"]), (2, &json!(1), &json!(0)), "{plane:#}");
    case.end();
}
