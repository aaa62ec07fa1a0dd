//! Hivekeeper keeps swarms of AI agents alive. See ARCHITECTURE.md for the map.

pub mod model;
pub mod runtime;
pub mod wire;
