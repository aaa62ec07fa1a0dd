//! `docs/asyncapi.yaml`, held against the code: names, codes and limits against the sources and constants, schemas against what a real daemon
//! says, examples against what it takes.

mod parser;
mod schema;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
};

use hivekeeper::{
    data_plane::PlaneLimits,
    stream::StreamLimits,
    wire::{
        lines::LINE_BYTES_MAX,
        rpc::{Code, DEPTH_MAX, ID_BYTES_MAX, Id, TOOL_CODES, write_error, write_request, write_tool_error},
    },
};
use serde_json::{Value, json};

use self::schema::Schemas;
use crate::hive::{Hive, PATIENCE, until};

fn document() -> Value {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/asyncapi.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// The schema of a message's payload must take this value.
#[track_caller]
fn fits(document: &Value, message: &str, value: &Value) {
    let schema = &document["components"]["messages"][message]["payload"];
    assert!(!schema.is_null(), "{message} is not described");
    let wrong = Schemas(document).judge(schema, value);
    assert!(wrong.is_empty(), "{message}: {wrong:#?}\nin {value:#}");
}

fn texts(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// The names of the messages of a channel.
fn messages(document: &Value, channel: &str) -> BTreeSet<String> {
    document["channels"][channel]["messages"].as_object().unwrap().keys().cloned().collect()
}

fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a str)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        Value::Object(members) => {
            if let Some(Value::String(to)) = members.get("$ref") {
                visit(to);
            }
            members.values().for_each(|member| walk(member, visit));
        }
        _ => {}
    }
}

#[test]
fn the_document_hangs_together() {
    let document = document();
    assert_eq!(document["asyncapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut led_to = BTreeSet::new();
    walk(&document, &mut |to| {
        assert!(document.pointer(&to[1..]).is_some(), "{to} leads nowhere");
        led_to.insert(to.to_owned());
    });
    for kind in ["messages", "schemas"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(led_to.contains(&format!("#/components/{kind}/{name}")), "nothing uses {kind}/{name}");
        }
    }
    for channel in ["data_plane", "hybrid_health"] {
        for name in messages(&document, channel) {
            assert!(led_to.contains(&format!("#/channels/{channel}/messages/{name}")), "no operation has {name}");
        }
    }
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        for example in message["examples"].as_array().into_iter().flatten() {
            fits(&document, name, &example["payload"]);
        }
    }
}

/// Every piece of text in our sources that looks like a method's name; tests say more than the code takes, and are left out.
fn methods_in_sources() -> BTreeSet<String> {
    fn collect(dir: &Path, into: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") {
                collect(&path, into);
            } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                for piece in code.split("\"hive/").skip(1) {
                    into.insert(format!("hive/{}", piece.split('"').next().unwrap()));
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/data_plane"), &mut found);
    found
}

#[test]
fn every_method_of_the_data_plane_is_described() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let described: BTreeSet<String> = schemas
        .values()
        .filter_map(|schema| schema["properties"]["method"]["const"].as_str())
        .map(str::to_owned)
        .collect();
    assert_eq!(described, methods_in_sources());
    let mut in_batches = described.clone();
    in_batches.retain(|method| {
        !["hive/open", "hive/batch", "hive/drain", "hive/ping", "hive/progress"].contains(&method.as_str())
    });
    let items = &schemas["batch"]["properties"]["params"]["properties"]["notifications"]["items"];
    assert_eq!(texts(&items["properties"]["method"]["enum"]), in_batches);
}

#[test]
fn every_code_is_described_by_its_number_and_its_word() {
    let document = document();
    let alternatives = document["components"]["schemas"]["code"]["oneOf"].as_array().unwrap();
    let described: BTreeMap<i64, &str> = alternatives
        .iter()
        .map(|one| &one["properties"])
        .map(|one| (one["code"]["const"].as_i64().unwrap(), one["message"]["const"].as_str().unwrap()))
        .collect();
    assert_eq!(described, Code::ALL.iter().map(|code| (code.number(), code.word())).collect());
    let written = |out: Vec<u8>| serde_json::from_slice::<Value>(&out).unwrap();
    for code in Code::ALL {
        for detail in ["", "why"] {
            let mut out = Vec::new();
            write_error(&mut out, Id::NULL, code, detail);
            fits(&document, "refused", &written(out));
        }
    }
    for (message, method) in [("drain", "hive/drain"), ("ping", "hive/ping")] {
        let mut out = Vec::new();
        write_request(&mut out, 12, method);
        fits(&document, message, &written(out));
    }
    for (_, word) in TOOL_CODES.iter().chain(&[(0, "without_a_number")]) {
        let mut out = Vec::new();
        write_tool_error(&mut out, Id::NULL, word, "why");
        fits(&document, "tool_refused", &written(out));
    }
}

#[test]
fn limits_are_those_of_the_code() {
    let document = document();
    let ms = |duration: std::time::Duration| json!(u64::try_from(duration.as_millis()).unwrap());
    let limits = PlaneLimits::default();
    let plane = &document["channels"]["data_plane"]["x-limits"];
    assert_eq!(plane["line_bytes_max"], LINE_BYTES_MAX);
    assert_eq!(plane["depth_max"], DEPTH_MAX);
    assert_eq!(plane["id_bytes_max"], ID_BYTES_MAX);
    assert_eq!(plane["open_deadline_ms"], ms(limits.open_deadline));
    assert_eq!(plane["ping_after_ms"], ms(limits.ping_after));
    assert_eq!(plane["silence_max_ms"], ms(limits.silence_max));
    let limits = StreamLimits::default();
    let socket = &document["channels"]["hybrid_health"]["x-limits"];
    assert_eq!(socket["client_message_bytes_max"], limits.frame_bytes_max);
    assert_eq!(socket["ping_interval_ms"], ms(limits.ping_interval));
    assert!(
        limits.ping_interval + limits.answer_within
            <= std::time::Duration::from_millis(socket["dropped_within_ms"].as_u64().unwrap())
    );
}

#[test]
fn close_codes_are_those_that_the_socket_gives() {
    let numbers = BTreeMap::from([
        ("Away", "1001"),
        ("Protocol", "1002"),
        ("Unsupported", "1003"),
        ("Invalid", "1007"),
        ("Policy", "1008"),
        ("Size", "1009"),
        ("Error", "1011"),
        ("Again", "1013"),
    ]);
    let viewer = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stream/viewer.rs")).unwrap();
    let given =
        viewer.split("CloseCode::").skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap());
    let given: BTreeSet<String> = given.map(|word| numbers[word].to_owned()).collect();
    let described =
        document()["channels"]["hybrid_health"]["x-close-codes"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(given, described);
}

/// What the answer to `hive/open` allows.
const CALLS: usize = 32;

const SWARM: &str = r#"
[[swarm]]
name = "demo"
[[swarm.agent]]
name = "tells"
command = ["sh", "-c", "env | grep ^HIVEKEEPER_ > env.tmp; mv env.tmp env; exec sleep 1000"]
[[swarm.agent]]
name = "ends"
command = ["sh", "-c", "echo last words; exit 3"]
restart = "temporary"
"#;

struct Peer(BufReader<TcpStream>);

impl Peer {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    #[track_caller]
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    #[track_caller]
    fn ask(&mut self, message: &Value) -> Value {
        self.send(&message.to_string());
        self.line()
    }
}

/// What the agent `tells` was given.
fn variables(hive: &Hive) -> BTreeMap<String, String> {
    let path = hive.data().join("work/demo/env");
    let text = until("the agent writes its variables", || fs::read_to_string(&path).ok());
    text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn the_data_plane_takes_the_examples_and_answers_as_described() {
    let document = document();
    let hive = Hive::start(SWARM);
    hive.running("demo/tells");
    let of = variables(&hive);
    let example = |name: &str| document["components"]["messages"][name]["examples"][0]["payload"].clone();
    let mut open = example("open");
    let params = json!({
        "token": of["HIVEKEEPER_TOKEN"], "agent": of["HIVEKEEPER_AGENT"],
        "incarnation": of["HIVEKEEPER_INCARNATION"].parse::<u64>().unwrap(), "protocol": 1, "capabilities": {},
    });
    // The example has no other members than the real one.
    assert_eq!(
        open["params"].as_object().unwrap().keys().collect::<Vec<_>>(),
        params.as_object().unwrap().keys().collect::<Vec<_>>()
    );
    open["params"] = params;
    fits(&document, "open", &open);

    let mut seen = BTreeSet::new();
    let mut refused = |answer: Value, code: i64| {
        fits(&document, "refused", &answer);
        assert_eq!(answer["error"]["code"], code, "{answer}");
        seen.insert(code);
    };
    let connect = || Peer::connect(&hive.data_plane);
    let mut peer = connect();
    refused(peer.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "hive/heartbeat"})), 1001);
    let unopened = document["channels"]["data_plane"]["x-limits"]["line_bytes_max_before_open"].as_u64().unwrap();
    let long = |bytes: u64| " ".repeat(usize::try_from(bytes).unwrap());
    peer.send(&long(unopened + 1));
    refused(peer.line(), 1006);
    // Blank, and so passed over, as long as it is within the limit.
    peer.send(&long(unopened));
    let with = |name: &str, value: Value| {
        let mut other = open.clone();
        other["params"][name] = value;
        other
    };
    refused(peer.ask(&with("protocol", json!(2))), 1004);
    refused(connect().ask(&with("token", json!("guess"))), 1002);
    refused(connect().ask(&with("incarnation", json!(99))), 1003);
    fits(&document, "opened", &peer.ask(&open));

    for message in ["heartbeat", "log", "metric", "usage", "event", "batch"] {
        for example in document["components"]["messages"][message]["examples"].as_array().unwrap() {
            let mut asked = example["payload"].clone();
            asked["id"] = json!(7);
            let answer = peer.ask(&asked);
            fits(&document, "accepted", &answer);
            peer.send(&example["payload"].to_string());
        }
    }
    peer.send("no json");
    refused(peer.line(), -32700);
    peer.send("[]");
    refused(peer.line(), -32600);
    refused(peer.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "hive/nothing"})), -32601);
    for example in document["components"]["messages"]["call"]["examples"].as_array().unwrap() {
        // Nothing is ready here, so each waits for as long as it says.
        let mut call = example["payload"].clone();
        call["params"]["wait_ms"] = json!(1_500);
        fits(&document, "progress", &peer.ask(&call));
        fits(&document, "called", &peer.line());
        call["params"]["max"] = json!("many");
        fits(&document, "tool_refused", &peer.ask(&call));
    }
    let most = u64::try_from(CALLS).unwrap();
    let waits = |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "hive/task_claim", "params": {"wait_ms": 600}});
    (0..most).for_each(|id| peer.send(&waits(id).to_string()));
    refused(peer.ask(&waits(most)), 1008);
    let answered: BTreeSet<u64> = (0..most).filter_map(|_| peer.line()["id"].as_u64()).collect();
    assert_eq!(answered, (0..most).collect());
    refused(peer.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "hive/log", "params": {}})), -32602);
    // A name as long as described passes, one byte more does not.
    let name = document["channels"]["data_plane"]["x-limits"]["name_bytes_max"].as_u64().unwrap();
    let metric = |n: u64| json!({"jsonrpc": "2.0", "id": 1, "method": "hive/metric", "params": {"name": "n".repeat(usize::try_from(n).unwrap()), "value": 1}});
    fits(&document, "accepted", &peer.ask(&metric(name)));
    refused(peer.ask(&metric(name + 1)), -32602);
    let burst = document
        .pointer("/components/schemas/opened/properties/result/properties/limits/properties/notifications_burst/const");
    let flood = vec![
        json!({"method": "hive/log", "params": {"line": ""}});
        usize::try_from(burst.unwrap().as_u64().unwrap() / 2 + 1).unwrap()
    ];
    let flood = json!({"jsonrpc": "2.0", "method": "hive/batch", "params": {"notifications": flood}}).to_string();
    assert!(flood.len() < LINE_BYTES_MAX);
    let answer = until("a flood is refused", || {
        peer.send(&flood);
        peer.send(&flood);
        let answer = peer.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "hive/log", "params": {"line": "x"}}));
        answer.get("error").is_some().then_some(answer)
    });
    refused(answer, 1005);
    // Every code but the one of the end, which no peer can bring about.
    let all: BTreeSet<i64> = Code::ALL.iter().map(|code| code.number()).filter(|code| *code != 1007).collect();
    assert_eq!(seen, all);

    let stop = hive.client();
    let stopping = std::thread::spawn(move || stop.post("/api/v1/swarms/demo/agents/tells/stop?wait=60s", json!({})));
    let asked = peer.line();
    fits(&document, "drain", &asked);
    assert_eq!(stopping.join().unwrap().status, 200);
}

#[test]
fn the_socket_takes_the_examples_and_its_frames_are_as_described() {
    let document = document();
    let hive = Hive::start(SWARM);
    hive.running("demo/tells");
    hive.agent_until("demo/ends", "ends", |agent| agent["state"] == "failed");
    let of = variables(&hive);
    let mut peer = Peer::connect(&hive.data_plane);
    let incarnation: u64 = of["HIVEKEEPER_INCARNATION"].parse().unwrap();
    peer.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "hive/open",
        "params": {"token": of["HIVEKEEPER_TOKEN"], "agent": of["HIVEKEEPER_AGENT"], "incarnation": incarnation, "protocol": 1}}));
    peer.send(&json!({"jsonrpc": "2.0", "method": "hive/heartbeat", "params": {"progress": {"done": 3}}}).to_string());

    let mut viewer = hive.viewer();
    for message in ["subscribe", "unsubscribe", "request_status", "request_performance", "client_ping"] {
        for example in document["components"]["messages"][message]["examples"].as_array().unwrap() {
            // What resumes from a number of another hive would only bring a gap.
            if example["payload"].get("after").is_none() {
                viewer.send(example["payload"].clone());
            }
        }
    }
    viewer.send(json!({"type": "subscribe", "subscriptions": ["status", "sessions", "performance"], "swarms": []}));
    viewer.send(json!({"type": "nothing"}));
    viewer.send(json!({"type": "ping", "more": 1}));
    viewer.send(json!(7));
    let sent = messages(&document, "hybrid_health");
    let from_clients: BTreeSet<String> =
        ["subscribe", "unsubscribe", "request_status", "request_performance", "client_ping"].map(str::to_owned).into();
    let wanted: BTreeSet<String> = sent.difference(&from_clients).cloned().collect();
    let (mut seen, mut objections, mut allowed) = (BTreeSet::new(), BTreeSet::new(), None);
    let mut with_progress = false;
    let mut with_exit = false;
    until("every kind of frame", || {
        let frame = viewer.next();
        let kind = frame["type"].as_str().unwrap().to_owned();
        fits(&document, &kind, &frame);
        for agent in frame["agents"].as_array().into_iter().flatten() {
            with_progress |= agent["progress"]["value"]["done"] == 3;
            with_exit |= agent["last_exit"]["code"] == 3;
        }
        if kind == "error" {
            objections.insert(frame["code"].as_str().unwrap().to_owned());
            let message = frame["message"].as_str().unwrap();
            allowed = message.split_once("allowed are ").map(|(_, list)| list.to_owned()).or(allowed.take());
        }
        seen.insert(kind);
        (seen == wanted && with_progress && with_exit && objections.len() == 2).then_some(())
    });
    // What the daemon itself says that it takes.
    let takes: BTreeSet<String> = allowed.unwrap().split(", ").map(str::to_owned).collect();
    let described = from_clients.iter().map(|name| {
        let schema = &document["components"]["schemas"][name]["properties"]["type"]["const"];
        schema.as_str().unwrap().to_owned()
    });
    assert_eq!(takes, described.collect());
}
