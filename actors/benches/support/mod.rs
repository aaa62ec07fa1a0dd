//! The parts of the race, in reading order.

#![allow(unreachable_pub, reason = "a program is no library")]

#[path = "../../../benches/support/machine.rs"]
pub mod machine;

pub mod field;
pub mod ours;
pub mod report;
pub mod rows;

/// Why a benchmark stops.
pub type Failure = Box<dyn std::error::Error>;
