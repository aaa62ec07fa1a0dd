//! Telemetry, runtime facts and time folded into health: what was measured, when and by whom, or why it is not known.
//!
//! `report` is what others tell, `burst` sums up what agents send, `agent` folds one agent, `group` tells it to those beside it, `level` derives
//! swarms and the hive, `source` does the same for polled MCP servers, `usage`, `rate` and `flap` keep count over time, `unsaved` what of it is to
//! be journaled, `fold` holds them all, with `declared` (which agents there are), `follow` (what a change of one leads to) and `whole` (the whole
//! document); these are pure.
//! `intake` takes reports without ever blocking, `monitor` is the actor that folds them, and `handle` is what everybody else holds.
//!
//! # Reason codes
//!
//! Agents: `not_started`, `start_waits`, `engine_unreachable`, `exited`, `no_sign_of_life`, `heartbeat_overdue`, `flapping`, `no_progress`,
//! `paused_by_operator`, `runtime_unreachable`, `stop_requested`, `stopped_by_operator`, `stopped`, `exited_normally`, `restart_delayed`,
//! `gave_up`, `exited_abnormally`, `sibling_failed`.
//!
//! Swarms: `agents_failed`, `agents_backing_off`, `agents_starting`, `agents_pending`, `agents_degraded`, `agents_stuck`, `agents_unknown`,
//! `agents_stopping`, `agents_stopped`, `agents_paused`, `agents_not_paused`, `agents_still_run`, `no_agent_runs`, `swarm_gave_up`.
//!
//! Hive: `not_reconciled`, `control_plane_failing`, `data_plane_down`, `swarms_degraded`, `swarms_unknown`, `swarms_critical`, `source_down`,
//! `history_failing`, `notify_failing`, `disk_low`.
//!
//! Sources: `not_polled`, `poll_failed`, `source_down`, `source_stale`, `tool_failed`.

mod agent;
mod burst;
mod change;
mod declared;
mod flap;
mod fold;
mod follow;
mod group;
mod handle;
mod intake;
mod level;
mod monitor;
mod rate;
mod report;
#[cfg(test)]
pub(crate) mod simulated;
mod source;
mod unsaved;
mod usage;
mod whole;

pub use change::{Change, Identity};
pub use fold::{Fold, SAMPLES_INTERVAL};
pub use handle::{Handle, OnStuck, Options};
pub use monitor::Monitor;
pub use report::{AgentSeed, Now, Report, Standing};
pub(crate) use usage::{starts_over, updated};
pub use whole::Parts;

#[cfg(test)]
mod tests;
