//! A lock that nobody else wants: taken and given back.

use anyhow::Context;

use crate::support::{
    clock,
    figures::{Samples, verdict},
};
use std::time::Duration;

/// What the issue asks for, p99.
pub(crate) const GOAL: Duration = Duration::from_millis(1);

pub(crate) trait Locker {
    /// Takes a lock and gives it back.
    fn turn(&mut self) -> anyhow::Result<()>;
}

/// One row: how long taking and giving back takes together.
pub(crate) fn row(name: &str, locker: &mut dyn Locker, turns: usize) -> anyhow::Result<Vec<String>> {
    let mut samples = Vec::with_capacity(turns);
    for _ in 0..turns {
        let began = clock::now();
        locker.turn()?;
        samples.push(clock::now() - began);
    }
    let samples = Samples::from(samples);
    let p99 = samples.percentile(99).context("no sample")?;
    let mut row = vec![name.to_owned()];
    row.extend(samples.cells());
    row.push(verdict(p99 < GOAL).to_owned());
    Ok(row)
}
