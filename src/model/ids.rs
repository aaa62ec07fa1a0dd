//! Identities. All are minted by the daemon before anything is launched, never parsed out of a program's output.

use std::{fmt, str::FromStr, sync::Arc};

use uuid::Uuid;

/// Longest name of a swarm or an agent: a DNS label (RFC 1035, section 2.3.4).
pub const NAME_LEN_MAX: usize = 63;

/// A name that is not a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a name: allowed are 1 to 63 of a-z, 0-9 and '-', not at the ends")]
pub struct InvalidName {
    /// What was found.
    pub found: String,
}

fn dns_label(text: &str) -> Result<Arc<str>, InvalidName> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ok = !bytes.is_empty()
        && bytes.len() <= NAME_LEN_MAX
        && bytes.iter().all(|b| inner(*b) || *b == b'-')
        && inner(bytes[0])
        && inner(bytes[bytes.len() - 1]);
    if ok { Ok(Arc::from(text)) } else { Err(InvalidName { found: text.chars().take(80).collect() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);
        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                dns_label(text).map(Self)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a swarm, unique in the hive.
    SwarmName
);
name!(
    /// The name of an agent, unique in its swarm.
    AgentName
);
name!(
    /// The name of a source, unique in the hive.
    SourceName
);
name!(
    /// The name of a notifier, unique in the hive.
    NotifierName
);

/// One agent: `SWARM/NAME`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId {
    /// The swarm that it belongs to.
    pub swarm: SwarmName,
    /// Its name within the swarm.
    pub name: AgentName,
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.swarm, self.name)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for AgentId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (swarm, name) = text.split_once('/').ok_or_else(|| InvalidName { found: text.to_owned() })?;
        Ok(Self { swarm: swarm.parse()?, name: name.parse()? })
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(pub Uuid);
        impl $type {
            /// A new id, ordered by time (UUIDv7, RFC 9562).
            pub fn mint() -> Self {
                Self(Uuid::now_v7())
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $type {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}
uuid_id!(
    /// The hive, minted once in its data directory.
    HiveId
);
uuid_id!(
    /// One start of one agent: names its launcher's socket, its exit record and its marker in the environment.
    LaunchId
);

uuid_id!(
    /// One accepted command.
    OperationId
);
uuid_id!(
    /// One task.
    TaskId
);
uuid_id!(
    /// One attempt to lock, from its asking to its release.
    LockId
);
uuid_id!(
    /// One message as its sender knows it; each recipient has a copy under the same id.
    MessageId
);

/// Orders daemons on one data directory; incremented there before a daemon binds anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an event in the feed: grows within and across epochs, may skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "coder-1", "0x", &"a".repeat(63)] {
            assert_eq!(good.parse::<SwarmName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "é", &"a".repeat(64)] {
            assert!(bad.parse::<SwarmName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn agent_ids_have_two_parts() {
        assert_eq!("review/coder-2".parse::<AgentId>().unwrap().to_string(), "review/coder-2");
        for bad in ["review", "review/", "/coder", "a/b/c"] {
            assert!(bad.parse::<AgentId>().is_err(), "{bad:?}");
        }
    }
}
