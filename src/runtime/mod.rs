//! What runs commands, behind one trait with declared capabilities.

mod child;
pub mod contract;
pub mod docker;
mod drive;
mod end;
pub mod fake;
mod keep;
mod lead;
pub mod orphans;
pub mod process;
mod registry;
mod runtimes;
mod secrets;
pub mod suite;
mod veil;

pub use child::{AgentActor, AgentDeps, EndStuck, Job, runs};
pub use contract::{
    AgentControl, AgentEvent, BoxFuture, Capabilities, LaunchError, LaunchOrder, Launched, OutputLine, RecoverError,
    Recovered, Runtime,
};
pub use keep::{keep_lines, keep_loss};
pub use registry::{OpenLaunch, Registry, Slot, token_hash};
pub use runtimes::{NoRuntime, Runtimes};
pub use secrets::{Resolved, SECRET_BYTES_MAX, SecretError, Secrets};
pub use veil::{REDACTED, SECRET_BYTES_MIN, Veil};
