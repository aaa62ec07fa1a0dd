//! Shared work under failure: histories of many clients, taken down while holders, calls and daemons die, and looked at by a checker that knows nothing
//! of how it is done.

mod checker;
mod daemon;
mod desk;
mod doctored;
mod history;
mod lessons;

/// Whether runs are to be as long as they are meant to be.
fn long() -> bool {
    std::env::var("HK_TEST_LONG").is_ok_and(|long| !long.is_empty())
}
