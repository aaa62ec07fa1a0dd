//! The Model Context Protocol: the list of tools, offered to any MCP client. The one room that knows rmcp.
//!
//! [`handler`] is what a client sees, whatever door it comes by; [`shown`] says our tools in MCP's words. A door says who asks and moves bytes:
//! [`talk`] for whole lines of one connection, [`web`] for streamable HTTP. Revision 2026-07-28, in which each request stands alone, and those before it
//! that begin with `initialize` are both spoken.

mod handler;
mod shown;
mod talk;
mod web;

pub use handler::Mcp;
pub use talk::{Claimed, Deaf, Talk, speaks};
pub use web::{Endpoint, Flow, MESSAGE_BYTES_MAX, Reply};
