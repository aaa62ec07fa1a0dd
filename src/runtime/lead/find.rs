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
    wire::channel::{Attach, State, VERSION},
};

/// What was found.
pub(in crate::runtime) enum Found {
    /// Its launcher answers, and is ours now.
    Running(Link, State),
    /// It ended, with a record.
    Exited(ExitRecord),
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
        Ok(Attached::Ended(exit)) => Ok(Found::Exited(order::ended(&exit))),
        Ok(Attached::Fenced) => Err(RecoverError::Fenced),
        Ok(Attached::Nobody) => {
            if let Some(exit) = carrier.record(launch_id).await {
                return Ok(Found::Exited(order::ended(&exit)));
            }
            let tree = Tree { launch_id: launch_id.to_string(), leader: None };
            carrier.sweep(tree).await.map(|()| Found::Lost).map_err(RecoverError::Unproven)
        }
        Ok(Attached::Gone(message)) => {
            let cause = ExitCause::ContainerLost { message };
            Ok(Found::Exited(ExitRecord::unseen(incarnation, SystemTime::now(), cause)))
        }
        Err(error) => Err(RecoverError::Unproven(error.to_string())),
    }
}
