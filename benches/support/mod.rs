//! What the benchmark programs share, in reading order.

#![allow(dead_code, unreachable_pub, reason = "each program uses its part, and none is a library")]

pub mod agent;
pub mod clock;
pub mod figures;
pub mod hive;
pub mod keepers;
pub mod machine;
pub mod plane;
pub mod processes;
pub mod server;
pub mod viewer;
