//! The `docker` runtime: swarms in containers of their own or of others, agents launched through `docker exec`.

mod core;
pub mod engine;
mod executable;
mod freeze;
mod inside;
mod lodging;
mod orphans;
mod own;
mod presence;
mod runtime;
mod sidecar;
mod spare;
mod strays;
mod watch;

pub use executable::Launcher;
pub use runtime::{DockerOptions, DockerRuntime};
