//! MCP on a whole daemon, by each of its doors, with a client of lines that we wrote: the whole loop of an agent, and what becomes of calls whose door or
//! daemon goes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde_json::{Value, json};

use crate::hive::{Hive, PATIENCE, until};

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
        let (said, lines) = mpsc::channel();
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
