//! The fifteen traps of supervision on actix, one test or more each: avoided, or a limit that is known and written down.
//!
//! P1, P2, P9, P12: `pitfalls/process.rs`. P3, P4, P6, P10, P11: `pitfalls/threads.rs`. P5, P8: `pitfalls/messages.rs`. P7, P13 to P15:
//! `pitfalls/supervisors.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "what a `do_send` past the inbox does is one of the traps")]

#[path = "facts/harness.rs"]
mod harness;
#[path = "pitfalls/messages.rs"]
mod messages;
#[path = "pitfalls/process.rs"]
mod process;
#[path = "pitfalls/supervisors.rs"]
mod supervisors;
#[path = "pitfalls/threads.rs"]
mod threads;
