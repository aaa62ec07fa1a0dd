//! Hivekeeper keeps swarms of AI agents alive. See ARCHITECTURE.md for the map.

pub mod app;
pub mod cli;
pub mod config;
pub mod control_plane;
pub mod coordination;
pub mod data_plane;
pub mod events;
pub mod health;
pub mod http;
pub mod launcher;
pub mod mcp;
pub mod model;
pub mod notify;
pub mod runtime;
pub mod store;
pub mod stream;
pub mod tls;
pub mod tools;
pub mod view;
pub mod wire;
