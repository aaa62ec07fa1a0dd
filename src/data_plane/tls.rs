//! TLS for agents on other hosts: a certificate and its key, read from PEM text. TLS 1.3 alone is spoken; every system that gets security updates knows it.

use std::{fmt, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject},
        },
    },
};

/// What the listener shows to whoever connects.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
}

/// Why a certificate and a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate's text has no certificate.
    #[error("no certificate is in it (a PEM block that begins with -----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// The certificate's text is damaged.
    #[error("the certificate can't be read")]
    BadCertificate(#[source] pem::Error),
    /// The key's text has no private key.
    #[error(
        "no private key is in it (a PEM block such as -----BEGIN PRIVATE KEY-----; one with a passphrase can't be used)"
    )]
    NoKey,
    /// The key's text is damaged.
    #[error("the private key can't be read")]
    BadKey(#[source] pem::Error),
    /// The two don't belong together, or are of a kind that is not supported.
    #[error("the private key does not fit the certificate, or one of them is of a kind that can't be used")]
    Unfit(#[source] rustls::Error),
}

impl TlsError {
    /// Whether the fault is the key's rather than the certificate's.
    pub fn of_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::BadKey(_) | Self::Unfit(_))
    }
}

impl Tls {
    /// From the certificate with its chain, and its private key, both as PEM text.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(certificate: &str, key: &str) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(TlsError::BadCertificate)?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey,
            other => TlsError::BadKey(other),
        })?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|versions| versions.with_no_client_auth().with_single_cert(chain, key))
            .map_err(TlsError::Unfit)?;
        Ok(Self { config: Arc::new(config) })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(hidden)")
    }
}

impl PartialEq for Tls {
    /// Whether it is the same one; what was read twice is not compared.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}
impl Eq for Tls {}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_files_is_named() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert!(Tls::read(&certificate, &key).is_ok());
        assert!(Tls::read(&format!("{key}{certificate}"), &format!("{certificate}{key}")).is_ok(), "one file for both");
        let wrong = |certificate: &str, key: &str| Tls::read(certificate, key).unwrap_err();
        assert!(matches!(wrong("", &key), TlsError::NoCertificate));
        assert!(matches!(wrong(&key, &key), TlsError::NoCertificate));
        assert!(matches!(wrong(&certificate, ""), TlsError::NoKey));
        assert!(matches!(wrong(&certificate, &certificate), TlsError::NoKey));
        assert!(matches!(wrong(&certificate[..certificate.len() / 2], &key), TlsError::BadCertificate(_)));
        assert!(matches!(wrong(&certificate, &key[..key.len() / 2]), TlsError::BadKey(_)));
        assert!(matches!(wrong(&certificate, &other), TlsError::Unfit(_)));
    }
}
