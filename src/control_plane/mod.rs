//! Desired state into steps on a runtime, and the desk where commands are handed in.
//!
//! `plan` and `seeds` decide (pure); `recover` performs it at boot; `swarm` puts a document into the supervisor's words; `office` is the memory and the desk;
//! `controller` is the actor that carries out operations (`execute`) and keeps the tree as it is desired; `chronicle` writes the journal behind
//! the feed, `historian` the history; `keyring` knows who may use the API.

mod changes;
pub mod chronicle;
mod controller;
pub mod desk;
pub mod document;
mod execute;
pub mod historian;
mod keyring;
mod office;
pub mod plan;
pub mod recover;
mod reload;
pub mod seeds;
mod swarm;

pub use changes::{Change, changes};
pub use chronicle::Chronicle;
pub use controller::Controller;
pub use desk::{Check, Control, ControlError, Request, SwarmEntry, UpdatePlan};
pub use historian::{Historian, History, HistoryOptions};
pub use keyring::{Key, Keyring, Minted, Secret};
pub use office::{Checks, Office, OfficeDeps};
pub use reload::{FileChange, ReloadError, SwarmChange};

pub use crate::store::{
    HistoryPage, HistoryQuery, LogLine, LogPage, LogQuery, OperationQuery, Point, Resolution, Spread, StoredEvent,
    Tokens,
};
