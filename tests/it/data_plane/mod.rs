//! The data plane over real sockets: rowdy peers harm nobody but themselves.

mod agents;
mod harness;
mod limits;
mod rowdy;
mod sessions;
