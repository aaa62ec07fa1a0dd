//! The list of tools.

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::{
    call::{Answer, Call},
    error::ToolError,
    form::Arguments,
    locks, messages, overview, tasks,
};

/// For whom a tool works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// For a party, of whose swarm it is.
    Party,
    /// For a swarm; by a party, or by nobody in particular.
    Swarm,
    /// For anybody; of one swarm, or of all.
    Anyone,
}

/// What a tool does to the world, as MCP's annotations tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Reads,
    /// Something is added or goes on.
    Adds,
    /// The same, and the same call again changes nothing more.
    AddsOnce,
    /// Something ends.
    Ends,
}

/// One tool.
pub struct Tool {
    /// Its name on every door.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// What it does, for whoever is to choose among tools.
    pub about: &'static str,
    /// What it does to the world.
    pub effect: Effect,
    /// For whom.
    pub who: Who,
    /// The JSON Schema of its arguments.
    pub arguments: fn() -> Value,
    /// The JSON Schema of its answer.
    pub answer: fn() -> Value,
    pub(super) run: for<'a> fn(Call<'a>, &'a Arguments) -> BoxFuture<'a, Result<Answer, ToolError>>,
}

/// Every tool.
pub fn all() -> impl Iterator<Item = &'static Tool> {
    [tasks::CREATING, tasks::WORKING, tasks::LOOKING, locks::TOOLS, messages::TOOLS, overview::TOOLS]
        .into_iter()
        .flatten()
}

/// The tool of this name.
pub fn find(name: &str) -> Option<&'static Tool> {
    all().find(|tool| tool.name == name)
}
