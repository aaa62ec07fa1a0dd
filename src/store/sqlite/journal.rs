//! [`Journal`] on SQLite: each call is one function of (connection, arguments), handed to the thread that writes or to the one that reads.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use rusqlite::Connection;

use super::{
    database, events, incarnations, operations, prune,
    reader::Reader,
    schema, swarms, tokens,
    writer::{Durability, Writer},
};
use crate::{
    model::{
        AgentId, ApiToken, Desired, Epoch, ExitRecord, LaunchId, Operation, OperationId, Seq, Spent, SwarmName, TokenId,
    },
    store::{
        error::StoreError,
        forms::{millis, signed},
        journal::{Answer, Journal},
        records::{
            Incarnation, IncarnationRow, JournalStatus, Ledger, OperationKey, OperationQuery, Pruned, PutOutcome,
            Retention, Standing, StoredEvent, SwarmRow,
        },
    },
};

/// The journal of one daemon. Dropping it ends its threads, once what waits is written.
pub struct SqliteJournal {
    writer: Writer,
    reader: Reader,
    /// What the file and its log may take.
    bytes_max: Arc<AtomicU64>,
}

impl SqliteJournal {
    /// Opens the database of a data directory that [`DataDir::open`](crate::store::DataDir::open) has claimed for `epoch`.
    ///
    /// # Errors
    /// `Fenced` when the database is not `epoch`'s; else why it can't be opened.
    pub fn open(path: &Path, epoch: Epoch) -> Result<Self, StoreError> {
        let connection = schema::open(path)?;
        schema::check_epoch(&connection, epoch)?;
        let (place, opened) = (path.to_owned(), identity(path)?);
        let guard = Box::new(move |db: &Connection| {
            // One look at a directory entry beside a commit.
            if identity(&place).ok() != Some(opened) {
                return Err(StoreError::Vanished);
            }
            schema::check_epoch(db, epoch)
        });
        let writer = Writer::start("hk-journal", path, connection, guard)?;
        let reader = Reader::start("hk-journal-read", database::open_for_reading(path)?, writer.damage())?;
        Ok(Self { writer, reader, bytes_max: Arc::new(AtomicU64::new(u64::MAX)) })
    }
}

impl SqliteJournal {
    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }

    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }
}

/// Device and number of the file that has this name now.
fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Journal for SqliteJournal {
    fn swarms(&self) -> Answer<'_, Vec<SwarmRow>> {
        self.reader.call(swarms::all)
    }

    fn put_swarm(&self, row: SwarmRow) -> Answer<'_, ()> {
        self.writer.call(Durability::Power, move |db| swarms::put(db, &row))
    }

    fn set_swarm_desired(
        &self,
        name: &SwarmName,
        desired: Desired,
        follow: &[AgentId],
        at: SystemTime,
    ) -> Answer<'_, ()> {
        let (name, follow) = (name.clone(), follow.to_vec());
        self.writer.call(Durability::Power, move |db| swarms::set_desired(db, &name, desired, &follow, at))
    }

    fn set_agent_desired(&self, agent: &AgentId, desired: Option<Desired>, at: SystemTime) -> Answer<'_, ()> {
        let agent = agent.clone();
        self.writer.call(Durability::Power, move |db| swarms::set_agent_desired(db, &agent, desired, at))
    }

    fn agent_desires(&self) -> Answer<'_, Vec<(AgentId, Desired)>> {
        self.reader.call(swarms::agent_desires)
    }

    fn remove_swarm(&self, name: &SwarmName) -> Answer<'_, ()> {
        let name = name.clone();
        self.writer.call(Durability::Power, move |db| swarms::remove(db, &name))
    }

    fn begin_incarnation(&self, incarnation: Incarnation) -> Answer<'_, ()> {
        self.writer.call(Durability::Process, move |db| incarnations::begin(db, &incarnation))
    }

    fn mark_alive(&self, launch: LaunchId, pid: u32, at: SystemTime) -> Answer<'_, ()> {
        self.writer.call(Durability::Process, move |db| incarnations::mark_alive(db, launch, pid, at))
    }

    fn end_incarnation(&self, launch: LaunchId, exit: &ExitRecord) -> Answer<'_, ()> {
        let exit = exit.clone();
        self.writer.call(Durability::Process, move |db| incarnations::end(db, launch, &exit))
    }

    fn open_incarnations(&self) -> Answer<'_, Vec<IncarnationRow>> {
        self.reader.call(incarnations::open)
    }

    fn history(&self, agent: &AgentId, limit: usize) -> Answer<'_, Vec<IncarnationRow>> {
        let agent = agent.clone();
        self.reader.call(move |db| incarnations::history(db, &agent, limit))
    }

    fn set_standing(&self, agent: &AgentId, standing: Standing, at: SystemTime) -> Answer<'_, ()> {
        let agent = agent.clone();
        self.writer.call(Durability::Process, move |db| incarnations::set_standing(db, &agent, standing, at))
    }

    fn reset_window(&self, agent: &AgentId, at: SystemTime) -> Answer<'_, ()> {
        let agent = agent.clone();
        self.writer.call(Durability::Process, move |db| incarnations::reset_window(db, &agent, at))
    }

    fn ledger(&self, agent: &AgentId, now: SystemTime, period: Duration) -> Answer<'_, Ledger> {
        let agent = agent.clone();
        self.reader.call(move |db| incarnations::ledger(db, &agent, now, period))
    }

    fn ledgers(&self, agents: Vec<(AgentId, Duration)>, now: SystemTime) -> Answer<'_, Vec<(AgentId, Ledger)>> {
        self.reader.call(move |db| {
            let one = |(agent, period)| {
                let ledger = incarnations::ledger(db, &agent, now, period)?;
                Ok((agent, ledger))
            };
            agents.into_iter().map(one).collect()
        })
    }

    fn put_usage(&self, spent: Vec<(AgentId, Spent)>) -> Answer<'_, ()> {
        self.writer.call(Durability::Process, move |db| incarnations::put_usage(db, &spent))
    }

    fn put_operation(&self, operation: &Operation, key: Option<OperationKey>) -> Answer<'_, PutOutcome> {
        let operation = operation.clone();
        self.writer.call(Durability::Process, move |db| operations::put(db, &operation, key.as_ref()))
    }

    fn keyed_operation(&self, key: &OperationKey) -> Answer<'_, Option<PutOutcome>> {
        let key = key.clone();
        self.reader.call(move |db| operations::keyed(db, &key))
    }

    fn update_operation(&self, operation: &Operation) -> Answer<'_, ()> {
        let operation = operation.clone();
        self.writer.call(Durability::Process, move |db| operations::update(db, &operation))
    }

    fn operation(&self, id: OperationId) -> Answer<'_, Option<Operation>> {
        self.reader.call(move |db| operations::one(db, id))
    }

    fn operations(&self, query: OperationQuery) -> Answer<'_, Vec<Operation>> {
        self.reader.call(move |db| operations::some(db, &query))
    }

    fn unfinished_operations(&self) -> Answer<'_, Vec<Operation>> {
        self.reader.call(operations::unfinished)
    }

    fn append_events(&self, events: Vec<StoredEvent>) -> Answer<'_, ()> {
        let bytes_max = Arc::clone(&self.bytes_max);
        self.writer.call(Durability::Process, move |db| {
            events::append(db, &events)?;
            prune::make_room(db, bytes_max.load(Relaxed))?;
            Ok(())
        })
    }

    fn events(&self, after: Seq, limit: usize) -> Answer<'_, Vec<StoredEvent>> {
        self.reader.call(move |db| events::behind(db, after, limit))
    }

    fn reserve_seqs(&self, upto: Seq) -> Answer<'_, ()> {
        self.writer.call(Durability::Power, move |db| events::reserve(db, upto))
    }

    fn last_reserved(&self) -> Answer<'_, Seq> {
        self.reader.call(events::last)
    }

    fn tokens(&self) -> Answer<'_, Vec<ApiToken>> {
        self.reader.call(tokens::all)
    }

    fn put_token(&self, token: ApiToken, forget_before: SystemTime) -> Answer<'_, ()> {
        self.writer.call(Durability::Power, move |db| {
            tokens::forget(db, forget_before)?;
            tokens::put(db, &token)
        })
    }

    fn revoke_token(&self, id: &TokenId, at: SystemTime) -> Answer<'_, ()> {
        let id = id.clone();
        self.writer.call(Durability::Power, move |db| tokens::revoke(db, &id, at))
    }

    fn tokens_used(&self, seen: Vec<(TokenId, SystemTime)>) -> Answer<'_, ()> {
        self.writer.call(Durability::Process, move |db| tokens::used(db, &seen))
    }

    fn prune(&self, now: SystemTime, retention: Retention) -> Answer<'_, Pruned> {
        let horizon = now.checked_sub(retention.age_max).map_or(0, millis);
        let mut pruned = Pruned::default();
        Box::pin(async move {
            loop {
                let bytes_max = self.bytes_max.load(Relaxed);
                let bite = self
                    .writer
                    .call(Durability::Process, move |db| {
                        let bite = Pruned {
                            events: prune::events(db, signed(retention.events_max), horizon)?
                                + prune::make_room(db, bytes_max)?,
                            operations: prune::operations(db, signed(retention.operations_max), horizon)?,
                            incarnations: prune::incarnations(
                                db,
                                signed(retention.incarnations_max_per_agent),
                                horizon,
                            )?,
                        };
                        prune::shrink(db, prune::PAGES_FREED)?;
                        Ok(bite)
                    })
                    .await?;
                pruned.events += bite.events;
                pruned.operations += bite.operations;
                pruned.incarnations += bite.incarnations;
                if bite == Pruned::default() {
                    return Ok(pruned);
                }
            }
        })
    }

    fn bound(&self, bytes: u64) {
        self.bytes_max.store(bytes, Relaxed);
    }

    fn status(&self) -> JournalStatus {
        self.writer.status()
    }
}
