//! Somebody who takes the messages.

use super::load::Load;

pub(crate) trait Lane {
    fn name(&self) -> String;

    /// Takes a load over so many connections, once.
    fn run(&mut self, load: &Load, connections: usize) -> anyhow::Result<Pass>;
}

/// One measurement.
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    /// Messages done with, a second.
    pub(crate) rate: f64,
    /// The share of them that is kept, where something else than all or nothing is.
    pub(crate) kept: Option<f64>,
}
