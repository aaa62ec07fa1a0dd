//! What became of a launch of an earlier daemon.

use std::time::SystemTime;

use super::{
    carrier::{Carrier, attach},
    channel::{Attached, Link},
    order,
};
use crate::{
    model::{AgentId, ExitCause, ExitRecord, LaunchId},
    runtime::{RecoverError, orphans::Tree},
    wire::channel::{Attach, Exit, State, VERSION},
};

/// What was found.
pub(in crate::runtime) enum Found {
    /// Its launcher answers, and is ours now.
    Running(Link, State),
    /// It ended, with a record.
    Exited { record: ExitRecord, lost: u64 },
    /// No launcher, no record; what was left is ended.
    Lost,
}

/// Looks for a launch. `last_seq` is the last output number that is kept.
///
/// # Errors
/// Why it is not known.
pub(in crate::runtime) async fn find(
    carrier: &dyn Carrier,
    launch_id: LaunchId,
    agent: &AgentId,
    incarnation: u64,
    last_seq: u64,
) -> Result<Found, RecoverError> {
    let hello = Attach { version: VERSION, epoch: carrier.epoch().0, last_seq };
    match attach(carrier, launch_id, hello).await {
        Ok(Attached::Led(link, state)) if state.agent == agent.to_string() && state.incarnation == incarnation => {
            Ok(Found::Running(link, state))
        }
        Ok(Attached::Led(_, state)) => {
            Err(RecoverError::Unproven(format!("it runs {} incarnation {}", state.agent, state.incarnation)))
        }
        Ok(Attached::Ended(exit)) => Ok(ended(&exit, last_seq)),
        Ok(Attached::Fenced) => Err(RecoverError::Fenced),
        Ok(Attached::Nobody) => {
            if let Some(exit) = carrier.record(launch_id).await {
                return Ok(ended(&exit, last_seq));
            }
            let tree = Tree { launch_id: launch_id.to_string(), leader: None };
            carrier.sweep(tree).await.map(|()| Found::Lost).map_err(RecoverError::Unproven)
        }
        Ok(Attached::Gone(message)) => {
            let cause = ExitCause::ContainerLost { message };
            Ok(Found::Exited { record: ExitRecord::unseen(incarnation, SystemTime::now(), cause), lost: 0 })
        }
        Err(error) => Err(RecoverError::Unproven(error.to_string())),
    }
}

fn ended(exit: &Exit, last_seq: u64) -> Found {
    Found::Exited { record: order::ended(exit), lost: exit.last_seq.saturating_sub(last_seq) }
}
