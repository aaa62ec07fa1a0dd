//! What runs commands, behind one trait with declared capabilities.

pub mod contract;

pub use contract::{
    AgentControl, AgentEvent, BoxFuture, Capabilities, LaunchError, LaunchOrder, Launched, OutputLine, RecoverError,
    Recovered, Runtime,
};
