//! The `docker` runtime against a real engine.

pub(crate) mod beside;
mod coding_swarm;
mod engine;
mod engine_exec;
mod engine_isolation;
mod engine_shared;
pub(crate) mod harness;
mod own_container;
