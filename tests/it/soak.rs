//! Many agents on one daemon, each a heartbeat and twenty numbered log lines a second: nothing is lost that is not counted, memory stays, and the daemon
//! answers meanwhile. The real executable with real agents, whose sessions this process holds with their own tokens.
//!
//! In short two hundred agents for twenty seconds. `tests/run --long` makes it five thousand for five minutes; that many want some 15,000 open files,
//! and an optimised build: `HK_TEST_LONG=yes cargo test --release --test it -- soak`.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::hive::{Hive, until_within};

/// Agents of one swarm.
const SWARM: usize = 100;
/// Log lines of an agent in a second.
const LINES: u64 = 20;
/// Threads that send.
const SENDERS: usize = 4;
/// The longest that anything may take with thousands of agents.
const LONG: Duration = Duration::from_secs(600);
/// Files that the daemon has open for each agent: its launcher's channel and stderr, and the session, which comes by TCP here. This process has fewer.
const FILES_PER_AGENT: usize = 3;
/// Files beside those: at most 128 log books, the stores, listeners, threads' wakers, and whatever is being started.
const FILES_BESIDE: usize = 300;
/// The goal of the issue: resident memory of the daemon for each connected agent.
const BYTES_PER_AGENT: u64 = 16 * 1024;

pub(crate) fn long() -> bool {
    std::env::var("HK_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

#[test]
fn every_message_of_many_agents_is_folded_or_counted() {
    // What is not optimised can't read a hundred thousand messages a second beside their sender.
    let (agents, seconds) = match (long(), cfg!(debug_assertions)) {
        (false, _) => (200, 20),
        (true, true) => (500, 60),
        (true, false) => (5000, 300),
    };
    let files = (agents * FILES_PER_AGENT + FILES_BESIDE) as u64;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < files && setrlimit(Resource::RLIMIT_NOFILE, files, files).is_err() {
        eprintln!("SKIPPED: {agents} agents want {files} open files, and the hard limit is {hard}");
        return;
    }
    if soft < files && hard >= files {
        setrlimit(Resource::RLIMIT_NOFILE, files, hard).unwrap();
    }
    soak(agents, seconds);
}

fn soak(agents: usize, seconds: u64) {
    let mut hive = start(agents);
    let names: Vec<String> = (0..agents).map(|n| format!("crowd-{}/a-{}", n / SWARM + 1, n % SWARM + 1)).collect();
    let pids = running(&hive, agents);
    let before = resident(hive.pid);
    let address = hive.data_plane.clone();
    let sessions: Vec<Session> = names
        .iter()
        .map(|name| {
            let pid = pids.iter().find(|(id, _)| id == name).map(|(_, pid)| *pid).unwrap();
            Session::open(&address, name, pid)
        })
        .collect();
    // A heartbeat each, so that all there is of a session is there.
    thread::sleep(Duration::from_secs(1));
    let (idle, files) = (resident(hive.pid), files(hive.pid));
    let each = idle.saturating_sub(before) / agents as u64;
    eprintln!(
        "soak: {agents} agents run, {} MiB; with their sessions {} MiB, {each} bytes each, and {files} open files",
        before >> 20,
        idle >> 20
    );
    assert!(files <= agents * FILES_PER_AGENT + FILES_BESIDE, "{files} open files");

    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut shares: Vec<Vec<Session>> = (0..SENDERS).map(|_| Vec::new()).collect();
    for (n, session) in sessions.into_iter().enumerate() {
        shares[n % SENDERS].push(session);
    }
    let mut rss = Vec::new();
    let mut slowest = (Duration::ZERO, Duration::ZERO);
    let mut sessions: Vec<Session> = thread::scope(|scope| {
        let senders: Vec<_> = shares.into_iter().map(|share| scope.spawn(|| send(share, &stop, &sent))).collect();
        let began = Instant::now();
        let mut turn = 0;
        while began.elapsed() < Duration::from_secs(seconds) {
            let asked = Instant::now();
            assert_eq!(hive.get("/livez").status, 200);
            slowest.0 = slowest.0.max(asked.elapsed());
            if turn % 10 == 5 {
                let asked = Instant::now();
                hive.command("/swarms/spare/agents/a/restart");
                slowest.1 = slowest.1.max(asked.elapsed());
            }
            rss.push(resident(hive.pid));
            turn += 1;
            thread::sleep(Duration::from_secs(1));
        }
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
    });
    sessions.iter_mut().for_each(Session::settle);

    let mut lost = 0;
    let mut late = 0;
    for session in &sessions {
        let deadline = Instant::now() + Duration::from_secs(30);
        let document = loop {
            let document = hive.agent(&session.name);
            if document["telemetry"]["received"].as_u64() >= Some(session.sent) || Instant::now() > deadline {
                break document;
            }
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(document["telemetry"]["received"], session.sent, "{document:#}");
        assert_eq!(document["progress"]["value"], session.beats, "the last heartbeat of each came: {document:#}");
        let dropped = &document["telemetry"]["dropped"];
        assert_eq!((&dropped["metrics"], &dropped["events"]), (&json!(0), &json!(0)), "{document:#}");
        lost += dropped["logs"].as_u64().unwrap();
        late += u64::from(document["state"] != "running");
    }
    let (sent, took) = (sent.load(Ordering::Relaxed), seconds);
    let middle = rss[rss.len() / 2];
    let (most, last) = (rss.iter().copied().max().unwrap(), *rss.last().unwrap());
    eprintln!(
        "soak: {sent} messages in {took} s, {lost} log records dropped and counted, {late} agents not running; /livez at most {:?}, restart at most {:?}; memory {} MiB in \
         the middle, {} at the end, {} at most",
        slowest.0,
        slowest.1,
        middle >> 20,
        last >> 20,
        most >> 20
    );
    assert_eq!(late, 0, "not every agent runs");
    // The feed's ring and the allocator fill up in the first half.
    assert!(last < middle + middle / 10 + (16 << 20), "memory grows: {rss:?}");
    assert!(slowest.0 < Duration::from_secs(5), "/livez took {:?}", slowest.0);
    if agents >= 1000 {
        assert!(each <= BYTES_PER_AGENT, "{each} bytes for each connected agent");
    }
    numbered(&hive, &sessions[0], agents);
    drop(sessions);
    hive.signal_daemon(libc::SIGTERM);
    until_within(LONG, "every process of the hive ends", || hive.processes().is_empty().then_some(()));
    hive.wait();
}

/// Every record of an agent that was not dropped is in its book, in order.
fn numbered(hive: &Hive, session: &Session, agents: usize) {
    if agents > 1000 {
        // The books of so many are cut to their limit meanwhile.
        return;
    }
    let dropped = hive.agent(&session.name)["telemetry"]["dropped"]["logs"].as_u64().unwrap();
    let written = || -> Vec<u64> {
        let number = |line: &Value| line["text"].as_str()?.strip_prefix("line ")?.split(' ').next()?.parse().ok();
        hive.lines(&session.name).iter().filter_map(number).collect()
    };
    let numbers = until_within(Duration::from_secs(30), "the book has all records", || {
        Some(written()).filter(|numbers| numbers.len() as u64 + dropped >= session.lines)
    });
    assert_eq!(numbers.len() as u64 + dropped, session.lines);
    assert!(numbers.is_sorted_by(|a, b| a < b), "out of order");
}

fn start(agents: usize) -> Hive {
    let mut hive = Hive::prepare("");
    let mut text = String::from(
        "[hive]\nname = \"test\"\ndata_dir = \"data\"\n[http]\nbind = \"127.0.0.1:0\"\n[data_plane]\nbind = \"127.0.0.1:0\"\n\
         [runtime]\nsample_interval = \"30s\"\n[health]\nheartbeat_timeout = \"60s\"\nstart_timeout = \"10m\"\n\
         [[swarm]]\nname = \"spare\"\n[[swarm.agent]]\nname = \"a\"\ncommand = [\"sleep\", \"infinity\"]\n",
    );
    for swarm in 0..agents.div_ceil(SWARM) {
        let replicas = SWARM.min(agents - swarm * SWARM);
        let _ = write!(
            text,
            "[[swarm]]\nname = \"crowd-{}\"\n[[swarm.agent]]\nname = \"a\"\nreplicas = {replicas}\ncommand = [\"sleep\", \"infinity\"]\n",
            swarm + 1
        );
    }
    fs::write(hive.config(), text).unwrap();
    hive.launch();
    hive.find_within(LONG);
    hive
}

/// All agents of the crowd with their process ids, once they run.
fn running(hive: &Hive, agents: usize) -> Vec<(String, u64)> {
    until_within(LONG, "all agents run", || {
        thread::sleep(Duration::from_millis(300));
        let health = hive.get("/api/v1/health").body;
        let all = health["agents"].as_array()?.iter().filter_map(|agent| {
            let (swarm, name) = (agent["swarm"].as_str()?, agent["name"].as_str()?);
            let up = agent["state"] == "running" && swarm.starts_with("crowd");
            Some((format!("{swarm}/{name}"), agent["pid"].as_u64().filter(|_| up)?))
        });
        Some(all.collect::<Vec<_>>()).filter(|all| all.len() == agents)
    })
}

pub(crate) fn files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap() * 1024
}

/// One agent's session, and what went out on it.
pub(crate) struct Session {
    name: String,
    stream: TcpStream,
    pub(crate) sent: u64,
    lines: u64,
    beats: u64,
}

impl Session {
    /// With the token that the agent was given.
    pub(crate) fn open(address: &str, name: &str, pid: u64) -> Self {
        let environ = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        let value = |key: &str| environ.split('\0').find_map(|one| one.strip_prefix(key)?.strip_prefix('=')).unwrap();
        let incarnation: u64 = value("HIVEKEEPER_INCARNATION").parse().unwrap();
        let params =
            json!({"token": value("HIVEKEEPER_TOKEN"), "agent": name, "incarnation": incarnation, "protocol": 1});
        let open = json!({"jsonrpc": "2.0", "id": 1, "method": "hive/open", "params": params});
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut session = Self { name: name.to_owned(), stream, sent: 0, lines: 0, beats: 0 };
        assert!(session.ask(&format!("{open}\n")).contains("\"session\""), "{name}");
        session
    }

    fn ask(&mut self, line: &str) -> String {
        self.stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::with_capacity(1024, &self.stream).read_line(&mut answer).unwrap();
        answer
    }

    /// What the agent says in a second.
    fn second(&mut self, text: &mut String) {
        text.clear();
        self.beats += 1;
        let beat = self.beats;
        let _ = writeln!(
            text,
            "{{\"jsonrpc\":\"2.0\",\"method\":\"hive/heartbeat\",\"params\":{{\"busy\":true,\"progress\":{beat}}}}}"
        );
        for _ in 0..LINES {
            let _ = writeln!(
                text,
                "{{\"jsonrpc\":\"2.0\",\"method\":\"hive/log\",\"params\":{{\"level\":\"info\",\"line\":\"line {} of {}: edited src/lib.rs, \
                 ran the tests\"}}}}",
                self.lines, self.name
            );
            self.lines += 1;
        }
        self.stream.write_all(text.as_bytes()).unwrap();
        self.sent += 1 + LINES;
    }

    /// A request behind everything else: when it is answered all was read.
    pub(crate) fn settle(&mut self) {
        let answer = self.ask("{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"hive/heartbeat\"}\n");
        assert!(answer.contains("\"id\":2"), "{}: {answer}", self.name);
        self.sent += 1;
    }
}

/// Lets each agent say what it says in a second, spread over it.
fn send(mut share: Vec<Session>, stop: &AtomicBool, sent: &AtomicU64) -> Vec<Session> {
    let mut text = String::new();
    let began = Instant::now();
    let mut second = 0;
    while !stop.load(Ordering::Relaxed) {
        let count = u32::try_from(share.len()).unwrap();
        for (n, session) in share.iter_mut().enumerate() {
            session.second(&mut text);
            if n % 16 == 0 {
                let due = Duration::from_secs(second) + Duration::from_secs(1) * u32::try_from(n).unwrap() / count;
                thread::sleep((began + due).saturating_duration_since(Instant::now()));
            }
        }
        sent.fetch_add(u64::from(count) * (1 + LINES), Ordering::Relaxed);
        second += 1;
    }
    share
}
