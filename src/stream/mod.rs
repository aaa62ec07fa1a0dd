//! `/ws/hybrid-health`, and `/sse/hybrid-health` for who only reads: the health of the hive pushed to viewers. The one place that uses
//! actix-web-actors.
//!
//! Each viewer of the socket is an actor with a cursor into the feed. It reads the feed only while its socket takes frames, so a viewer that stops reading
//! holds at most one batch of frames and its socket's buffer, and nobody else waits for it. Such an actor is polled inside the response's
//! body and stalls with its own timers; therefore [`Warden`] judges all viewers from outside, by the pongs that the peers themselves send.
//!
//! A reader of the event stream can send nothing: there the judge looks at what its kernel acknowledges.
//!
//! `limits` holds the numbers, `pulse` the judgement, `protocol` the frames and `frame` their way to a connection (these are pure); `lens` keeps the
//! texts and the frames that viewers share, `loans` who holds the long ones; `body` hands the connection what an actor has made; `socket` judges and ends a connection that can't
//! be asked to; `hub` keeps the viewers, `story` is what one is told, `viewer` the actor of one, `sse` the event stream of one, `warden` the actor
//! over all, `route` the handlers.

mod body;
mod bounded;
mod frame;
mod hub;
mod lens;
mod limits;
mod loans;
mod protocol;
mod pulse;
mod route;
#[cfg(test)]
pub(crate) mod simulated;
mod socket;
mod sse;
mod story;
mod viewer;
mod warden;

pub use hub::{Hub, Stats};
pub use limits::StreamLimits;
pub use route::{hybrid_health, hybrid_health_events};
pub use socket::{hung_up, keep_socket};
pub use warden::Warden;
