//! What a route says of itself.

/// Under which heading an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Tag {
    Probes,
    Health,
    Swarms,
    Agents,
    Operations,
    Events,
    Hive,
}

impl Tag {
    pub(super) const ALL: [Self; 7] =
        [Self::Probes, Self::Health, Self::Swarms, Self::Agents, Self::Operations, Self::Events, Self::Hive];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Probes => "probes",
            Self::Health => "health",
            Self::Swarms => "swarms",
            Self::Agents => "agents",
            Self::Operations => "operations",
            Self::Events => "events",
            Self::Hive => "hive",
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Probes => "Alive, ready, measured: for whoever watches the daemon itself.",
            Self::Health => "What was seen of agents, swarms and the hive, by whom and when.",
            Self::Swarms => "Swarms: what is wanted of them, and commands on them.",
            Self::Agents => "Single agents: their siblings' processes are left alone.",
            Self::Operations => "What became of accepted commands.",
            Self::Events => "What happens, numbered.",
            Self::Hive => "The hive as a whole.",
        }
    }
}

/// What a route does.
pub(in crate::http) struct Doc {
    /// The operation's name, which generated clients use.
    pub(in crate::http) id: String,
    pub(super) tag: Tag,
    pub(super) summary: String,
}

/// Describes a route: a name that is unique among all, a heading, and one line.
pub(in crate::http) fn doc(id: impl Into<String>, tag: Tag, summary: impl Into<String>) -> Doc {
    Doc { id: id.into(), tag, summary: summary.into() }
}
