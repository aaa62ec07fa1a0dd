//! The API under load, with a thousand agents, beside a bare actix-web route in the same run.
//!
//! - `GET /swarms`: all swarms with the documents of their agents; `GET /swarms/s0/agents/a-1`: one agent.
//! - `POST restart`: of two hundred agents, each once, four clients side by side, until it is acknowledged (202), which is when it is in the journal.
//! - `bare`: a route of this process that answers with as many bytes as `GET /swarms`, or as one agent's document has, made beforehand: what actix-web
//!   alone takes to send them.
//!
//! Load comes from `wrk` (Debian: `apt-get install wrk`), two threads and sixteen connections, on the same cores. The goal is half the bare route's rate.
//!
//! `cargo bench --bench api`; a quick look: `cargo bench --bench api -- --rounds 1`. Sizes of the executable are told at the end.

mod support;

use std::{fs, net::TcpListener, process::Command, time::Duration};

use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::{Context, bail, ensure};

use support::{
    clock,
    figures::{self, Samples, median_of, table, verdict},
    hive::Hive,
    machine,
};

const SWARMS: usize = 20;
const AGENTS: usize = 50;
const ROUNDS: usize = 5;
/// Clients that give commands.
const LANES: usize = 4;
/// Agents that are restarted in a round: the control plane takes at most 256 operations at a time.
const RESTARTS: usize = 200;
const START_WAIT: Duration = Duration::from_secs(180);
/// The number.
const GOAL: f64 = 0.5;

/// One run of wrk.
#[derive(Debug, Clone, Copy)]
struct Run {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

fn main() -> anyhow::Result<()> {
    let rounds = figures::rounds(ROUNDS)?;
    let scratch = figures::scratch()?;
    println!("machine: {}", machine::describe(scratch.path()));
    ensure!(Command::new("wrk").arg("-v").output().is_ok(), "needs wrk: apt-get install wrk");
    let swarms: Vec<String> = (0..SWARMS).map(swarm).collect();
    let mut hive = Hive::start(scratch.path(), &swarms.concat())?;
    hive.until_running(SWARMS * AGENTS, START_WAIT)?;
    let list = hive.body("/api/v1/swarms")?;
    let one = hive.body("/api/v1/swarms/s0/agents/a-1")?;
    println!("GET /swarms has {} bytes, one agent {}", list.len(), one.len());
    let bare = bare(list, one)?;
    let ours = format!("http://{}", hive.address());
    let cases: [(&str, String); 4] = [
        ("GET /swarms", format!("{ours}/api/v1/swarms")),
        ("bare, as many bytes", format!("{bare}/list")),
        ("GET one agent", format!("{ours}/api/v1/swarms/s0/agents/a-1")),
        ("bare, as many bytes", format!("{bare}/one")),
    ];
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for ((name, url), runs) in cases.iter().zip(&mut runs) {
            runs.push(load(url).with_context(|| (*name).to_owned())?);
        }
    }
    let of = |case: usize, what: fn(&Run) -> f64| median_of(runs[case].iter().map(what).collect()).unwrap_or(0.0);
    let row = |case: usize| {
        let cell = |what| format!("{:.2}", of(case, what));
        vec![
            cases[case].0.to_owned(),
            format!("{:.0}", of(case, |run| run.per_second)),
            cell(|run| run.p50_ms),
            cell(|run| run.p99_ms),
        ]
    };
    let rows: Vec<Vec<String>> = (0..cases.len()).map(row).collect();
    table(
        &format!("{} agents, median of {rounds}", SWARMS * AGENTS),
        &["route", "a second", "p50 ms", "p99 ms"],
        &rows,
    );
    for (ours, bare) in [(0, 1), (2, 3)] {
        let ratio = of(ours, |run| run.per_second) / of(bare, |run| run.per_second);
        println!("{}: {ratio:.2} of the bare route (goal {GOAL}: {})", cases[ours].0, verdict(ratio >= GOAL));
    }
    let mut restarts = Samples::default();
    let mut per_second = Vec::new();
    for _ in 0..rounds {
        per_second.push(restart_all(&hive, &mut restarts)?);
        hive.until_running(SWARMS * AGENTS, START_WAIT)?;
    }
    let cells = [vec!["POST restart, acknowledged".to_owned()], restarts.cells()].concat();
    table("ms", &["route", "count", "min", "p50", "p99", "max"], &[cells]);
    println!("{:.0} a second", median_of(per_second).unwrap_or(0.0));
    hive.stop()?;
    let exe = fs::metadata(env!("CARGO_BIN_EXE_hivekeeper"))?.len();
    println!("executable, stripped in the release profile: {:.1} MB", exe as f64 / 1e6);
    println!("load at the end: {}", machine::load());
    Ok(())
}

fn swarm(number: usize) -> String {
    format!(
        "[[swarm]]\nname = \"s{number}\"\n[[swarm.agent]]\nname = \"a\"\nreplicas = {AGENTS}\ncommand = [\"sleep\", \"100000\"]\nstop_grace = \"1s\"\n"
    )
}

/// Restarts agents, each once; how many were acknowledged a second.
fn restart_all(hive: &Hive, into: &mut Samples) -> anyhow::Result<f64> {
    let began = clock::now();
    let lanes: Vec<anyhow::Result<Vec<Duration>>> = std::thread::scope(|scope| {
        let lane = |lane: usize| {
            scope.spawn(move || {
                let mine = (0..RESTARTS).filter(|n| n % LANES == lane);
                // Neighbours in this order are in different swarms.
                mine.map(|n| {
                    let asked = clock::now();
                    hive.command(&format!("swarms/s{}/agents/a-{}/restart", n % SWARMS, 1 + n / SWARMS))?;
                    Ok(clock::now().saturating_sub(asked))
                })
                .collect()
            })
        };
        let lanes: Vec<_> = (0..LANES).map(lane).collect();
        let join =
            |lane: std::thread::ScopedJoinHandle<'_, _>| lane.join().unwrap_or_else(|_| bail!("a client panicked"));
        lanes.into_iter().map(join).collect()
    });
    let took = clock::now().saturating_sub(began);
    for lane in lanes {
        lane?.into_iter().for_each(|sample| into.add(sample));
    }
    Ok(RESTARTS as f64 / took.as_secs_f64())
}

/// Serves both bodies on a thread of its own, until this process ends; where.
fn bare(list: String, one: String) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    let (list, one) = (web::Bytes::from(list), web::Bytes::from(one));
    std::thread::spawn(move || {
        let served = actix_web::rt::System::new().block_on(async move {
            let app = move || {
                let (list, one) = (list.clone(), one.clone());
                let json = |body: &web::Bytes| {
                    let body = body.clone();
                    move || {
                        let body = body.clone();
                        async move { HttpResponse::Ok().content_type("application/json").body(body) }
                    }
                };
                App::new().route("/list", web::get().to(json(&list))).route("/one", web::get().to(json(&one)))
            };
            HttpServer::new(app).workers(2).listen(listener)?.run().await
        });
        if let Err(error) = served {
            eprintln!("the bare route ended: {error}");
        }
    });
    Ok(format!("http://{at}"))
}

fn load(url: &str) -> anyhow::Result<Run> {
    let mut command = Command::new("wrk");
    command.args(["-t2", "-c16", "-d3s", "--latency"]);
    let output = command.arg(url).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && !text.contains("Non-2xx"), "wrk: {text}");
    let after = |word: &str| {
        let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix(word));
        line.map(|rest| rest.trim().to_owned()).with_context(|| format!("wrk says no {word:?}: {text}"))
    };
    Ok(Run { per_second: after("Requests/sec:")?.parse()?, p50_ms: ms(&after("50%")?)?, p99_ms: ms(&after("99%")?)? })
}

/// `12.3us`, `4.5ms`, `6.7s`.
fn ms(text: &str) -> anyhow::Result<f64> {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    bail!("no time: {text:?}")
}
