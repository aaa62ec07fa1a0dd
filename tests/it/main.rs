#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
//! Integration tests: each module runs the real executable.

mod harness;
mod launcher;
mod launcher_channel;
mod launcher_output;
mod launcher_relay;
mod runtime;
