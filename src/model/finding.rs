//! What a pass of reconciliation has found that should not be there.

use std::time::Duration;

use super::ids::SwarmName;

/// One thing that no document accounts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Its name, or the id of a launch.
    pub name: String,
    /// The swarm that it says it belongs to.
    pub swarm: Option<SwarmName>,
    /// Why it should not be there, for people.
    pub why: &'static str,
    /// What becomes of it.
    pub fate: Fate,
}

/// Kinds of things that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FindingKind {
    /// A container.
    Container,
    /// A network.
    Network,
    /// A launch in a swarm's container.
    Launch,
}

/// What becomes of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is gone.
    Removed,
    /// It would have been removed, had this not been a dry run.
    Removable,
    /// It is removed if it is still there after so long.
    Waits(Duration),
    /// It is another hive's and never touched.
    Reported,
    /// It could not be removed; why, for people.
    Failed(String),
}
