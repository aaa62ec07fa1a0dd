//! What other actor systems found worth testing, as far as it applies here. The ideas are theirs, the tests are ours.
//!
//! kameo 0.22 (`supervision.rs`, 29 cases):
//! - The table of restart policies and exits, the count of restarts and its reset, the three strategies: under OTP's names in `otp.rs`.
//! - Its edges (one child alone, the first and the last of several, a limit of one child, successive and independent failures, arguments of
//!   the factory, defaults, stop without deadlock): `kameo_*`.
//! - A mailbox that outlives the crash, its bounced asks: `shell/messages.rs`. A reference that stays good: `kameo_*`.
//! - Links between siblings do not apply: there are none. Who wants to know of another child listens to the events.
//!
//! Pekko typed (`SupervisionSpec`):
//! - Limits (none left at zero, reached, reset after the window), failing constructors with and without a limit, a failure on restart, growth
//!   and reset of the back-off, a start without a first message, children that stop with their parent, stops in `started`: `pekko_*`.
//! - Retention of messages across failures and failing starts, the stash and its dropped messages: `shell/messages.rs`. Here the bound of the
//!   inbox is the bound of the stash: `pekko_*`.
//! - Deciders by type of exception, nested supervision of one actor and `resume` do not apply: a panic has no type to decide by, and an object
//!   that panicked is never used again. `withStopChildren(false)` does not apply: no child outlives its supervisor. A default that stops does
//!   not apply: it restarts, as in OTP. Log levels do not apply: every exit is an event, and the log of panics is rationed. Errors of the JVM
//!   do not apply: an overflow of the stack ends a Rust process. A reset after the mean of the delays does not apply: `reset_after` is said.
//!
//! quickwit-actors (6 cases of its supervisor):
//! - Restart on panic and on error, a quit and a kill that reach the child, a frozen actor that is replaced: `quickwit_*`.
//! - An end when the last mailbox is dropped does not apply: a child is its supervisor's, whoever holds a handle. A supervisor that ends with
//!   its children is `auto_shutdown`, in `otp.rs`.
//!
//! From the issues of others: proto.actor 214 (a panic in a stop), ractor 243 (a failed start and its name), bastion and ractor-supervisor (a
//! delay that the supervisor sleeps through), rabbitmq-common 201 and supervisor3 2 (delayed restarts that are lost or counted twice), kameo
//! 377 (stale references), actix 204 (a stop that holds; `facts/queues.rs`, F4).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "peers_ideas/delays.rs"]
mod delays;
#[path = "facts/harness.rs"]
mod harness;
#[path = "peers_ideas/issues.rs"]
mod issues;
#[path = "peers_ideas/kameo.rs"]
mod kameo;
#[path = "peers_ideas/pekko.rs"]
mod pekko;
#[path = "peers_ideas/quickwit.rs"]
mod quickwit;
