//! Agents that speak for themselves: out of a container that no network reaches, and past an engine that is away.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    harness::{Case, PATIENCE, is_there, share, shell, sleeper, swarm, until},
    proxy::Proxy,
    steps::engine_socket,
};
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

/// An agent's session that goes straight to the daemon. The test speaks, with what the agent has told it.
struct Session {
    reader: BufReader<TcpStream>,
    done: u64,
}

impl Session {
    fn open(case: &Case, agent: &str, token: &str) -> Self {
        let stream = TcpStream::connect(&case.data_plane).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut session = Self { reader: BufReader::new(stream), done: 0 };
        let params = json!({ "token": token, "agent": agent, "incarnation": 1, "protocol": 1 });
        session.send(json!({ "jsonrpc": "2.0", "id": "open", "method": "hive/open", "params": params }));
        let mut answer = String::new();
        session.reader.read_line(&mut answer).unwrap();
        assert!(answer.contains("\"result\""), "{answer}");
        session
    }

    /// Reports one more piece of work, and waits until the daemon shows it.
    #[track_caller]
    fn is_seen(&mut self, case: &Case, agent: &str) -> Value {
        self.done += 1;
        let params = json!({ "progress": { "done": self.done }, "busy": true });
        self.send(json!({ "jsonrpc": "2.0", "method": "hive/heartbeat", "params": params }));
        case.agent_until(agent, "shows what it reports", |shown| by_itself(shown) && done(shown) == self.done)
    }

    fn send(&self, message: Value) {
        self.reader.get_ref().write_all(format!("{message}\n").as_bytes()).unwrap();
    }
}

#[test]
fn what_agents_report_is_seen_while_the_engine_is_away() {
    if !is_there() {
        return;
    }
    let proxy = Proxy::new(&engine_socket());
    let lease = "lease = \"60s\"";
    let tells = "echo $HIVEKEEPER_TOKEN > /share/token; exec sleep 1000";
    let agents = [shell("r", lease, tells), sleeper("mute", lease)];
    let document = swarm(&share(), &agents);
    let Some(case) = Case::start(&format!("{}{document}", proxy.key())) else { return };
    let processes = ["s/r", "s/mute"].map(|id| case.outside(id));
    let token = until("its token", || case.said("token"));
    let mut session = Session::open(&case, "s/r", &token);
    let heard_at = |agent: &Value| agent["last_heartbeat"]["observed_at"].as_str().unwrap().to_owned();
    let mut heard = vec![heard_at(&session.is_seen(&case, "s/r"))];
    let health = || case.get("/api/v1/health").body;

    proxy.leave();
    for id in ["s/r", "s/mute"] {
        let agent = case.agent_until(id, "is unknown", |agent| agent["state"] == "unknown");
        assert_eq!(agent["reasons"][0]["code"], "runtime_unreachable", "{agent:#}");
    }
    until("the control plane is unreachable", || (health()["control_plane"]["reachable"] == false).then_some(()));
    for _ in 0..3 {
        let agent = session.is_seen(&case, "s/r");
        // What it says of itself is shown, and is not taken for what only the engine can tell.
        assert_eq!(agent["state"], "unknown", "{agent:#}");
        heard.push(heard_at(&agent));
    }
    assert!(heard.is_sorted() && heard[0] < heard[3], "the time of its last word stands still: {heard:?}");
    let seen = health();
    assert_eq!(seen["control_plane"]["reachable"], false, "it came back too early: {seen:#}");
    assert_eq!(
        (&seen["data_plane"]["listening"], &seen["data_plane"]["sessions"]),
        (&json!(true), &json!(1)),
        "{seen:#}"
    );
    assert!(seen["data_plane"]["events_per_second"]["value"].is_number(), "{seen:#}");
    assert!(!by_itself(&case.agent("s/mute")), "nobody has spoken for the other one");

    // A session may also be opened in that time.
    drop(session);
    until("its session ends", || (health()["data_plane"]["sessions"] == 0).then_some(()));
    let mut session = Session { done: 10, ..Session::open(&case, "s/r", &token) };
    session.is_seen(&case, "s/r");
    assert_eq!(health()["control_plane"]["reachable"], false, "it came back too early");

    proxy.come_back();
    for (id, pid) in ["s/r", "s/mute"].iter().zip(processes) {
        let agent = case.runs_as(id, 1);
        assert_eq!((&agent["restarts"], &agent["last_exit"]), (&json!(0), &json!(null)), "{agent:#}");
        assert_eq!(case.outside(id), pid, "{id}");
    }
    session.is_seen(&case, "s/r");
    case.end();
}
