//! The HTTP edge: decodes requests, asks the control plane, the health documents and the feed, and shows what they say.
//!
//! [`routes`] holds the whole table, [`table`] says what a row of it is, [`openapi`] describes it. [`guard`] stands before every route. [`error`] maps every refusal to a problem document.

mod commands;
mod dto;
mod error;
mod events;
mod guard;
mod history;
mod logs;
mod metrics;
mod openapi;
mod operations;
mod probes;
mod problems;
mod reconcile;
mod routes;
mod server;
mod sse;
mod swarms;
mod table;
mod tree;

pub use guard::{Auth, Hosts};
pub use metrics::{ActorsReading, JournalReading, MetricsReader, OperationsReading, Readings};
pub use server::{Deps, HealthReader, Limits, OnFailure, STOP_GRACE_S, Server};
