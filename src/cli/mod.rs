//! The command line: `serve` and `check` on this machine, everything else over the HTTP API of a running daemon.
//!
//! [`args`] is what may be typed, [`run`] leads to the command and turns its end into an exit code, [`locate`] finds the daemon, [`client`]
//! and [`sse`] talk to it, [`shapes`] is what it answers. [`table`] and [`words`] make text for people; the commands have a file each.

mod args;
mod check;
mod client;
mod commands;
mod error;
mod events;
mod handover;
mod locate;
mod logs;
mod probes;
mod ps;
mod run;
mod screen;
mod shapes;
mod sse;
mod table;
mod tree;
mod words;

pub use error::Exit;
pub use run::{Serve, Surroundings, execute, run};
pub use screen::Screen;
