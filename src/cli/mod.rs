//! The command line: `serve` and `check` on this machine, everything else over the HTTP API of a running daemon.
//!
//! [`args`] is what may be typed, [`run`] leads to the command and turns its end into an exit code, [`locate`] finds the daemon, [`client`]
//! and [`sse`] talk to it, [`shapes`] is what it answers. [`progress`] shows an operation while it runs, [`picture`]
//! is the health of the hive kept current. [`table`] and [`words`] make text for people; the commands have a file each.

mod advice;
mod args;
mod attached;
mod backup;
mod check;
mod client;
mod commands;
mod crowd;
mod doctor;
mod error;
mod events;
mod handover;
mod history;
mod init;
mod interrupt;
mod locate;
mod locks;
mod logs;
mod manual;
mod mcp;
mod messages;
mod notify;
mod operations;
mod picture;
mod ports;
mod probes;
mod progress;
mod ps;
mod reconcile;
mod reload;
mod report;
mod run;
mod screen;
mod shapes;
mod sse;
mod table;
mod tasks;
mod token;
mod top;
mod tree;
mod up;
mod wait;
mod words;
mod work;

pub use error::Exit;
pub use interrupt::Interrupts;
pub use run::{Serve, Surroundings, execute, run};
pub use screen::Screen;
