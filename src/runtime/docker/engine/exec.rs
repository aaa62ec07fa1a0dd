//! Commands started in a running container, attached to their stdin, stdout and stderr.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bollard::{
    container::LogOutput,
    errors::Error as ClientError,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
};
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{
    client::{CHANGE_DEADLINE, Engine, LOOK_DEADLINE, bounded},
    error::{CallError, ExecError},
    names::container_ref,
    starts::Turn,
};

/// The engine takes the connection over before it starts the command, so a start has ended with its first output. Launchers speak first; a command
/// that is silent holds its turn this long, many times what a start takes (70 ms, p95 90 ms).
const SILENT_START: Duration = Duration::from_secs(2);
/// First bytes of stderr that are kept: a message or two of a launcher that could not start.
const STDERR_KEPT_BYTES: usize = 8 * 1024;

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOrder {
    /// Program and arguments; no shell. Whoever may ask the engine can read them: nothing secret.
    pub argv: Vec<String>,
    /// Laid over the container's environment; as public as `argv`.
    pub env: BTreeMap<String, String>,
    /// `USER[:GROUP]`; `None` is the container's.
    pub user: Option<String>,
}

/// A command that was started, or whose start fails: a missing program, one that can't be executed and an unknown user all come as text on stdout
/// and exit code 126 (docker) or on stderr (podman). The text is for people; the sign is that what the program says first never comes.
///
/// Dropping all three halves closes the connection, which the command sees as the end of its stdin, and as nothing else: it is not killed.
pub struct Exec {
    /// For [`Engine::exec_end`]. Good for minutes after the end and for no longer than the engine's process.
    pub id: String,
    /// What it writes. Not reading stops it in the end, for ever: nothing is buffered beyond a frame.
    pub stdout: ExecStdout,
    /// What it reads.
    pub stdin: ExecStdin,
    /// What it says to stderr, as far as stdout has been read.
    pub stderr: ExecStderr,
}

/// How a command ended, as the engine has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecEnd {
    /// Whether it still runs.
    pub running: bool,
    /// Its exit code. Docker 20.10 says 126 of a command whose client went away, whatever it exited with: the launcher's own record goes first.
    pub code: Option<i64>,
}

impl Engine {
    /// Starts a command, without a terminal. One start at a time in each container (counted by the name that is used here) and one for each core
    /// in all; a turn lasts until the command's first output.
    ///
    /// # Errors
    /// The container is not there or does not run, its turn did not come within a minute, or a call fails. Cut short between the engine's two steps,
    /// it leaves nothing that runs, or something that finds its stdin at an end.
    pub async fn exec(&self, container: &str, order: &ExecOrder) -> Result<Exec, ExecError> {
        let container = container_ref(container)?;
        if self.is_own_container(container) {
            return Err(ExecError::OwnContainer);
        }
        let turn = self.inner.starts.turn(container).await.ok_or(ExecError::Busy)?;
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            // On a terminal the library would take output that begins with a low byte for a frame's head.
            tty: Some(false),
            cmd: Some(order.argv.clone()),
            env: Some(order.env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
            user: order.user.clone(),
            ..Default::default()
        };
        let made = bounded(CHANGE_DEADLINE, self.docker().create_exec(container, options)).await?;
        // At once: the engine keeps what was made and never started for minutes.
        let started = self.docker().start_exec(&made.id, None::<StartExecOptions>);
        let StartExecResults::Attached { output, input } = bounded(CHANGE_DEADLINE, started).await? else {
            return Err(CallError::Unreachable("the engine started the command detached".into()).into());
        };
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let starting = Some(Starting { _turn: turn, silent: Box::pin(tokio::time::sleep(SILENT_START)) });
        Ok(Exec {
            id: made.id,
            stdout: ExecStdout { frames: output, read: None, starting, stderr: Arc::clone(&stderr) },
            stdin: ExecStdin { input },
            stderr: ExecStderr { kept: stderr },
        })
    }

    /// What the engine knows of a command's end.
    ///
    /// # Errors
    /// `ContainerMissing` when the engine does not know the command any more: it forgets it minutes after its end and when it is itself restarted.
    pub async fn exec_end(&self, exec: &str) -> Result<ExecEnd, ExecError> {
        let found = bounded(LOOK_DEADLINE, self.docker().inspect_exec(container_ref(exec)?)).await?;
        let running = found.running.unwrap_or_default();
        Ok(ExecEnd { running, code: found.exit_code.filter(|_| !running) })
    }
}

/// A turn that lasts until the command speaks.
struct Starting {
    _turn: Turn,
    silent: Pin<Box<Sleep>>,
}

/// The command's stdout, taken apart from its stderr. Ends when the command and everything that holds its stdout have ended.
pub struct ExecStdout {
    frames: Pin<Box<dyn Stream<Item = Result<LogOutput, ClientError>> + Send>>,
    /// The frame at hand, and how much of it has been handed out.
    read: Option<(LogOutput, usize)>,
    starting: Option<Starting>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl ExecStdout {
    fn keep(&self, message: &[u8]) {
        let mut kept = self.stderr.lock();
        let room = STDERR_KEPT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&message[..message.len().min(room)]);
    }

    /// Ends the turn when the command was silent for long enough, and has the reader woken for it.
    fn poll_starting(&mut self, cx: &mut Context<'_>) {
        if self.starting.as_mut().is_some_and(|starting| starting.silent.as_mut().poll(cx).is_ready()) {
            self.starting = None;
        }
    }
}

impl AsyncRead for ExecStdout {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some((frame, at)) = &mut this.read {
                let left = &frame.as_ref()[*at..];
                let taken = left.len().min(buf.remaining());
                buf.put_slice(&left[..taken]);
                *at += taken;
                if taken == left.len() {
                    this.read = None;
                }
                if taken > 0 || buf.remaining() == 0 {
                    return Poll::Ready(Ok(()));
                }
            }
            let next = match this.frames.as_mut().poll_next(cx) {
                Poll::Ready(next) => next,
                Poll::Pending => {
                    this.poll_starting(cx);
                    return Poll::Pending;
                }
            };
            this.starting = None;
            match next {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(LogOutput::StdErr { message })) => this.keep(&message),
                Some(Ok(frame)) => this.read = Some((frame, 0)),
            }
        }
    }
}

/// The command's stdin. `shutdown` closes this half and no other; dropping it alone closes nothing.
pub struct ExecStdin {
    input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl AsyncWrite for ExecStdin {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.input.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.input.as_mut().poll_flush(cx))?;
        self.input.as_mut().poll_shutdown(cx)
    }
}

/// The first 8 KiB of the command's stderr.
#[derive(Clone)]
pub struct ExecStderr {
    kept: Arc<Mutex<Vec<u8>>>,
}

impl ExecStderr {
    /// What has come so far; bytes that are no UTF-8 are replaced by U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept.lock()).into_owned()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures_util::stream;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn out(text: &str) -> Result<LogOutput, ClientError> {
        Ok(LogOutput::StdOut { message: text.to_owned().into() })
    }

    fn err(text: &str) -> Result<LogOutput, ClientError> {
        Ok(LogOutput::StdErr { message: text.to_owned().into() })
    }

    fn reading(frames: Vec<Result<LogOutput, ClientError>>) -> (ExecStdout, ExecStderr) {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let frames = Box::pin(stream::iter(frames));
        (ExecStdout { frames, read: None, starting: None, stderr: Arc::clone(&kept) }, ExecStderr { kept })
    }

    #[tokio::test]
    async fn stdout_and_stderr_are_taken_apart() {
        let (mut stdout, stderr) = reading(vec![out("he"), err("oh"), out(""), out("llo"), err(" no")]);
        let mut text = String::new();
        stdout.read_to_string(&mut text).await.unwrap();
        assert_eq!((text.as_str(), stderr.text().as_str()), ("hello", "oh no"));
    }

    #[tokio::test]
    async fn a_frame_may_be_larger_than_the_buffer() {
        let (mut stdout, _) = reading(vec![out("abcdef"), out("g")]);
        let mut four = [0; 4];
        assert_eq!(stdout.read(&mut four).await.unwrap(), 4);
        assert_eq!(&four, b"abcd");
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "efg");
    }

    #[tokio::test]
    async fn stderr_is_bounded() {
        let flood = "x".repeat(STDERR_KEPT_BYTES - 1);
        let (mut stdout, stderr) = reading(vec![err(&flood), err("yz"), err("more")]);
        stdout.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(stderr.text(), flood + "y");
    }

    #[tokio::test]
    async fn a_broken_connection_is_no_end() {
        let broken = ClientError::IOError { err: io::ErrorKind::ConnectionReset.into() };
        let (mut stdout, _) = reading(vec![out("a"), Err(broken)]);
        assert!(stdout.read_to_end(&mut Vec::new()).await.is_err());
    }
}
