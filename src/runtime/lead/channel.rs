//! One open channel to a launcher, whatever carries it, and how one presents oneself on a fresh one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

use crate::wire::channel::{
    Attach, ChannelError, Decoder, Exit, FromLauncher, NOBODY, State, ToLauncher, VERSION, VERSION_MIN, encode,
};

/// How long a launcher may take to answer: it does so at once, in under a millisecond; the rest is for a machine that swaps. One that is
/// stopped does not answer at all.
pub(in crate::runtime) const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How long a launcher may live on behind its last frame: it flushes for at most 2 s.
pub(in crate::runtime) const LINGER: Duration = Duration::from_secs(5);
/// Bytes read at once: an idle agent costs no more than this.
const READ_LEN: usize = 8 * 1024;
/// The same once so many have come at once: a busy agent is read in as few turns as a pipe allows.
const READ_LEN_BUSY: usize = 64 * 1024;

/// Why a channel can't be used any more.
#[derive(Debug, thiserror::Error)]
pub(in crate::runtime) enum LinkError {
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
    /// Whoever could tell can't be asked now. It says nothing about the launcher.
    #[error("{0}")]
    Unreachable(String),
}

pub(in crate::runtime) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(in crate::runtime) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// What a launcher says, frame by frame.
pub(in crate::runtime) struct Incoming {
    read: Reader,
    decoder: Decoder<FromLauncher>,
    buffer: Box<[u8]>,
}

impl Incoming {
    pub(in crate::runtime) fn new(read: Reader) -> Self {
        Self { read, decoder: Decoder::expecting_magic(), buffer: vec![0; READ_LEN].into_boxed_slice() }
    }

    /// The next frame that has already been read.
    pub(in crate::runtime) fn buffered(&mut self) -> Result<Option<FromLauncher>, LinkError> {
        Ok(self.decoder.next()?)
    }

    /// Whether a launcher that has nothing to say has ended, or says something.
    pub(in crate::runtime) fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut word = [0];
        Pin::new(&mut self.read).poll_read(cx, &mut ReadBuf::new(&mut word)).map(drop)
    }

    /// Reads more. Safe to drop half-way.
    pub(in crate::runtime) async fn fill(&mut self) -> Result<(), LinkError> {
        match self.read.read(&mut self.buffer).await? {
            0 => Err(LinkError::Closed),
            n => {
                self.decoder.push(&self.buffer[..n]);
                if n == self.buffer.len() && n < READ_LEN_BUSY {
                    self.buffer = vec![0; READ_LEN_BUSY].into_boxed_slice();
                }
                Ok(())
            }
        }
    }

    /// Waits until the launcher has closed its side, which it does when its exit record is written; at most [`LINGER`].
    pub(in crate::runtime) async fn closed(&mut self) {
        let close = async {
            while self.fill().await.is_ok() {
                while let Ok(Some(_)) = self.buffered() {}
            }
        };
        if timeout(LINGER, close).await.is_err() {
            tracing::warn!("launcher lives on behind its last frame");
        }
    }

    /// The next frame, whenever it comes.
    pub(in crate::runtime) async fn next(&mut self) -> Result<FromLauncher, LinkError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// The first frame. Waits without a deadline of its own.
    pub(in crate::runtime) async fn hello(&mut self) -> Result<(), LinkError> {
        match self.next().await? {
            FromLauncher::Hello { version, .. } if (VERSION_MIN..=VERSION).contains(&version) => Ok(()),
            FromLauncher::Hello { version, .. } => Err(LinkError::Version(version)),
            other => Err(unexpected(&other)),
        }
    }
}

/// Both directions.
pub(in crate::runtime) struct Link {
    pub(in crate::runtime) incoming: Incoming,
    pub(in crate::runtime) write: Writer,
}

impl Link {
    /// From what a launcher writes, and to what it reads.
    pub(in crate::runtime) fn new(read: Reader, write: Writer) -> Self {
        Self { incoming: Incoming::new(read), write }
    }

    /// Writes one frame.
    pub(in crate::runtime) async fn send(&mut self, frame: &ToLauncher) -> Result<(), LinkError> {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes)?;
        self.write.write_all(&bytes).await?;
        self.write.flush().await?;
        Ok(())
    }
}

/// What comes of presenting oneself at a launcher's socket.
pub(in crate::runtime) enum Attached {
    /// It is ours.
    Led(Link, State),
    /// It ended in this very moment.
    Ended(Exit),
    /// A younger daemon leads it.
    Fenced,
    /// Nobody listens: the launcher is gone, or was never there.
    Nobody,
    /// The container that it was in is gone, and everything with it. For people: what is known of that end.
    Gone(String),
}

impl Link {
    /// Presents ourselves to the launcher at the other end. Waits without a deadline of its own.
    pub(in crate::runtime) async fn present(mut self, attach: Attach) -> Result<Attached, LinkError> {
        // A launcher that refuses may have closed its side before our frame is out; what it said is still there to be read.
        let sent = self.send(&ToLauncher::Attach(attach)).await;
        self.incoming.hello().await?;
        match self.incoming.next().await? {
            FromLauncher::State(state) => sent.map(|()| Attached::Led(self, state)),
            FromLauncher::Exit(exit) => {
                self.incoming.closed().await;
                Ok(Attached::Ended(exit))
            }
            FromLauncher::Refused { code, .. } if code == STALE_EPOCH => Ok(Attached::Fenced),
            FromLauncher::Refused { code, .. } if code == NOBODY => Ok(Attached::Nobody),
            other => Err(unexpected(&other)),
        }
    }
}

/// The code of a refusal that fences us.
pub(in crate::runtime) const STALE_EPOCH: &str = "stale_epoch";

/// Names a frame without its contents, which may be an agent's output.
fn unexpected(frame: &FromLauncher) -> LinkError {
    LinkError::Unexpected(match frame {
        FromLauncher::Refused { code, message } => format!("refused {code}: {message}"),
        other => format!("{other:?}").split([' ', '(', '{']).next().unwrap_or_default().to_lowercase(),
    })
}
