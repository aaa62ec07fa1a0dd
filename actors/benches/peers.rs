//! Ours beside ractor (by hand and under ractor-supervisor), kameo and Erlang/OTP, all in the same run.
//!
//! Each measurement is a process of its own, made for it and ended with it: this executable through the crate's public names (`support/ours.rs`), the
//! program in `peers/` for the Rust peers, `peers/bench.erl` for Erlang. In each round everybody does each measurement once, in turn and beginning
//! with another one each time, so that noise of the machine hits all alike. Shown are the medians of the rounds and, beside a limit, the median of
//! the ratios of the rounds: what scatters is the machine, and it divides out of a ratio of neighbours.
//!
//! `l` is one thread: ours with `Placement::WithSupervisor`, tokio's current_thread, one scheduler of Erlang. `x` is across threads: ours with
//! `Placement::Pool`, two workers of tokio, two schedulers. Those of tokio and Erlang put both ends on one thread where that is faster; ours does so
//! where it is told to (`Child::apart`), which is `t`: supervisor and children together, off the thread of the root, beside the peers' `x`.
//! Everybody allocates as a program with very many actors does: the Rust ones with mimalloc (by 4 KiB pages: whether huge ones lie ready is chance),
//! Erlang with its own allocators. (Under glibc's own, ours took 1.06 times as long to start and 1.35 times as long to stop them all.)
//! Everybody's limits on restarts are out of reach, nobody logs or prints a crash, inboxes are unbounded (ours: larger than what is told). Whoever
//! measures is a task of its own. Peers ask without a deadline; ours always has one and pays for it.
//!
//! - `restart`: from just before the panic to the first message that the successor handles, which it sends itself as it starts; supervisor in the
//!   loop. 300 crashes, 1 ms apart.
//! - `tell`: until the last is handled. On one thread the actor gets its turn after every hundred.
//! - `ask`: one at a time. `ask64`: 64 tasks, one ask each at a time.
//! - `start`: one after the other, each acknowledged once its start hook has run. `stop`: the supervisor is stopped, and every child has ended. Children
//!   are simple_one_for_one here and in Erlang; ractor-supervisor kills its own.
//! - `memory`: what the resident set has grown by, per idle child; for Erlang also by its VM's own account.
//!
//! `cargo bench -p hivekeeper-actors --bench peers`; a quick look at a part: `... -- restart tell --rounds 3`. A peer that cannot be had here is left
//! out, and why is said. The limits are those of issue 4.

mod support;

use std::process::ExitCode;

use support::{Failure, field::Field, machine, ours, report, rows::JOBS};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Enough that a median survives three bad rounds; a round takes about a minute and a half.
const ROUNDS: usize = 7;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, job @ ..] = words.as_slice()
        && first == ours::WORD
    {
        return ours::run(job);
    }
    match race(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("peers: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn race(words: &[String]) -> Result<(), Failure> {
    let (rounds, parts) = arguments(words)?;
    println!("machine: {}", machine::describe(std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))));
    let mut field = Field::line_up();
    field.introduce();
    for round in 0..rounds {
        for job in JOBS.iter().filter(|job| parts.is_empty() || parts.iter().any(|part| part == job.what)) {
            field.run(job, round)?;
        }
        println!("round {} of {rounds}, load {}", round + 1, machine::load());
    }
    report::print(&field);
    Ok(())
}

/// Rounds, and the parts that are named. cargo adds `--bench`.
fn arguments(words: &[String]) -> Result<(usize, Vec<String>), Failure> {
    let (mut rounds, mut parts) = (ROUNDS, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => {}
            "--rounds" => {
                let said = words.next().and_then(|said| said.parse().ok()).filter(|n| (1..=1000).contains(n));
                rounds = said.ok_or("--rounds takes 1 to 1000")?;
            }
            part if JOBS.iter().any(|job| job.what == part) => parts.push(part.to_owned()),
            other => {
                return Err(
                    format!("unknown argument {other:?}; allowed: restart tell ask ask64 start --rounds N").into()
                );
            }
        }
    }
    Ok((rounds, parts))
}
