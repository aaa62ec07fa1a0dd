//! Why an operation on the engine came to nothing.

use std::{error::Error, io, path::PathBuf, time::Duration};

use bollard::errors::Error as ClientError;

/// What any call may come to. `TimedOut` and `Unreachable` leave open whether the engine did what it was told: look before trying again.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answers there, or the connection broke.
    #[error("engine unreachable")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// The socket is there, and we may not use it.
    #[error(
        "engine unreachable: no permission for its socket {}; the daemon needs its group, {gid} (in a container `--group-add {gid}`, in compose \
         `group_add: [\"{gid}\"]`)",
        .socket.display()
    )]
    Denied {
        /// The socket.
        socket: PathBuf,
        /// The group that may use it.
        gid: u32,
    },
    /// The call's deadline passed.
    #[error("engine did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The engine answered no.
    #[error("engine refused ({status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The engine's words, for people.
        message: String,
    },
    /// A name that must not stand in a request; nothing was sent.
    #[error("{found:?} cannot be a name in an engine")]
    BadName {
        /// What was found.
        found: String,
    },
}

impl CallError {
    /// Sorts the client library's errors.
    pub(super) fn from_client(error: ClientError, deadline: Duration) -> Self {
        match error {
            ClientError::DockerResponseServerError { status_code, message } => {
                Self::Refused { status: status_code, message }
            }
            ClientError::RequestTimeoutError => Self::TimedOut(deadline),
            other => Self::Unreachable(Box::new(other)),
        }
    }

    /// The status of a refusal.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The engine's words in a refusal.
    fn words(self) -> String {
        match self {
            Self::Refused { message, .. } => message,
            other => other.to_string(),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is of no known kind.
    #[error(
        "{found:?} is not an engine's address: allowed are unix:///PATH, /PATH, tcp://HOST:PORT and http://HOST:PORT"
    )]
    Address {
        /// What was found.
        found: String,
    },
    /// The engine did not say its version.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a container could not be looked at or acted on.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// There is none of that name or id.
    #[error("no such container")]
    Missing,
    /// It does not run, is paused, or is not paused: the state forbids it.
    #[error("the container's state forbids it: {0}")]
    WrongState(String),
    /// It does not carry our hive's id; nothing was done.
    #[error("the container is not ours")]
    NotOurs,
    /// The call failed.
    #[error(transparent)]
    Call(CallError),
}

impl From<CallError> for ContainerError {
    fn from(error: CallError) -> Self {
        match error.status() {
            Some(404) => Self::Missing,
            Some(409) => Self::WrongState(error.words()),
            _ => Self::Call(error),
        }
    }
}

/// What a plan must not ask for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// An engine's socket would be reachable from within: whoever has it is root on the machine.
    #[error("mount source {} holds an engine's socket", .0.display())]
    EngineSocket(PathBuf),
    /// The path is not absolute, or has a part `..`.
    #[error("{} is not an absolute path without '..'", .0.display())]
    Path(PathBuf),
    /// Two things at one path, or something of the document at a path of ours.
    #[error("{} is taken already", .0.display())]
    Overlap(PathBuf),
    /// The network of the machine or of another container.
    #[error("network {0:?} would share a network that is not the swarm's")]
    Network(String),
    /// A limit that is not a positive number, or beyond what the engine can count.
    #[error("limit {0} is out of range")]
    Limit(&'static str),
}

/// Why a swarm has no container. Nothing of it is left, save after `Call(TimedOut | Unreachable)`: then it may be there, labelled.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The plan is refused.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The engine has no such image.
    #[error("no such image: {0}")]
    ImageMissing(String),
    /// Another container has the name.
    #[error("the name {0} is taken")]
    NameTaken(String),
    /// The launcher's volume is not there or not whole: make sure of it, and try again.
    #[error("volume {0} does not hold the launcher")]
    LauncherMissing(String),
    /// It was made and did not start: the engine's words.
    #[error("the container does not start: {0}")]
    NotStarted(String),
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why nothing was started in a container.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is no such container.
    #[error("no such container")]
    ContainerMissing,
    /// It does not run, or is paused.
    #[error("the container does not run: {0}")]
    NotRunning(String),
    /// It is the container in which this process runs, and in which it has the engine's socket.
    #[error("that is the daemon's own container: whoever runs in it can use the engine's socket")]
    OwnContainer,
    /// Other starts went first for too long.
    #[error("the engine is busy starting other commands")]
    Busy,
    /// The call failed.
    #[error(transparent)]
    Call(CallError),
}

impl From<CallError> for ExecError {
    fn from(error: CallError) -> Self {
        match error.status() {
            Some(404) => Self::ContainerMissing,
            Some(409) => Self::NotRunning(error.words()),
            _ => Self::Call(error),
        }
    }
}

/// Why there is no volume with the launcher.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A volume of that name is there and is none of ours.
    #[error("volume {0} is there and was not made by hivekeeper")]
    Foreign(String),
    /// The engine has no such image; one is needed, though nothing of it is run.
    #[error("no such image: {0}")]
    ImageMissing(String),
    /// Another daemon has been filling it for too long.
    #[error("volume {0} is being filled by another daemon and does not get ready")]
    Busy(String),
    /// The digest is not 64 hexadecimal digits.
    #[error("{0:?} is not a SHA-256 digest")]
    Digest(String),
    /// The executable could not be read.
    #[error("the executable cannot be read")]
    Read(#[source] io::Error),
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why nothing was put into a container.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// There is no such container.
    #[error("no such container")]
    ContainerMissing,
    /// The engine can't write there, in its words: a root that is read-only, a full disk.
    #[error("the engine cannot write: {0}")]
    Unwritable(String),
    /// The executable could not be read.
    #[error("the executable cannot be read")]
    Read(#[source] io::Error),
    /// The call failed.
    #[error(transparent)]
    Call(CallError),
}

impl From<CallError> for DeliverError {
    fn from(error: CallError) -> Self {
        match error.status() {
            Some(404) => Self::ContainerMissing,
            Some(_) => Self::Unwritable(error.words()),
            None => Self::Call(error),
        }
    }
}

/// Why a swarm has no network, or still has one.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A network of that name is there and is not this hive's.
    #[error("network {0} is there and is not this hive's")]
    Foreign(String),
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}
