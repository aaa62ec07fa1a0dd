//! Ours in this process: the desk, the clerk on a thread of its own, and SQLite as the daemon opens it. What a door costs comes on top.

use std::{
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use hivekeeper::{
    coordination::{
        Bell, Cores, Desk, Refused, WorkChanges, WorkWitness,
        board::{Asking, NewTask},
        locks::Ask,
        mail::{Letter, LetterKind, To, Wanted},
    },
    model::{LockId, LockMode, OnDependencyFailure, Party, Priority, Retry, SwarmName, TaskSpec},
    store::{DataDir, Options, SqliteJournal},
};
use tokio::runtime::Runtime;

use super::{
    lane::{Client, Lane, PAYLOAD, RESULT, Work},
    locks::Locker,
    messages::{Reader, Writer},
};

const LEASE: Duration = Duration::from_secs(60);

struct Unheard;

impl WorkWitness for Unheard {
    fn changed(&self, _: &WorkChanges) {}
}

pub(crate) struct Ours {
    desk: Option<Desk>,
    clerk: Option<JoinHandle<()>>,
    _data: DataDir,
}

impl Ours {
    pub(crate) fn start(scratch: &Path) -> anyhow::Result<Self> {
        let data = DataDir::open(&scratch.join("desk"), "bench", Options::default())?;
        let store = Arc::new(SqliteJournal::open(&data.database(), data.epoch())?);
        let (desk, clerk) = Desk::new(store, Arc::new(Unheard));
        let runtime = runtime()?;
        let clerk = std::thread::spawn(move || {
            let _fenced = runtime.block_on(clerk.run());
        });
        Ok(Self { desk: Some(desk), clerk: Some(clerk), _data: data })
    }

    pub(crate) fn hand(&self, n: usize) -> anyhow::Result<Hand> {
        let desk = self.desk.clone().context("the desk is closed")?;
        let party = Party { id: format!("bench/w-{n}").parse()?, incarnation: Some(1) };
        Ok(Hand { desk, party, runtime: runtime()? })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        drop(self.desk.take());
        if let Some(clerk) = self.clerk.take() {
            let _panicked = clerk.join();
        }
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn swarm() -> anyhow::Result<SwarmName> {
    Ok("bench".parse()?)
}

impl Lane for Ours {
    fn name(&self) -> String {
        "hivekeeper (desk)".to_owned()
    }

    fn fill(&mut self, tasks: usize) -> anyhow::Result<()> {
        let hand = self.hand(0)?;
        let swarm = swarm()?;
        let of = swarm.clone();
        hand.call(move |cores, _| {
            cores.board.forget_swarm(&of);
            Ok(())
        })?;
        let spec = TaskSpec {
            title: "say what it does".into(),
            category: "code".into(),
            priority: Priority::Normal,
            payload: PAYLOAD.into(),
            group: None,
            on_dependency_failure: OnDependencyFailure::Block,
            retry: Retry { retries: 0, backoff: Duration::ZERO, backoff_max: Duration::ZERO },
            attempt_timeout: None,
        };
        let all = vec![NewTask { spec, depends_on: Vec::new() }; tasks];
        for some in all.chunks(1_000) {
            let (some, swarm) = (some.to_vec(), swarm.clone());
            hand.call(move |cores, now| cores.board.create(&mut cores.counter, &swarm, None, some, None, now))?;
        }
        Ok(())
    }

    fn client(&self, n: usize) -> anyhow::Result<Box<dyn Client>> {
        Ok(Box::new(self.hand(n)?))
    }
}

/// Somebody at the desk.
pub(crate) struct Hand {
    desk: Desk,
    party: Party,
    runtime: Runtime,
}

impl Hand {
    fn call<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Cores, SystemTime) -> Result<T, Refused> + Send + 'static,
    ) -> anyhow::Result<T> {
        Ok(self.runtime.block_on(self.desk.call(decide))?)
    }
}

impl Client for Hand {
    fn turn(&mut self, work: &Work) -> anyhow::Result<bool> {
        let asking = Asking { party: self.party.clone(), categories: Vec::new(), max: 1, lease: LEASE };
        let claimed = self.call(move |cores, now| cores.board.claim(&mut cores.counter, &asking, now))?;
        let Some(task) = claimed.first() else { return Ok(false) };
        let (id, fence) = (task.id, task.claim.as_ref().context("a claim without a token")?.fence);
        work()?;
        let swarm = self.party.id.swarm.clone();
        self.call(move |cores, now| cores.board.complete(&swarm, id, fence, Some(RESULT.into()), now))?;
        Ok(true)
    }
}

impl Locker for Hand {
    fn turn(&mut self) -> anyhow::Result<()> {
        let ask = Ask {
            id: LockId::mint(),
            resources: vec!["src/coordination/".into()],
            mode: LockMode::Write,
            holder: self.party.clone(),
            lease: LEASE,
            wait: Duration::ZERO,
            note: None,
        };
        let lock = self.runtime.block_on(self.desk.lock(ask))?;
        let (id, fence) = (lock.id, lock.grant.context("a lock without a token")?.fence);
        let swarm = self.party.id.swarm.clone();
        self.call(move |cores, now| cores.locks.release(&mut cores.counter, &swarm, id, fence, now))
    }
}

impl Writer for Hand {
    fn send(&mut self, to: &str, body: &str) -> anyhow::Result<()> {
        let letter = Letter {
            swarm: self.party.id.swarm.clone(),
            from: Some(self.party.clone()),
            kind: LetterKind::Note { to: To::One(to.parse()?) },
            to_client: false,
            priority: Priority::Normal,
            topic: "t".into(),
            body: body.into(),
            key: None,
        };
        self.call(move |cores, now| cores.mail.send(&mut cores.counter, letter, now))?;
        Ok(())
    }
}

impl Reader for Hand {
    fn receive(&mut self) -> anyhow::Result<String> {
        let mut bell = self.desk.listen(Bell::Mail(self.party.id.swarm.clone(), self.party.id.name.clone()));
        loop {
            bell.forget();
            let party = self.party.clone();
            let received = self.call(move |cores, now| {
                cores.mail.receive(&mut cores.counter, &party, Wanted::default(), 1, LEASE, now)
            })?;
            if let Some(message) = received.first() {
                return Ok(message.body.to_string());
            }
            self.runtime.block_on(async { tokio::time::timeout(LEASE, bell.rings()).await })?;
        }
    }

    fn acknowledge(&mut self) -> anyhow::Result<()> {
        let party = self.party.clone();
        self.call(move |cores, now| {
            let held = cores.mail.list(&party.id.swarm, Some(&party.id.name));
            let held = held.filter_map(|message| Some((message.id, message.delivery.as_ref()?.fence)));
            for (id, fence) in held.collect::<Vec<_>>() {
                cores.mail.ack(&party, id, fence, now)?;
            }
            Ok(())
        })
    }
}
