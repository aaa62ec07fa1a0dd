//! A launcher as a child of ours: introduced first, ordered then, reaped at last. In between it has started nothing, and ends when its channel closes.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{net::UnixStream as StdUnixStream, process::CommandExt},
    },
    pin::pin,
    process::{Command, Stdio},
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::OwnedWriteHalf},
    process::ChildStderr,
    task::spawn_blocking,
    time::timeout,
};

use super::child::{Left, Process};
use crate::{
    model::LaunchId,
    runtime::{
        LaunchError,
        lead::{ANSWER_DEADLINE, Drive, Incoming, LINGER, Link, LinkError},
        orphans::MARKER,
    },
};

/// Bytes of a failed launcher's own message that are passed on.
const SAID_LEN_MAX: u64 = 1024;

/// Longest piece of a launcher's own message that is logged.
const STDERR_LEN_MAX: usize = 1024;
/// Messages of one launcher that are logged; the rest is read and dropped. It writes none unless something is broken.
const STDERR_MESSAGES_MAX: u32 = 20;

/// How launchers are started.
pub(super) struct Starter {
    /// The executable, held open.
    pub(super) exe: File,
    /// Soft and hard limit of open files that launchers and agents get; `None` leaves them the daemon's own.
    pub(super) open_files: Option<(u64, u64)>,
    /// Launchers that outlived our interest in them.
    pub(super) left: Arc<Left>,
}

/// A launcher that has introduced itself and waits for its order.
pub(super) struct Launcher {
    /// Names the launch that it is for, and stands in its environment.
    pub(super) launch_id: LaunchId,
    process: Process,
    write: OwnedWriteHalf,
    incoming: Incoming,
    stderr: ChildStderr,
}

/// A launcher that has its order.
pub(super) struct Started {
    link: Link,
    process: Process,
    stderr: ChildStderr,
}

impl Starter {
    /// Starts a launcher and waits until it has introduced itself.
    pub(super) async fn start(&self, launch_id: LaunchId) -> Result<Launcher, LaunchError> {
        let mut launcher = self.spawn(launch_id).await.map_err(|e| LaunchError::Unreachable(e.to_string()))?;
        match timeout(ANSWER_DEADLINE, launcher.incoming.hello()).await.unwrap_or(Err(LinkError::Silent)) {
            Ok(()) => Ok(launcher),
            Err(error) => Err(LaunchError::Launcher(launcher.end().await.with(&error))),
        }
    }

    /// Off this thread: the system call returns only when the new program is loaded. One socket is its stdin and its stdout, half the files of two pipes.
    async fn spawn(&self, launch_id: LaunchId) -> io::Result<Launcher> {
        self.left.reap();
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(ours)?.into_split();
        // The descriptor is open in the child until the program is loaded, so this names the same file whatever its path holds now.
        let mut command = Command::new(format!("/proc/self/fd/{}", self.exe.as_raw_fd()));
        command
            .arg0("hivekeeper")
            .args(["agent", "--stdio"])
            .env_clear()
            .env(MARKER, launch_id.to_string())
            .stdin(OwnedFd::from(theirs.try_clone()?))
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::piped());
        // The command goes with its own copies of the launcher's end, or that end would never be seen to close.
        let mut child = spawn_blocking(move || command.spawn()).await.map_err(io::Error::other)??;
        let stderr = child.stderr.take();
        let process = Process::new(child, Arc::clone(&self.left));
        if let (Some(limits), Some(pid)) = (self.open_files, process.id()) {
            limit_open_files(pid, limits)?;
        }
        let stderr = ChildStderr::from_std(stderr.ok_or(io::ErrorKind::BrokenPipe)?)?;
        Ok(Launcher { launch_id, process, write, incoming: Incoming::new(Box::new(read)), stderr })
    }
}

impl Started {
    /// Leads it until its end is reported, and reaps it.
    pub(super) async fn lead(self, mut drive: Drive, launch_id: LaunchId) {
        let Self { link, mut process, stderr } = self;
        let led = {
            let messages = pin!(log_messages(stderr, launch_id));
            tokio::select! {
                led = drive.lead(link) => led,
                never = messages => match never {},
            }
        };
        // A detached launcher lives on; should it end before we do, the next launch reaps it.
        if led.is_continue() && timeout(LINGER, process.ended()).await.is_err() {
            tracing::warn!(%launch_id, "launcher did not end behind its last frame and is killed");
            if let Err(error) = process.kill().await {
                tracing::warn!(%launch_id, %error, "launcher was not killed");
            }
        }
    }
}

impl Launcher {
    /// Gives it its order, which it has come for. Behind the hello: whatever else the executable may be, it does not get the token.
    ///
    /// # Errors
    /// It does not take it, and has started nothing: a part of an order is none.
    pub(super) async fn order(mut self, frame: &[u8]) -> Result<Started, Box<(Self, LinkError)>> {
        let given = timeout(ANSWER_DEADLINE, async {
            self.write.write_all(frame).await?;
            Ok(self.write.flush().await?)
        });
        match given.await.unwrap_or(Err(LinkError::Silent)) {
            Ok(()) => {
                let Self { process, write, incoming, stderr, .. } = self;
                Ok(Started { link: Link { incoming, write: Box::new(write) }, process, stderr })
            }
            Err(error) => Err(Box::new((self, error))),
        }
    }

    /// Ready when it is good for nothing any more: it has ended, or speaks unasked.
    pub(super) fn poll_unfit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        pin!(self.incoming.fill()).poll(cx).map(drop)
    }

    /// Ends one that has started nothing.
    pub(super) async fn end(mut self) -> Ended {
        let mut said = Vec::new();
        let end = timeout(ANSWER_DEADLINE, async {
            self.process.kill().await?;
            self.stderr.take(SAID_LEN_MAX).read_to_end(&mut said).await
        });
        let seen = matches!(end.await, Ok(Ok(_)));
        if !seen {
            tracing::warn!(pid = self.process.id(), launch_id = %self.launch_id, "launcher was not seen to end");
        }
        Ended { seen, said: String::from_utf8_lossy(&said).trim().to_owned() }
    }
}

/// The end of a launcher that had started nothing.
pub(super) struct Ended {
    /// Whether it is proven.
    pub(super) seen: bool,
    said: String,
}

impl Ended {
    /// Why it had to be.
    pub(super) fn with(&self, error: &LinkError) -> String {
        match self.said.as_str() {
            "" => error.to_string(),
            said => format!("{error}; it said: {said}"),
        }
    }
}

/// Passes on what a launcher writes to its stderr: it has no other way to say what is wrong with itself.
async fn log_messages(mut stderr: ChildStderr, launch_id: LaunchId) -> std::convert::Infallible {
    let mut buffer = [0; STDERR_LEN_MAX];
    let mut left = STDERR_MESSAGES_MAX;
    while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
        if left > 0 {
            left -= 1;
            tracing::warn!(%launch_id, message = %String::from_utf8_lossy(&buffer[..n]).trim_end(), "launcher says");
        }
    }
    std::future::pending().await
}

/// Sets a launcher's limit of open files before it has its order, so that its agent inherits it. From outside, because a hook between fork and
/// exec would cost a copy of our page tables at each launch.
fn limit_open_files(pid: u32, (soft, hard): (u64, u64)) -> io::Result<()> {
    let limit = nix::libc::rlimit { rlim_cur: soft, rlim_max: hard };
    let pid = nix::libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: the kernel reads one limit that lives until the call returns, and writes none.
    let set = unsafe { nix::libc::prlimit(pid, nix::libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
