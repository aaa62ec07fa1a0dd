//! The one thread that writes to a database. What waits is joined into one transaction, so that a burst costs one commit; a call that fails does not harm its neighbours.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::store::{error::StoreError, journal::Answer, records::JournalStatus, worker::Worker};

/// Calls that may wait. More than a thousand agents that all end at once ask for; a caller beyond waits for its turn.
pub(super) const QUEUE_MAX: usize = 1024;
/// Statements that stay compiled: all that there are, and some to spare. Compiling one takes longer than running it.
const STATEMENTS_MAX: usize = 48;
/// Calls in one transaction: past some hundred, the cost of a commit no longer shows, and the last caller's wait does.
const BATCH_MAX: usize = 256;
/// How long a caller waits for its answer: two rounds of SQLite's own wait for a lock, and some.
pub(super) const ANSWER_WAIT_MAX: Duration = Duration::from_secs(15);

/// Whether a commit is synced to the disk before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Durability {
    /// Survives `kill -9`; a power cut may undo it.
    Process,
    /// Survives a power cut.
    Power,
}

/// Asked at the beginning of each transaction; an error undoes it before anything is done.
pub(in crate::store) type Guard = Box<dyn Fn(&Connection) -> Result<(), StoreError> + Send>;

/// The handle of the thread.
pub(in crate::store) struct Writer {
    // Before the worker, so that the queue is closed when the worker is waited for.
    jobs: mpsc::Sender<Box<dyn Job>>,
    health: Arc<Mutex<Health>>,
    damage: Arc<Damage>,
    path: PathBuf,
    _worker: Worker,
}

impl Writer {
    /// Starts the thread `name` on the database at `path`, which `connection` is open on.
    pub(in crate::store) fn start(
        name: &str,
        path: &Path,
        connection: Connection,
        guard: Guard,
    ) -> Result<Self, StoreError> {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let health = Arc::new(Mutex::new(Health { ok: true, since: SystemTime::now(), last_error: None }));
        let damage = Arc::<Damage>::default();
        let (shown, found) = (Arc::clone(&health), Arc::clone(&damage));
        let worker = Worker::start(name, move || run(connection, &guard, queue, &shown, &found))?;
        Ok(Self { jobs, health, damage, path: path.to_owned(), _worker: worker })
    }

    /// Carries `work` out in a transaction; the answer comes after the commit.
    pub(in crate::store) fn call<T, F>(&self, durability: Durability, work: F) -> Answer<'_, T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Call { durability, work: Some(work), outcome: None, reply });
        Box::pin(async move {
            let round_trip = async {
                self.jobs.send(job).await.map_err(|_| StoreError::Gone)?;
                answer.await.map_err(|_| StoreError::Gone)?
            };
            tokio::time::timeout(ANSWER_WAIT_MAX, round_trip).await.unwrap_or(Err(StoreError::Busy))
        })
    }

    /// Comes once the fate of every call is known that was made before, answered or not, whatever it is.
    pub(in crate::store) fn settled(&self) -> Answer<'_, ()> {
        let (reply, answer) = oneshot::channel();
        Box::pin(async move {
            let round_trip = async {
                self.jobs.send(Box::new(Settled(reply))).await.map_err(|_| StoreError::Gone)?;
                answer.await.map_err(|_| StoreError::Gone)
            };
            tokio::time::timeout(ANSWER_WAIT_MAX, round_trip).await.unwrap_or(Err(StoreError::Busy))
        })
    }

    /// What is known of the file's damage, for who reads it.
    pub(in crate::store) fn damage(&self) -> Arc<Damage> {
        Arc::clone(&self.damage)
    }

    pub(super) fn status(&self) -> JournalStatus {
        let health = self.health.lock().clone();
        let size = |suffix: &str| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(suffix);
            std::fs::metadata(name).map_or(0, |file| file.len())
        };
        let damage = self.damage.found.get();
        JournalStatus {
            ok: health.ok && damage.is_none(),
            since: damage.map_or(health.since, |(since, _)| *since),
            last_error: damage.map(|(_, what)| what.clone()).or(health.last_error),
            size_bytes: size("") + size("-wal"),
        }
    }
}

/// Whether a page of the file was found damaged, and when. It stays so until the file is another one: what still works goes on, and nobody is told that all
/// were well because the last call met a good page.
#[derive(Default)]
pub(in crate::store) struct Damage {
    found: OnceLock<(SystemTime, String)>,
}

impl Damage {
    pub(super) fn note<T>(&self, outcome: &Result<T, StoreError>) {
        if let Err(error @ StoreError::Damaged(_)) = outcome
            && self.found.set((SystemTime::now(), error.to_string())).is_ok()
        {
            tracing::error!(%error, "a page of a database can't be read");
        }
    }
}

#[derive(Clone)]
struct Health {
    ok: bool,
    since: SystemTime,
    last_error: Option<String>,
}

impl Health {
    fn note(&mut self, result: &Result<(), StoreError>) {
        if self.ok != result.is_ok() {
            self.ok = result.is_ok();
            self.since = SystemTime::now();
        }
        if let Err(error) = result {
            self.last_error = Some(error.to_string());
        }
    }
}

/// One call on its way through the queue.
trait Job: Send {
    fn durability(&self) -> Durability;
    /// Does the work, which is undone when it fails. The failure is also remembered for the caller.
    fn work(&mut self, connection: &Connection) -> Result<(), StoreError>;
    /// Tells the caller, once the fate of the transaction is known.
    fn answer(self: Box<Self>, committed: &Result<(), StoreError>);
}

/// Somebody who wants to know that those before him are through.
struct Settled(oneshot::Sender<()>);

impl Job for Settled {
    fn durability(&self) -> Durability {
        Durability::Process
    }

    fn work(&mut self, _: &Connection) -> Result<(), StoreError> {
        Ok(())
    }

    fn answer(self: Box<Self>, _: &Result<(), StoreError>) {
        let _ = self.0.send(());
    }
}

struct Call<T, F> {
    durability: Durability,
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn work(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let outcome = match self.work.take() {
            Some(work) => work(connection),
            None => Err(StoreError::Gone),
        };
        let result = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
        self.outcome = Some(outcome);
        result
    }

    fn answer(self: Box<Self>, committed: &Result<(), StoreError>) {
        let answer = match committed {
            Ok(()) => self.outcome.unwrap_or(Err(StoreError::Gone)),
            Err(error) => Err(error.clone()),
        };
        // The caller may have gone away; the work is done all the same.
        let _ = self.reply.send(answer);
    }
}

fn run(
    mut connection: Connection,
    guard: &Guard,
    mut queue: mpsc::Receiver<Box<dyn Job>>,
    health: &Mutex<Health>,
    damage: &Damage,
) {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    let mut synced = None;
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX {
            let Ok(next) = queue.try_recv() else { break };
            batch.push(next);
        }
        let committed =
            commit(&mut connection, guard, &mut batch, &mut synced, damage).map_err(|error| named(error, &connection));
        damage.note(&committed);
        health.lock().note(&committed);
        for job in batch {
            job.answer(&committed);
        }
    }
}

/// SQLite calls a file system that turned read-only under it an "I/O error". The file itself says more.
fn named(error: StoreError, connection: &Connection) -> StoreError {
    let StoreError::Other(_) = &error else { return error };
    let Some(path) = connection.path() else { return error };
    File::options().append(true).open(path).err().map_or(error, StoreError::from)
}

/// One transaction for all of them. An error is all theirs; a call's own failure is in the call. `synced` is what SQLite was told last.
fn commit(
    connection: &mut Connection,
    guard: &Guard,
    batch: &mut [Box<dyn Job>],
    synced: &mut Option<bool>,
    damage: &Damage,
) -> Result<(), StoreError> {
    let power = batch.iter().any(|job| job.durability() == Durability::Power);
    if *synced != Some(power) {
        connection.pragma_update(None, "synchronous", if power { "FULL" } else { "NORMAL" })?;
        *synced = Some(power);
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    guard(&tx)?;
    if let [alone] = batch {
        // There is no neighbour to harm, so the transaction itself is undone.
        let worked = alone.work(&tx);
        damage.note(&worked);
        return match worked {
            Ok(()) => Ok(tx.commit()?),
            Err(error) if is_own_fault(&error) => Ok(tx.rollback()?),
            Err(error) => Err(error),
        };
    }
    for job in batch {
        step(&tx, job.as_mut(), damage)?;
    }
    tx.commit()?;
    Ok(())
}

fn step(tx: &Transaction<'_>, job: &mut dyn Job, damage: &Damage) -> Result<(), StoreError> {
    tx.execute_batch("SAVEPOINT call")?;
    let worked = job.work(tx);
    damage.note(&worked);
    match worked {
        Ok(()) => tx.execute_batch("RELEASE call")?,
        // A full disk and its like end the whole transaction: then nobody's work was kept.
        Err(error) if tx.is_autocommit() || !is_own_fault(&error) => return Err(error),
        Err(_) => tx.execute_batch("ROLLBACK TO call; RELEASE call")?,
    }
    Ok(())
}

/// Whether the fault lies with the call, or with the one record or page that it touched, and not with the store.
fn is_own_fault(error: &StoreError) -> bool {
    matches!(error, StoreError::Conflict(_) | StoreError::Corrupt(_) | StoreError::Damaged(_))
}
