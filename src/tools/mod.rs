//! The tools by which agents and people share work. Every door (HTTP, the data plane's JSON-RPC, MCP) finds the same tool by the same name, hands it the
//! same arguments, and shows the same document or the same refusal.
//!
//! Arguments are a JSON object. Whoever is no agent with a session says in it whose work it is and for whom he acts: `swarm`, `agent` (a name) and, where
//! that is an agent of the swarm, `incarnation`. Those three are read here, the rest by the tool.

mod call;
mod error;
mod form;
mod list;
mod locks;
mod messages;
mod meter;
mod overview;
mod pile;
mod report;
mod schema;
mod tasks;

pub use call::{Answer, Call, Caller, House, Patience, Tools, Unhurried};
pub use error::ToolError;
pub use list::{Effect, Tool, Who, all, find};
pub use meter::Called;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
