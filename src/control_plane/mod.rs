//! Desired state into steps on a runtime, and the desk where commands are handed in.

pub mod desk;

pub use desk::{Check, Control, ControlError, Request, SwarmEntry};

pub use crate::store::{LogLine, LogPage, LogQuery, StoredEvent};
