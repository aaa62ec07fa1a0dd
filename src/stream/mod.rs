//! `/ws/hybrid-health`: the health of the hive pushed to viewers. The one place that uses actix-web-actors.
//!
//! Each viewer is an actor with a cursor into the feed. It reads the feed only while its socket takes frames, so a viewer that stops reading
//! holds at most one batch of frames and its socket's buffer, and nobody else waits for it. Such an actor is polled inside the response's
//! body and stalls with its own timers; therefore [`Warden`] judges all viewers from outside, by the pongs that the peers themselves send.
//!
//! `limits` holds the numbers, `pulse` the judgement and `protocol` the frames (these are pure); `socket` ends a connection that can't be
//! asked to; `hub` keeps the viewers, `viewer` is the actor of one, `warden` the actor over all, `route` the handler.

mod hub;
mod limits;
mod protocol;
mod pulse;
mod route;
mod socket;
mod viewer;
mod warden;

pub use hub::{Hub, Stats};
pub use limits::StreamLimits;
pub use route::hybrid_health;
pub use socket::keep_socket;
pub use warden::Warden;
