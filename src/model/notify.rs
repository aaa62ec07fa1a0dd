//! Who is told when something is wrong, and of what: one `[[notify]]` of the configuration; and how telling goes.

use std::{collections::BTreeSet, fmt, path::PathBuf, sync::Arc, time::Duration};

use super::ids::{NotifierName, SwarmName};

/// One `[[notify]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifySpec {
    /// Unique in the hive.
    pub name: NotifierName,
    /// Where a message goes.
    pub to: Receiver,
    /// Of what it is told.
    pub on: BTreeSet<Topic>,
    /// Only of these swarms; empty: of all, and of the hive.
    pub swarms: BTreeSet<SwarmName>,
    /// Messages a minute at most; what is more is summed up in one.
    pub per_minute: u32,
    /// How long an end of trouble must have lasted before it is told.
    pub recovered_after: Duration,
    /// How long one attempt may take, all of it.
    pub timeout: Duration,
    /// How long a message is tried again before it is given up.
    pub retry_for: Duration,
}

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver {
    /// A POST.
    Webhook(Webhook),
    /// A program and its arguments, which finds the message on its stdin.
    Command(Vec<String>),
}

/// A POST, and what goes with it. Files are read for each message, so that what they hold can be changed at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where it goes.
    pub url: UrlSpec,
    /// Sent along.
    pub headers: Vec<(String, String)>,
    /// Holds the bearer token.
    pub token_file: Option<PathBuf>,
    /// Holds the secret that signs.
    pub secret_file: Option<PathBuf>,
    /// PEM text with the certificates that vouch for the receiver's, instead of the public ones.
    pub authorities: Option<Arc<str>>,
}

/// An address that may be a secret by itself.
#[derive(Clone, PartialEq, Eq)]
pub enum UrlSpec {
    /// As it was written.
    Plain(String),
    /// In a file.
    File(PathBuf),
}

impl fmt::Debug for UrlSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlSpec(hidden)")
    }
}

/// What one can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// An agent gave up, or ended abnormally and is not to be restarted.
    Failed,
    /// A swarm or the hive is critical.
    Critical,
    /// An agent makes no progress.
    Stuck,
    /// What was told is over.
    Recovered,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Failed, Self::Critical, Self::Stuck, Self::Recovered];

    /// The stable word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Critical => "critical",
            Self::Stuck => "stuck",
            Self::Recovered => "recovered",
        }
    }
}

/// How telling goes with one notifier, since this daemon started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifierStatus {
    /// Which.
    pub name: NotifierName,
    /// `webhook` or `command`.
    pub kind: &'static str,
    /// Of what it is told.
    pub on: BTreeSet<Topic>,
    /// Only of these swarms.
    pub swarms: BTreeSet<SwarmName>,
    /// Messages that were delivered.
    pub delivered: u64,
    /// Messages that went into a summary instead of being told one by one.
    pub summed_up: u64,
    /// Messages that the receiver never took.
    pub lost: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Messages that wait, those to be summed up included.
    pub waiting: u64,
    /// Why it can't be reached now.
    pub trouble: Option<String>,
}
