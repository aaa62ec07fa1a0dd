//! Viewers that others wrote, on the daemon itself: Python's `websockets`, npm's `ws`, and a browser's own `WebSocket` and `EventSource`. Agents come
//! and go meanwhile, and the viewers come back after 1, 100 and 100,000 missed events. They are installed below `target/`, so they run with
//! `tests/run --long`; the same rules have tests without them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use hivekeeper::events::RING_EVENTS_MAX;
use serde_json::{Value, json};

use crate::{
    harness::{
        outside::{command, home, long, npm, succeed},
        skipped,
        web_page::{Asked, Browser, Gateway},
    },
    hive::{Hive, PATIENCE, until, until_within},
};

const MISSED: [u64; 3] = [1, 100, 100_000];

/// Agents that say much at once. An agent may say 500 things, and 10 a second then, so these reach 100,000 the first time at once and the second
/// time in a minute.
const CHATTERERS: u64 = 200;
const SAID_AT_ONCE: usize = 500;

/// A client's whole run takes seconds, its start on a busy machine some more.
const CLIENT_WAIT: Duration = Duration::from_secs(120);

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients")
}

/// A daemon with agents that come and go several times a second, and some that say what they are told to.
struct Busy {
    hive: Hive,
}

impl Busy {
    /// `host` is another name for it.
    fn start(host: Option<&str>) -> Self {
        let mut hive = Hive::prepare("");
        let token = hive.file("token-");
        let tell = format!("echo $HIVEKEEPER_TOKEN >{}${{HIVEKEEPER_AGENT#*/}}; exec sleep 1000", token.display());
        hive.configure(&format!(
            r#"[[swarm]]
name = "changing"
intensity = 1000
period = "1s"
backoff = {{ initial = "50ms", then = "50ms", factor = 1.0, max = "50ms", jitter = 0.0 }}
[[swarm.agent]]
name = "one"
command = ["sleep", "0.1"]
[[swarm.agent]]
name = "two"
command = ["sleep", "0.2"]
[[swarm]]
name = "crowd"
[[swarm.agent]]
name = "says"
replicas = {CHATTERERS}
command = ["sh", "-c", {tell:?}]
"#
        ));
        let config = std::fs::read_to_string(hive.config()).unwrap();
        let hosts = format!("[http]\nhosts = {}\n", json!(host.as_slice()));
        std::fs::write(hive.config(), config.replace("[http]\n", &hosts)).unwrap();
        hive.boot();
        let me = Self { hive };
        until_within(PATIENCE * 2, "the crowd is there", || me.token(CHATTERERS));
        me
    }

    fn address(&self) -> &str {
        self.hive.http.trim_start_matches("http://")
    }

    fn token(&self, n: u64) -> Option<String> {
        let text = std::fs::read_to_string(self.hive.file(&format!("token-says-{n}"))).ok()?;
        text.strip_suffix('\n').map(str::to_owned)
    }

    /// The number of the last event.
    fn head(&self) -> u64 {
        let metrics = self.hive.get("/metrics").body;
        let lines = metrics.as_str().unwrap().lines();
        lines.filter_map(|line| line.strip_prefix("hivekeeper_feed_head ")).next().unwrap().parse().unwrap()
    }

    /// Numbers of the events up to this one of which a viewer is told, by the API.
    fn told(&self, after: u64, last: u64) -> Vec<u64> {
        const TOLD: [&str; 6] =
            ["agent_changed", "agent_removed", "samples", "swarm_changed", "hive_changed", "source_changed"];
        let mut seqs = Vec::new();
        let mut next = after;
        while next < last {
            let page = self.hive.get(&format!("/api/v1/events?after={next}&limit=1000")).body;
            assert_eq!(page["gap"], Value::Null, "the ring still has them");
            let events = page["events"].as_array().unwrap();
            let told = events.iter().filter(|event| TOLD.contains(&event["kind"].as_str().unwrap()));
            seqs.extend(told.map(|event| event["seq"].as_u64().unwrap()).filter(|seq| *seq <= last));
            if events.is_empty() {
                break;
            }
            next = page["next_after"].as_u64().unwrap();
        }
        seqs
    }

    /// Lets at least so many events happen; the number of the last.
    fn miss(&self, events: u64) -> u64 {
        let before = self.head();
        if events > RING_EVENTS_MAX as u64 {
            return until_within(CLIENT_WAIT, "many events", || {
                (1..=CHATTERERS).for_each(|n| self.chatter(n));
                Some(self.head()).filter(|head| *head >= before + events)
            });
        }
        let nth = usize::try_from(events).unwrap() - 1;
        until("agents change", || self.told(before, u64::MAX).get(nth).copied())
    }

    /// One of the crowd says all that it may.
    fn chatter(&self, n: u64) {
        let mut stream = TcpStream::connect(&self.hive.data_plane).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let ask =
            |method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let token = until("the agent tells its token", || self.token(n));
        let open = json!({ "token": token, "agent": format!("crowd/says-{n}"), "incarnation": 1, "protocol": 1 });
        let said = vec![json!({ "method": "hive/event", "params": { "kind": "chatter" } }); SAID_AT_ONCE];
        let said = ask("hive/batch", json!({ "notifications": said }));
        write!(stream, "{}\n{said}\n", ask("hive/open", open)).unwrap();
        for answer in BufReader::new(stream).lines().take(2) {
            let answer = answer.unwrap();
            assert!(answer.contains("\"result\""), "{answer}");
        }
    }

    /// `frames` follow on `seen` without a gap: each event of which viewers are told, or one document when the ring no longer had them.
    #[track_caller]
    fn proves(&self, missed: u64, seen: u64, target: u64, frames: &[(String, u64, u64)]) {
        let mut last = seen;
        for (kind, seq, prev) in frames {
            assert_eq!(*prev, last, "a frame is missing before {kind} {seq}");
            last = *seq;
        }
        assert!(last >= target, "{last} of {target}");
        if missed <= RING_EVENTS_MAX as u64 {
            let seqs: Vec<u64> = frames.iter().map(|(_, seq, _)| *seq).collect();
            assert_eq!(seqs, self.told(seen, last));
            assert!(seqs.len() as u64 >= missed);
        } else {
            let wide = |(_, seq, prev): &&(String, u64, u64)| seq - prev > RING_EVENTS_MAX as u64;
            let wide: Vec<_> = frames.iter().filter(wide).collect();
            assert!(matches!(wide[..], [(kind, seq, _)] if kind == "status_update" && *seq >= target), "{wide:?}");
        }
    }
}

/// A client that steps by lines. Killed and reaped with the test.
struct Client {
    child: Child,
    told: mpsc::Receiver<String>,
    input: Option<ChildStdin>,
}

impl Client {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (lines, told) = mpsc::sync_channel(1024);
        let output = BufReader::new(child.stdout.take().unwrap());
        // Ends with the client's output.
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let input = child.stdin.take();
        Self { child, told, input }
    }

    /// Frames up to this word.
    fn until(&self, word: &str) -> Vec<(String, u64, u64)> {
        let mut frames = Vec::new();
        loop {
            let line = self.told.recv_timeout(CLIENT_WAIT).unwrap();
            if line == word {
                return frames;
            }
            let parts: Vec<&str> = line.split(' ').collect();
            frames.push((parts[0].to_owned(), parts[1].parse().unwrap(), parts[2].parse().unwrap()));
        }
    }

    fn say(&mut self, line: u64) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn end(&mut self) {
        self.input = None;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn comes_back(client: impl FnOnce(String) -> Command) {
    let busy = Busy::start(None);
    let mut client = Client::start(&mut client(format!("ws://{}/ws/hybrid-health", busy.address())));
    for missed in MISSED {
        let greeting = client.until("left");
        let kinds: Vec<&str> = greeting.iter().map(|(kind, _, _)| &**kind).collect();
        assert_eq!(kinds, ["connection_established", "status_update"]);
        let seen = greeting[1].1;
        let target = busy.miss(missed);
        client.say(target);
        let frames = client.until("done");
        let ack = frames.iter().position(|(kind, _, _)| kind == "subscription_ack").unwrap();
        busy.proves(missed, seen, target, &frames[ack + 1..]);
    }
    client.until("left");
    client.end();
}

#[test]
fn python_websockets() {
    if !long() {
        return;
    }
    let venv = home("python");
    let (python, at) = (venv.join("bin/python"), venv.display().to_string());
    let mut install = [
        command("python3", &["-m", "venv", &at]),
        command(venv.join("bin/pip"), &["install", "--quiet", "websockets"]),
    ];
    let has = |python: &Path| succeed(&mut [command(python, &["-c", "import websockets"])]);
    let installed = has(&python) || succeed(&mut install) && has(&python);
    if !installed {
        return skipped("needs python3 with venv, and PyPI's websockets");
    }
    let script = scripts().join("viewer.py").display().to_string();
    comes_back(|url| command(python, &[&script, &url]));
}

#[test]
fn npm_ws() {
    if !long() {
        return;
    }
    let Some(modules) = npm("ws") else {
        return skipped("needs node and npm's ws");
    };
    let script = scripts().join("viewer.mjs").display().to_string();
    comes_back(|url| command("node", &[&script, &url, &modules]));
}

#[test]
fn chromium() {
    if !long() {
        return;
    }
    if !Browser::is_there() {
        return;
    }
    let page = |name: &str| std::fs::read_to_string(scripts().join(name)).unwrap();
    // As behind a reverse proxy: the page comes from the same origin, whose name the daemon was told.
    let gateway = Gateway::new(page("page.html"));
    let busy = Busy::start(Some(&gateway.address.to_string()));
    let front: SocketAddr = busy.address().parse().unwrap();
    gateway.forward_to(front);
    let browser = Browser::open(&format!("http://{}/page", gateway.address), "");
    let mut proven = Vec::new();
    loop {
        match gateway.asked(CLIENT_WAIT) {
            Asked::Miss(missed, answer) => answer.send(busy.miss(missed).to_string()).unwrap(),
            Asked::Cut(missed, answer) => {
                gateway.cut();
                let target = busy.miss(missed);
                gateway.forward_to(front);
                answer.send(target.to_string()).unwrap();
            }
            Asked::Report(report) => {
                let by = report["by"].as_str().unwrap();
                if by == "end" {
                    break;
                }
                assert!(report["target"].is_u64(), "{report}");
                let number = |value: &Value| value.as_u64().unwrap();
                let frame = |one: &Value| (one[0].as_str().unwrap().to_owned(), number(&one[1]), number(&one[2]));
                let frames: Vec<_> = report["frames"].as_array().unwrap().iter().map(frame).collect();
                let missed = number(&report["missed"]);
                busy.proves(missed, number(&report["seen"]), number(&report["target"]), &frames);
                proven.push(format!("{by} {missed}"));
            }
        }
    }
    drop(browser);
    let expected: Vec<_> = MISSED.iter().flat_map(|n| [format!("WebSocket {n}"), format!("EventSource {n}")]).collect();
    assert_eq!(proven, expected);
}
