//! `hivekeeper-peers IMPL WHAT WHERE COUNT`: one measurement of one peer, printed as lines `NAME VALUE`.
//!
//! IMPL is `ractor` (under a hand-written supervisor, as its documentation shows), `ractor-supervisor` or `kameo`; WHERE is `l` (one thread) or `x`
//! (two workers). What is measured and how is said in `actors/benches/peers.rs`, which starts this program.

mod kameo_peer;
mod measure;
mod ractor_peer;

use std::process::ExitCode;

use measure::{Job, Place};
use tokio::runtime::Builder;

/// That of `actors/benches/peers.rs`, for the reason that is given there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, what, place, count] = words.as_slice() else { return usage() };
    let (Ok(count), Some(place)) = (count.parse(), Place::named(place)) else { return usage() };
    let job = Job { what: what.clone(), place, count };
    // A crash must cost nobody a line on the console.
    std::panic::set_hook(Box::new(|_| {}));
    let runtime = match place {
        Place::OneThread => Builder::new_current_thread().enable_all().build(),
        Place::Across => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
    };
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    // As a task, like everything else in a program.
    let known = runtime.block_on(runtime.spawn(run(name.clone(), job))).unwrap_or(false);
    if known { ExitCode::SUCCESS } else { usage() }
}

/// False for what this peer does not do.
async fn run(name: String, job: Job) -> bool {
    match name.as_str() {
        "ractor" => ractor_peer::by_hand(&job).await,
        "ractor-supervisor" => ractor_peer::supervised(&job).await,
        "kameo" => kameo_peer::run(&job).await,
        _ => false,
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: hivekeeper-peers ractor|ractor-supervisor|kameo restart|tell|ask|ask64|start l|x COUNT");
    ExitCode::FAILURE
}
