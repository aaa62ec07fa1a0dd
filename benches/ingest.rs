//! How many notifications a second are folded, beside the barest loop that could read them.
//!
//! One sender, a thread of this process, writes lines of about 150 bytes in blocks of 64 KiB to one connection or in turn to a hundred. Measured
//! is from its first write until everything is done with.
//! - `floor`: one thread, a current-thread tokio runtime, `tokio_util`'s `LinesCodec`, and serde_json into an envelope with `RawValue` parameters
//!   that nobody looks at. It is done when it has counted all.
//! - `hivekeeper`: the daemon's own listener, sink, log books and health actor, supervised, in this process: each line is bounded, checked,
//!   authenticated, rated, typed, folded into its agent's health, and a log record is written to its agent's book. It is done when the last word of each
//!   agent has come out of the health actor. The rates of a connection and of all are out of the way.
//!
//! Rounds are interleaved and begin with another one each time. `kept` is the share of log records that the book took: beyond what the disk's
//! thread writes the oldest go, counted.
//!
//! `cargo bench --bench ingest`; a quick look: `cargo bench --bench ingest -- --rounds 3`.

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use hivekeeper::data_plane::PlaneLimits;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio_util::codec::{Framed, LinesCodec};

use support::{
    clock,
    figures::{self, median_of, table, verdict},
    machine,
    plane::Plane,
    processes,
};

/// Odd, so that a median is one of them, and enough for one of a machine that others use.
const ROUNDS: usize = 7;
/// Two seconds' worth of the floor.
const MESSAGES: usize = 2_000_000;
/// What the issue asks for.
const GOAL: f64 = 0.6;
/// A message of the size, without its newline.
const MESSAGE_BYTES: usize = 150;

/// The notifications that are sent, one kind a run.
const KINDS: [&str; 3] = ["log", "heartbeat", "metric"];
/// Connections that share them.
const CROWDS: [usize; 2] = [1, 100];

fn main() -> anyhow::Result<()> {
    let rounds = figures::rounds(ROUNDS)?;
    let scratch = figures::scratch()?;
    println!("machine: {}", machine::describe(scratch.path()));
    let mut rows = Vec::new();
    let mut met = true;
    for connections in CROWDS {
        let dir = scratch.path().join(connections.to_string());
        std::fs::create_dir(&dir)?;
        let unlimited = u32::MAX;
        let limits = PlaneLimits {
            notifications_per_second: unlimited,
            notifications_burst: unlimited,
            total_per_second: unlimited,
            total_burst: unlimited,
            ..PlaneLimits::default()
        };
        let mut plane = Plane::start(&dir, connections, limits)?;
        for kind in KINDS {
            let block = block(kind);
            let (mut ours, mut floors, mut kept) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..rounds {
                for turn in 0..2 {
                    if (round + turn) % 2 == 0 {
                        floors.push(floor(connections, &block)?);
                    } else {
                        let (rate, share) = hivekeeper(&mut plane, connections, &block)?;
                        ours.push(rate);
                        kept.push(share);
                    }
                }
            }
            let (ours, floor) = (median_of(ours).context("no round")?, median_of(floors).context("no round")?);
            let kept = median_of(kept).filter(|_| kind == "log").map_or("-".to_owned(), |share| format!("{share:.2}"));
            met &= ours / floor >= GOAL;
            rows.push(vec![
                format!("{kind}, {connections} connections"),
                thousands(ours),
                thousands(floor),
                format!("{:.2}", ours / floor),
                kept,
            ]);
        }
    }
    let head = ["notifications of 150 bytes", "hivekeeper", "floor", "/floor", "kept"];
    table(&format!("folded a second, thousands, median of {rounds}"), &head, &rows);
    println!("goal: at least {GOAL} of the floor in each row: {}", verdict(met));
    println!("\nload at the end: {}", machine::load());
    Ok(())
}

fn thousands(rate: f64) -> String {
    format!("{:.0}", rate / 1000.0)
}

/// Lines and how many they are: about 64 KiB, each line of the size.
fn block(kind: &str) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let lines = 64 * 1024 / (MESSAGE_BYTES + 1);
    for n in 0..lines {
        let made = |padding: usize| {
            let padding = "x".repeat(padding);
            let params = match kind {
                "log" => json!({"level": "info", "line": format!("step {n:05} {padding}")}),
                "heartbeat" => json!({"progress": {"done": n, "of": 100_000, "step": padding}, "busy": true}),
                _ => json!({"name": format!("queue.{padding}"), "value": n, "unit": "{task}"}),
            };
            // By hand, so that the members stand in the order in which everybody writes them.
            format!("{{\"jsonrpc\":\"2.0\",\"method\":\"hive/{kind}\",\"params\":{params}}}")
        };
        let line = made(MESSAGE_BYTES.saturating_sub(made(0).len()));
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
    }
    (bytes, lines)
}

/// Writes all messages, in turn to each connection.
fn send(peers: &mut [TcpStream], (bytes, lines): &(Vec<u8>, usize)) -> anyhow::Result<u64> {
    let blocks = (MESSAGES / lines).div_ceil(peers.len()) * peers.len();
    for n in 0..blocks {
        let at = n % peers.len();
        peers[at].write_all(bytes)?;
    }
    Ok((blocks * lines) as u64)
}

/// Messages a second.
#[expect(clippy::cast_precision_loss, reason = "millions")]
fn rate(messages: u64, took: Duration) -> f64 {
    messages as f64 / took.as_secs_f64()
}

fn hivekeeper(plane: &mut Plane, connections: usize, block: &(Vec<u8>, usize)) -> anyhow::Result<(f64, f64)> {
    let mut peers = Vec::new();
    for n in 1..=connections {
        let mut peer = TcpStream::connect(plane.addr)?;
        peer.write_all(Plane::open(n).as_bytes())?;
        let mut answer = String::new();
        BufReader::new(&peer).read_line(&mut answer)?;
        ensure!(answer.contains("session"), "not opened: {answer}");
        peers.push(peer);
    }
    let (received, dropped) = (plane.received(), plane.logs.status().dropped_records);
    let began = clock::now();
    let sent = send(&mut peers, block)?;
    for peer in &mut peers {
        peer.write_all(Plane::last().as_bytes())?;
    }
    plane.folded(connections)?;
    let took = clock::now() - began;
    // The last words are messages, too. Documents are shown once a second.
    let all = received + sent + connections as u64;
    processes::until("every message is counted", Duration::from_secs(5), || {
        Ok((plane.received() == all).then_some(()))
    })?;
    let dropped = plane.logs.status().dropped_records - dropped;
    #[expect(clippy::cast_precision_loss, reason = "millions")]
    let kept = 1.0 - dropped as f64 / sent as f64;
    Ok((rate(sent, took), kept))
}

/// What the floor reads of a message.
#[derive(Deserialize)]
struct Envelope<'a> {
    jsonrpc: std::borrow::Cow<'a, str>,
    method: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

fn floor(connections: usize, block: &(Vec<u8>, usize)) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr: SocketAddr = listener.local_addr()?;
    let mut peers = Vec::new();
    let mut served = Vec::new();
    for _ in 0..connections {
        peers.push(TcpStream::connect(addr)?);
        served.push(listener.accept()?.0);
    }
    let reader = std::thread::spawn(move || read_all(served));
    let began = clock::now();
    let sent = send(&mut peers, block)?;
    drop(peers);
    let counted = reader.join().map_err(|_| anyhow::anyhow!("the floor panicked"))??;
    let took = clock::now() - began;
    ensure!(counted == sent, "{counted} of {sent} were read");
    Ok(rate(sent, took))
}

fn read_all(served: Vec<TcpStream>) -> anyhow::Result<u64> {
    static COUNTED: AtomicU64 = AtomicU64::new(0);
    COUNTED.store(0, Ordering::Relaxed);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut tasks = Vec::new();
        for stream in served {
            stream.set_nonblocking(true)?;
            let stream = tokio::net::TcpStream::from_std(stream)?;
            tasks.push(tokio::spawn(async move {
                let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(1024 * 1024));
                while let Some(Ok(line)) = lines.next().await {
                    if let Ok(message) = serde_json::from_str::<Envelope<'_>>(&line)
                        && message.jsonrpc == "2.0"
                        && message.method.starts_with("hive/")
                        && message.id.is_none()
                        && message.params.is_some()
                    {
                        COUNTED.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        for task in tasks {
            task.await?;
        }
        Ok(COUNTED.load(Ordering::Relaxed))
    })
}
