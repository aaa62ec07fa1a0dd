//! An erring double: a journal that does what the one inside does, until it is told to fail.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;

use super::{
    error::StoreError,
    journal::{Answer, Journal},
    records::{
        Incarnation, IncarnationRow, JournalStatus, Ledger, OperationKey, OperationQuery, Pruned, PutOutcome,
        Retention, Standing, StoredEvent, SwarmRow,
    },
};
use crate::model::{
    AgentId, ApiToken, Desired, ExitRecord, LaunchId, Operation, OperationId, Seq, Spent, SwarmName, TokenId,
};

/// Fails on a switch.
pub struct FailingJournal {
    inner: Arc<dyn Journal>,
    writes: Mutex<Option<StoreError>>,
    reads: Mutex<Option<StoreError>>,
    ends: Mutex<Option<StoreError>>,
    documents: Mutex<Option<StoreError>>,
}

impl FailingJournal {
    /// Works at first.
    pub fn new(inner: Arc<dyn Journal>) -> Self {
        Self {
            inner,
            writes: Mutex::default(),
            reads: Mutex::default(),
            ends: Mutex::default(),
            documents: Mutex::default(),
        }
    }

    /// From now on writes fail so (`Full`, `ReadOnly`, `Fenced`), or work again with `None`.
    pub fn fail_writes(&self, error: Option<StoreError>) {
        *self.writes.lock() = error;
    }

    /// From now on reads fail so, or work again with `None`.
    pub fn fail_reads(&self, error: Option<StoreError>) {
        *self.reads.lock() = error;
    }

    /// From now on [`Journal::end_incarnation`] alone fails so, or works again with `None`.
    pub fn fail_ends(&self, error: Option<StoreError>) {
        *self.ends.lock() = error;
    }

    /// The same of [`Journal::put_swarm`].
    pub fn fail_documents(&self, error: Option<StoreError>) {
        *self.documents.lock() = error;
    }

    fn write<'a, T: Send + 'a>(&'a self, go_on: impl FnOnce(&'a dyn Journal) -> Answer<'a, T>) -> Answer<'a, T> {
        either(&self.writes, go_on, &*self.inner)
    }

    fn read<'a, T: Send + 'a>(&'a self, go_on: impl FnOnce(&'a dyn Journal) -> Answer<'a, T>) -> Answer<'a, T> {
        either(&self.reads, go_on, &*self.inner)
    }
}

fn either<'a, T: Send + 'a>(
    switch: &Mutex<Option<StoreError>>,
    go_on: impl FnOnce(&'a dyn Journal) -> Answer<'a, T>,
    inner: &'a dyn Journal,
) -> Answer<'a, T> {
    match switch.lock().clone() {
        Some(error) => Box::pin(std::future::ready(Err(error))),
        None => go_on(inner),
    }
}

impl Journal for FailingJournal {
    fn swarms(&self) -> Answer<'_, Vec<SwarmRow>> {
        self.read(|j| j.swarms())
    }
    fn put_swarm(&self, row: SwarmRow) -> Answer<'_, ()> {
        either(&self.documents, |_| self.write(|j| j.put_swarm(row)), &*self.inner)
    }
    fn set_swarm_desired(
        &self,
        name: &SwarmName,
        desired: Desired,
        follow: &[AgentId],
        at: SystemTime,
    ) -> Answer<'_, ()> {
        self.write(|j| j.set_swarm_desired(name, desired, follow, at))
    }
    fn set_agent_desired(&self, agent: &AgentId, desired: Option<Desired>, at: SystemTime) -> Answer<'_, ()> {
        self.write(|j| j.set_agent_desired(agent, desired, at))
    }
    fn agent_desires(&self) -> Answer<'_, Vec<(AgentId, Desired)>> {
        self.read(|j| j.agent_desires())
    }
    fn remove_swarm(&self, name: &SwarmName) -> Answer<'_, ()> {
        self.write(|j| j.remove_swarm(name))
    }
    fn begin_incarnation(&self, incarnation: Incarnation) -> Answer<'_, ()> {
        self.write(|j| j.begin_incarnation(incarnation))
    }
    fn mark_alive(&self, launch: LaunchId, pid: u32, at: SystemTime) -> Answer<'_, ()> {
        self.write(|j| j.mark_alive(launch, pid, at))
    }
    fn end_incarnation(&self, launch: LaunchId, exit: &ExitRecord) -> Answer<'_, ()> {
        either(&self.ends, |_| self.write(|j| j.end_incarnation(launch, exit)), &*self.inner)
    }
    fn open_incarnations(&self) -> Answer<'_, Vec<IncarnationRow>> {
        self.read(|j| j.open_incarnations())
    }
    fn history(&self, agent: &AgentId, limit: usize) -> Answer<'_, Vec<IncarnationRow>> {
        self.read(|j| j.history(agent, limit))
    }
    fn set_standing(&self, agent: &AgentId, standing: Standing, at: SystemTime) -> Answer<'_, ()> {
        self.write(|j| j.set_standing(agent, standing, at))
    }
    fn reset_window(&self, agent: &AgentId, at: SystemTime) -> Answer<'_, ()> {
        self.write(|j| j.reset_window(agent, at))
    }
    fn ledger(&self, agent: &AgentId, now: SystemTime, period: Duration) -> Answer<'_, Ledger> {
        self.read(|j| j.ledger(agent, now, period))
    }
    fn ledgers(&self, agents: Vec<(AgentId, Duration)>, now: SystemTime) -> Answer<'_, Vec<(AgentId, Ledger)>> {
        self.read(|j| j.ledgers(agents, now))
    }
    fn put_usage(&self, spent: Vec<(AgentId, Spent)>) -> Answer<'_, ()> {
        self.write(|j| j.put_usage(spent))
    }
    fn put_operation(&self, operation: &Operation, key: Option<OperationKey>) -> Answer<'_, PutOutcome> {
        self.write(|j| j.put_operation(operation, key))
    }
    fn keyed_operation(&self, key: &OperationKey) -> Answer<'_, Option<PutOutcome>> {
        self.read(|j| j.keyed_operation(key))
    }
    fn update_operation(&self, operation: &Operation) -> Answer<'_, ()> {
        self.write(|j| j.update_operation(operation))
    }
    fn operation(&self, id: OperationId) -> Answer<'_, Option<Operation>> {
        self.read(|j| j.operation(id))
    }
    fn operations(&self, query: OperationQuery) -> Answer<'_, Vec<Operation>> {
        self.read(|j| j.operations(query))
    }
    fn unfinished_operations(&self) -> Answer<'_, Vec<Operation>> {
        self.read(|j| j.unfinished_operations())
    }
    fn append_events(&self, events: Vec<StoredEvent>) -> Answer<'_, ()> {
        self.write(|j| j.append_events(events))
    }
    fn events(&self, after: Seq, limit: usize) -> Answer<'_, Vec<StoredEvent>> {
        self.read(|j| j.events(after, limit))
    }
    fn reserve_seqs(&self, upto: Seq) -> Answer<'_, ()> {
        self.write(|j| j.reserve_seqs(upto))
    }
    fn last_reserved(&self) -> Answer<'_, Seq> {
        self.read(|j| j.last_reserved())
    }
    fn tokens(&self) -> Answer<'_, Vec<ApiToken>> {
        self.read(|j| j.tokens())
    }
    fn put_token(&self, token: ApiToken, forget_before: SystemTime) -> Answer<'_, ()> {
        self.write(|j| j.put_token(token, forget_before))
    }
    fn revoke_token(&self, id: &TokenId, at: SystemTime) -> Answer<'_, ()> {
        self.write(|j| j.revoke_token(id, at))
    }
    fn tokens_used(&self, seen: Vec<(TokenId, SystemTime)>) -> Answer<'_, ()> {
        self.write(|j| j.tokens_used(seen))
    }
    fn prune(&self, now: SystemTime, retention: Retention) -> Answer<'_, Pruned> {
        self.write(|j| j.prune(now, retention))
    }
    fn bound(&self, bytes: u64) {
        self.inner.bound(bytes);
    }
    fn status(&self) -> JournalStatus {
        let inner = self.inner.status();
        match self.writes.lock().as_ref() {
            Some(error) => JournalStatus { ok: false, last_error: Some(error.to_string()), ..inner },
            None => inner,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

    use super::*;
    use crate::store::suite;

    #[tokio::test]
    async fn fails_and_heals_on_the_switch() {
        let (_dir, inner) = suite::scratch();
        let journal = FailingJournal::new(Arc::new(inner));
        journal.fail_writes(Some(StoreError::Full));
        assert_eq!(journal.reserve_seqs(Seq(5)).await, Err(StoreError::Full));
        assert!(!journal.status().ok);
        assert_eq!(journal.last_reserved().await, Ok(Seq(0)), "reads go on, and nothing was written");
        journal.fail_writes(None);
        journal.fail_reads(Some(StoreError::Gone));
        assert_eq!(journal.reserve_seqs(Seq(5)).await, Ok(()));
        assert_eq!(journal.last_reserved().await, Err(StoreError::Gone));
        journal.fail_reads(None);
        assert_eq!(journal.last_reserved().await, Ok(Seq(5)));
        assert!(journal.status().ok);
    }

    #[tokio::test]
    async fn passes_the_suite_while_it_works() {
        suite::contract(|| {
            let (dir, inner) = suite::scratch();
            (dir, Box::new(FailingJournal::new(Arc::new(inner))) as Box<dyn Journal>)
        })
        .await;
    }
}
