//! The channel between the daemon and one launcher: over the launcher's stdin and stdout, or over its unix socket after a take-over.
//!
//! A frame is `u32` length (little endian, of what follows), `u8` kind, payload. Structured payloads are JSON; output lines and relayed bytes
//! travel raw behind a fixed header. The first frame either way is versioned: version n accepts n-1.

mod codec;
mod frames;

pub use codec::{ChannelError, Decoder, Frame, encode, output_header};
pub use frames::*;

#[cfg(test)]
mod tests;
