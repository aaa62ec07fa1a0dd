//! TLS for whoever comes from another host: a certificate and its key, read from PEM text. TLS 1.3 alone is spoken; every system that gets security
//! updates knows it. The pair can be replaced while connections go on: those that are there keep what they have, the next ones see the new one.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use parking_lot::RwLock;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject},
        },
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
        version::TLS13,
    },
};

/// Largest file of a certificate or a key: a chain is some kilobytes.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// What a listener shows to whoever connects; clones show the same.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
}

/// The pair that the next handshake shows.
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(hidden)")
    }
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
        let shown = Arc::new(Shown(RwLock::new(pair(certificate, key)?)));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Unfit)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        Ok(Self { config: Arc::new(config), shown })
    }

    /// Shows another pair from the next handshake on.
    ///
    /// # Errors
    /// What is wrong with it; the one before is kept.
    pub fn replace(&self, certificate: &str, key: &str) -> Result<(), TlsError> {
        *self.shown.0.write() = pair(certificate, key)?;
        Ok(())
    }

    /// Whether both show the same certificate now.
    pub fn shows_as(&self, other: &Self) -> bool {
        let own = Arc::clone(&self.shown.0.read());
        let others = Arc::clone(&other.shown.0.read());
        own.cert == others.cert
    }

    /// For a server that makes its own acceptor.
    pub fn server_config(&self) -> ServerConfig {
        ServerConfig::clone(&self.config)
    }

    /// Accepts connections.
    pub fn acceptor(&self) -> TlsAcceptor {
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

fn pair(certificate: &str, key: &str) -> Result<Arc<CertifiedKey>, TlsError> {
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
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map(Arc::new).map_err(TlsError::Unfit)
}

/// A pair with the files that it was read from, so that it can be read anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// What is shown.
    pub tls: Tls,
    /// The file with the certificate.
    pub certificate: PathBuf,
    /// The file with its key.
    pub key: PathBuf,
}

/// How two files looked when they were read last.
pub type Stamps = [Stamp; 2];
/// Device, inode, length and time of change; `None` when there is no file.
type Stamp = Option<(u64, u64, u64, SystemTime)>;

/// Why a pair was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A file can't be read.
    #[error("{path:?} can't be read")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// What is in the files can't be used.
    #[error(transparent)]
    Unfit(#[from] TlsError),
}

impl TlsFiles {
    /// How the files look now.
    pub async fn stamps(&self) -> Stamps {
        [stamp(&self.certificate).await, stamp(&self.key).await]
    }

    /// Reads both files and shows what is in them from the next handshake on.
    ///
    /// # Errors
    /// What is wrong with them; the pair before is kept.
    pub async fn reload(&self) -> Result<(), ReloadError> {
        let (certificate, key) = (text(&self.certificate).await?, text(&self.key).await?);
        Ok(self.tls.replace(&certificate, &key)?)
    }
}

async fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let file = tokio::fs::metadata(path).await.ok()?;
    Some((file.dev(), file.ino(), file.len(), file.modified().unwrap_or(SystemTime::UNIX_EPOCH)))
}

async fn text(path: &Path) -> Result<String, ReloadError> {
    use tokio::io::AsyncReadExt as _;
    let read = async {
        let mut text = String::new();
        tokio::fs::File::open(path).await?.take(PEM_BYTES_MAX).read_to_string(&mut text).await?;
        Ok(text)
    };
    read.await.map_err(|error| ReloadError::Unreadable { path: path.to_owned(), error })
}

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
    #[tokio::test]
    async fn a_pair_is_replaced_by_a_good_one_alone() {
        let made = || {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            (made.cert.pem(), made.signing_key.serialize_pem(), made.cert.der().to_vec())
        };
        let (first, second) = (made(), made());
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let files = TlsFiles { tls: Tls::read(&first.0, &first.1).unwrap(), certificate, key };
        let shown = || files.tls.shown.0.read().cert[0].to_vec();
        let before = files.stamps().await;
        assert!(matches!(files.reload().await, Err(ReloadError::Unreadable { .. })));
        std::fs::write(&files.certificate, &second.0).unwrap();
        std::fs::write(&files.key, &first.1).unwrap();
        let half = files.stamps().await;
        assert_ne!(before, half);
        assert!(matches!(files.reload().await, Err(ReloadError::Unfit(TlsError::Unfit(_)))));
        assert_eq!(shown(), first.2);
        std::fs::write(dir.path().join("next.pem"), &second.1).unwrap();
        std::fs::rename(dir.path().join("next.pem"), &files.key).unwrap();
        assert_ne!(files.stamps().await, half);
        files.reload().await.unwrap();
        assert_eq!(shown(), second.2);
        assert_eq!(files.stamps().await, files.stamps().await);
    }
}
