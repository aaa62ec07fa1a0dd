//! `tls_cert_file` and `tls_key_file`, which more than one table has.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    fields::{Fields, Setting, Slot},
    problem::{Complaint, Problem},
    read,
};
use crate::tls::{Tls, TlsFiles};

/// The two keys, each with the word of the uppermost layer so far.
#[derive(Debug, Default)]
pub(super) struct TlsSlots {
    certificate: Slot<Option<PathBuf>>,
    key: Slot<Option<PathBuf>>,
}

impl TlsSlots {
    /// Reads one layer. Relative paths count from `base`.
    pub(super) fn read(&mut self, base: &Path, fields: &mut Fields<'_>) {
        fields.set("tls_cert_file", &mut self.certificate, read::path(base));
        fields.set("tls_key_file", &mut self.key, read::path(base));
    }

    /// The file with the certificate.
    pub(super) fn certificate_file(&self) -> Option<PathBuf> {
        self.certificate.as_ref()?.value.clone()
    }

    /// Reads certificate and key of a table, if they are named.
    pub(super) fn files(
        &self,
        table: &str,
        read: &dyn Fn(&Path) -> io::Result<String>,
        problems: &mut Vec<Problem>,
    ) -> Option<TlsFiles> {
        let (certificate, key) = (self.certificate.as_ref()?, self.key.as_ref()?);
        let (cert_key, key_key) = (format!("{table}.tls_cert_file"), format!("{table}.tls_key_file"));
        let mut text = |said: &Setting<Option<PathBuf>>, key: &str| {
            let path = said.value.as_ref()?;
            let unreadable = |error| {
                let found = format!("{path:?}, which can't be read: {error}");
                Complaint::rule(found, "allowed: a readable file with PEM text").at(said.place.clone(), key.to_owned())
            };
            read(path).map_err(|error| problems.push(unreadable(error))).ok()
        };
        let texts = (text(certificate, &cert_key), text(key, &key_key));
        let (said, name, found, rule) = match (texts, &certificate.value, &key.value) {
            ((Some(cert_text), Some(key_text)), Some(cert_path), Some(key_path)) => {
                match Tls::read(&cert_text, &key_text) {
                    Ok(tls) => return Some(TlsFiles { tls, certificate: cert_path.clone(), key: key_path.clone() }),
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
        problems.push(Complaint::rule(found, rule).at(said.place.clone(), name));
        None
    }
}
