//! Viewers that others wrote: Python's `websockets`, npm's `ws`, and a browser's own `WebSocket` and `EventSource`. They come back after 1, 100 and
//! 100,000 missed events. They are installed below `target/`, so they run with `tests/run --long`; the same rules have tests without them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

use actix_web::web;
use hivekeeper::{
    events::RING_EVENTS_MAX,
    stream::{StreamLimits, hybrid_health, hybrid_health_events},
};
use serde_json::Value;

use crate::{
    harness::{
        skipped,
        web_page::{Asked, Gateway},
    },
    http_support::{Setup, hive},
    stream_support::{Server, changed, publish},
};

const MISSED: [u64; 3] = [1, 100, 100_000];

/// A client's whole run takes seconds, its start on a busy machine some more.
const CLIENT_WAIT: Duration = Duration::from_secs(120);

fn wanted() -> bool {
    std::env::var("HK_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients")
}

/// Where clients are installed; what is there already is used.
fn clients() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn command(program: impl AsRef<OsStr>, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    command
}

/// Whether all these go well.
fn succeed(commands: &mut [Command]) -> bool {
    commands.iter_mut().all(|command| {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

fn miss(server: &Server, events: u64) -> u64 {
    (0..events).fold(0, |_, n| publish(server, changed("review/coder", n)))
}

/// `frames` follow on `seen` without a gap: each event, or one document when the ring no longer had them.
#[track_caller]
fn proves(missed: u64, seen: u64, target: u64, frames: &[(String, u64, u64)]) {
    let mut last = seen;
    for (kind, seq, prev) in frames {
        assert_eq!(*prev, last, "a frame is missing before {kind} {seq}");
        last = *seq;
    }
    assert_eq!(last, target);
    if missed <= RING_EVENTS_MAX as u64 {
        let seqs: Vec<u64> = frames.iter().map(|(_, seq, _)| *seq).collect();
        assert_eq!(seqs, (seen + 1..=target).collect::<Vec<_>>());
        assert!(frames.iter().all(|(kind, _, _)| kind == "session_update"), "{frames:?}");
    } else {
        assert!(matches!(frames, [(kind, _, _)] if kind == "status_update"), "{} frames", frames.len());
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
    let server = Server::start(StreamLimits::default());
    let mut client = Client::start(&mut client(format!("ws://{}/ws/hybrid-health", server.address)));
    for missed in MISSED {
        let greeting = client.until("left");
        let kinds: Vec<&str> = greeting.iter().map(|(kind, _, _)| &**kind).collect();
        assert_eq!(kinds, ["connection_established", "status_update"]);
        let seen = greeting[1].1;
        let target = miss(&server, missed);
        client.say(target);
        let frames = client.until("done");
        let ack = frames.iter().position(|(kind, _, _)| kind == "subscription_ack").unwrap();
        proves(missed, seen, target, &frames[ack + 1..]);
    }
    client.until("left");
    client.end();
}

#[test]
fn python_websockets() {
    if !wanted() {
        return;
    }
    let venv = clients().join("python");
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
    if !wanted() {
        return;
    }
    let modules = clients().join("npm").display().to_string();
    std::fs::create_dir_all(&modules).unwrap();
    let has =
        || Path::new(&modules).join("node_modules/ws").exists() && succeed(&mut [command("node", &["--version"])]);
    let mut install = [command("npm", &["install", "--silent", "--no-audit", "--no-fund", "--prefix", &modules, "ws"])];
    let installed = has() || succeed(&mut install) && has();
    if !installed {
        return skipped("needs node and npm's ws");
    }
    let script = scripts().join("viewer.mjs").display().to_string();
    comes_back(|url| command("node", &[&script, &url, &modules]));
}

/// A browser on a page, in a directory of its own. Killed and reaped with the test.
struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn open(url: &str) -> Option<Self> {
        let profile = tempfile::Builder::new().prefix("hk").tempdir().unwrap();
        let mut browser =
            command("chromium", &["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        browser.arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
        // A group of its own, so that its helpers can be ended with it.
        browser.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        browser.spawn().ok().map(|child| Self { child, _profile: profile })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).unwrap();
        // SAFETY: kill has no memory effects; the group was made for this child, which has not been reaped.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        let _reaped = self.child.wait();
    }
}

#[test]
fn chromium() {
    if !wanted() {
        return;
    }
    if !succeed(&mut [command("chromium", &["--version"])]) {
        return skipped("needs Chromium (Debian: apt-get install chromium)");
    }
    let server = Server::start(StreamLimits::default());
    let page = |name: &str| std::fs::read_to_string(scripts().join(name)).unwrap();
    // As behind a reverse proxy: the page comes from the same origin, whose name the daemon was told.
    let gateway = Gateway::new(page("page.html"));
    let stranger = Gateway::new(page("foreign.html"));
    let hub = web::Data::new(server.hub.clone());
    let front = hive(Setup {
        hosts: vec![gateway.address.to_string()],
        sockets: Some(Arc::new(move |config| {
            config
                .app_data(hub.clone())
                .route("/ws/hybrid-health", web::get().to(hybrid_health))
                .route("/sse/hybrid-health", web::get().to(hybrid_health_events));
        })),
        ..Setup::default()
    });
    gateway.forward_to(front.address);
    let browser = Browser::open(&format!("http://{}/page", gateway.address)).unwrap();
    let mut proven = Vec::new();
    loop {
        match gateway.asked(CLIENT_WAIT) {
            Asked::Miss(missed, answer) => answer.send(miss(&server, missed).to_string()).unwrap(),
            Asked::Cut(missed, answer) => {
                gateway.cut();
                answer.send(miss(&server, missed).to_string()).unwrap();
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
                proves(missed, number(&report["seen"]), number(&report["target"]), &frames);
                proven.push(format!("{by} {missed}"));
            }
        }
    }
    drop(browser);
    let expected: Vec<_> = MISSED.iter().flat_map(|n| [format!("WebSocket {n}"), format!("EventSource {n}")]).collect();
    assert_eq!(proven, expected);

    let _browser = Browser::open(&format!("http://{}/page?at={}", stranger.address, front.address)).unwrap();
    let Asked::Report(report) = stranger.asked(CLIENT_WAIT) else { panic!("asked for something else") };
    assert_eq!(report["how"], serde_json::json!(["refused", "refused"]), "a page of another origin was let in");
}
