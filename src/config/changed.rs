//! What of a configuration only another daemon takes up.

use super::settings::{
    Config, CoordinationConfig, DataPlaneConfig, DiskConfig, DockerConfig, HistoryConfig, HiveConfig, HttpConfig,
    JournalConfig, LogConfig, RuntimeConfig,
};
use crate::{model::SecretRights, tls::TlsFiles};

impl Config {
    /// The keys that `new` says otherwise and that a daemon with this configuration can't take up. `[[swarm]]`, `[supervision]` and `[health]` are none:
    /// they are in the documents of swarms.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let Self {
            file: _,
            hive: HiveConfig { name, data_dir },
            http: HttpConfig { bind: http_bind, token, hosts, reads_per_second, commands_per_second, tls },
            data_plane:
                DataPlaneConfig {
                    bind,
                    connections_max,
                    connects_per_second,
                    notifications_per_second,
                    tls: data_plane_tls,
                },
            runtime: RuntimeConfig { sample_interval, output_ring_bytes },
            docker: DockerConfig { socket, allow_mounts },
            secrets: SecretRights { files, env },
            journal: JournalConfig { events_max, operations_max, incarnations_max, age_max, bytes_max: journal_max },
            coordination: CoordinationConfig { keep },
            history: HistoryConfig { bytes_max: history_max },
            disk: DiskConfig { bytes_max: disk_max, free_bytes_min },
            log: LogConfig { level, format, agent_bytes_max, total_bytes_max },
            documents: _,
            swarms: _,
            sources,
            notifiers,
        } = self;
        let certificate = |tls: &Option<TlsFiles>| tls.as_ref().map(|files| files.certificate.clone());
        let key = |tls: &Option<TlsFiles>| tls.as_ref().map(|files| files.key.clone());
        // Without the names of its files: what counts is what the port shows.
        let other_certificate = match (data_plane_tls, &new.data_plane.tls) {
            (Some(now), Some(then)) => !now.shows_as(then),
            (now, then) => now.is_some() || then.is_some(),
        };
        let all = [
            ("hive.name", *name != new.hive.name),
            ("hive.data_dir", *data_dir != new.hive.data_dir),
            ("http.bind", *http_bind != new.http.bind),
            ("http.token_file", *token != new.http.token),
            ("http.hosts", *hosts != new.http.hosts),
            ("http.reads_per_second", *reads_per_second != new.http.reads_per_second),
            ("http.commands_per_second", *commands_per_second != new.http.commands_per_second),
            ("http.tls_cert_file", certificate(tls) != certificate(&new.http.tls)),
            ("http.tls_key_file", key(tls) != key(&new.http.tls)),
            ("data_plane.bind", *bind != new.data_plane.bind),
            ("data_plane.connections_max", *connections_max != new.data_plane.connections_max),
            ("data_plane.connects_per_second", *connects_per_second != new.data_plane.connects_per_second),
            (
                "data_plane.notifications_per_second",
                *notifications_per_second != new.data_plane.notifications_per_second,
            ),
            ("data_plane.tls_cert_file", other_certificate),
            ("runtime.sample_interval", *sample_interval != new.runtime.sample_interval),
            ("runtime.output_ring", *output_ring_bytes != new.runtime.output_ring_bytes),
            ("docker.host", *socket != new.docker.socket),
            ("docker.allow_mounts", *allow_mounts != new.docker.allow_mounts),
            ("secrets.allow_files", *files != new.secrets.files),
            ("secrets.allow_env", *env != new.secrets.env),
            ("journal.events_max", *events_max != new.journal.events_max),
            ("journal.operations_max", *operations_max != new.journal.operations_max),
            ("journal.incarnations_max", *incarnations_max != new.journal.incarnations_max),
            ("journal.age_max", *age_max != new.journal.age_max),
            ("journal.max", *journal_max != new.journal.bytes_max),
            ("coordination.keep", *keep != new.coordination.keep),
            ("history.max", *history_max != new.history.bytes_max),
            ("disk.max", *disk_max != new.disk.bytes_max),
            ("disk.free_min", *free_bytes_min != new.disk.free_bytes_min),
            ("log.level", *level != new.log.level),
            ("log.format", *format != new.log.format),
            ("log.agent_max", *agent_bytes_max != new.log.agent_bytes_max),
            ("log.total_max", *total_bytes_max != new.log.total_bytes_max),
            ("source", *sources != new.sources),
            ("notify", *notifiers != new.notifiers),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}
