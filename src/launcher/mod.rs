//! `hivekeeper agent --stdio`: owns the process tree of one agent, under a lease. Beside it six errands in a container, each a short program of
//! its own: `--attach` joins a daemon to a launcher, `--list` tells which there are, `--sweep` ends what a dead one left, `--hold` keeps the container
//! while there are launchers, `--settle` and `--clear` make and remove our directory in a container of others.
//!
//! Single-threaded, no async runtime, no logger: one loop over `poll(2)` that turns what is ready into events, lets the pure core decide, and
//! performs what it says. Imports only [`crate::wire`].
//!
//! In reading order: `start` is the way from the command line to a running agent, `program` what is executed, `run` the loop, `core` the
//! decisions (lease, kill ladder, freeze, end), `perform` their effects, `farewell` the end, `ring` output lines that wait for an
//! acknowledgement, `relay` the agent's loopback port, `link` one daemon's channel, `tree` what `/proc` says about the descendants, `memory` what the kernel counts in our cgroup, `files` the
//! run directory, `clock` the time and its gaps, `sys` the system calls; then `attach`, `list`,
//! `sweep`, `hold` and `room`.

mod attach;
mod clock;
mod core;
mod farewell;
mod files;
mod hold;
mod link;
mod list;
mod memory;
mod perform;
mod program;
mod relay;
mod ring;
mod room;
mod run;
mod start;
mod sweep;
mod sys;
mod tree;

pub use start::main;
