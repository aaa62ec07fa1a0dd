//! The MCP room over a real desk, without a daemon: what a client of either era sees on a connection of lines and by HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{sync::Arc, time::Duration};

use hivekeeper::{
    coordination::{Desk, WorkChanges, WorkWitness},
    mcp::{Claimed, Deaf, Endpoint, Mcp, Talk},
    model::{AgentId, AgentName, HiveHealth, Party, SwarmHealth, SwarmName},
    store::{DataDir, Options, SqliteJournal},
    tools::{self, Caller, Effect, House, Tools},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::http_desk;

const SOON: Duration = Duration::from_secs(10);
const MODERN: &str = "2026-07-28";
const ERAS: [Option<&str>; 4] = [None, Some("2025-11-25"), Some("2025-06-18"), Some("2025-03-26")];
const TOKEN: &str = "the-secret-of-an-incarnation";

/// A hive with one swarm and one agent that lives.
struct Home(http_desk::Desk);

impl House for Home {
    fn agents(&self, swarm: &SwarmName) -> Option<Vec<AgentName>> {
        (swarm.as_str() == "review").then(|| vec!["coder".parse().unwrap()])
    }

    fn lives(&self, _: &AgentId, incarnation: u64) -> bool {
        incarnation == 1
    }

    fn hive(&self) -> Arc<HiveHealth> {
        hivekeeper::http::HealthReader::hive(&self.0)
    }

    fn swarm(&self, name: &SwarmName) -> Option<Arc<SwarmHealth>> {
        hivekeeper::http::HealthReader::swarm(&self.0, name)
    }
}

struct Nobody;

impl WorkWitness for Nobody {
    fn changed(&self, _: &WorkChanges) {}
}

/// A desk with a clerk who works.
struct Office {
    mcp: Mcp,
    _dir: tempfile::TempDir,
}

impl Office {
    fn open() -> Self {
        let dir = tempfile::Builder::new().prefix("hk").tempdir_in("/tmp").unwrap();
        let data = DataDir::open(dir.path(), "test", Options::default()).unwrap();
        let journal = SqliteJournal::open(&data.database(), data.epoch()).unwrap();
        let (desk, clerk) = Desk::new(Arc::new(journal), Arc::new(Nobody));
        tokio::spawn(async move {
            let _data = data;
            clerk.run().await
        });
        Self { mcp: Mcp::new(Tools::new(desk, Arc::new(Home(http_desk::Desk::new())))), _dir: dir }
    }
}

fn coder() -> Party {
    Party { id: "review/coder".parse().unwrap(), incarnation: Some(1) }
}

/// A client of lines that we wrote. In the newest revision each request says all that it needs.
struct Client {
    talk: Talk,
    era: Option<&'static str>,
    who: Option<Party>,
    meta: Value,
    last: u64,
    told: Vec<Value>,
}

impl Client {
    async fn new(office: &Office, era: Option<&'static str>, who: Option<Party>) -> Self {
        let talk = Talk::new(office.mcp.clone());
        let mut client = Self { talk, era, who, meta: json!({}), last: 0, told: Vec::new() };
        if let Some(version) = era {
            let client_info = json!({ "name": "ours", "version": "1" });
            let hello = json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": client_info });
            let said = client.ask("initialize", hello).await;
            assert_eq!(said["result"]["protocolVersion"], version, "{said}");
            assert_eq!(said["result"]["serverInfo"]["name"], "hivekeeper");
            client.tell("notifications/initialized", json!({}));
        }
        client
    }

    fn hear(&mut self, line: &Value) -> Result<(), Deaf> {
        let prove = |claimed: &Claimed| claimed.token == TOKEN && claimed.agent == coder().id;
        self.talk.hear(line.to_string().as_bytes(), self.who.clone(), prove)
    }

    fn tell(&mut self, method: &str, params: Value) {
        self.hear(&json!({ "jsonrpc": "2.0", "method": method, "params": params })).unwrap();
    }

    fn send(&mut self, method: &str, mut params: Value) -> u64 {
        self.last += 1;
        let mut meta = self.meta.clone();
        if self.era.is_none() {
            meta["io.modelcontextprotocol/protocolVersion"] = MODERN.into();
            meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
        }
        if meta != json!({}) {
            params["_meta"] = meta;
        }
        let id = self.last;
        self.hear(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).unwrap();
        id
    }

    async fn answer(&mut self, id: u64) -> Value {
        loop {
            let line = timeout(SOON, self.talk.next()).await.expect("no line in time").expect("the end");
            assert_eq!(line.last(), Some(&b'\n'));
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let said: Value = serde_json::from_slice(&line).unwrap();
            if said["id"] == id {
                return said;
            }
            self.told.push(said);
        }
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params);
        self.answer(id).await
    }

    async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }
}

#[tokio::test]
async fn both_eras_see_the_same_tools_with_what_each_does() {
    let office = Office::open();
    for era in ERAS {
        let mut client = Client::new(&office, era, Some(coder())).await;
        if era.is_none() {
            let discovered = client.ask("server/discover", json!({})).await;
            assert!(discovered["result"]["supportedVersions"].as_array().unwrap().contains(&MODERN.into()));
            assert!(discovered["result"]["instructions"].as_str().unwrap().contains("fence"), "{discovered}");
        }
        let listed = client.ask("tools/list", json!({})).await;
        let listed = listed["result"]["tools"].as_array().unwrap();
        assert_eq!(listed.len(), tools::all().count());
        for (shown, tool) in listed.iter().zip(tools::all()) {
            assert_eq!(shown["name"], tool.name);
            assert_eq!(
                (&shown["inputSchema"]["type"], &shown["outputSchema"]["type"]),
                (&json!("object"), &json!("object"))
            );
            assert_eq!(shown["annotations"]["readOnlyHint"], tool.effect == Effect::Reads);
            assert_eq!(shown["annotations"]["openWorldHint"], false);
        }
    }
}

#[tokio::test]
async fn an_answer_is_structured_and_text_and_a_refusal_is_a_result_that_names_its_code() {
    let office = Office::open();
    for era in ERAS {
        let mut client = Client::new(&office, era, Some(coder())).await;
        let said = client.call("task_claim", json!({})).await;
        let result = &said["result"];
        assert_eq!(
            (&result["structuredContent"], &result["isError"]),
            (&json!({ "tasks": [] }), &json!(false)),
            "{said}"
        );
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, result["structuredContent"]);
        let said = client.call("task_claim", json!({ "max": "many" })).await;
        let result = &said["result"];
        assert_eq!((&result["isError"], result.get("structuredContent")), (&json!(true), None), "{said}");
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text["code"], "invalid_work", "{said}");
        let said = client.call("no_such_tool", json!({})).await;
        assert_eq!(said["error"]["code"], -32602, "{said}");
        let said = client.ask("prompts/list", json!({})).await;
        assert_eq!(said["error"]["code"], -32601, "{said}");
    }
}

#[tokio::test]
async fn who_is_not_known_may_look_at_the_list_and_no_further_unless_the_request_proves_who_asks() {
    let office = Office::open();
    for era in ERAS {
        let mut client = Client::new(&office, era, None).await;
        assert!(client.ask("tools/list", json!({})).await["result"]["tools"].is_array());
        for method in ["tools/call", "resources/list"] {
            let said = client.ask(method, json!({ "name": "task_claim", "arguments": {} })).await;
            assert_eq!(said["error"]["code"], 1001, "{said}");
        }
        let named = json!({ "dev.hivekeeper/token": TOKEN, "dev.hivekeeper/agent": "review/coder", "dev.hivekeeper/incarnation": "1" });
        client.meta = named.clone();
        assert_eq!(client.call("task_claim", json!({})).await["result"]["isError"], false);
        for (key, wrong) in [
            ("dev.hivekeeper/token", json!("another")),
            ("dev.hivekeeper/agent", json!("review/other")),
            ("dev.hivekeeper/incarnation", json!(null)),
        ] {
            client.meta = named.clone();
            client.meta[key] = wrong;
            let said = client.call("task_claim", json!({})).await;
            assert_eq!(said["error"]["code"], 1001, "{key}: {said}");
        }
        // One that says nothing is not the one before.
        client.meta = json!({});
        assert_eq!(client.call("task_claim", json!({})).await["error"]["code"], 1001);
    }
}

#[tokio::test]
async fn a_long_wait_tells_of_itself_and_can_be_cancelled() {
    let office = Office::open();
    for era in [None, Some("2025-06-18")] {
        let mut client = Client::new(&office, era, Some(coder())).await;
        client.meta["progressToken"] = "mine".into();
        let began = std::time::Instant::now();
        let said = client.call("task_claim", json!({ "wait_ms": 1200 })).await;
        assert_eq!(said["result"]["structuredContent"], json!({ "tasks": [] }));
        assert!(began.elapsed() >= Duration::from_millis(1200));
        let told = &client.told[0];
        assert_eq!(told["method"], "notifications/progress", "{told}");
        assert_eq!(told["params"]["progressToken"], "mine");
        assert!(told["params"]["message"].as_str().unwrap().contains("a task"), "{told}");
        client.meta = json!({});
        let waiting = client.send("tools/call", json!({ "name": "task_claim", "arguments": { "wait_ms": 300_000 } }));
        assert!(client.talk.waits());
        client.tell("notifications/cancelled", json!({ "requestId": waiting }));
        assert!(client.ask("tools/list", json!({})).await["result"].is_object());
        timeout(SOON, async {
            while client.talk.waits() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("the call goes on");
        assert!(client.told.iter().all(|told| told["id"] != waiting), "what was cancelled has no answer");
    }
}

#[tokio::test]
async fn calls_of_one_conversation_are_bounded_and_end_with_it() {
    let office = Office::open();
    let mut client = Client::new(&office, None, Some(coder())).await;
    let waits = json!({ "name": "task_claim", "arguments": { "wait_ms": 300_000 } });
    for _ in 0..32 {
        client.send("tools/call", waits.clone());
    }
    let more = json!({ "jsonrpc": "2.0", "id": "more", "method": "tools/list" });
    assert_eq!(client.hear(&more), Err(Deaf::Busy));
    client.tell("notifications/cancelled", json!({ "requestId": 1 }));
    timeout(SOON, async {
        while client.hear(&more).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("no place becomes free");
    assert!(timeout(SOON, client.talk.next()).await.unwrap().is_some());
    drop(client);
    let metrics = tokio::runtime::Handle::current().metrics();
    timeout(SOON, async {
        // The clerk's.
        while metrics.num_alive_tasks() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("tasks are left");
}

#[tokio::test]
async fn what_is_no_message_of_mcp_is_not_taken_and_what_needs_no_answer_gets_none() {
    let office = Office::open();
    let mut client = Client::new(&office, None, Some(coder())).await;
    assert_eq!(client.talk.hear(b"{\"jsonrpc\":\"2.0\",\"id\":1}", None, |_| false), Err(Deaf::Malformed));
    // Before any request these would end a conversation of rmcp's.
    client.tell("notifications/initialized", json!({}));
    client.tell("notifications/cancelled", json!({ "requestId": 7 }));
    client.hear(&json!({ "jsonrpc": "2.0", "id": 9, "result": {} })).unwrap();
    assert!(client.ask("tools/list", json!({})).await["result"].is_object());
    assert!(client.told.is_empty(), "{:?}", client.told);
}

/// A POST of one message; status and body.
async fn post(endpoint: &Endpoint, caller: Caller, version: &str, message: &Value) -> (u16, Vec<Value>) {
    let method = message["method"].as_str().unwrap_or_default();
    let name = message["params"]["name"].as_str().or(message["params"]["uri"].as_str()).unwrap_or_default();
    let headers = [
        ("host", "127.0.0.1:8080"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", version),
        ("mcp-method", method),
        ("mcp-name", name),
    ];
    let headers = headers.into_iter().filter(|(_, value)| !value.is_empty());
    let bytes = headers.map(|(name, value)| (name, value.as_bytes()));
    let mut reply = endpoint.post(caller, bytes, message.to_string().into()).await;
    let kind = reply.headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.clone());
    let mut body = Vec::new();
    while let Some(piece) = timeout(SOON, reply.flow.next()).await.expect("the body has no end") {
        body.extend_from_slice(&piece);
    }
    let text = String::from_utf8(body).unwrap();
    let said = match kind.as_deref() {
        Some(b"text/event-stream") => text
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect(),
        Some(b"application/json") => vec![serde_json::from_str(&text).unwrap()],
        _ => Vec::new(),
    };
    (reply.status, said)
}

fn message(version: &str, method: &str, mut params: Value) -> Value {
    if version == MODERN {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = MODERN.into();
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    }
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

#[tokio::test]
async fn by_http_each_request_stands_alone_in_both_eras() {
    let office = Office::open();
    let endpoint = Endpoint::new(office.mcp.clone());
    let control = Caller::Client { control: true };
    for version in [MODERN, "2025-11-25", "2025-06-18", "2025-03-26"] {
        if version != MODERN {
            let hello = json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": { "name": "ours", "version": "1" } });
            let (status, said) =
                post(&endpoint, control.clone(), version, &message(version, "initialize", hello)).await;
            assert_eq!((status, &said[0]["result"]["protocolVersion"]), (200, &json!(version)), "{said:?}");
            let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
            assert_eq!(post(&endpoint, control.clone(), version, &initialized).await, (202, Vec::new()));
        }
        let claim = json!({ "name": "task_claim", "arguments": { "swarm": "review", "agent": "me" } });
        let (status, said) =
            post(&endpoint, control.clone(), version, &message(version, "tools/call", claim.clone())).await;
        assert_eq!((status, &said[0]["result"]["structuredContent"]), (200, &json!({ "tasks": [] })), "{said:?}");
        let reader = Caller::Client { control: false };
        let (status, said) = post(&endpoint, reader, version, &message(version, "tools/call", claim)).await;
        assert_eq!((status, &said[0]["result"]["isError"]), (200, &json!(true)), "{said:?}");
        assert!(said[0]["result"]["content"][0]["text"].as_str().unwrap().contains("read_only"), "{said:?}");
        let slow = json!({ "name": "task_claim", "_meta": { "progressToken": 5 }, "arguments": { "swarm": "review", "agent": "me", "wait_ms": 1200 } });
        let (status, said) = post(&endpoint, control.clone(), version, &message(version, "tools/call", slow)).await;
        assert_eq!((status, said.len()), (200, 2), "{said:?}");
        assert_eq!(said[0]["params"]["progressToken"], 5);
        assert_eq!(said[1]["result"]["isError"], false);
    }
}

#[tokio::test]
async fn a_stream_by_http_ends_when_the_endpoint_closes() {
    let office = Office::open();
    let endpoint = Endpoint::new(office.mcp.clone());
    let slow = json!({ "name": "task_claim", "_meta": { "progressToken": 5 }, "arguments": { "swarm": "review", "agent": "me", "wait_ms": 300_000 } });
    let line = message(MODERN, "tools/call", slow);
    let asking = post(&endpoint, Caller::Client { control: true }, MODERN, &line);
    let closing = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        endpoint.close();
    };
    let ((status, said), ()) = timeout(SOON, async { tokio::join!(asking, closing) }).await.expect("it goes on");
    assert_eq!((status, &said[0]["method"]), (200, &json!("notifications/progress")));
}
