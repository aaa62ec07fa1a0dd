//! The HTTP edge: decodes requests, asks the control plane, the health documents and the feed, and shows what they say.
//!
//! [`routes`] holds the whole table, [`table`] says what a row of it is, [`openapi`] describes it. [`guard`] stands before every route: [`hosts`], [`pace`], tokens and scopes, [`audit`]. [`error`] maps every refusal to a problem document.
//! Work that agents share is one tool for each route ([`work_routes`]): [`arguments`] reads what its schema says, [`work`] calls it.

mod arguments;
mod audit;
mod commands;
mod connections;
mod documents;
mod dto;
mod error;
mod events;
mod guard;
mod history;
mod hosts;
mod json;
mod leash;
mod logs;
mod mcp;
mod metrics;
mod notifiers;
mod openapi;
mod operations;
mod pace;
mod pages;
mod probes;
mod problems;
mod query;
mod reconcile;
mod reload;
mod routes;
mod server;
mod sse;
mod swarms;
mod table;
mod tokens;
mod tree;
mod wait;
mod work;
mod work_routes;

pub use documents::DocumentReader;
pub use metrics::{ActorsReading, DiskReading, JournalReading, MetricsReader, OperationsReading, Readings};
pub use reload::{Reloaded, Reloader};
pub use server::{Deps, HealthReader, Limits, OnFailure, Rates, STOP_GRACE_S, Server};
