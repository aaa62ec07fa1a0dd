//! One open channel to a launcher: its own pipes, or its socket after a take-over.

use std::{io, path::Path, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use super::files::RunDir;
use crate::{
    model::LaunchId,
    wire::channel::{
        Attach, ChannelError, Decoder, Exit, FromLauncher, State, ToLauncher, VERSION, VERSION_MIN, encode,
    },
};

/// How long a launcher may take to answer: it does so at once, in under a millisecond; the rest is for a machine that swaps. One that is
/// stopped does not answer at all.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How long a launcher may live on behind its last frame: it flushes for at most 2 s.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// Bytes read at once: an idle agent costs no more than this, a busy one is read again at once.
const READ_LEN: usize = 8 * 1024;

/// Why a channel can't be used any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("channel closed")]
    Closed,
    #[error("failed to read or write the channel")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] ChannelError),
    #[error("no answer within {} s", ANSWER_DEADLINE.as_secs())]
    Silent,
    #[error("launcher speaks version {0}")]
    Version(u16),
    #[error("unexpected frame {0}")]
    Unexpected(String),
}

pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// What a launcher says, frame by frame.
pub(super) struct Incoming {
    read: Reader,
    decoder: Decoder<FromLauncher>,
    buffer: Box<[u8]>,
}

impl Incoming {
    pub(super) fn new(read: Reader) -> Self {
        Self { read, decoder: Decoder::expecting_magic(), buffer: vec![0; READ_LEN].into_boxed_slice() }
    }

    /// The next frame that has already been read.
    pub(super) fn buffered(&mut self) -> Result<Option<FromLauncher>, LinkError> {
        Ok(self.decoder.next()?)
    }

    /// Reads more. Safe to drop half-way.
    pub(super) async fn fill(&mut self) -> Result<(), LinkError> {
        match self.read.read(&mut self.buffer).await? {
            0 => Err(LinkError::Closed),
            n => {
                self.decoder.push(&self.buffer[..n]);
                Ok(())
            }
        }
    }

    /// Waits until the launcher has closed its side, which it does when its exit record is written; at most [`LINGER`].
    pub(super) async fn closed(&mut self) {
        let close = async {
            while self.fill().await.is_ok() {
                while let Ok(Some(_)) = self.buffered() {}
            }
        };
        if timeout(LINGER, close).await.is_err() {
            tracing::warn!("launcher lives on behind its last frame");
        }
    }

    async fn next(&mut self) -> Result<FromLauncher, LinkError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// The first frame. Waits without a deadline of its own.
    pub(super) async fn hello(&mut self) -> Result<(), LinkError> {
        match self.next().await? {
            FromLauncher::Hello { version, .. } if (VERSION_MIN..=VERSION).contains(&version) => Ok(()),
            FromLauncher::Hello { version, .. } => Err(LinkError::Version(version)),
            other => Err(unexpected(&other)),
        }
    }
}

/// Both directions.
pub(super) struct Link {
    pub(super) incoming: Incoming,
    pub(super) write: Writer,
}

impl Link {
    /// Writes one frame.
    pub(super) async fn send(&mut self, frame: &ToLauncher) -> Result<(), LinkError> {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes)?;
        self.write.write_all(&bytes).await?;
        self.write.flush().await?;
        Ok(())
    }
}

/// What comes of presenting oneself at a launcher's socket.
pub(super) enum Attached {
    /// It is ours.
    Led(Link, State),
    /// It ended in this very moment.
    Ended(Exit),
    /// A younger daemon leads it.
    Fenced,
    /// Nobody listens: the launcher is gone, or was never there.
    Nobody,
}

/// Presents ourselves at the socket of a launch, within [`ANSWER_DEADLINE`].
pub(super) async fn attach(dir: &RunDir, launch_id: LaunchId, attach: Attach) -> Result<Attached, LinkError> {
    timeout(ANSWER_DEADLINE, present(&dir.socket(launch_id), attach)).await.unwrap_or(Err(LinkError::Silent))
}

async fn present(socket: &Path, attach: Attach) -> Result<Attached, LinkError> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(Attached::Nobody);
        }
        Err(error) => return Err(error.into()),
    };
    let (read, write) = stream.into_split();
    let mut link = Link { incoming: Incoming::new(Box::new(read)), write: Box::new(write) };
    // A launcher that refuses may have closed its side before our frame is out; what it said is still there to be read.
    let sent = link.send(&ToLauncher::Attach(attach)).await;
    link.incoming.hello().await?;
    match link.incoming.next().await? {
        FromLauncher::State(state) => sent.map(|()| Attached::Led(link, state)),
        FromLauncher::Exit(exit) => {
            link.incoming.closed().await;
            Ok(Attached::Ended(exit))
        }
        FromLauncher::Refused { code, .. } if code == STALE_EPOCH => Ok(Attached::Fenced),
        other => Err(unexpected(&other)),
    }
}

/// The code of a refusal that fences us.
pub(super) const STALE_EPOCH: &str = "stale_epoch";

/// Names a frame without its contents, which may be an agent's output.
fn unexpected(frame: &FromLauncher) -> LinkError {
    LinkError::Unexpected(match frame {
        FromLauncher::Refused { code, message } => format!("refused {code}: {message}"),
        other => format!("{other:?}").split([' ', '(', '{']).next().unwrap_or_default().to_lowercase(),
    })
}
