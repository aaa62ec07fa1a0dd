//! The clients of `examples/clients`, in agents of a real daemon: they tell, come back, finish when asked to, and never hold up their program.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    harness,
    hive::{Hive, until},
};

#[path = "../../examples/clients/hive_agent.rs"]
#[expect(unreachable_pub, reason = "a file to be copied into a crate where it may be public")]
mod hive_agent;

/// Lines that a flood has.
const FLOOD: u64 = 5000;
/// How often a client is cut off.
const CUTS: usize = 15;

/// What both programs do: a numbered line and progress every 10 ms; a flood when a file `flood` appears; an event and an end when asked to.
/// Started by hand with `HK_TEST_ONCE`, it tells one line, waits a little for it, and says what became of it.
fn rust_program() {
    let finish = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&finish);
    let hive = hive_agent::Agent::from_env(move || asked.store(true, Ordering::Relaxed));
    if std::env::var_os("HK_TEST_ONCE").is_some() {
        hive.log("info", "hello");
        println!("told {}", hive.flush(Duration::from_secs(20)));
        return;
    }
    let mut n = 0;
    while !finish.load(Ordering::Relaxed) {
        n += 1;
        hive.log("info", &format!("line {n}"));
        hive.progress(&json!({"done": n}), true);
        if n == 10 {
            hive.tell("hive/metric", &json!({"name": "queue", "value": 3.0, "unit": "{task}"}));
            hive.tell("hive/usage", &json!({"gen_ai.usage.input_tokens": 1200}));
            hive.tell("hive/event", &json!({"kind": "milestone", "n": n}));
            hive.tell("hive/log", &json!({"line": "a milestone"}));
        }
        if Path::new("flood").exists() {
            (1..=FLOOD).for_each(|n| hive.log("debug", &format!("flood {n}")));
            fs::remove_file("flood").unwrap();
        }
        thread::sleep(Duration::from_millis(10));
    }
    hive.tell("hive/event", &json!({"kind": "finished", "n": n, "dropped": hive.dropped()}));
    std::process::exit(if hive.flush(Duration::from_secs(10)) { 0 } else { 3 });
}

const PYTHON_PROGRAM: &str = r#"
import os, sys, threading, time
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from hive_agent import Agent
finish = threading.Event()
hive = Agent(on_drain=finish.set)
if "HK_TEST_ONCE" in os.environ:
    hive.log("hello")
    print("told", str(hive.flush(20)).lower())
    sys.exit()
n = 0
while not finish.is_set():
    n += 1
    hive.log(f"line {n}")
    hive.progress({"done": n})
    if n == 10:
        hive.metric("queue", 3, "{task}", kind="review")
        hive.usage({"gen_ai.usage.input_tokens": 1200})
        hive.batch([("hive/event", {"kind": "milestone", "n": n}), ("hive/log", {"line": "a milestone"})])
        hive.event("bad", what=object())  # no JSON: dropped, and nothing else happens
    if os.path.exists("flood"):
        for m in range(1, 5001):
            hive.log(f"flood {m}", "debug")
        os.remove("flood")
    time.sleep(0.01)
hive.event("finished", n=n, dropped=hive.dropped)
sys.exit(0 if hive.flush(10) else 3)
"#;

/// This test binary is the Rust agent's executable, too: as a test it does nothing.
#[test]
fn the_program_of_an_agent() {
    if std::env::var_os("HIVEKEEPER_ADDR").is_some() || std::env::var_os("HK_TEST_ONCE").is_some() {
        rust_program();
    }
}

fn rust() -> Vec<String> {
    let exe = std::env::current_exe().unwrap();
    [exe.to_str().unwrap(), "--exact", "clients::the_program_of_an_agent", "--nocapture"].map(str::to_owned).into()
}

fn python() -> Option<Vec<String>> {
    if Command::new("python3").arg("--version").output().is_err() {
        harness::skipped("python3");
        return None;
    }
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clients");
    Some(["python3", "-c", PYTHON_PROGRAM, clients.to_str().unwrap()].map(str::to_owned).into())
}

/// A swarm whose one agent runs this, deaf to SIGTERM. `via` is another address for it to connect to.
fn swarm(command: &[String], via: Option<&str>) -> String {
    let script = "trap '' TERM; HIVEKEEPER_ADDR=${0:-$HIVEKEEPER_ADDR} exec \"$@\"";
    let mut words = ["sh", "-c", script, via.unwrap_or_default()].map(str::to_owned).to_vec();
    words.extend_from_slice(command);
    format!(
        "[[swarm]]\nname = \"c\"\n[[swarm.agent]]\nname = \"a\"\nrestart = \"temporary\"\ncommand = {}\n",
        json!(words)
    )
}

fn work_dir(hive: &Hive) -> PathBuf {
    hive.data().join("work/c")
}

/// What the agent said through its client.
fn said(hive: &Hive) -> Vec<String> {
    let lines = hive.lines("c/a").into_iter().filter(|line| line["stream"] == "log");
    lines.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

fn numbers(said: &[String], word: &str) -> BTreeSet<u64> {
    said.iter().filter_map(|line| line.strip_prefix(word)?.parse().ok()).collect()
}

fn done(agent: &Value) -> u64 {
    agent["progress"]["value"]["done"].as_u64().unwrap_or(0)
}

#[track_caller]
fn goes_on(hive: &Hive) -> Value {
    let before = done(&hive.agent("c/a"));
    hive.agent_until("c/a", "tells more progress", |agent| {
        agent["last_heartbeat"]["source"] == "agent" && done(agent) > before.max(20) + 5
    })
}

fn events(hive: &Hive) -> BTreeMap<String, Value> {
    let page = hive.get("/api/v1/events?limit=1000").body;
    let said = page["events"].as_array().unwrap().iter().filter(|event| event["kind"] == "agent_said").cloned();
    said.map(|event| (event["data"]["kind"].as_str().unwrap_or_default().to_owned(), event)).collect()
}

/// Asks the agent to end; it is to do so by itself, with everything told.
#[track_caller]
fn finishes(hive: &Hive) {
    hive.command("/swarms/c/agents/a/stop");
    let agent = hive.agent("c/a");
    assert_eq!(agent["last_exit"]["code"], 0, "{agent:#}");
    until("its last event", || events(hive).contains_key("finished").then_some(()));
}

fn tells_comes_back_and_finishes(command: &[String]) {
    let mut hive = Hive::start(&swarm(command, None));
    let first = goes_on(&hive);
    until("its milestone", || events(&hive).contains_key("milestone").then_some(()));
    until("its batch's line", || said(&hive).iter().any(|line| line == "a milestone").then_some(()));

    // The daemon dies. The agent floods a queue that nobody empties, and is not held up.
    hive.kill();
    let flood = work_dir(&hive).join("flood");
    fs::write(&flood, "").unwrap();
    until("the agent has told its flood", || (!flood.exists()).then_some(()));
    hive.boot();
    let then = goes_on(&hive);
    assert_eq!((&then["pid"], &then["incarnation"], &then["restarts"]), (&first["pid"], &json!(1), &json!(0)));
    let lines =
        until("the flood's last line", || Some(said(&hive)).filter(|said| numbers(said, "flood ").contains(&FLOOD)));
    let flood = numbers(&lines, "flood ");
    assert!(!flood.contains(&1) && flood.len() <= 1050, "the oldest go first: {} came", flood.len());
    let dropped: u64 =
        numbers(&lines, "messages dropped on the way to Hivekeeper: ").last().copied().expect("it says how many");
    assert!((FLOOD - 1050..=FLOOD + 500).contains(&dropped), "{dropped}");
    finishes(&hive);
}

/// Between an agent and the daemon's port: cuts every connection after some bytes.
struct Cutter {
    addr: String,
    target: Arc<Mutex<Option<String>>>,
    cuts: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Cutter {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let me = Self {
            addr: listener.local_addr().unwrap().to_string(),
            target: Arc::default(),
            cuts: Arc::default(),
            stop: Arc::default(),
        };
        let (target, cuts, stop) = (Arc::clone(&me.target), Arc::clone(&me.cuts), Arc::clone(&me.stop));
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Some(daemon) = target.lock().unwrap().clone().and_then(|to| TcpStream::connect(to).ok()) else {
                    continue;
                };
                // Each a little later, so that every part of the talk is cut once. The last ones live.
                let n = cuts.load(Ordering::Relaxed);
                let bytes = if n < CUTS { 300 + 137 * n } else { usize::MAX };
                let (back, there) = (client.try_clone().unwrap(), daemon.try_clone().unwrap());
                let downward = thread::spawn(move || carry(there, back, usize::MAX));
                if !carry(client.try_clone().unwrap(), daemon.try_clone().unwrap(), bytes) {
                    cuts.fetch_add(1, Ordering::Relaxed);
                }
                let _ = (client.shutdown(Shutdown::Both), daemon.shutdown(Shutdown::Both));
                downward.join().unwrap();
            }
        });
        me
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.addr);
    }
}

/// Carries so many bytes; whether the end came before.
fn carry(mut from: TcpStream, mut to: TcpStream, bytes: usize) -> bool {
    let (mut left, mut piece) = (bytes, [0; 256]);
    while left > 0 {
        let want = left.min(piece.len());
        match from.read(&mut piece[..want]) {
            Ok(n) if n > 0 && to.write_all(&piece[..n]).is_ok() => left -= n,
            _ => return true,
        }
    }
    false
}

fn loses_nothing_when_it_is_cut_off(command: &[String]) {
    let cutter = Cutter::start();
    let hive = Hive::start(&swarm(command, Some(&cutter.addr)));
    *cutter.target.lock().unwrap() = Some(hive.data_plane.clone());
    until("many cuts", || (cutter.cuts.load(Ordering::Relaxed) >= CUTS).then_some(()));
    goes_on(&hive);
    finishes(&hive);
    let last = events(&hive)["finished"]["data"].clone();
    assert_eq!(last["dropped"], if command[0] == "python3" { 1 } else { 0 }, "only what was no JSON");
    let n = last["n"].as_u64().unwrap();
    let seen = until("the last line", || Some(numbers(&said(&hive), "line ")).filter(|seen| seen.contains(&n)));
    assert_eq!(
        seen.len() as u64,
        n,
        "every line came: {:?} are missing",
        (1..=n).filter(|n| !seen.contains(n)).collect::<Vec<_>>()
    );
}

/// Runs the program once, and reads what became of its line, and how long that took.
fn once(command: &[String], variables: &[(&str, &str)]) -> (String, Duration) {
    let began = Instant::now();
    let mut program = Command::new(&command[0]);
    program.args(&command[1..]).env("HK_TEST_ONCE", "1").envs(variables.iter().copied());
    let output = program.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let told = text.split("told ").nth(1).unwrap_or_else(|| panic!("{text}"));
    (told.split_whitespace().next().unwrap().to_owned(), began.elapsed())
}

fn does_not_wait_where_nobody_listens(command: &[String]) {
    let patience = Duration::from_secs(15);
    let (told, took) = once(command, &[]);
    assert!(told == "false" && took < patience, "by hand: {told} after {took:?}");
    let hive = Hive::start(&swarm(&["sleep".to_owned(), "600".to_owned()], None));
    let refused = [
        ("HIVEKEEPER_ADDR", hive.data_plane.as_str()),
        ("HIVEKEEPER_TOKEN", "guess"),
        ("HIVEKEEPER_AGENT", "c/a"),
        ("HIVEKEEPER_INCARNATION", "1"),
    ];
    let (told, took) = once(command, &refused);
    assert!(told == "false" && took < patience, "refused for good: {told} after {took:?}");
}

/// Short enough to be read before it is copied.
#[test]
fn each_is_shorter_than_200_lines() {
    for file in ["hive_agent.rs", "hive_agent.py"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clients").join(file);
        let lines = fs::read_to_string(path).unwrap().lines().count();
        assert!(lines < 200, "{file} has {lines}");
    }
}

#[test]
fn rust_tells_comes_back_and_finishes() {
    tells_comes_back_and_finishes(&rust());
}

#[test]
fn rust_loses_nothing_when_it_is_cut_off() {
    loses_nothing_when_it_is_cut_off(&rust());
}

#[test]
fn rust_does_not_wait_where_nobody_listens() {
    does_not_wait_where_nobody_listens(&rust());
}

#[test]
fn python_tells_comes_back_and_finishes() {
    python().iter().for_each(|command| tells_comes_back_and_finishes(command));
}

#[test]
fn python_loses_nothing_when_it_is_cut_off() {
    python().iter().for_each(|command| loses_nothing_when_it_is_cut_off(command));
}

#[test]
fn python_does_not_wait_where_nobody_listens() {
    python().iter().for_each(|command| does_not_wait_where_nobody_listens(command));
}
