//! Shared work under failure: histories of many clients, taken down while holders, calls and daemons die, and looked at by a checker that knows nothing
//! of how it is done.

mod checker;
mod desk;
mod doctored;
mod history;
mod lessons;
