//! Frames and bounded codecs: the launcher's channel and the data plane's JSON-RPC lines. Pure: bytes in, messages out, no IO.

pub mod channel;
pub mod lines;
pub mod rpc;
