//! Who is measured beside whom.

use std::time::Duration;

use crate::support::figures::{Samples, ms, ratio, table, verdict};

/// The floor is the first lane.
pub struct Lanes<const N: usize> {
    names: [&'static str; N],
    samples: [Samples; N],
}

impl<const N: usize> Lanes<N> {
    pub fn new(names: [&'static str; N]) -> Self {
        Self { names, samples: std::array::from_fn(|_| Samples::default()) }
    }

    /// The lanes of a round, which begins with another one each time.
    pub fn order(round: usize) -> impl Iterator<Item = usize> {
        (0..N).map(move |turn| (round + turn) % N)
    }

    pub fn add(&mut self, lane: usize, sample: Duration) {
        self.samples[lane].add(sample);
    }

    /// Prints all.
    pub fn table(&self, title: &str) {
        let floor = self.samples[0].median();
        let row = |(name, samples): (&&str, &Samples)| {
            let name = vec![(*name).to_owned()];
            [name, samples.cells(), vec![ratio(samples.median(), floor)]].concat()
        };
        let rows: Vec<Vec<String>> = self.names.iter().zip(&self.samples).map(row).collect();
        let beside = format!("/{}", self.names[0]);
        table(title, &["lane", "n", "min", "median", "p99", "max", &beside], &rows);
    }

    /// Holds the medians of these lanes against so many times the floor's.
    pub fn at_most(&self, times: f64, judged: &[usize]) {
        let Some(floor) = self.samples[0].median() else { return };
        let limit = floor.mul_f64(times);
        for lane in judged {
            let Some(median) = self.samples[*lane].median() else { continue };
            println!(
                "goal: at most {times}x {}: {} {} ({} of {} ms)",
                self.names[0],
                self.names[*lane],
                verdict(median <= limit),
                ms(median),
                ms(limit)
            );
        }
    }

    /// The same against a time.
    pub fn within(&self, limit: Duration, judged: &[usize]) {
        for lane in judged {
            let Some(median) = self.samples[*lane].median() else { continue };
            let name = self.names[*lane];
            println!("goal: within {} ms: {name} {} ({} ms)", ms(limit), verdict(median <= limit), ms(median));
        }
    }
}
