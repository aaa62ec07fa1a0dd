//! The composition root: the only room that names concrete stores and runtimes.
//!
//! `serve` is the life of a daemon in order; `boot` opens what outlives it and takes over what an earlier one left; `tree` makes the supervision
//! tree; `sinks` carries what one room tells to those that listen; `steward` keeps the data directory; `follower` follows the engine; `news` tells the feed of shared work; `work` is where agents' shared work meets the rest of the house; `measures` reads for `/metrics`; `reload` reads the configuration again; `greeting` tells the operator what there
//! is; `service` speaks to the service manager; `signals` are what the daemon is asked by; `machine` sets up the process.

mod boot;
mod follower;
mod greeting;
mod machine;
mod measures;
mod news;
mod reload;
mod serve;
mod service;
mod signals;
#[cfg(test)]
mod simulation;
mod sinks;
mod steward;
mod tree;
mod work;

pub use greeting::{program, quoted};
pub use serve::serve;
pub use sinks::Said;
pub use work::Signs;
