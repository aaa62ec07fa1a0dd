//! What a second and a third worker bring.

use std::time::Duration;

use anyhow::ensure;
use sha2::{Digest, Sha256};

use super::lane::{Lane, Work};
use crate::support::{
    clock,
    figures::{ratio, table},
};

const TASKS: usize = 60;
const WORK: Duration = Duration::from_millis(20);
const CROWDS: [usize; 3] = [1, 2, 3];

/// Rows: each kind of work by 1, 2 and 3 workers.
pub(crate) fn measure(lane: &mut dyn Lane) -> anyhow::Result<()> {
    let rounds = rounds_of_a_task();
    let hash = move || {
        let mut block = [0_u8; 4096];
        for _ in 0..rounds {
            let digest = Sha256::digest(block);
            block[..32].copy_from_slice(&digest);
        }
        ensure!(block[..32] != [0; 32], "a digest of nothing");
        Ok(())
    };
    let wait = || {
        std::thread::sleep(WORK);
        Ok(())
    };
    let mut rows = Vec::new();
    let kinds: [(&str, &Work); 2] = [("hash", &hash), ("wait", &wait)];
    for (name, work) in kinds {
        let mut alone = None;
        for workers in CROWDS {
            let took = run(lane, workers, work)?;
            let first = *alone.get_or_insert(took);
            rows.push(vec![
                format!("{name}, {workers} workers"),
                format!("{:.0}", took.as_secs_f64() * 1000.0),
                ratio(Some(first), Some(took)),
            ]);
        }
    }
    table(&format!("{TASKS} tasks of {} ms", WORK.as_millis()), &["", "ms", "times as fast as one"], &rows);
    Ok(())
}

fn run(lane: &mut dyn Lane, workers: usize, work: &Work) -> anyhow::Result<Duration> {
    lane.fill(TASKS)?;
    let clients = (1..=workers).map(|n| lane.client(n)).collect::<anyhow::Result<Vec<_>>>()?;
    let began = clock::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || -> anyhow::Result<()> {
                    while client.turn(work)? {}
                    Ok(())
                })
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        anyhow::Ok(())
    })?;
    Ok(clock::now() - began)
}

/// How many digests take as long as a task.
fn rounds_of_a_task() -> u32 {
    let (block, mut rounds, began) = ([0_u8; 4096], 0, clock::now());
    while clock::now() - began < WORK * 5 {
        std::hint::black_box(Sha256::digest(block));
        rounds += 1;
    }
    rounds / 5
}
