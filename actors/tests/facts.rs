//! What actix 0.13 does by itself, fact by fact, and what becomes of each under this crate.
//!
//! A fact has two halves. The first runs plain actix and pins what it does: when a new release of actix changes that, the test says so, and
//! the guard against it may be dropped. The second runs the very same actor as a child. It shows the cure, or the limit that stays.
//!
//! F1 to F3, F5, F6: `facts/panics.rs`. F4, F7, F16, F17: `facts/queues.rs`. F10, F11: `facts/floods.rs`. F8, F9, F12 to F15:
//! `facts/threads.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "what actix does with a `do_send` is the subject")]

#[path = "facts/floods.rs"]
mod floods;
#[path = "facts/harness.rs"]
mod harness;
#[path = "facts/panics.rs"]
mod panics;
#[path = "facts/queues.rs"]
mod queues;
#[path = "facts/threads.rs"]
mod threads;
