//! `top`: the agents, live, with keys.
//!
//! [`state`] is what is known and where the eye is, [`keys`] what a key does to it, [`draw`] how it looks; these are pure. [`shell`] owns the terminal,
//! the stream of health, the keyboard and the commands under way.

mod draw;
mod keys;
mod shell;
mod state;
#[cfg(test)]
mod tests;

pub(super) use shell::top;
