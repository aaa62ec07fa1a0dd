//! One integration binary, a module per capability.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod cli;
mod config;
