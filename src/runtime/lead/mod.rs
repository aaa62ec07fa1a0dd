//! Leading a launch over its channel, whatever carries it: one task from `Alive` to a proven end.
//!
//! `drive` is that task, `channel` what it reads and writes, `outbox` the orders that wait for it, `relay` the agent's connections, `order` the
//! words of both sides, `carrier` what it asks of the runtime.

mod carrier;
mod channel;
mod drive;
mod order;
mod outbox;
mod relay;

pub(in crate::runtime) use carrier::{Carrier, attach};
pub(in crate::runtime) use channel::{ANSWER_DEADLINE, Attached, Incoming, LINGER, Link, LinkError};
pub(in crate::runtime) use drive::Drive;
pub(in crate::runtime) use order::{RESERVED, ended, launch};
pub(in crate::runtime) use outbox::KILL_ANSWER;
