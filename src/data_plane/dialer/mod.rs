//! The dialer: MCP servers that agent containers already run over TCP are polled, and what they claim is told on as their claim.
//!
//! ```text
//! actor      one a source: waits for the next poll, owns every connection of it
//! pool       the connections of one source: opens, spreads calls, tries once more where the peer has cut
//! link       one connection: reads, writes, waits; knows no rule of the protocol
//! talk       the rules, pure: bytes in, answers and replies out; whatever a server sends, it is bounded and never a panic
//! era        how a server is greeted: dual-era, pure
//! ask        what we write, pure
//! reply      one line to what it means, pure
//! answer     a tool's result to what it says, pure
//! agents     what it says of agents, pure
//! schedule   when to poll, pure
//! breaker    whether to, pure
//! record     what is told of a source: counters, last error, agents; pure
//! ```

mod actor;
mod agents;
mod answer;
mod ask;
mod breaker;
mod era;
mod limits;
mod link;
mod pool;
mod record;
mod reply;
mod schedule;
mod talk;

pub use actor::{Dialer, DialerHandle};
