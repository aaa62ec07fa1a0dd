//! `[data_plane]`: who may come, how much they may say, and behind which certificate.

use std::{io, net::SocketAddr, path::Path, path::PathBuf};

use super::{
    fields::{Fields, Setting, Slot},
    problem::{Complaint, Problem},
    read::{self, integer},
    settings::DataPlaneConfig,
};
use crate::data_plane::Tls;

/// Its keys, each with the word of the uppermost layer so far.
#[derive(Debug, Default)]
pub(super) struct DataPlaneSlots {
    pub(super) bind: Slot<SocketAddr>,
    connections_max: Slot<i64>,
    connects_per_second: Slot<i64>,
    notifications_per_second: Slot<i64>,
    certificate: Slot<Option<PathBuf>>,
    key: Slot<Option<PathBuf>>,
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
        fields.set("tls_cert_file", &mut self.certificate, read::path(base));
        fields.set("tls_key_file", &mut self.key, read::path(base));
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

    /// Reads certificate and key, if they are named.
    pub(super) fn tls(&self, read: &dyn Fn(&Path) -> io::Result<String>, problems: &mut Vec<Problem>) -> Option<Tls> {
        let (certificate, key) = (self.certificate.as_ref()?, self.key.as_ref()?);
        let (cert_key, key_key) = ("data_plane.tls_cert_file", "data_plane.tls_key_file");
        let mut text = |said: &Setting<Option<PathBuf>>, key: &str| {
            let path = said.value.as_ref()?;
            let unreadable = |error| {
                let found = format!("{path:?}, which can't be read: {error}");
                Complaint::rule(found, "allowed: a readable file with PEM text").at(said.place.clone(), key.to_owned())
            };
            read(path).map_err(|error| problems.push(unreadable(error))).ok()
        };
        let texts = (text(certificate, cert_key), text(key, key_key));
        let (said, name, found, rule) = match (texts, &certificate.value, &key.value) {
            ((Some(cert_text), Some(key_text)), Some(cert_path), Some(key_path)) => {
                match Tls::read(&cert_text, &key_text) {
                    Ok(tls) => return Some(tls),
                    Err(why) if why.of_key() => {
                        (key, key_key, format!("{key_path:?}: {why}"), format!("allowed: the key of {cert_path:?}"))
                    }
                    Err(why) => {
                        let rule =
                            "allowed: a file with the certificate and, behind it, those that vouch for it".to_owned();
                        (certificate, cert_key, format!("{cert_path:?}: {why}"), rule)
                    }
                }
            }
            // The other may have been said by nobody, so the place is that of the one that was.
            (_, Some(path), None) => {
                let found = format!("{path:?} without its private key");
                (certificate, cert_key, found, format!("allowed: both or neither; set {key_key}"))
            }
            (_, None, Some(path)) => {
                let found = format!("{path:?} without its certificate");
                (key, key_key, found, format!("allowed: both or neither; set {cert_key}"))
            }
            _ => return None,
        };
        problems.push(Complaint::rule(found, rule).at(said.place.clone(), name.to_owned()));
        None
    }
}
