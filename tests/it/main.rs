//! One integration binary; a module for each capability.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod data_plane;
mod house;
mod http;
mod http_desk;
mod http_guard;
mod http_streams;
mod http_support;
