//! The pure core, step by step, on a clock that the tests move.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod beside_otp;
mod change;
mod dynamic;
mod ends;
mod groups;
mod limits;
mod losses;
mod one;
mod operators;
mod properties;
mod seeds;
mod sim;
