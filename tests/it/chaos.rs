//! Seeded chaos: everything that can die dies, at moments that a seed draws, and after each round the truth is looked at.
//!
//! `HK_TEST_LONG=yes` runs many seeds; `HK_CHAOS_SEED=N` (with `HK_CHAOS_ROUNDS=M`) runs one.

mod faults;
mod model;
mod moments;
mod mutations;
mod signals;
mod truth;

use crate::hive::Hive;
use faults::World;

/// Draws of a seed: splitmix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// One hive through so many rounds. `long` adds the faults that take longer than a round of the normal run may.
fn chaos(seed: u64, rounds: u64, long: bool) {
    let told = Told { seed };
    let mut world = World::new(Dice(seed), long);
    world.settle("the first start");
    for round in 1..=rounds {
        let fault = world.strike();
        world.settle(&format!("seed {seed} round {round}: {fault}"));
    }
    world.end();
    std::mem::forget(told);
}

/// Names the seed of a run that fails.
struct Told {
    seed: u64,
}

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("chaos failed with HK_CHAOS_SEED={}", self.seed);
    }
}

#[test]
fn the_truth_survives_a_short_storm() {
    chaos(1, 12, false);
}

#[test]
fn the_truth_survives_another_short_storm() {
    chaos(2, 12, false);
}

#[test]
fn the_truth_survives_long_storms() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("HK_CHAOS_ROUNDS").unwrap_or(25);
    if let Some(seed) = number("HK_CHAOS_SEED") {
        return chaos(seed, rounds, true);
    }
    if std::env::var("HK_TEST_LONG").is_ok_and(|long| !long.is_empty()) {
        for seed in 100..100 + number("HK_CHAOS_SEEDS").unwrap_or(30) {
            chaos(seed, rounds, true);
        }
    }
}

/// The agents' program: it shows two living incarnations by a lock that its whole tree holds, and counts its lines.
fn program(hive: &Hive, version: u64) -> String {
    let marks = hive.file("marks").display().to_string();
    format!(
        "v={version}; m={marks}/$(echo $HIVEKEEPER_AGENT | tr / .); exec 9>>$m.lock; \
         flock -n 9 || echo $HIVEKEEPER_INCARNATION $$ >> $m.two; setsid sleep 1000 & n=0; \
         while :; do n=$((n+1)); echo $HIVEKEEPER_INCARNATION:$n; sleep 0.1; done"
    )
}
