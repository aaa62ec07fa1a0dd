//! The data plane over real sockets: rowdy peers harm nobody but themselves.

mod agents;
mod crowds;
mod harness;
mod limits;
mod rowdy;
mod sessions;
mod tls;
