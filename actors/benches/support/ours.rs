//! This crate's side of the race, through its public names alone.

use std::{
    process::ExitCode,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix::prelude::*;
use hivekeeper_actors::{
    Backoff, Child, ChildCtx, ChildRef, ChildSpec, DynamicRef, EventSink, Placement, Root, Strategy, SupervisionEvent,
    SupervisorFlags, Template,
};
use tokio::{
    sync::{
        mpsc::{Receiver, Sender, channel},
        oneshot,
    },
    task::yield_now,
};

use super::Failure;

/// Tells this executable to take part instead of starting the race.
pub const WORD: &str = "ours";

/// The same figures as in `peers/src/measure.rs` and `peers/bench.erl`.
const REST: Duration = Duration::from_millis(1);
const SETTLE: Duration = Duration::from_millis(200);
const IN_FLIGHT: usize = 64;
const BURST: usize = 100;
/// Ours has no ask without a deadline.
const ASK_WAIT: Duration = Duration::from_secs(60);
const WORKERS: &str = "workers";
/// More than is ever told here.
const INBOX: usize = 10_000_000;

static BEGUN: AtomicUsize = AtomicUsize::new(0);
static ENDED: AtomicUsize = AtomicUsize::new(0);
static CLOCK: LazyLock<Instant> = LazyLock::new(Instant::now);
static CRASHED_AT: AtomicU64 = AtomicU64::new(0);
static BACK: OnceLock<Sender<Duration>> = OnceLock::new();

/// Hears everything, as a program's sink does, and keeps nothing.
struct Deaf;

impl EventSink for Deaf {
    fn event(&self, _: SupervisionEvent) {}
}

struct Worker {
    sum: usize,
}

impl Worker {
    fn new() -> Self {
        BEGUN.fetch_add(1, Ordering::Release);
        Self { sum: 0 }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        ENDED.fetch_add(1, Ordering::Release);
    }
}

impl Actor for Worker {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Add(usize);

#[derive(Message)]
#[rtype(result = "usize")]
struct Get;

#[derive(Message)]
#[rtype(result = "usize")]
struct Echo(usize);

#[derive(Message)]
#[rtype(result = "()")]
struct Crash;

#[derive(Message)]
#[rtype(result = "()")]
struct First;

impl Handler<Add> for Worker {
    type Result = ();
    fn handle(&mut self, Add(n): Add, _: &mut Self::Context) {
        self.sum += n;
    }
}

impl Handler<Get> for Worker {
    type Result = usize;
    fn handle(&mut self, _: Get, _: &mut Self::Context) -> usize {
        self.sum
    }
}

impl Handler<Echo> for Worker {
    type Result = usize;
    fn handle(&mut self, Echo(n): Echo, _: &mut Self::Context) -> usize {
        n
    }
}

impl Handler<Crash> for Worker {
    type Result = ();
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        CRASHED_AT.store(nanos(), Ordering::SeqCst);
        panic!("crash");
    }
}

impl Handler<First> for Worker {
    type Result = ();
    fn handle(&mut self, _: First, _: &mut Self::Context) {
        if let Some(back) = BACK.get() {
            let _ = back.try_send(Duration::from_nanos(nanos() - CRASHED_AT.load(Ordering::SeqCst)));
        }
    }
}

/// One measurement: WHAT WHERE COUNT.
pub fn run(words: &[String]) -> ExitCode {
    LazyLock::force(&CLOCK);
    // A crash must cost nobody a line on the console: the tree wraps this one.
    std::panic::set_hook(Box::new(|_| {}));
    let words = words.to_vec();
    // As a task, like everything else in a program.
    let measured =
        async { actix_rt::spawn(async move { measured(&words).await.map_err(|failure| failure.to_string()) }).await };
    match System::new().block_on(measured) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        failed => {
            eprintln!("{failed:?}");
            ExitCode::FAILURE
        }
    }
}

type Workers = DynamicRef<Worker, ()>;

async fn measured(words: &[String]) -> Result<(), Failure> {
    let [what, place, count] = words else { return Err("WHAT WHERE COUNT".into()) };
    let count: usize = count.parse()?;
    let placement = if place == "x" { Placement::Pool } else { Placement::WithSupervisor };
    let root = Root::start(SupervisorFlags::unlimited(Strategy::OneForOne), Vec::new(), Arc::new(Deaf))?;
    let (supervisor, workers) = workers(placement);
    root.supervisor().add_child(if place == "t" { supervisor.apart() } else { supervisor }).await?;
    match what.as_str() {
        "start" => start(&root, &workers, count).await?,
        "restart" => crash(&workers, count).await?,
        "tell" => tell(&workers, placement, count).await?,
        "ask" if place == "t" => ask_together(&workers, count).await?,
        "ask" => ask(worker(&workers).await?, count).await?,
        "ask64" => ask_many(&workers, count).await?,
        other => return Err(format!("{other} is nothing to measure").into()),
    }
    root.shutdown().await?;
    Ok(())
}

/// Any number of workers that are restarted without delay, for ever.
fn workers(placement: Placement) -> (Child, Workers) {
    let backoff = Backoff { initial: Duration::ZERO, then: Duration::ZERO, max: Duration::ZERO, ..Backoff::default() };
    let spec = ChildSpec { placement, backoff, inbox_capacity: INBOX, ..ChildSpec::new("worker") };
    let template = Template::new(spec, |child: ChildCtx<Worker>, ()| {
        if BACK.get().is_some() {
            child.self_ref().tell(First)?;
        }
        Ok(Worker::new())
    });
    Child::dynamic(ChildSpec::new(WORKERS), SupervisorFlags::unlimited(Strategy::SimpleOneForOne), template)
}

async fn worker(workers: &Workers) -> Result<ChildRef<Worker>, Failure> {
    Ok(workers.start(()).await?.1)
}

async fn start(root: &Root, workers: &Workers, count: usize) -> Result<(), Failure> {
    let mut kept = Vec::with_capacity(count);
    let (before, began) = (resident(), Instant::now());
    for _ in 0..count {
        kept.push(worker(workers).await?);
    }
    until(&BEGUN, count).await;
    say_time("start", began);
    tokio::time::sleep(SETTLE).await;
    say("memory", (resident() - before) / count as f64);
    let began = Instant::now();
    root.supervisor().terminate_child(&WORKERS.into()).await?;
    until(&ENDED, count).await;
    say_time("stop", began);
    Ok(())
}

async fn crash(workers: &Workers, count: usize) -> Result<(), Failure> {
    let (back, mut restarts) = channel(1);
    BACK.set(back).map_err(|_| "two measurements in one process")?;
    let worker = worker(workers).await?;
    // The first incarnation greets, too.
    next(&mut restarts).await?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        worker.tell(Crash)?;
        times.push(next(&mut restarts).await?);
        tokio::time::sleep(REST).await;
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1].as_secs_f64() * 1e6;
    say("restart", at(50));
    say("restart_p99", at(99));
    Ok(())
}

async fn next(restarts: &mut Receiver<Duration>) -> Result<Duration, Failure> {
    Ok(tokio::time::timeout(ASK_WAIT, restarts.recv()).await?.ok_or("nobody restarts")?)
}

async fn tell(workers: &Workers, placement: Placement, count: usize) -> Result<(), Failure> {
    let worker = worker(workers).await?;
    let mut told = 0;
    for count in [count / 10, count] {
        let began = Instant::now();
        for n in 1..=count {
            worker.tell(Add(1))?;
            if placement == Placement::WithSupervisor && n % BURST == 0 {
                yield_now().await;
            }
        }
        told += count;
        let sum = worker.ask(Get, ASK_WAIT).await?;
        if sum != told {
            return Err(format!("{told} were told, {sum} were handled").into());
        }
        if told > count {
            say_rate("tell", count, began);
        }
    }
    Ok(())
}

async fn ask(worker: ChildRef<Worker>, count: usize) -> Result<(), Failure> {
    ask_each(&worker, count / 10).await?;
    let began = Instant::now();
    ask_each(&worker, count).await?;
    say_rate("ask", count, began);
    Ok(())
}

/// One worker asks another one that lives beside it.
async fn ask_together(workers: &Workers, count: usize) -> Result<(), Failure> {
    let (asker, asked) = (worker(workers).await?, worker(workers).await?);
    let (sender, done) = oneshot::channel();
    asker.run(move |_, _| {
        actix_rt::spawn(async move {
            let _ = sender.send(ask(asked, count).await.map_err(|failure| failure.to_string()));
        });
    })?;
    Ok(done.await??)
}

async fn ask_each(worker: &ChildRef<Worker>, count: usize) -> Result<(), Failure> {
    for n in 0..count {
        let echoed = worker.ask(Echo(n), ASK_WAIT).await?;
        if echoed != n {
            return Err(format!("{n} came back as {echoed}").into());
        }
    }
    Ok(())
}

async fn ask_many(workers: &Workers, count: usize) -> Result<(), Failure> {
    let worker = worker(workers).await?;
    let each = count / IN_FLIGHT;
    let began = Instant::now();
    let askers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let worker = worker.clone();
            actix_rt::spawn(async move { ask_each(&worker, each).await.map_err(|failure| failure.to_string()) })
        })
        .collect();
    for asker in askers {
        asker.await??;
    }
    say_rate("ask64", each * IN_FLIGHT, began);
    Ok(())
}

async fn until(counter: &AtomicUsize, count: usize) {
    while counter.load(Ordering::Acquire) < count {
        yield_now().await;
    }
}

/// Times in us, rates a second, memory in bytes a child.
fn say(name: &str, value: f64) {
    println!("{name} {value:.3}");
}

fn say_rate(name: &str, count: usize, since: Instant) {
    say(name, count as f64 / since.elapsed().as_secs_f64());
}

fn say_time(name: &str, since: Instant) {
    say(name, since.elapsed().as_secs_f64() * 1e6);
}

/// Resident memory of this process, bytes.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4096.0
}

fn nanos() -> u64 {
    u64::try_from(CLOCK.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
