//! What folding costs: 5,000 agents, each a heartbeat and 20 log lines a second, as the data plane would hand them up.
//!
//! Three figures. **pure**: one second's messages folded in bursts, without intake, actor or threads. **paced**: the same messages handed to the
//! health room by another thread at their rate (30,000 reads a second: each heartbeat alone, logs in fours), what the folding thread and the sender
//! used of a processor, and how long a message waited. **flat out**: how many a second are folded when the sender does not wait.
//!
//! `cargo bench --bench fold`.

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use actix::Actor;
use anyhow::{Context, ensure};
use hivekeeper::{
    events::Feed,
    health::{Fold, Handle, Identity, Now, Options, Report},
    model::{
        AgentId, AgentSpec, Backoff, Desired, Epoch, HiveId, Home, OnExceeded, OnStuck, Origin, Ready, RestartType,
        Seq, Strategy, SwarmSpec, Telemetry, TelemetryKind,
    },
};
use hivekeeper_actors::{EventKind, SupervisionEvent};

/// The number.
const AGENTS: u32 = 5_000;
/// The number, a second.
const LOGS: usize = 20;
/// Log records that one read brings.
const LOGS_A_READ: usize = 4;
/// How long each figure is taken.
const SECONDS: u32 = 10;

fn main() -> anyhow::Result<()> {
    pure()?;
    let (handle, thread) = room()?;
    let agents = agents();
    start(&agents, |report| handle.report(report));
    wait("all agents run", || handle.hive().agents.iter().filter(|doc| doc.incarnation == 1).count() == agents.len())?;
    // That a session is open is no message of the agent.
    let mut sent = 0;
    paced(&handle, &thread, &agents, &mut sent)?;
    document(&handle, &agents, &mut sent)?;
    flat_out(&handle, &thread, &agents, &mut sent)
}

fn spec() -> Arc<SwarmSpec> {
    let agent = AgentSpec {
        name: NAME.parse().unwrap_or_else(|_| unreachable!("a name")),
        replicas: Some(AGENTS),
        command: vec!["true".to_owned()],
        env: BTreeMap::new(),
        restart: RestartType::Permanent,
        ready: Ready::Process,
        start_timeout: Duration::from_secs(30),
        heartbeat_timeout: Duration::from_secs(15),
        progress_timeout: Duration::ZERO,
        on_stuck: OnStuck::Report,
        stop_grace: Duration::from_secs(10),
        lease: Duration::from_secs(30),
    };
    Arc::new(SwarmSpec {
        name: "load".parse().unwrap_or_else(|_| unreachable!("a name")),
        origin: Origin::Config,
        home: Home::Process { workdir: None },
        strategy: Strategy::OneForOne,
        intensity: 5,
        period: Duration::from_secs(60),
        on_exceeded: OnExceeded::Fail,
        backoff: Backoff::default(),
        env: BTreeMap::new(),
        agents: vec![Arc::new(agent)],
    })
}

const NAME: &str = "agent";

fn identity() -> Identity {
    Identity { hive: HiveId::mint(), name: "bench".to_owned(), sample_interval: Duration::from_secs(5) }
}

fn agents() -> Vec<AgentId> {
    (1..=AGENTS).filter_map(|n| format!("load/{NAME}-{n}").parse().ok()).collect()
}

/// Declares the swarm and lets every agent run with a session.
fn start(agents: &[AgentId], mut report: impl FnMut(Report)) {
    report(Report::Declared { spec: spec(), desired: Desired::Running, seeds: Vec::new() });
    report(Report::Reconciled);
    for agent in agents {
        for kind in [EventKind::Starting { attempt: 0 }, EventKind::Started { took: Duration::ZERO }] {
            let path = Arc::from(format!("root/swarms/{agent}"));
            let id = agent.name.as_str().into();
            let event = SupervisionEvent { path, id, incarnation: 1, restarts: 0, restarts_in_window: 0, kind };
            report(Report::Supervision { agent: agent.clone(), event });
        }
        report(said(agent, [TelemetryKind::SessionOpened]));
    }
}

fn said(agent: &AgentId, kinds: impl IntoIterator<Item = TelemetryKind>) -> Report {
    let at = SystemTime::now();
    let one = |kind| Telemetry { agent: agent.clone(), incarnation: 1, at, kind };
    Report::Telemetry(kinds.into_iter().map(one).collect())
}

fn heartbeat() -> TelemetryKind {
    TelemetryKind::Heartbeat { progress: Some(Arc::from("{\"step\":1}")), busy: Some(true) }
}

/// As the data plane hands up what it read at once.
fn logs(count: usize) -> TelemetryKind {
    TelemetryKind::Logged(count as u64)
}

fn pure() -> anyhow::Result<()> {
    let mut fold = Fold::new(identity(), Now::read());
    let agents = agents();
    start(&agents, |report| drop(fold.apply(Now::read(), report)));
    drop(fold.tick(Now::read()));
    let [mut folding, mut ticking, mut taking, mut showing] = [Duration::ZERO; 4];
    for second in 0..SECONDS {
        let base = Now::read();
        let passed = Duration::from_secs(u64::from(second) + 1);
        let now = Now { wall: base.wall + passed, mono: base.mono + passed };
        let reports: Vec<_> = agents.iter().map(|agent| said(agent, [logs(LOGS), heartbeat()])).collect();
        let began = Instant::now();
        for report in reports {
            drop(fold.apply(now, report));
        }
        folding += began.elapsed();
        let began = Instant::now();
        let parts = fold.parts();
        taking += began.elapsed();
        let hive = parts.into_hive();
        showing += began.elapsed();
        ensure!(hive.agents.len() == agents.len(), "not all are shown");
        let began = Instant::now();
        let changes = fold.tick(now);
        ticking += began.elapsed();
        drop(changes);
    }
    let messages = AGENTS * SECONDS * u32::try_from(LOGS + 1)?;
    println!("pure: {AGENTS} agents, {} messages in {} bursts a second", messages / SECONDS, AGENTS);
    println!(
        "  fold      {:>9.1?} a second's bursts, {:.0?} a burst, {:.0?} a message",
        folding / SECONDS,
        folding / (AGENTS * SECONDS),
        folding / messages
    );
    println!("  tick      {:>9.1?} with all {AGENTS} documents told", ticking / SECONDS);
    println!(
        "  document  {:>9.1?} the whole hive, for {:.1?} of which no turn can begin",
        showing / SECONDS,
        taking / SECONDS
    );
    Ok(())
}

/// The thread that folds, by its kernel id.
struct Folder(i32);

impl Folder {
    /// Processor time so far.
    fn used(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/self/task/{}/schedstat", self.0);
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
        let ns = text.split_whitespace().next().and_then(|ns| ns.parse().ok()).context("no time in schedstat")?;
        Ok(Duration::from_nanos(ns))
    }
}

fn room() -> anyhow::Result<(Handle, Folder)> {
    let feed = Feed::new(Epoch(1), Seq(1));
    let handle = Handle::new(Options { identity: identity(), feed, on_stuck: Arc::new(|_, _| {}) });
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let monitored = handle.clone();
    thread::spawn(move || {
        actix::System::new().block_on(async move {
            let id = this_thread();
            let monitor = monitored.monitor().start();
            let _heard = tell.send(id);
            std::future::pending::<()>().await;
            drop(monitor);
        });
    });
    Ok((handle, Folder(told.recv_timeout(Duration::from_secs(10))?)))
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        ensure!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn received(handle: &Handle) -> u64 {
    handle.hive().agents.iter().map(|doc| doc.telemetry.received).sum()
}

fn paced(handle: &Handle, folder: &Folder, agents: &[AgentId], sent: &mut u64) -> anyhow::Result<()> {
    let me = Folder(this_thread());
    let (began, used, sent_by) = (Instant::now(), folder.used()?, me.used()?);
    let mut waited = Vec::new();
    let rounds = u32::try_from(LOGS / LOGS_A_READ)?;
    let step = Duration::from_secs(1) / (AGENTS / 50);
    let mut reads = 0u32;
    // Every 50th of an agent's second somebody else has his turn: reads come evenly, as from so many connections.
    for second in 0..SECONDS {
        for (slot, some) in agents.chunks(50).enumerate() {
            let due = began + Duration::from_secs(u64::from(second)) + step * u32::try_from(slot)?;
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                thread::sleep(early);
            }
            for agent in some {
                handle.report(said(agent, [heartbeat()]));
                for _ in 0..rounds {
                    handle.report(said(agent, [logs(LOGS_A_READ)]));
                }
                reads += rounds + 1;
            }
        }
        waited.extend(agents.iter().filter_map(|agent| handle.agent(agent)?.telemetry.latency_ms.value().copied()));
    }
    let elapsed = began.elapsed();
    let (used, sent_by) = (folder.used()? - used, me.used()? - sent_by);
    let messages = u64::from(AGENTS * SECONDS) * (LOGS as u64 + 1);
    *sent += messages;
    wait("everything is folded", || received(handle) == *sent)?;
    waited.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| waited.get(((waited.len() as f64 - 1.0) * part) as usize).copied().unwrap_or(f64::NAN);
    println!("paced: {messages} messages in {reads} reads over {elapsed:.1?}, all received, none dropped");
    println!("  folding thread {:>5.1} % of a processor", 100.0 * used.as_secs_f64() / elapsed.as_secs_f64());
    println!(
        "  sender         {:>5.1} % of a processor, making the messages included",
        100.0 * sent_by.as_secs_f64() / elapsed.as_secs_f64()
    );
    println!("  waited         p50 {:.3} ms, p99 {:.3} ms, most {:.3} ms", at(0.5), at(0.99), at(1.0));
    Ok(())
}

fn this_thread() -> i32 {
    // SAFETY: it only asks the kernel who we are.
    unsafe { libc::gettid() }
}

/// The whole document after every agent has changed, as the first reader pays for it, and as the next does.
fn document(handle: &Handle, agents: &[AgentId], sent: &mut u64) -> anyhow::Result<()> {
    let (mut first, mut next) = (Vec::new(), Vec::new());
    for _ in 0..SECONDS {
        agents.iter().for_each(|agent| handle.report(said(agent, [heartbeat()])));
        *sent += u64::from(AGENTS);
        thread::sleep(Duration::from_millis(1200));
        let began = Instant::now();
        let hive = handle.hive();
        first.push(began.elapsed());
        let began = Instant::now();
        ensure!(handle.hive().agents.len() == hive.agents.len(), "another document");
        next.push(began.elapsed());
    }
    first.sort_unstable();
    next.sort_unstable();
    println!(
        "document: {:.1?} for the first reader after a change, {:.1?} for the next (medians)",
        first[first.len() / 2],
        next[next.len() / 2]
    );
    Ok(())
}

fn flat_out(handle: &Handle, folder: &Folder, agents: &[AgentId], sent: &mut u64) -> anyhow::Result<()> {
    let before = *sent;
    let (began, used) = (Instant::now(), folder.used()?);
    while began.elapsed() < Duration::from_secs(u64::from(SECONDS)) {
        for agent in agents {
            handle.report(said(agent, [logs(LOGS), heartbeat()]));
            *sent += LOGS as u64 + 1;
        }
    }
    wait("everything is folded", || received(handle) == *sent)?;
    let elapsed = began.elapsed();
    let rate = (*sent - before) as f64 / elapsed.as_secs_f64();
    println!(
        "flat out: {rate:.0} messages a second from one sender, all folded; folding thread {:.1} % of a processor",
        100.0 * (folder.used()? - used).as_secs_f64() / elapsed.as_secs_f64()
    );
    Ok(())
}
