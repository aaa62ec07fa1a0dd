//! The `docker` runtime: swarms in containers of their own, agents launched through `docker exec`.

pub mod engine;
