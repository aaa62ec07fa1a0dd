//! Peers and clients that mean harm, against the whole daemon: each is answered or refused by code and counted, and nothing else is disturbed.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
};

use serde_json::{Value, json};

use crate::hive::{Hive, kill, lives, until};

/// An agent without a session, one that keeps a session by `examples/agents/agent.sh`, and one that writes its variables down and sleeps.
fn swarm() -> String {
    format!(
        r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "ticks"
command = ["sh", "-c", "while :; do echo tick; sleep 0.2; done"]
[[swarm.agent]]
name = "talks"
command = ["bash", "{0}/examples/agents/agent.sh"]
[[swarm.agent]]
name = "tells"
command = ["sh", "-c", "env | grep ^HIVEKEEPER_ > env.tmp; mv env.tmp env; exec sleep 1000"]
"#,
        env!("CARGO_MANIFEST_DIR")
    )
}

/// What an agent was given to prove itself.
struct Pass {
    token: String,
    agent: String,
    incarnation: u64,
}

impl Pass {
    /// As the agent that writes its variables down has written them. Taken away, so that the next incarnation's are not mistaken.
    fn take(hive: &Hive) -> Self {
        let path = hive.data().join("work/s/env");
        let text = until("the agent writes its variables", || std::fs::read_to_string(&path).ok());
        std::fs::remove_file(&path).unwrap();
        let of = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
        };
        Self {
            token: of("HIVEKEEPER_TOKEN"),
            agent: of("HIVEKEEPER_AGENT"),
            incarnation: of("HIVEKEEPER_INCARNATION").parse().unwrap(),
        }
    }

    fn open(&self) -> Value {
        json!({"token": self.token, "agent": self.agent, "incarnation": self.incarnation, "protocol": 1})
    }
}

/// One peer on the data plane's port; each read has a deadline.
struct Peer(BufReader<TcpStream>);

impl Peer {
    fn connect(hive: &Hive) -> Self {
        let stream = TcpStream::connect(&hive.data_plane).unwrap();
        stream.set_read_timeout(Some(crate::hive::PATIENCE)).unwrap();
        stream.set_write_timeout(Some(crate::hive::PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    fn tell(&mut self, method: &str, params: &Value) {
        self.send(format!("{}\n", json!({"jsonrpc": "2.0", "method": method, "params": params})));
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.send(format!("{}\n", json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params})));
        self.line()
    }

    #[track_caller]
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Whether the other side has closed and said nothing more.
    fn closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }
}

fn code(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {answer}"))
}

fn data_plane(hive: &Hive) -> Value {
    hive.get("/api/v1/health").body["data_plane"].clone()
}

/// Refusals are folded like everything else, so the document has them a moment later.
#[track_caller]
fn refused(hive: &Hive, count: u64) {
    until(&format!("{count} refusals in the document"), || (data_plane(hive)["refused"] == count).then_some(()));
}

/// What must not change of an agent, whatever is done to others.
fn identity(hive: &Hive, id: &str) -> Value {
    let agent = hive.agent(id);
    json!([agent["pid"], agent["incarnation"], agent["state"], agent["restarts"], agent["dropped"]])
}

/// Waits until the agent's own session has told another heartbeat and another progress.
#[track_caller]
fn still_talks(hive: &Hive) {
    let before = hive.agent("s/talks")["progress"]["value"]["done"].as_u64();
    hive.agent_until("s/talks", "goes on over its session", |agent| {
        agent["last_heartbeat"]["source"] == "agent" && agent["progress"]["value"]["done"].as_u64() > before
    });
}

/// Takes care that every agent is up, and that the talker's session is open.
fn start() -> Hive {
    let hive = Hive::start(&swarm());
    for id in ["s/ticks", "s/talks", "s/tells"] {
        hive.running(id);
    }
    still_talks(&hive);
    hive
}

#[test]
fn rowdy_peers_on_the_port_are_answered_counted_and_disturb_nobody() {
    let hive = start();
    let ids = ["s/ticks", "s/talks", "s/tells"];
    let before = ids.map(|id| identity(&hive, id));
    let mut counted = data_plane(&hive)["refused"].as_u64().unwrap();
    assert_eq!(counted, 0);

    let mut peer = Peer::connect(&hive);
    for noise in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01\x02\x00\xff\n", b"{\"jsonrpc\":\n", b"\xf0\x28\x8c\x28\n"]
    {
        peer.send(noise);
        assert_eq!(code(&peer.line()), -32700);
        counted += 1;
    }
    refused(&hive, counted);

    // Half a line, then the end; and a line that is taken although it comes in two halves.
    let mut half = Peer::connect(&hive);
    half.send("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hive/op");
    half.0.get_ref().shutdown(Shutdown::Write).unwrap();
    assert!(half.closed());
    counted += 1;
    peer.send("{\"jsonrpc\":\"2.0\",\"id\":1,\"meth");
    peer.send("od\":\"hive/open\",\"params\":{}}\n");
    assert_eq!(code(&peer.line()), -32602);
    counted += 1;
    refused(&hive, counted);

    // Two megabytes without a newline are answered before it comes, and the next line is read.
    peer.send(vec![b'x'; 2 * 1024 * 1024]);
    assert_eq!(code(&peer.line()), 1006);
    peer.send("\n[]\n");
    assert_eq!(code(&peer.line()), -32600);
    counted += 2;

    // Deep JSON, as deep as a line before `hive/open` may be long.
    let mut deep = vec![b'['; 60_000];
    deep.push(b'\n');
    peer.send(&deep);
    assert_eq!(code(&peer.line()), -32700);
    counted += 1;
    refused(&hive, counted);

    // Everything but `hive/open` comes too early.
    assert_eq!(code(&peer.ask("eval", &json!({}))), 1001);
    assert_eq!(code(&peer.ask("hive/heartbeat", &json!({}))), 1001);
    counted += 2;

    // Wrong tokens, strange names, numbers that never were.
    let open = |agent: &str, incarnation: u64, protocol: u64| json!({"token": "0".repeat(64), "agent": agent, "incarnation": incarnation, "protocol": protocol});
    for (params, wants) in [
        (open("s/talks", 1, 1), 1002),
        (open("s/nobody", 1, 1), 1002),
        (open("../../etc/passwd", 1, 1), 1002),
        (open("s/talks\u{0}", 1, 1), 1002),
        (open("s/talks", 0, 1), 1003),
        (open("s/talks", 2, 1), 1003),
        (open("s/talks", u64::MAX, 1), 1003),
    ] {
        let mut stranger = Peer::connect(&hive);
        let answer = stranger.ask("hive/open", &params);
        assert_eq!(code(&answer), wants, "{params} {answer}");
        assert!(stranger.closed(), "{params}");
        counted += 1;
    }
    assert_eq!(code(&peer.ask("hive/open", &open("s/talks", 1, 2))), 1004);
    counted += 1;
    refused(&hive, counted);

    still_talks(&hive);
    assert_eq!(ids.map(|id| identity(&hive, id)), before);
    assert_eq!(data_plane(&hive)["sessions"], 1);
    assert_eq!(data_plane(&hive)["dropped"], 0);
    assert!(!hive.log().contains("panic"), "{}", hive.log());
}

#[test]
fn a_token_opens_the_port_itself_and_is_void_with_its_incarnation() {
    let hive = start();
    let talker = identity(&hive, "s/talks");
    let pass = Pass::take(&hive);
    let mut direct = Peer::connect(&hive);
    let opened = direct.ask("hive/open", &pass.open());
    assert!(opened["result"]["session"].is_string(), "{opened}");
    direct.tell("hive/heartbeat", &json!({"progress": {"chapter": 3}}));
    let agent = hive
        .agent_until("s/tells", "shows what was told on the port", |agent| agent["progress"]["value"]["chapter"] == 3);
    assert_eq!((&agent["progress"]["source"], &agent["last_heartbeat"]["source"]), (&json!("agent"), &json!("agent")));
    until("two sessions", || (data_plane(&hive)["sessions"] == 2).then_some(()));
    // Somebody else's token opens nothing, although the incarnation is right.
    let mut other = Peer::connect(&hive);
    let params = json!({"token": pass.token, "agent": "s/talks", "incarnation": 1, "protocol": 1});
    assert_eq!(code(&other.ask("hive/open", &params)), 1002);

    // Two more sessions hang on to the incarnation: one is silent, one speaks as soon as it has ended.
    let mut silent = Peer::connect(&hive);
    assert!(silent.ask("hive/open", &pass.open())["result"].is_object());
    let old = hive.agent_pid("s/tells");
    kill(old, libc::SIGKILL);
    hive.agent_until("s/tells", "is restarted", |agent| agent["incarnation"] == 2 && agent["state"] == "running");
    assert!(!lives(old));
    assert!(silent.closed(), "a session of an incarnation that has ended is closed, also when nobody speaks on it");
    until("the talker's session is the only one", || (data_plane(&hive)["sessions"] == 1).then_some(()));
    // What is written now may find a closed socket; it must never be believed.
    let late = json!({"jsonrpc": "2.0", "method": "hive/heartbeat", "params": {"progress": {"chapter": 4}}});
    let _ = direct.0.get_mut().write_all(format!("{late}\n").as_bytes());

    let mut stale = Peer::connect(&hive);
    assert_eq!(code(&stale.ask("hive/open", &pass.open())), 1003, "the old number");
    assert!(stale.closed());
    let mut stale = Peer::connect(&hive);
    let params = json!({"token": pass.token, "agent": pass.agent, "incarnation": 2, "protocol": 1});
    assert_eq!(code(&stale.ask("hive/open", &params)), 1002, "the old token under the new number");
    assert!(stale.closed());

    let new = Pass::take(&hive);
    assert_ne!(new.token, pass.token);
    let mut direct = Peer::connect(&hive);
    assert!(direct.ask("hive/open", &new.open())["result"].is_object());
    direct.tell("hive/heartbeat", &json!({"progress": {"chapter": 5}}));
    let agent = hive.agent_until("s/tells", "shows the new session", |agent| agent["progress"]["value"].is_object());
    assert_eq!(agent["progress"]["value"]["chapter"], 5, "{agent:#}");

    // A stop ends it for good, and the session with it.
    hive.command("/swarms/s/agents/tells/stop");
    // It was asked to finish first.
    assert_eq!(direct.line()["method"], "hive/drain");
    assert!(direct.closed());
    let mut stale = Peer::connect(&hive);
    assert_eq!(code(&stale.ask("hive/open", &new.open())), 1003);
    still_talks(&hive);
    assert_eq!(identity(&hive, "s/talks"), talker);
    no_secret_in(&hive, &[&pass.token, &new.token]);
}

/// Tokens are in the agent's environment and nowhere else: not in the log, the journal, the run directory.
#[track_caller]
fn no_secret_in(hive: &Hive, secrets: &[&str]) {
    fn look(at: &Path, secrets: &[&str]) {
        for entry in std::fs::read_dir(at).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                look(&entry.path(), secrets);
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                let holds = |secret: &&&str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!secrets.iter().any(|secret| holds(&secret)), "a token is in {}", entry.path().display());
            }
        }
    }
    look(hive.dir.path(), secrets);
}

/// One request as it stands, and the status of its answer; 0 when the connection ended without one.
fn raw(hive: &Hive, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(&hive.http).unwrap();
    stream.set_read_timeout(Some(crate::hive::PATIENCE)).unwrap();
    let _refused_half_way = stream.write_all(request);
    let mut bytes = Vec::new();
    let _reset_behind_the_answer = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, text)
}

#[test]
fn http_clients_that_mean_harm_command_nothing() {
    let hive = start();
    let before = ["s/ticks", "s/talks", "s/tells"].map(|id| identity(&hive, id));
    let host = hive.http.clone();
    let stop = "/api/v1/swarms/s/stop";
    let json = "Content-Type: application/json\r\n";
    let post = |path: &str, headers: &str, body: &str| {
        let head =
            format!("POST {path} HTTP/1.1\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        raw(&hive, format!("{head}{body}").as_bytes())
    };
    let ours = format!("Host: {host}\r\n");

    // A page that had its name rebound to us, a page that posts a form, a request without a Host.
    assert_eq!(post(stop, &format!("Host: evil.example\r\n{json}"), "{}").0, 421);
    assert_eq!(post(stop, json, "{}").0, 400);
    assert_eq!(post(stop, &format!("{ours}{json}Origin: https://evil.example\r\n"), "{}").0, 403);
    assert_eq!(post(stop, &format!("{ours}{json}Origin: null\r\n"), "{}").0, 403);
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
        assert_eq!(post(stop, &format!("{ours}Content-Type: {media_type}\r\n"), "{}").0, 415, "{media_type}");
    }
    assert_eq!(post(stop, &ours, "").0, 415);

    // Bodies: too long, too deep, no UTF-8, two keys, what is no key.
    let well = format!("{ours}{json}");
    let long = format!("{{\"reason\":\"{}\"}}", "x".repeat(1024 * 1024));
    assert_eq!(post(stop, &well, &long).0, 413);
    for body in
        ["[", &"[".repeat(60_000), "{\"grace_ms\":-1}", "{\"grace_ms\":1e400}", "{\"reason\":1}", "{\"a\":1}", "null"]
    {
        let (status, text) = post(stop, &well, body);
        assert_eq!(status, 400, "{text}");
    }
    assert_eq!(post(stop, &well, "{\"grace_ms\":1,\"grace_ms\":2}").0, 400);

    // Deadlines that are none.
    for wait in ["-1s", "1e9s", "forever", "", "30", "99999999999999999999999y", "30s&wait=1s", "%00"] {
        assert_eq!(post(&format!("{stop}?wait={wait}"), &well, "{}").0, 400, "{wait}");
    }

    // Paths: up, doubled, encoded, with NUL, with bytes that are no text, too long.
    for path in [
        "/api/v1/swarms/..%2f..%2fetc/stop",
        "/api/v1/swarms/s%2fstop",
        "/api/v1/swarms/s%00/stop",
        "/api/v1/swarms/%73%00/stop",
        "/api/v1/swarms/../swarms/s/stop",
        "/api/v1//swarms/s/stop",
        "/api/v1/swarms/s/stop/",
        "/api/v1/swarms/%ff/stop",
        "/api/v1/swarms/s/agents/..%2fticks/stop",
        &format!("/api/v1/swarms/{}/stop", "s".repeat(5000)),
    ] {
        let (status, text) = post(path, &well, "{}");
        // 405: as a name of one segment it is the path of a swarm, which takes no POST.
        assert!(matches!(status, 400 | 404 | 405), "{path}: {status} {text}");
    }
    for path in [
        "/api/v1/swarms/s/agents/ticks/logs?tail=-1",
        "/api/v1/swarms/s/agents/ticks/logs?limit=999999999",
        "/api/v1/events?after=x",
        "/api/v1/swarms/s/agents/ticks/logs?since=soon",
    ] {
        assert_eq!(hive.get(path).status, 400, "{path}");
    }
    assert_eq!(hive.get("/api/v1/swarms/s/agents/..%2f..%2fhive.db/logs").status, 404);
    // It is the file's.
    let delete = format!("DELETE /api/v1/swarms/s HTTP/1.1\r\n{ours}Connection: close\r\n\r\n");
    assert_eq!(raw(&hive, delete.as_bytes()).0, 409);

    // A head that never ends holds nobody up, and is cut off.
    let mut slow = TcpStream::connect(&host).unwrap();
    slow.set_read_timeout(Some(crate::hive::PATIENCE)).unwrap();
    slow.write_all(format!("POST {stop} HTTP/1.1\r\n{ours}X-Slow: ").as_bytes()).unwrap();
    assert_eq!(hive.get("/livez").status, 200);
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.starts_with("HTTP/1.1 408 "), "{rest}");

    // Nothing of this was a command.
    assert_eq!(hive.get("/api/v1/operations").body.to_string().matches("\"kind\"").count(), 0);
    assert_eq!(["s/ticks", "s/talks", "s/tells"].map(|id| identity(&hive, id)), before);
}

#[test]
fn a_key_that_is_used_again_is_the_same_operation_or_none() {
    let hive = start();
    let host = &hive.http;
    let post = |path: &str, key: &str| {
        let request = format!(
            "POST /api/v1{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let (status, text) = raw(&hive, request.as_bytes());
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        (status, serde_json::from_str::<Value>(&body).unwrap_or_else(|_| panic!("{text}")))
    };
    let ticks = hive.agent_pid("s/ticks");
    let (status, first) = post("/swarms/s/agents/ticks/restart?wait=60s", "k1");
    assert_eq!((status, &first["state"]), (200, &json!("succeeded")), "{first:#}");
    let restarted = hive.agent_pid("s/ticks");
    assert_ne!(restarted, ticks);
    let (status, again) = post("/swarms/s/agents/ticks/restart?wait=60s", "k1");
    assert_eq!((status, &again["id"]), (200, &first["id"]));
    assert_eq!(hive.agent_pid("s/ticks"), restarted, "a request that is sent again restarts nothing again");
    // The same key for something else commands nothing.
    let (status, reused) = post("/swarms/s/stop?wait=60s", "k1");
    assert!((400..500).contains(&status), "{status} {reused:#}");
    assert!(reused["code"].as_str().is_some_and(|code| code.contains("key")), "{reused:#}");
    assert_eq!(hive.agent("s/ticks")["state"], "running");
    for key in ["", &"k".repeat(10_000)] {
        let (status, body) = post("/swarms/s/stop", key);
        assert_eq!(status, 400, "{body:#}");
    }
    // Twenty at once with one key are one restart.
    let ids: Vec<Value> = std::thread::scope(|scope| {
        let sent: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| post("/swarms/s/agents/ticks/restart?wait=60s", "k2").1["id"].clone()))
            .collect();
        sent.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| id.is_string() && *id == ids[0]), "{ids:?}");
    assert_eq!(hive.running("s/ticks")["incarnation"], 3);
}
