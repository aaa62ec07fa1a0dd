//! What runs commands, behind one trait with declared capabilities.

pub mod contract;
pub mod fake;
pub mod orphans;
pub mod process;
pub mod suite;

pub use contract::{
    AgentControl, AgentEvent, BoxFuture, Capabilities, LaunchError, LaunchOrder, Launched, OutputLine, RecoverError,
    Recovered, Runtime,
};
