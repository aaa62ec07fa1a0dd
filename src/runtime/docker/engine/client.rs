//! The connection and its deadlines.

use std::{
    error::Error,
    fs,
    future::Future,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error as ClientError};
use tokio::sync::{Mutex, OnceCell};

use super::{
    error::{CallError, ConnectError},
    names::Owner,
    own::{OutsideError, Whereabouts},
    starts::Starts,
};

/// Where an engine listens unless somebody says otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// For a question that a healthy engine answers at once (ping 1 ms): short, because it decides what is shown as reachable.
pub(super) const PING_DEADLINE: Duration = Duration::from_secs(5);
/// For looking at something: 1 ms on an idle engine; an engine that starts fifty commands has been seen to take seconds.
pub(super) const LOOK_DEADLINE: Duration = Duration::from_secs(30);
/// For making, starting, killing and removing: 0.4 s on an idle machine; the engine itself gives a stuck container 10 s before it kills harder.
pub(super) const CHANGE_DEADLINE: Duration = Duration::from_secs(60);

/// The client library's own limit for the head of an answer. Never the one that decides: each call has a shorter deadline, and the library counts
/// neither body nor stream.
const LIBRARY_TIMEOUT_S: u64 = 300;

/// A container engine, used for one hive. Cheap to clone; all clones share the limits on starting commands.
#[derive(Clone)]
pub struct Engine {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) docker: Docker,
    pub(super) owner: Owner,
    /// The socket that we speak through, if it is one: never to be mounted into a container.
    pub(super) socket: Option<PathBuf>,
    pub(super) whereabouts: Whereabouts,
    /// Processors of the engine's machine, once somebody has asked.
    cpus: OnceCell<u32>,
    pub(super) starts: Starts,
    /// Held while the launcher's volume is looked for and filled, so that this daemon does not race itself.
    pub(super) filling: Mutex<()>,
    /// The same for networks, which must not wait for a volume.
    pub(super) networking: Mutex<()>,
}

impl Engine {
    /// Connects for a hive and agrees on an API version. `host` is `unix:///PATH`, `/PATH`, `tcp://HOST:PORT` or `http://HOST:PORT` (not encrypted:
    /// whoever can reach that port is root on the machine); `None` is `/var/run/docker.sock`. An engine that comes back as another version needs
    /// a new connection; calls otherwise connect anew each time, so that an engine may go and come.
    ///
    /// # Errors
    /// A bad address, nobody there, no answer within 5 s.
    pub async fn connect(host: Option<&str>, owner: Owner) -> Result<Self, ConnectError> {
        let host = host.unwrap_or(DEFAULT_SOCKET);
        let (docker, socket) = match Address::parse(host)? {
            Address::Socket(path) => {
                let text = path.to_string_lossy().into_owned();
                (Docker::connect_with_unix(&text, LIBRARY_TIMEOUT_S, API_DEFAULT_VERSION), Some(path))
            }
            Address::Tcp(address) => {
                (Docker::connect_with_http(&address, LIBRARY_TIMEOUT_S, API_DEFAULT_VERSION), None)
            }
        };
        let docker = docker.map_err(|error| CallError::from_client(error, PING_DEADLINE))?;
        let docker = bounded(PING_DEADLINE, docker.negotiate_version()).await;
        let docker = docker.map_err(|error| denied(error, socket.as_deref()))?;
        let whereabouts = Whereabouts::find(&docker).await?;
        let (cpus, starts, filling, networking) = (OnceCell::new(), Starts::new(), Mutex::new(()), Mutex::new(()));
        let inner = Inner { docker, owner, socket, whereabouts, cpus, starts, filling, networking };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Processors of the engine's machine, asked once; 0 where it does not say.
    ///
    /// # Errors
    /// The call fails.
    pub async fn cpus(&self) -> Result<u32, CallError> {
        let ask = || async {
            let info = bounded(LOOK_DEADLINE, self.docker().info()).await?;
            Ok::<_, CallError>(info.ncpu.and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or_default())
        };
        self.inner.cpus.get_or_try_init(ask).await.copied()
    }

    /// What the engine calls a path that this process sees. The same, unless this process runs in a container itself.
    ///
    /// # Errors
    /// The engine can't show it to another container.
    pub fn outside(&self, path: &Path) -> Result<PathBuf, OutsideError> {
        self.inner.whereabouts.outside(path)
    }

    /// Whether this is the id (or 12 digits of it) or the name of the container in which this process runs.
    pub fn is_own_container(&self, container: &str) -> bool {
        self.inner.whereabouts.is(container)
    }

    /// The hive for which it works.
    pub fn owner(&self) -> &Owner {
        &self.inner.owner
    }

    /// Whether the engine answers.
    ///
    /// # Errors
    /// It does not, within 5 s.
    pub async fn ping(&self) -> Result<(), CallError> {
        bounded(PING_DEADLINE, self.docker().ping()).await.map(drop)
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.inner.docker
    }
}

/// One call under its deadline.
pub(super) async fn bounded<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer.map_err(|error| CallError::from_client(error, deadline)),
        Err(_) => Err(CallError::TimedOut(deadline)),
    }
}

/// Says what to do where the socket is there and closed to us.
fn denied(error: CallError, socket: Option<&Path>) -> CallError {
    let CallError::Unreachable(cause) = &error else { return error };
    let cause: &(dyn Error + 'static) = &**cause;
    let is_denied = std::iter::successors(Some(cause), |&cause| cause.source()).any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    });
    match socket.and_then(|socket| Some((socket, fs::metadata(socket).ok()?.gid()))) {
        Some((socket, gid)) if is_denied => CallError::Denied { socket: socket.to_owned(), gid },
        _ => error,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Address {
    Socket(PathBuf),
    Tcp(String),
}

impl Address {
    fn parse(host: &str) -> Result<Self, ConnectError> {
        let path = host.strip_prefix("unix://").unwrap_or(host);
        if path.starts_with('/') {
            return Ok(Self::Socket(PathBuf::from(path)));
        }
        let place = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://")).unwrap_or_default();
        let named = place.trim_end_matches('/');
        let ok = named.rsplit_once(':').is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok());
        if ok && !named.contains(['/', '@', '?', '#']) {
            return Ok(Self::Tcp(format!("tcp://{named}")));
        }
        Err(ConnectError::Address { found: host.chars().take(200).collect() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let socket = || Address::Socket(PathBuf::from("/run/e.sock"));
        assert_eq!(Address::parse("unix:///run/e.sock").unwrap(), socket());
        assert_eq!(Address::parse("/run/e.sock").unwrap(), socket());
        let tcp = || Address::Tcp("tcp://proxy:2375".to_owned());
        assert_eq!(Address::parse("tcp://proxy:2375").unwrap(), tcp());
        assert_eq!(Address::parse("http://proxy:2375/").unwrap(), tcp());
        for bad in [
            "",
            "e.sock",
            "unix://e.sock",
            "ssh://host",
            "tcp://",
            "tcp://host",
            "tcp://:1",
            "tcp://a:b",
            "tcp://a:1/x",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner { hive_id: crate::model::HiveId::mint(), hive: "hive".to_owned() };
        let path = dir.path().join("none.sock");
        let error = Engine::connect(path.to_str(), owner).await.err().unwrap();
        assert!(matches!(error, ConnectError::Call(CallError::Unreachable(_))), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_does_not_answer_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner { hive_id: crate::model::HiveId::mint(), hive: "hive".to_owned() };
        let path = dir.path().join("mute.sock");
        let _mute = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = Engine::connect(path.to_str(), owner).await.err().unwrap();
        assert!(matches!(error, ConnectError::Call(CallError::TimedOut(PING_DEADLINE))), "{error:?}");
    }
}
