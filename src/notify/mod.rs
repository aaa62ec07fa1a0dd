//! Tells people and programs when something is wrong, and when it is over: by webhook (CloudEvents) or by a command.
//!
//! Each notifier follows the feed behind notes of its own. What happened while no daemon ran is in the journal, and what a receiver did not take waits
//! or is summed up; so everything is told at least once, with an id (EPOCH/SEQ of the event) by which doubles are known, or counted in a summary.
//!
//! `sighting` reads events, `watch` decides what is news, `message` makes the text, `outbox` keeps what waits, the rate and the attempts, `notes`
//! is what outlives a daemon, `sign` the signature (these are pure); `webhook` and `command` deliver, blocking, on a thread of their own;
//! `notifier` is the handle that holds it all, `courier` its actor, `board` what the hive's health shows of it.

mod board;
mod command;
mod courier;
mod message;
mod notes;
mod notifier;
mod outbox;
mod sighting;
mod sign;
mod watch;
mod webhook;

pub use courier::Courier;
pub use notifier::{Notifier, Notifiers, NotifyOptions};
pub(crate) use webhook::{authorities, check_secret, check_url};
