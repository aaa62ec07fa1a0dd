//! What a checked configuration says.

use std::{fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use super::api::Documents;
use crate::{
    model::{NotifySpec, SecretRights, SourceSpec, SwarmSpec},
    tls::{Tls, TlsFiles},
};

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The user's file, absolute; `None` when there is none and so no swarm.
    pub file: Option<PathBuf>,
    /// `[hive]`
    pub hive: HiveConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[data_plane]`
    pub data_plane: DataPlaneConfig,
    /// `[runtime]`
    pub runtime: RuntimeConfig,
    /// `[docker]`
    pub docker: DockerConfig,
    /// `[secrets]`: what documents sent to the API may refer to.
    pub secrets: SecretRights,
    /// `[journal]`
    pub journal: JournalConfig,
    /// `[coordination]`
    pub coordination: CoordinationConfig,
    /// `[history]`
    pub history: HistoryConfig,
    /// `[disk]`
    pub disk: DiskConfig,
    /// `[log]`
    pub log: LogConfig,
    /// What swarm documents of the API are read against.
    pub documents: Documents,
    /// `[[swarm]]`, in the file's order, with `[supervision]` and `[health]` filled in.
    pub swarms: Vec<SwarmSpec>,
    /// `[[source]]`, in the file's order.
    pub sources: Vec<SourceSpec>,
    /// `[[notify]]`, in the file's order.
    pub notifiers: Vec<NotifySpec>,
}

/// `[hive]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiveConfig {
    /// The hive's name for people.
    pub name: String,
    /// Absolute; at most 60 bytes, so that socket paths below it fit.
    pub data_dir: PathBuf,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where the API listens.
    pub bind: SocketAddr,
    /// The bearer token that `token_file` holds; `None` asks for none, and then `bind` is loopback.
    pub token: Option<Token>,
    /// Further names that a request's `Host` may carry.
    pub hosts: Vec<String>,
    /// Requests that read, of each peer and with each token.
    pub reads_per_second: NonZeroU32,
    /// Requests that need `control`, of each peer and with each token.
    pub commands_per_second: NonZeroU32,
    /// What the API shows to whoever connects; `None` speaks plain HTTP.
    pub tls: Option<TlsFiles>,
}

/// `[data_plane]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPlaneConfig {
    /// Where the data plane listens.
    pub bind: SocketAddr,
    /// Connections at a time, those that launchers relay left out.
    pub connections_max: usize,
    /// Connections accepted a second in the long run.
    pub connects_per_second: u32,
    /// Notifications a second of all agents together.
    pub notifications_per_second: u32,
    /// What the port shows to whoever connects; `None` speaks plain TCP.
    pub tls: Option<Tls>,
}

/// `[runtime]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Between two readings of an agent.
    pub sample_interval: Duration,
    /// Bytes of output that a launcher keeps until they are acknowledged.
    pub output_ring_bytes: u32,
}

/// `[docker]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerConfig {
    /// The engine's socket, absolute. `None` where `DOCKER_HOST` names an engine that this version can't speak to and no swarm of the file needs
    /// one.
    pub socket: Option<PathBuf>,
    /// Absolute directories below which documents sent to the API may mount; the file's own swarms may mount what they name.
    pub allow_mounts: Vec<PathBuf>,
}

/// `[journal]`: what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// Events.
    pub events_max: u64,
    /// Ended operations.
    pub operations_max: u64,
    /// Ended incarnations of each agent.
    pub incarnations_max: u64,
    /// Age at which any of them goes.
    pub age_max: Duration,
    /// Bytes of the file that holds it.
    pub bytes_max: u64,
}

/// `[coordination]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoordinationConfig {
    /// How long tasks that have ended are kept.
    pub keep: Duration,
}

/// `[history]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryConfig {
    /// Bytes of the file that holds it.
    pub bytes_max: u64,
}

/// `[disk]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskConfig {
    /// Journal, history and log books together.
    pub bytes_max: u64,
    /// What must stay free beside them.
    pub free_bytes_min: u64,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How much the daemon says.
    pub level: LogLevel,
    /// How the daemon says it.
    pub format: LogFormat,
    /// Bytes of output kept of each agent.
    pub agent_bytes_max: u64,
    /// Bytes of output kept of all agents.
    pub total_bytes_max: u64,
}

/// How much the daemon says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What went wrong.
    Error,
    /// What may.
    Warn,
    /// What happens.
    Info,
    /// How.
    Debug,
    /// Every step.
    Trace,
}

impl LogLevel {
    /// The word of the configuration, which `tracing` reads, too.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How the daemon writes its own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// A secret that never shows in a debug print.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps the text.
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, to be hashed or sent and never to be logged.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}
