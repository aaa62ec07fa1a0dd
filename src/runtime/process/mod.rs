//! The `process` runtime: each agent below a launcher of its own, a child of this daemon or of an earlier one.

mod child;
mod files;
mod launcher;
mod runtime;
mod spare;
mod strays;

pub use runtime::{ProcessError, ProcessOptions, ProcessRuntime, inherited_env};
