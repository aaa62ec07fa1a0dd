//! From samples to figures, and how they are printed.

use std::time::Duration;

use anyhow::{Context, bail};

/// Samples of one quantity.
#[derive(Debug, Default)]
pub struct Samples(Vec<Duration>);

impl From<Vec<Duration>> for Samples {
    fn from(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }
}

impl Samples {
    pub fn add(&mut self, sample: Duration) {
        let at = self.0.partition_point(|other| *other <= sample);
        self.0.insert(at, sample);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest sample that `percent` of all do not exceed (nearest rank): p99 of 100 is the second longest.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied()
    }

    pub fn median(&self) -> Option<Duration> {
        self.percentile(50)
    }

    /// Count, least, median, p99 and longest, in ms.
    pub fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.0.len().to_string()];
        cells.extend([0, 50, 99, 100].map(|percent| self.percentile(percent).map_or("-".to_owned(), ms)));
        cells
    }
}

/// The middle one, by nearest rank.
pub fn median_of<T: PartialOrd + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get((values.len().max(1) - 1) / 2).copied()
}

/// Milliseconds.
pub fn ms(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}

/// KiB.
pub fn kib(bytes: u64) -> String {
    format!("{}", bytes / 1024)
}

/// How many times as long, as text.
pub fn ratio(of: Option<Duration>, to: Option<Duration>) -> String {
    match (of, to) {
        (Some(of), Some(to)) if !to.is_zero() => format!("{:.2}", of.as_secs_f64() / to.as_secs_f64()),
        _ => "-".to_owned(),
    }
}

/// Whether a goal is met, in a word.
pub fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

/// Prints a table: the first column to the left, the others to the right.
pub fn table(title: &str, head: &[&str], rows: &[Vec<String>]) {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            rows.iter().chain([&head]).filter_map(|row| row.get(column)).map(|cell| cell.len()).max().unwrap_or(0)
        })
        .collect();
    println!("\n{title}");
    for row in [&head].into_iter().chain(rows) {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// The number that `--rounds` says, for a quick look; else the one that counts. cargo adds `--bench`.
pub fn rounds(usual: usize) -> anyhow::Result<usize> {
    Ok(arguments(&[])?.0.unwrap_or(usual))
}

/// What `--rounds` says, and which of a benchmark's parts are named.
pub fn arguments(parts: &[&'static str]) -> anyhow::Result<(Option<usize>, Vec<&'static str>)> {
    let (mut rounds, mut named) = (None, Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => {}
            "--rounds" => {
                let said = words.next().context("--rounds takes a number")?;
                let said = said.parse().ok().filter(|n| (1..=10_000).contains(n));
                rounds = Some(said.context("--rounds takes 1 to 10000")?);
            }
            other => match parts.iter().find(|part| **part == other) {
                Some(part) => named.push(*part),
                None => bail!("unknown argument {other:?}; allowed: --rounds N {}", parts.join(" ")),
            },
        }
    }
    Ok((rounds, named))
}

/// A scratch directory with a short name: sockets below it have to fit into 108 bytes.
pub fn scratch() -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("hkb-").tempdir_in("/tmp").context("cannot make a directory in /tmp")
}
