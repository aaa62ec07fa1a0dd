//! The tables, layer over layer.

use std::{net::SocketAddr, num::NonZeroU32, path::Path, path::PathBuf, time::Duration};

use crate::model::{SecretRights, SwarmName};

use super::{
    data_plane::DataPlaneSlots,
    engine,
    fields::{Fields, Slot},
    problem::Problem,
    read::{self, choice, duration, integer, size},
    secret,
    settings::{
        CoordinationConfig, DiskConfig, DockerConfig, HistoryConfig, HiveConfig, HttpConfig, JournalConfig, LogConfig,
        LogFormat, LogLevel, RuntimeConfig,
    },
    swarm::{AgentSlots, SwarmSlots},
    tls::TlsSlots,
    tree::Node,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Every key of every table, each with the word of the uppermost layer so far.
#[derive(Debug, Default)]
pub(super) struct Draft {
    hive_name: Slot<SwarmName>,
    pub(super) data_dir: Slot<Option<PathBuf>>,
    pub(super) http_bind: Slot<SocketAddr>,
    pub(super) token_file: Slot<Option<PathBuf>>,
    hosts: Slot<Vec<String>>,
    reads_per_second: Slot<i64>,
    commands_per_second: Slot<i64>,
    pub(super) http_tls: TlsSlots,
    pub(super) data_plane: DataPlaneSlots,
    pub(super) sample_interval: Slot<Duration>,
    output_ring: Slot<u64>,
    pub(super) docker_host: Slot<Option<PathBuf>>,
    pub(super) allow_mounts: Slot<Vec<PathBuf>>,
    allow_files: Slot<Vec<PathBuf>>,
    allow_env: Slot<Vec<String>>,
    pub(super) swarm_defaults: SwarmSlots,
    pub(super) agent_defaults: AgentSlots,
    keep: Slot<Duration>,
    events_max: Slot<i64>,
    operations_max: Slot<i64>,
    incarnations_max: Slot<i64>,
    age_max: Slot<Duration>,
    journal_max: Slot<u64>,
    history_max: Slot<u64>,
    disk_max: Slot<u64>,
    disk_free_min: Slot<u64>,
    level: Slot<LogLevel>,
    format: Slot<LogFormat>,
    pub(super) agent_max: Slot<u64>,
    pub(super) total_max: Slot<u64>,
}

/// What does not lie over the layer below, but takes its place.
#[derive(Debug, Default)]
pub(super) struct Arrays {
    /// `[[swarm]]`
    pub(super) swarms: Option<Node>,
    /// `[[source]]`
    pub(super) sources: Option<Node>,
    /// `[[notify]]`
    pub(super) notifiers: Option<Node>,
}

impl Draft {
    /// Lays one layer over what is there. Relative paths count from `base`. Hands back its arrays, unread.
    pub(super) fn lay(&mut self, root: Node, base: &Path, problems: &mut Vec<Problem>) -> Arrays {
        let Some(mut root) = Fields::open(root, "", problems) else { return Arrays::default() };
        self.table(&mut root, "hive", |draft, fields| {
            fields.set("name", &mut draft.hive_name, read::name);
            fields.set("data_dir", &mut draft.data_dir, read::path(base));
        });
        self.table(&mut root, "http", |draft, fields| {
            fields.set("bind", &mut draft.http_bind, read::address);
            fields.set("token_file", &mut draft.token_file, read::path(base));
            fields.set("hosts", &mut draft.hosts, read::hosts);
            // Below ten reads a second a page could not be shown; the upper bounds are beyond what the daemon answers.
            fields.set("reads_per_second", &mut draft.reads_per_second, integer(10..=1_000_000));
            fields.set("commands_per_second", &mut draft.commands_per_second, integer(1..=1_000_000));
            draft.http_tls.read(base, fields);
        });
        self.table(&mut root, "data_plane", |draft, fields| draft.data_plane.read(base, fields));
        self.table(&mut root, "runtime", |draft, fields| {
            // Below 50 ms a reading of a large process tree costs more than it tells; above a minute "now" loses its meaning.
            let interval = duration(Duration::from_millis(50)..=Duration::from_secs(60));
            fields.set("sample_interval", &mut draft.sample_interval, interval);
            // One piece of a line (16 KiB) must fit; every launcher may fill its ring, so 64 MiB each is plenty.
            fields.set("output_ring", &mut draft.output_ring, size(16 * KIB..=64 * MIB));
        });
        self.table(&mut root, "docker", |draft, fields| {
            fields.set("host", &mut draft.docker_host, engine::host);
            fields.set("allow_mounts", &mut draft.allow_mounts, engine::directories);
        });
        self.table(&mut root, "secrets", |draft, fields| {
            fields.set("allow_files", &mut draft.allow_files, engine::directories);
            fields.set("allow_env", &mut draft.allow_env, secret::names);
        });
        self.table(&mut root, "supervision", |draft, fields| {
            draft.swarm_defaults.read(fields);
            draft.agent_defaults.read_restart(fields);
        });
        self.table(&mut root, "health", |draft, fields| draft.agent_defaults.read_health(fields));
        self.table(&mut root, "journal", |draft, fields| {
            // Rows beyond the upper bounds would take seconds to be looked through.
            fields.set("events_max", &mut draft.events_max, integer(1_000..=10_000_000));
            fields.set("operations_max", &mut draft.operations_max, integer(100..=1_000_000));
            fields.set("incarnations_max", &mut draft.incarnations_max, integer(10..=10_000));
            fields.set("age_max", &mut draft.age_max, duration(Duration::from_secs(60 * 60)..=DAY * 3650));
            // The least holds some thousand events beside the database's own log.
            fields.set("max", &mut draft.journal_max, size(16 * MIB..=16 * GIB));
        });
        self.table(&mut root, "coordination", |draft, fields| {
            fields.set("keep", &mut draft.keep, duration(Duration::from_secs(60)..=DAY * 3650));
        });
        self.table(&mut root, "disk", |draft, fields| {
            // Below the least a history and a journal of some agents do not fit beside a log.
            fields.set("max", &mut draft.disk_max, size(64 * MIB..=64 * 1024 * GIB));
            fields.set("free_min", &mut draft.disk_free_min, size(0..=1024 * GIB));
        });
        self.table(&mut root, "history", |draft, fields| {
            // A fleet of a hundred agents fits into the least; the most is more than a hundred thousand would fill.
            fields.set("max", &mut draft.history_max, size(16 * MIB..=16 * GIB));
        });
        self.table(&mut root, "log", |draft, fields| {
            use LogLevel::{Debug, Error, Info, Trace, Warn};
            let levels = [("error", Error), ("warn", Warn), ("info", Info), ("debug", Debug), ("trace", Trace)];
            fields.set("level", &mut draft.level, choice(&levels));
            let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
            fields.set("format", &mut draft.format, choice(&formats));
            fields.set("agent_max", &mut draft.agent_max, size(64 * KIB..=64 * GIB));
            fields.set("total_max", &mut draft.total_max, size(MIB..=64 * 1024 * GIB));
        });
        let (swarms, sources) = (root.node("swarm"), root.node("source"));
        let arrays = Arrays { swarms, sources, notifiers: root.node("notify") };
        root.finish();
        arrays
    }

    fn table(&mut self, root: &mut Fields<'_>, name: &'static str, read: impl FnOnce(&mut Self, &mut Fields<'_>)) {
        let Some(mut fields) = root.table(name) else { return };
        read(self, &mut fields);
        fields.finish();
    }

    /// `[hive]`; `None` where no layer said something valid, here and below.
    pub(super) fn hive(&self) -> Option<HiveConfig> {
        let name = self.hive_name.as_ref()?.value.to_string();
        Some(HiveConfig { name, data_dir: self.data_dir.as_ref()?.value.clone()? })
    }

    /// `[http]`, with no token and no TLS yet.
    pub(super) fn http(&self) -> Option<HttpConfig> {
        let rate = |slot: &Slot<i64>| NonZeroU32::new(u32::try_from(slot.as_ref()?.value).ok()?);
        Some(HttpConfig {
            bind: self.http_bind.as_ref()?.value,
            token: None,
            hosts: self.hosts.as_ref()?.value.clone(),
            reads_per_second: rate(&self.reads_per_second)?,
            commands_per_second: rate(&self.commands_per_second)?,
            tls: None,
        })
    }

    /// `[runtime]`
    pub(super) fn runtime(&self) -> Option<RuntimeConfig> {
        let output_ring_bytes = u32::try_from(self.output_ring.as_ref()?.value).ok()?;
        Some(RuntimeConfig { sample_interval: self.sample_interval.as_ref()?.value, output_ring_bytes })
    }

    /// `[docker]`, with no socket yet.
    pub(super) fn docker(&self) -> Option<DockerConfig> {
        Some(DockerConfig { socket: None, allow_mounts: self.allow_mounts.as_ref()?.value.clone() })
    }

    /// `[secrets]`
    pub(super) fn secrets(&self) -> Option<SecretRights> {
        Some(SecretRights {
            files: self.allow_files.as_ref()?.value.clone(),
            env: self.allow_env.as_ref()?.value.clone(),
        })
    }

    /// `[journal]`
    pub(super) fn journal(&self) -> Option<JournalConfig> {
        let count = |slot: &Slot<i64>| u64::try_from(slot.as_ref()?.value).ok();
        Some(JournalConfig {
            events_max: count(&self.events_max)?,
            operations_max: count(&self.operations_max)?,
            incarnations_max: count(&self.incarnations_max)?,
            age_max: self.age_max.as_ref()?.value,
            bytes_max: self.journal_max.as_ref()?.value,
        })
    }

    /// `[coordination]`
    pub(super) fn coordination(&self) -> Option<CoordinationConfig> {
        Some(CoordinationConfig { keep: self.keep.as_ref()?.value })
    }

    /// `[disk]`
    pub(super) fn disk(&self) -> Option<DiskConfig> {
        Some(DiskConfig {
            bytes_max: self.disk_max.as_ref()?.value,
            free_bytes_min: self.disk_free_min.as_ref()?.value,
        })
    }

    /// `[history]`
    pub(super) fn history(&self) -> Option<HistoryConfig> {
        Some(HistoryConfig { bytes_max: self.history_max.as_ref()?.value })
    }

    /// `[log]`
    pub(super) fn log(&self) -> Option<LogConfig> {
        Some(LogConfig {
            level: self.level.as_ref()?.value,
            format: self.format.as_ref()?.value,
            agent_bytes_max: self.agent_max.as_ref()?.value,
            total_bytes_max: self.total_max.as_ref()?.value,
        })
    }
}
