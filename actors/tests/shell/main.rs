//! The crate as a program sees it: real actors on a real actix system.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod dynamic;
mod events;
mod harness;
mod lifecycle;
mod messages;
mod orders;
mod overflow;
mod panics;
mod redelivery;
mod registry;
mod requests;
mod restarts;
mod stuck;
mod supervision;
mod tasks;
mod together;
mod turns;
