//! The `docker` runtime: swarms in containers of their own, agents launched through `docker exec`.

pub mod engine;
mod executable;
mod inside;
mod lodging;
mod runtime;

pub use executable::Launcher;
pub use runtime::{DockerOptions, DockerRuntime};
