//! The data plane: agents connect, prove who they are, and tell how they do. Whoever sends garbage harms nobody but themselves.
//!
//! ```text
//! listener   the actor: accepts, owns one task a connection
//! connection that task: reads, writes, waits; knows no rule of the protocol
//! failures   when failed accepts are told of, pure
//! newcomers  who has no session yet, and who of them goes for others, pure
//! session    the rules, pure: lines and time in, effects out
//! calls      tools that a session has called and that have not answered yet
//! notice     notifications to what was heard, pure
//! heard      what one read told, summed up, pure
//! bucket     the rate limit, pure
//! scratch    the buffers that are read into
//! plane      what the tasks share, and the handle that other rooms hold
//! seats      who has a session open
//! dialer     the other way round: MCP servers that we connect to
//! ```

mod bucket;
mod calls;
mod connection;
pub mod dialer;
mod failures;
mod heard;
mod limits;
mod listener;
mod newcomers;
mod notice;
mod plane;
mod scratch;
mod seats;
mod session;
#[cfg(test)]
pub(crate) mod simulated;

pub use limits::PlaneLimits;
pub use listener::DataPlane;
pub use plane::{DataPlaneHandle, PlaneStats, Presence};
