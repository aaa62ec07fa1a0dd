//! kameo, under its own supervision. Mailboxes are unbounded, like everybody else's here; `tell` is then `try_send`, which never waits.

use std::time::{Duration, Instant};

use kameo::actor::{Actor, ActorRef, Spawn};
use kameo::error::Infallible;
use kameo::mailbox;
use kameo::message::{Context, Message};
use tokio::task::yield_now;

use crate::measure::{
    self, BEGUN, BURST, Counter, ENDED, IN_FLIGHT, Job, Place, REST, SETTLE, say, say_rate, say_restarts, say_time,
};

struct Add(u64);
struct Get;
struct Echo(u64);
struct Crash;
struct First;

struct Supervisor;

impl Actor for Supervisor {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

struct Worker(Counter);

impl Actor for Worker {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), me: ActorRef<Self>) -> Result<Self, Infallible> {
        if measure::restarts_are_measured() {
            let _ = me.tell(First).try_send();
        }
        Ok(Self(Counter::begin()))
    }
}

impl Message<Add> for Worker {
    type Reply = ();
    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self, ()>) {
        self.0.0 += n;
    }
}

impl Message<Get> for Worker {
    type Reply = u64;
    async fn handle(&mut self, _: Get, _: &mut Context<Self, u64>) -> u64 {
        self.0.0
    }
}

impl Message<Echo> for Worker {
    type Reply = u64;
    async fn handle(&mut self, Echo(n): Echo, _: &mut Context<Self, u64>) -> u64 {
        n
    }
}

impl Message<Crash> for Worker {
    type Reply = ();
    async fn handle(&mut self, _: Crash, _: &mut Context<Self, ()>) {
        measure::crashing();
        panic!("crash");
    }
}

impl Message<First> for Worker {
    type Reply = ();
    async fn handle(&mut self, _: First, _: &mut Context<Self, ()>) {
        measure::first_message();
    }
}

pub async fn run(job: &Job) -> bool {
    let restarts = (job.what == "restart").then(measure::listen);
    let supervisor = Supervisor::spawn(());
    if job.what == "start" {
        start(job.count, &supervisor).await;
        return true;
    }
    let worker = child(&supervisor).await;
    match (job.what.as_str(), restarts) {
        ("restart", Some(restarts)) => crash(job.count, &worker, restarts).await,
        ("tell", _) => tell(job, &worker).await,
        ("ask", _) => ask(job.count, &worker).await,
        ("ask64", _) => ask_many(job.count, &worker).await,
        _ => return false,
    }
    true
}

/// Started and acknowledged.
async fn child(supervisor: &ActorRef<Supervisor>) -> ActorRef<Worker> {
    let worker = Worker::supervise(supervisor, ())
        .restart_limit(u32::MAX, Duration::from_secs(1))
        .spawn_with_mailbox(mailbox::unbounded())
        .await;
    worker.wait_for_startup().await;
    worker
}

async fn start(count: u64, supervisor: &ActorRef<Supervisor>) {
    let mut children = Vec::with_capacity(count as usize);
    let (before, began) = (measure::resident(), Instant::now());
    for _ in 0..count {
        children.push(child(supervisor).await);
    }
    measure::until(&BEGUN, count).await;
    say_time("start", began);
    tokio::time::sleep(SETTLE).await;
    say("memory", (measure::resident() - before) / count as f64);
    let began = Instant::now();
    supervisor.stop_gracefully().await.expect("a stop");
    supervisor.wait_for_shutdown().await;
    measure::until(&ENDED, count).await;
    say_time("stop", began);
}

async fn crash(count: u64, worker: &ActorRef<Worker>, mut restarts: tokio::sync::mpsc::Receiver<Duration>) {
    // The first incarnation greets, too.
    restarts.recv().await.expect("a first message");
    let mut times = Vec::with_capacity(count as usize);
    for _ in 0..count {
        worker.tell(Crash).try_send().expect("sent");
        times.push(restarts.recv().await.expect("a first message"));
        tokio::time::sleep(REST).await;
    }
    say_restarts(times);
}

async fn tell(job: &Job, worker: &ActorRef<Worker>) {
    let mut told = 0;
    for count in [job.count / 10, job.count] {
        let began = Instant::now();
        for n in 1..=count {
            worker.tell(Add(1)).try_send().expect("sent");
            if job.place == Place::OneThread && n % BURST == 0 {
                yield_now().await;
            }
        }
        told += count;
        assert_eq!(worker.ask(Get).await.expect("an answer"), told);
        if count == job.count {
            say_rate("tell", count, began);
        }
    }
}

async fn ask(count: u64, worker: &ActorRef<Worker>) {
    for n in 0..count / 10 {
        worker.ask(Echo(n)).await.expect("an answer");
    }
    let began = Instant::now();
    for n in 0..count {
        assert_eq!(worker.ask(Echo(n)).await.expect("an answer"), n);
    }
    say_rate("ask", count, began);
}

async fn ask_many(count: u64, worker: &ActorRef<Worker>) {
    let each = count / IN_FLIGHT as u64;
    let began = Instant::now();
    let askers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let worker = worker.clone();
            tokio::spawn(async move {
                for n in 0..each {
                    assert_eq!(worker.ask(Echo(n)).await.expect("an answer"), n);
                }
            })
        })
        .collect();
    for asker in askers {
        asker.await.expect("an asker");
    }
    say_rate("ask64", each * IN_FLIGHT as u64, began);
}
