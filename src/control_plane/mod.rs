//! Desired state into steps on a runtime, and the desk where commands are handed in.
//!
//! `plan` decides (pure); `recover` performs it at boot; `swarm` puts a document into the supervisor's words; `office` is the memory and the desk;
//! `controller` is the actor that carries out operations (`execute`) and keeps the tree as it is desired; `chronicle` writes the journal behind
//! the feed.

pub mod chronicle;
mod controller;
pub mod desk;
mod execute;
mod office;
pub mod plan;
pub mod recover;
mod swarm;

pub use chronicle::Chronicle;
pub use controller::Controller;
pub use desk::{Check, Control, ControlError, Request, SwarmEntry};
pub use office::{Checks, Office, OfficeDeps};

pub use crate::store::{LogLine, LogPage, LogQuery, StoredEvent};
