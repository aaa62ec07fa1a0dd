//! Leading a launch over its channel, whatever carries it: one task from `Alive` to a proven end.
//!
//! `drive` is that task, `channel` what it reads and writes, `outbox` the orders that wait for it, `relay` the agent's connections, `order` the
//! words of both sides, `find` the search for a launch of an earlier daemon, `stray` the end of one that nobody knows, `carrier` what all of it
//! asks of the runtime.

mod carrier;
mod channel;
mod drive;
mod find;
mod order;
mod outbox;
mod relay;
mod stray;

pub(in crate::runtime) use carrier::Carrier;
pub(in crate::runtime) use channel::{ANSWER_DEADLINE, Attached, Incoming, LINGER, Link, LinkError};
pub(in crate::runtime) use drive::Drive;
pub(in crate::runtime) use find::{Found, find};
pub(in crate::runtime) use order::{RESERVED, launch};
pub(in crate::runtime) use stray::{Stray, end_stray};
