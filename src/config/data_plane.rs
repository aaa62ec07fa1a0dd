//! `[data_plane]`: who may come, how much they may say, and behind which certificate.

use std::{io, net::SocketAddr, path::Path};

use super::{
    fields::{Fields, Slot},
    problem::Problem,
    read::{self, integer},
    settings::DataPlaneConfig,
    tls::TlsSlots,
};
use crate::tls::Tls;

/// Its keys, each with the word of the uppermost layer so far.
#[derive(Debug, Default)]
pub(super) struct DataPlaneSlots {
    pub(super) bind: Slot<SocketAddr>,
    connections_max: Slot<i64>,
    connects_per_second: Slot<i64>,
    notifications_per_second: Slot<i64>,
    tls: TlsSlots,
}

impl DataPlaneSlots {
    /// Reads one layer. Relative paths count from `base`.
    pub(super) fn read(&mut self, base: &Path, fields: &mut Fields<'_>) {
        fields.set("bind", &mut self.bind, read::address);
        // A million sessions at rest hold some gigabytes.
        fields.set("connections_max", &mut self.connections_max, integer(16..=1_000_000));
        fields.set("connects_per_second", &mut self.connects_per_second, integer(1..=100_000));
        // Below a hundred a handful of agents would lose their logs; beyond ten million no machine comes.
        fields.set("notifications_per_second", &mut self.notifications_per_second, integer(100..=10_000_000));
        self.tls.read(base, fields);
    }

    /// The checked table, with no TLS yet; `None` where no layer said something valid.
    pub(super) fn config(&self) -> Option<DataPlaneConfig> {
        Some(DataPlaneConfig {
            bind: self.bind.as_ref()?.value,
            connections_max: usize::try_from(self.connections_max.as_ref()?.value).ok()?,
            connects_per_second: u32::try_from(self.connects_per_second.as_ref()?.value).ok()?,
            notifications_per_second: u32::try_from(self.notifications_per_second.as_ref()?.value).ok()?,
            tls: None,
        })
    }

    /// Certificate and key, if they are named.
    pub(super) fn tls(&self, read: &dyn Fn(&Path) -> io::Result<String>, problems: &mut Vec<Problem>) -> Option<Tls> {
        self.tls.files("data_plane", read, problems).map(|files| files.tls)
    }
}
