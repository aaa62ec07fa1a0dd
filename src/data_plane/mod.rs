//! The data plane: agents connect, prove who they are, and tell how they do. Whoever sends garbage harms nobody but themselves.
//!
//! ```text
//! listener   the actor: accepts, owns one task a connection
//! connection that task: reads, writes, waits; knows no rule of the protocol
//! session    the rules, pure: lines and time in, effects out
//! notice     notifications to telemetry, pure
//! bucket     the rate limit, pure
//! plane      what the tasks share, and the handle that other rooms hold
//! seats      who has a session open
//! ```

mod bucket;
mod connection;
mod limits;
mod listener;
mod notice;
mod plane;
mod seats;
mod session;

pub use limits::PlaneLimits;
pub use listener::DataPlane;
pub use plane::{DataPlaneHandle, PlaneStats, Presence};
