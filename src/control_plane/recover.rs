//! What boot does before the tree stands: find what an earlier daemon launched, take it over or end it.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};

use super::plan::BootPlan;
use crate::{
    model::{ExitCause, ExitRecord},
    runtime::{AgentDeps, AgentEvent, OpenLaunch, RecoverError, Recovered, Runtime},
    store::{OpenIncarnation, StoreError},
};

/// Launchers asked at once: each costs a socket and a few frames.
const AT_ONCE: usize = 64;
/// How long the end of an unwanted agent may take beyond its grace before the daemon goes on without the proof.
const END_WAIT: Duration = Duration::from_secs(30);
/// Grace of an agent that nobody wants any more and whose document is gone.
const UNWANTED_GRACE: Duration = Duration::from_secs(10);

/// A younger daemon leads what the journal says is ours.
#[derive(Debug, thiserror::Error)]
#[error("a younger daemon leads this hive")]
pub struct Fenced;

/// Takes over every incarnation that the plan adopts and ends every one that it does not want. Agents that can't be reached now are left
/// to their actors, which go on trying. Returns how many were found alive.
///
/// # Errors
/// [`Fenced`].
pub async fn recover(deps: &Arc<AgentDeps>, plan: &BootPlan) -> Result<usize, Fenced> {
    let adopt = plan.swarms.iter().flat_map(|swarm| &swarm.agents).filter_map(|agent| agent.adopt.as_ref());
    let adopted: Vec<_> =
        stream::iter(adopt).map(|open| adopt_one(deps, open)).buffer_unordered(AT_ONCE).collect().await;
    let ended: Vec<_> = stream::iter(&plan.end).map(|open| end_one(deps, open)).buffer_unordered(AT_ONCE).collect().await;
    if adopted.iter().chain(&ended).any(Result::is_err) {
        return Err(Fenced);
    }
    Ok(adopted.into_iter().filter(|outcome| matches!(outcome, Ok(true))).count())
}

async fn adopt_one(deps: &Arc<AgentDeps>, open: &OpenIncarnation) -> Result<bool, Fenced> {
    let slot = deps.registry.slot(&open.agent);
    slot.set_unproven(Some(OpenLaunch { launch_id: open.launch_id, incarnation: open.incarnation }));
    slot.issue(open.incarnation, open.token_hash);
    match ask(deps, open).await {
        Ok(found) => {
            let lives = matches!(found, Recovered::Running(_));
            slot.set_recovered(found);
            Ok(lives)
        }
        Err(RecoverError::Fenced) => Err(Fenced),
        Err(RecoverError::Unproven(why)) => {
            tracing::warn!(agent = %open.agent, incarnation = open.incarnation, %why, "a launcher does not answer yet");
            Ok(false)
        }
    }
}

async fn end_one(deps: &Arc<AgentDeps>, open: &OpenIncarnation) -> Result<bool, Fenced> {
    let record = match ask(deps, open).await {
        Ok(Recovered::Running(mut launched)) => {
            launched.control.stop(UNWANTED_GRACE);
            let end = async {
                while let Some(event) = launched.events.recv().await {
                    if let AgentEvent::Exited(record) = event {
                        return Some(record);
                    }
                }
                None
            };
            tokio::time::timeout(END_WAIT, end).await.ok().flatten()
        }
        Ok(Recovered::Exited(record)) => Some(record),
        Ok(Recovered::Lost) => Some(lost(open)),
        Err(RecoverError::Fenced) => return Err(Fenced),
        Err(RecoverError::Unproven(_)) => None,
    };
    match record {
        Some(mut record) => {
            record.incarnation = open.incarnation;
            match deps.journal.end_incarnation(open.launch_id, &record).await {
                Err(StoreError::Fenced) => return Err(Fenced),
                Err(error) => tracing::warn!(agent = %open.agent, %error, "failed to journal an exit"),
                Ok(()) => {}
            }
        }
        None => {
            // It is still in the journal as open; its next start proves it dead first, and its lease runs out.
            deps.registry
                .slot(&open.agent)
                .set_unproven(Some(OpenLaunch { launch_id: open.launch_id, incarnation: open.incarnation }));
            tracing::warn!(agent = %open.agent, incarnation = open.incarnation, "an unwanted agent is not proven dead yet");
        }
    }
    Ok(false)
}

async fn ask(deps: &Arc<AgentDeps>, open: &OpenIncarnation) -> Result<Recovered, RecoverError> {
    let last_seq = deps.logs.last_seq(&open.agent, open.incarnation);
    deps.runtime.recover(open.launch_id, open.agent.clone(), open.incarnation, last_seq).await
}

fn lost(open: &OpenIncarnation) -> ExitRecord {
    ExitRecord {
        incarnation: open.incarnation,
        code: None,
        signal: None,
        oom: None,
        at: std::time::SystemTime::now(),
        cause: ExitCause::LauncherLost,
        last_lines: Vec::new(),
    }
}
