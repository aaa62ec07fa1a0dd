//! The office as the edges see it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use hivekeeper_actors::TreeNode;
use tokio::sync::watch;

use super::{Office, TREE_WAIT, journal};
use crate::{
    control_plane::desk::{BoxFuture, Check, Control, ControlError, Request, SwarmEntry, UpdatePlan},
    model::{AgentId, Desired, Finding, Operation, OperationId, Seq, SwarmName, SwarmSpec, Target},
    store::{HistoryPage, HistoryQuery, LogPage, LogQuery, OperationQuery, StoredEvent},
};

impl Control for Office {
    fn submit(&self, request: Request) -> BoxFuture<'_, Result<Operation, ControlError>> {
        let me = self.me.upgrade();
        Box::pin(async move {
            let gone = || ControlError::Unavailable { why: "the control plane is gone".to_owned() };
            let me = me.ok_or_else(gone)?;
            // In a task of its own: a client that hangs up must not leave an operation in the journal that nobody carries out.
            tokio::spawn(async move { me.accept(request).await }).await.unwrap_or_else(|_| Err(gone()))
        })
    }

    fn wait(&self, id: OperationId, timeout: Duration) -> BoxFuture<'_, Result<Operation, ControlError>> {
        Box::pin(async move {
            let watched = self.under_way.get(&id).map(|sender| sender.subscribe());
            let Some(mut watched) = watched else { return self.operation(id).await };
            let ended =
                async { watched.wait_for(|operation| operation.state.ended()).await.ok().map(|end| end.clone()) };
            match tokio::time::timeout(timeout, ended).await.ok().flatten() {
                Some(operation) => Ok(operation),
                None => self.operation(id).await,
            }
        })
    }

    fn plan_update(&self, spec: Arc<SwarmSpec>, if_match: Option<String>) -> Result<UpdatePlan, ControlError> {
        self.update_plan(&spec, if_match)
    }

    fn cancel(&self, id: OperationId) -> BoxFuture<'_, Result<Operation, ControlError>> {
        Box::pin(self.withdraw(id))
    }

    fn operation(&self, id: OperationId) -> BoxFuture<'_, Result<Operation, ControlError>> {
        Box::pin(async move {
            let living = self.under_way.get(&id).map(|sender| sender.borrow().clone());
            match living {
                Some(operation) => Ok(operation),
                None => self
                    .needs
                    .agents
                    .journal
                    .operation(id)
                    .await
                    .map_err(journal)?
                    .ok_or_else(|| ControlError::NotFound { what: format!("operation {id}") }),
            }
        })
    }

    fn operations(&self, query: OperationQuery) -> BoxFuture<'_, Result<Vec<Operation>, ControlError>> {
        Box::pin(async move { self.needs.agents.journal.operations(query).await.map_err(journal) })
    }

    fn swarms(&self) -> Vec<SwarmEntry> {
        let mut all: Vec<_> = self.entries.iter().map(|entry| entry.desk_entry()).collect();
        for entry in &mut all {
            if let Some(spec) = self.intended(&entry.spec.name) {
                entry.spec = spec;
            }
        }
        all.extend(self.expected().into_iter().map(launching));
        all.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        all
    }

    fn swarm(&self, name: &SwarmName) -> Option<SwarmEntry> {
        let present = self.entries.get(name).map(|entry| entry.desk_entry());
        match (present, self.intended(name)) {
            (Some(entry), Some(spec)) => Some(SwarmEntry { spec, ..entry }),
            (None, Some(spec)) => Some(launching(spec)),
            // It is being deleted, and there as long as it is.
            (present, None) => present,
        }
    }

    fn tree(&self) -> BoxFuture<'_, Result<TreeNode, ControlError>> {
        Box::pin(async move {
            let unavailable = || ControlError::Unavailable { why: "the supervision tree does not answer".to_owned() };
            let tree = Self::tree(self).ok_or_else(unavailable)?;
            match tokio::time::timeout(TREE_WAIT, tree.root.snapshot()).await {
                Ok(Ok(tree)) => Ok(tree),
                Ok(Err(_)) | Err(_) => Err(unavailable()),
            }
        })
    }

    fn events(&self, after: Seq, limit: usize) -> BoxFuture<'_, Result<Vec<StoredEvent>, ControlError>> {
        Box::pin(async move { self.needs.agents.journal.events(after, limit).await.map_err(journal) })
    }

    fn logs(&self, agent: AgentId, query: LogQuery) -> BoxFuture<'_, Result<LogPage, ControlError>> {
        Box::pin(async move {
            self.desired(&Target::Agent(agent.clone()))?;
            self.needs.agents.logs.read(&agent, query).await.map_err(journal)
        })
    }

    fn log_growth(&self, agent: &AgentId) -> Option<watch::Receiver<u64>> {
        self.desired(&Target::Agent(agent.clone())).ok()?;
        Some(self.needs.agents.logs.growth(agent))
    }

    fn history(&self, query: HistoryQuery) -> BoxFuture<'_, Result<HistoryPage, ControlError>> {
        Box::pin(async move {
            self.desired(&query.of)?;
            let read = self.needs.history.read(query, SystemTime::now()).await;
            read.map_err(|error| ControlError::Unavailable { why: format!("history unavailable: {error}") })
        })
    }

    fn reconcile(&self, dry_run: bool) -> BoxFuture<'_, Result<Vec<Finding>, ControlError>> {
        Box::pin(async move {
            let found = self.needs.agents.runtimes.reconcile(dry_run).await;
            found.map_err(|why| ControlError::Unavailable { why })
        })
    }

    fn readiness(&self) -> Vec<Check> {
        let reconciled = self.reconciled();
        let mut checks = (self.needs.checks)();
        checks.push(Check {
            name: "reconcile",
            ok: reconciled,
            detail: if reconciled { "the first pass has ended" } else { "the first pass is under way" }.to_owned(),
        });
        checks
    }
}

/// One whose launch was accepted and not begun.
fn launching(spec: Arc<SwarmSpec>) -> SwarmEntry {
    SwarmEntry { spec, desired: Desired::Running, since: SystemTime::now() }
}
