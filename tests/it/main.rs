//! The integration tests: one binary, a module per capability.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod data_plane;
