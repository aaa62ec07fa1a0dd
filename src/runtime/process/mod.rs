//! The `process` runtime: each agent below a launcher of its own, a child of this daemon or of an earlier one.

mod channel;
mod drive;
mod files;
mod launcher;
mod order;
mod outbox;
mod relay;
mod runtime;
mod spare;
mod strays;

pub use runtime::{ProcessError, ProcessOptions, ProcessRuntime, inherited_env};
