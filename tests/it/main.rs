//! One integration binary; a module for each capability.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod asyncapi;
mod chaos;
mod cli;
mod clients;
mod config;
mod data_plane;
mod docker;
mod docker_faults;
mod docs;
mod drain;
mod faults;
mod groups;
mod harness;
mod history;
mod hive;
mod hostile;
mod hostile_floods;
mod hostile_storm;
mod house;
mod http;
mod http_desk;
mod http_guard;
mod http_streams;
mod http_support;
mod launcher;
mod launcher_attach;
mod launcher_channel;
mod launcher_hold;
mod launcher_output;
mod launcher_relay;
mod launcher_sweep;
mod metrics;
mod runtime;
mod service;
mod soak;
mod sources;
mod stream;

mod stream_clients;
mod stream_crowd;
mod stream_events;
mod stream_support;
mod supervision;
mod takeover;
mod usage;
