//! MCP on a whole daemon, by each of its doors, with a client of lines that we wrote: the whole loop of an agent, and what becomes of calls whose door or
//! daemon goes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde_json::{Value, json};

use crate::hive::{Hive, PATIENCE, until};

/// Whose agent writes down what it was given.
pub(crate) const GIVEN: &str = r#"
[[swarm]]
name = "review"
[[swarm.agent]]
name = "coder"
command = ["sh", "-c", "env >new; mv new coder.$HIVEKEEPER_INCARNATION; exec sleep 1000"]
heartbeat_timeout = "1s"
"#;
const SWARM: &str =
    "[[swarm]]\nname = \"review\"\n[[swarm.agent]]\nname = \"coder\"\ncommand = [\"sleep\", \"1000\"]\n";
const MODERN: &str = "2026-07-28";

/// Whoever asks and is answered by a door.
pub(crate) trait Door {
    fn ask(&mut self, method: &str, params: Value) -> Value;

    /// Calls a tool that does not refuse.
    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let said = self.ask("tools/call", json!({ "name": tool, "arguments": arguments }));
        assert_eq!(said["result"]["isError"], false, "{tool}: {said}");
        said["result"]["structuredContent"].clone()
    }

    /// Calls a tool that refuses; its code.
    fn refused(&mut self, tool: &str, arguments: Value) -> String {
        let said = self.ask("tools/call", json!({ "name": tool, "arguments": arguments }));
        assert_eq!(said["result"]["isError"], true, "{tool}: {said}");
        let text: Value = serde_json::from_str(said["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
        text["code"].as_str().unwrap().to_owned()
    }
}

/// Creates, claims, locks, sends to itself, receives, acknowledges, completes, and looks at what is left.
fn whole_loop(door: &mut impl Door, title: &str, me: &str, is_client: bool) {
    let listed = door.ask("tools/list", json!({}));
    assert!(listed["result"]["tools"].as_array().unwrap().len() > 20, "{listed}");
    let created = door.call("task_create", json!({ "tasks": [{ "title": title, "category": title }] }));
    let claimed = door.call("task_claim", json!({ "categories": [title] }));
    let task = &claimed["tasks"][0];
    assert_eq!((&task["id"], &task["title"]), (&created["tasks"][0]["id"], &title.into()), "{claimed}");
    let held = json!({ "id": task["id"], "fence": task["claim"]["fence"] });
    let path = format!("src/{title}.rs");
    let lock = door.call("lock_acquire", json!({ "resources": [path] }));
    door.call("lock_check", json!({ "resource": path, "fence": lock["fence"] }));
    door.call("message_send", json!({ "to": me, "client": is_client, "body": { "done": title } }));
    let message = &door.call("message_receive", json!({}))["messages"][0];
    assert_eq!(message["body"], json!({ "done": title }), "{message}");
    door.call("message_ack", json!({ "id": message["id"], "fence": message["fence"] }));
    door.call("lock_release", json!({ "id": lock["id"], "fence": lock["fence"] }));
    let mut stale = held.clone();
    stale["fence"] = 1.into();
    assert_eq!(door.refused("task_complete", stale), "stale_token");
    let mut ended = held.clone();
    ended["result"] = json!({ "lines": 3 });
    assert_eq!(door.call("task_complete", ended)["state"], "done");
    assert_eq!(door.call("task_claim", json!({ "categories": [title] })), json!({ "tasks": [] }));
    let graph = door.ask("resources/read", json!({ "uri": "hive://swarms/review/tasks" }));
    assert!(graph["result"]["contents"][0]["text"].as_str().unwrap().contains(title), "{graph}");
    let health = door.ask("resources/read", json!({ "uri": "hive://health" }));
    assert!(health["result"]["contents"][0]["text"].as_str().unwrap().contains("review"), "{health}");
}

/// `/mcp` itself.
struct Web<'a> {
    hive: &'a Hive,
    version: &'static str,
}

impl Door for Web<'_> {
    fn ask(&mut self, method: &str, mut params: Value) -> Value {
        if method == "tools/call" {
            params["arguments"]["swarm"] = "review".into();
            params["arguments"]["agent"] = "tester".into();
        }
        if self.version == MODERN {
            params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {} });
        }
        let name = params["name"].as_str().or(params["uri"].as_str()).map(str::to_owned);
        let mut headers = vec![
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", self.version),
            ("mcp-method", method),
        ];
        headers.extend(name.as_deref().map(|name| ("mcp-name", name)));
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.hive.client().send("POST", "/mcp", &headers, &message);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }
}

/// A program that speaks MCP on its standard input and output.
pub(crate) struct Piped {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<Value>,
    last: u64,
    modern: bool,
}

impl Piped {
    pub(crate) fn start(mut command: Command, modern: bool) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = mpsc::sync_channel(256);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Nothing but messages may be there.
                let _ = said.send(serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}")));
            }
        });
        let mut me = Self { input: child.stdin.take(), child, lines, last: 0, modern };
        if !modern {
            let hello = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "ours", "version": "1" } });
            let said = me.ask("initialize", hello);
            assert_eq!(said["result"]["protocolVersion"], "2025-06-18", "{said}");
            me.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        }
        me
    }

    pub(crate) fn write(&mut self, message: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{message}").unwrap();
    }

    pub(crate) fn send(&mut self, method: &str, mut params: Value) -> u64 {
        if self.modern {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = MODERN.into();
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        }
        self.last += 1;
        self.write(&json!({ "jsonrpc": "2.0", "id": self.last, "method": method, "params": params }));
        self.last
    }

    /// The next message.
    pub(crate) fn next(&mut self) -> Value {
        self.lines.recv_timeout(PATIENCE).expect("no message")
    }

    /// Says no more, and waits for the end.
    pub(crate) fn end(mut self) -> (i32, Vec<Value>) {
        drop(self.input.take());
        let status = until("the relay ends", || self.child.try_wait().unwrap());
        (status.code().unwrap_or(-1), self.lines.iter().collect())
    }
}

impl Door for Piped {
    fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params);
        let said = self.next();
        assert_eq!(said["id"], id, "{said}");
        said
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn relay(hive: &Hive) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hivekeeper"));
    command.args(["--url", &format!("http://{}", hive.http), "mcp", "--swarm", "review", "--as", "tester"]);
    command
}

#[test]
fn the_whole_loop_by_http_in_both_eras() {
    let hive = Hive::start(SWARM);
    for version in [MODERN, "2025-11-25"] {
        whole_loop(&mut Web { hive: &hive, version }, version, "tester", true);
    }
    let answer = hive.client().send("POST", "/mcp", &[("accept", "application/json")], &json!({}));
    assert_eq!((answer.status, &answer.body["code"]), (400, &json!("invalid_request")), "{}", answer.body);
    let answer = hive.client().send("GET", "/mcp", &[], &Value::Null);
    assert_eq!((answer.status, &answer.body["code"]), (405, &json!("method_not_allowed")), "{}", answer.body);
}

#[test]
fn the_whole_loop_on_standard_input_and_output_outside_an_agent() {
    let hive = Hive::start(SWARM);
    for modern in [true, false] {
        let mut door = Piped::start(relay(&hive), modern);
        whole_loop(&mut door, if modern { "new" } else { "old" }, "tester", true);
        // Who says whose work it is, is taken at his word.
        let said =
            door.ask("tools/call", json!({ "name": "task_claim", "arguments": { "swarm": "nowhere", "agent": "x" } }));
        assert_eq!(said["result"]["isError"], true, "{said}");
        assert_eq!(door.ask("no/such/method", json!({}))["error"]["code"], -32601);
        assert_eq!(door.end(), (0, Vec::new()));
    }
}

#[test]
fn a_relay_tells_of_waits_that_its_client_wants_to_hear_of_and_answers_what_its_daemon_leaves_open() {
    let mut hive = Hive::start(SWARM);
    let mut door = Piped::start(relay(&hive), true);
    let quiet = door.send("tools/call", json!({ "name": "task_claim", "arguments": { "wait_ms": 1200 } }));
    let said = door.next();
    assert_eq!(
        (&said["id"], &said["result"]["isError"]),
        (&json!(quiet), &json!(false)),
        "nobody asked for progress: {said}"
    );
    let meta = json!({ "progressToken": "mine" });
    let told =
        door.send("tools/call", json!({ "name": "task_claim", "arguments": { "wait_ms": 1200 }, "_meta": meta }));
    let said = door.next();
    assert_eq!(
        (&said["method"], &said["params"]["progressToken"]),
        (&json!("notifications/progress"), &json!("mine")),
        "{said}"
    );
    assert_eq!(door.next()["id"], told);
    // One that waits, cancelled, and one that the daemon takes along.
    let cancelled = door.send("tools/call", json!({ "name": "task_claim", "arguments": { "wait_ms": 300_000 } }));
    door.write(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": cancelled } }));
    let open = door.send("tools/call", json!({ "name": "task_claim", "arguments": { "wait_ms": 300_000 } }));
    std::thread::sleep(Duration::from_millis(1500));
    hive.kill();
    let said: Vec<Value> = (0..2).map(|_| door.next()).collect();
    let of = |id: u64| said.iter().find(|said| said["id"] == id).unwrap_or_else(|| panic!("{said:?}"));
    let text = of(open)["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("maybe_done"), "{text}");
    let away = door.ask("tools/list", json!({}));
    assert!(away["error"]["message"].as_str().unwrap().contains("can't be reached"), "{away}");
    assert_eq!(door.end(), (0, Vec::new()));
}

/// What the first incarnation of the agent was given.
pub(crate) fn given(hive: &Hive) -> HashMap<String, String> {
    let file = hive.data().join("work/review/coder.1");
    let text = until("what the agent was given", || std::fs::read_to_string(&file).ok());
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .filter(|(key, _)| key.starts_with("HIVEKEEPER_"))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn inside(hive: &Hive) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hivekeeper"));
    command.arg("mcp").envs(given(hive));
    command
}

#[test]
fn the_whole_loop_inside_an_agent_says_nothing_of_the_agents_life() {
    let hive = Hive::start(GIVEN);
    hive.running("review/coder");
    for modern in [true, false] {
        let mut door = Piped::start(inside(&hive), modern);
        whole_loop(&mut door, if modern { "new" } else { "old" }, "coder", false);
        let mine = door.call("task_claim", json!({ "swarm": "review" }));
        assert_eq!(mine, json!({ "tasks": [] }));
        // Longer than a program with a session of its own may be silent.
        std::thread::sleep(Duration::from_millis(1500));
        let agent = hive.agent("review/coder");
        assert_eq!(
            (&agent["state"], &agent["last_heartbeat"]["source"]),
            (&json!("running"), &json!("launcher")),
            "{agent}"
        );
        assert_eq!(door.end(), (0, Vec::new()));
    }
}

#[test]
fn a_relay_inside_an_agent_goes_on_with_the_next_daemon() {
    let mut hive = Hive::start(GIVEN);
    hive.running("review/coder");
    let mut doors: Vec<Piped> = [true, false].map(|modern| Piped::start(inside(&hive), modern)).into();
    for (n, door) in doors.iter_mut().enumerate() {
        door.call("task_create", json!({ "tasks": [{ "title": format!("task {n}") }] }));
        door.call("task_claim", json!({}));
        let waits = json!({ "categories": ["none such"], "wait_ms": 300_000 });
        door.send("tools/call", json!({ "name": "task_claim", "arguments": waits }));
    }
    hive.kill();
    for door in &mut doors {
        let said = door.next();
        assert!(said["result"]["content"][0]["text"].as_str().unwrap().contains("maybe_done"), "{said}");
    }
    hive.boot();
    for door in &mut doors {
        let held = door.call("task_held", json!({}));
        assert_eq!(held["tasks"].as_array().unwrap().len(), 2, "the same incarnation holds them: {held}");
    }
}

/// A connection of lines.
struct Raw(BufReader<TcpStream>, u64);

impl Raw {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream), 0)
    }
}

impl Door for Raw {
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.1 += 1;
        let message = json!({ "jsonrpc": "2.0", "id": self.1, "method": method, "params": params });
        writeln!(self.0.get_mut(), "{message}").unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(said["id"], self.1, "{said}");
        said
    }
}

#[test]
fn on_a_connection_mcp_is_spoken_beside_all_else_behind_hive_open_or_with_a_proof_in_each_request() {
    let hive = Hive::start(GIVEN);
    hive.running("review/coder");
    let given = given(&hive);
    let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "ours", "version": "1" } });
    for address in [&hive.data_plane, &given["HIVEKEEPER_ADDR"]] {
        let mut raw = Raw::connect(address);
        assert_eq!(raw.ask("initialize", hello.clone())["result"]["protocolVersion"], "2025-11-25");
        assert!(raw.ask("tools/list", json!({}))["result"]["tools"].is_array());
        let claim = json!({ "name": "task_claim", "arguments": {} });
        assert_eq!(raw.ask("tools/call", claim.clone())["error"]["code"], 1001);
        assert_eq!(raw.ask("hive/task_claim", json!({}))["error"]["code"], 1001);
        let mut proven = claim.clone();
        proven["_meta"] = json!({
            "dev.hivekeeper/token": given["HIVEKEEPER_TOKEN"],
            "dev.hivekeeper/agent": "review/coder",
            "dev.hivekeeper/incarnation": 1,
        });
        assert_eq!(raw.ask("tools/call", proven.clone())["result"]["isError"], false);
        assert_eq!(raw.ask("tools/call", claim.clone())["error"]["code"], 1001, "each request stands alone");
        proven["_meta"]["dev.hivekeeper/token"] = "another".into();
        assert_eq!(raw.ask("tools/call", proven)["error"]["code"], 1001);
        let open = json!({
            "token": given["HIVEKEEPER_TOKEN"], "agent": "review/coder", "incarnation": 1, "protocol": 1,
            "capabilities": { "tool": true }
        });
        assert!(raw.ask("hive/open", open)["result"]["session"].is_string());
        assert_eq!(raw.ask("tools/call", claim)["result"]["structuredContent"], json!({ "tasks": [] }));
        assert_eq!(raw.ask("hive/task_claim", json!({}))["result"], json!({ "tasks": [] }));
        assert_eq!(raw.ask("nonsense", json!({}))["error"]["code"], -32601);
        whole_loop(&mut raw, &address.replace([':', '.'], "-"), "coder", false);
    }
    let log = hive.log();
    assert!(!log.contains(&given["HIVEKEEPER_TOKEN"]), "{log}");
}
