//! ractor, under a supervisor written by hand and under `ractor-supervisor`.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr, SupervisionEvent, call};
use ractor_supervisor::{
    ChildSpec, DynamicSupervisor, DynamicSupervisorMsg, DynamicSupervisorOptions, Restart, SpawnFn,
};
use tokio::task::yield_now;

use crate::measure::{
    self, BEGUN, BURST, Counter, ENDED, IN_FLIGHT, Job, Place, REST, SETTLE, say, say_rate, say_restarts, say_time,
};

enum Message {
    Add(u64),
    Get(RpcReplyPort<u64>),
    Echo(u64, RpcReplyPort<u64>),
    Crash,
    First,
}

/// The worker that lives now: a restart in ractor makes another actor with another address.
static LIVING: OnceLock<tokio::sync::watch::Sender<Option<ActorRef<Message>>>> = OnceLock::new();

struct Worker;

impl Actor for Worker {
    type Msg = Message;
    type State = Counter;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<Counter, ActorProcessingErr> {
        Ok(Counter::begin())
    }

    async fn post_start(&self, me: ActorRef<Message>, _: &mut Counter) -> Result<(), ActorProcessingErr> {
        if let Some(living) = LIVING.get() {
            living.send_replace(Some(me.clone()));
        }
        if measure::restarts_are_measured() {
            me.cast(Message::First)?;
        }
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        counter: &mut Counter,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Add(n) => counter.0 += n,
            Message::Get(reply) => reply.send(counter.0)?,
            Message::Echo(n, reply) => reply.send(n)?,
            Message::Crash => {
                measure::crashing();
                panic!("crash");
            }
            Message::First => measure::first_message(),
        }
        Ok(())
    }
}

/// As ractor's documentation has it: the supervisor is told of the end of what is linked to it and spawns another one.
struct Supervisor;

enum Request {
    Start(RpcReplyPort<ActorRef<Message>>),
}

impl Actor for Supervisor {
    type Msg = Request;
    type State = HashMap<ActorId, ActorRef<Message>>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Request>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(HashMap::new())
    }

    async fn handle(
        &self,
        me: ActorRef<Request>,
        Request::Start(reply): Request,
        children: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (child, _) = Actor::spawn_linked(None, Worker, (), me.get_cell()).await?;
        children.insert(child.get_id(), child.clone());
        reply.send(child)?;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<Request>,
        event: SupervisionEvent,
        children: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorTerminated(ended, ..) | SupervisionEvent::ActorFailed(ended, _) = event {
            children.remove(&ended.get_id());
            let (child, _) = Actor::spawn_linked(None, Worker, (), me.get_cell()).await?;
            children.insert(child.get_id(), child);
        }
        Ok(())
    }
}

pub async fn by_hand(job: &Job) -> bool {
    if job.what == "start" {
        by_hand_start(job.count).await;
        return true;
    }
    let restarts = (job.what == "restart").then(measure::listen);
    let _ = LIVING.set(tokio::sync::watch::Sender::new(None));
    let (supervisor, _) = Actor::spawn(None, Supervisor, ()).await.expect("a supervisor");
    let worker = call!(supervisor, Request::Start).expect("a child");
    match (job.what.as_str(), restarts) {
        ("restart", Some(restarts)) => crash(job.count, restarts).await,
        ("tell", _) => tell(job, &worker).await,
        ("ask", _) => ask(job.count, &worker).await,
        ("ask64", _) => ask_many(job.count, &worker).await,
        _ => return false,
    }
    true
}

/// Only what differs from the supervisor by hand: starts and restarts. Messages go the same way.
pub async fn supervised(job: &Job) -> bool {
    let restarts = match job.what.as_str() {
        "start" => None,
        "restart" => Some(measure::listen()),
        _ => return false,
    };
    let _ = LIVING.set(tokio::sync::watch::Sender::new(None));
    let options = DynamicSupervisorOptions {
        max_children: None,
        max_restarts: usize::try_from(u32::MAX).expect("fits"),
        max_window: Duration::from_secs(1),
        reset_after: None,
    };
    let (supervisor, end) = DynamicSupervisor::spawn("root".into(), options).await.expect("a supervisor");
    let Some(restarts) = restarts else {
        supervised_start(job.count, supervisor, end).await;
        return true;
    };
    DynamicSupervisor::spawn_child(supervisor, spec("worker".into())).await.expect("a child");
    crash(job.count, restarts).await;
    true
}

fn spec(id: String) -> ChildSpec {
    ChildSpec { id, restart: Restart::Permanent, spawn_fn: SpawnFn::new(spawn), backoff_fn: None, reset_after: None }
}

async fn spawn(supervisor: ActorCell, id: String) -> Result<ActorCell, SpawnErr> {
    Ok(DynamicSupervisor::spawn_linked(id, Worker, (), supervisor).await?.0.get_cell())
}

async fn by_hand_start(count: u64) {
    let (supervisor, end) = Actor::spawn(None, Supervisor, ()).await.expect("a supervisor");
    let mut children = Vec::with_capacity(count as usize);
    let (before, began) = (measure::resident(), Instant::now());
    for _ in 0..count {
        children.push(call!(supervisor, Request::Start).expect("a child"));
    }
    measure::until(&BEGUN, count).await;
    say_time("start", began);
    tokio::time::sleep(SETTLE).await;
    say("memory", (measure::resident() - before) / count as f64);
    let began = Instant::now();
    supervisor.stop_children_and_wait(None, None).await;
    supervisor.stop(None);
    end.await.expect("the supervisor ends");
    measure::until(&ENDED, count).await;
    say_time("stop", began);
}

async fn supervised_start(count: u64, supervisor: ActorRef<DynamicSupervisorMsg>, end: tokio::task::JoinHandle<()>) {
    let (before, began) = (measure::resident(), Instant::now());
    for n in 0..count {
        DynamicSupervisor::spawn_child(supervisor.clone(), spec(format!("w{n}"))).await.expect("a child");
    }
    measure::until(&BEGUN, count).await;
    say_time("start", began);
    tokio::time::sleep(SETTLE).await;
    say("memory", (measure::resident() - before) / count as f64);
    let began = Instant::now();
    supervisor.stop(None);
    end.await.expect("the supervisor ends");
    measure::until(&ENDED, count).await;
    say_time("stop", began);
}

async fn crash(count: u64, mut restarts: tokio::sync::mpsc::Receiver<Duration>) {
    // The first incarnation greets, too.
    restarts.recv().await.expect("a first message");
    let mut times = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let worker = LIVING.get().and_then(|living| living.borrow().clone()).expect("a worker");
        worker.cast(Message::Crash).expect("sent");
        times.push(restarts.recv().await.expect("a first message"));
        tokio::time::sleep(REST).await;
    }
    say_restarts(times);
}

async fn tell(job: &Job, worker: &ActorRef<Message>) {
    let mut told = 0;
    for count in [job.count / 10, job.count] {
        let began = Instant::now();
        for n in 1..=count {
            worker.cast(Message::Add(1)).expect("sent");
            if job.place == Place::OneThread && n % BURST == 0 {
                yield_now().await;
            }
        }
        told += count;
        assert_eq!(call!(worker, Message::Get).expect("an answer"), told);
        if count == job.count {
            say_rate("tell", count, began);
        }
    }
}

async fn ask(count: u64, worker: &ActorRef<Message>) {
    for n in 0..count / 10 {
        call!(worker, Message::Echo, n).expect("an answer");
    }
    let began = Instant::now();
    for n in 0..count {
        assert_eq!(call!(worker, Message::Echo, n).expect("an answer"), n);
    }
    say_rate("ask", count, began);
}

async fn ask_many(count: u64, worker: &ActorRef<Message>) {
    let each = count / IN_FLIGHT as u64;
    let began = Instant::now();
    let askers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let worker = worker.clone();
            tokio::spawn(async move {
                for n in 0..each {
                    assert_eq!(call!(worker, Message::Echo, n).expect("an answer"), n);
                }
            })
        })
        .collect();
    for asker in askers {
        asker.await.expect("an asker");
    }
    say_rate("ask64", each * IN_FLIGHT as u64, began);
}
