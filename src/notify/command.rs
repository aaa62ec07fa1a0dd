//! A program that is run for one message. Blocks, for as long as the spec allows.

use std::{
    fs::File,
    io::{self, PipeReader, Read, Write},
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, killpg},
    },
    unistd::Pid,
};

use super::{message::Message, outbox::Failure};

/// What a program is given of our own environment: nothing of it is a secret.
const INHERITED: [&str; 7] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"];
/// Output that is kept for the log; the rest is read and forgotten.
const OUTPUT_BYTES_MAX: usize = 4096;
/// Between two looks at a program where pidfds are not there to wait on.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Runs it with the message on its stdin; exit code 0 means that it was taken. Whatever is left of its process group then is killed.
pub(super) fn run(argv: &[String], timeout: Duration, message: &Message) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    let Some((program, arguments)) = argv.split_first() else { return Err(Failure::of("no program is named")) };
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Failure::of(format!("failed to {what}: {error}"))
    };
    let stdin = held(&message.body).map_err(failed("keep the message in memory"))?;
    let (output, sink) = io::pipe().map_err(failed("make a pipe"))?;
    let sinks = sink.try_clone().map(|second| (sink, second)).map_err(failed("make a pipe"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .env("HIVEKEEPER_EVENT_ID", &message.id)
        .env("HIVEKEEPER_EVENT_TYPE", &message.kind)
        .env("HIVEKEEPER_EVENT_SUBJECT", &message.subject)
        .env("HIVEKEEPER_EVENT_TIME", &message.time)
        .stdin(stdin)
        .stdout(sinks.0)
        .stderr(sinks.1)
        .process_group(0);
    // SAFETY: prctl with these arguments touches no memory and may be called between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let child = command.spawn().map_err(failed(&format!("run {program:?}")))?;
    // The pipe has ended when the program's own ends have, not ours.
    drop(command);
    let mut running = Running { child, output, said: Vec::new() };
    let ended = running.wait(deadline);
    let said = String::from_utf8_lossy(&running.said).trim().to_owned();
    if !said.is_empty() {
        tracing::info!(program, output = said, "a notification's program said");
    }
    match ended {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(Failure::of(format!("{program:?} ended with {status}"))),
        Ok(None) => Err(Failure::of(format!("{program:?} did not end within {timeout:?} and was killed"))),
        Err(error) => Err(failed(&format!("wait for {program:?}"))(error)),
    }
}

/// The text as a file without a name: a program that does not read it blocks nobody.
fn held(text: &str) -> io::Result<Stdio> {
    use std::io::Seek;
    let mut file = File::from(memfd_create(c"notification", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(Stdio::from(file))
}

struct Running {
    child: Child,
    output: PipeReader,
    said: Vec<u8>,
}

impl Running {
    /// `None` when the time is up. The group is killed and the child is reaped either way.
    fn wait(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        let ended = self.watch(deadline);
        self.kill();
        let status = self.child.wait()?;
        self.listen()?;
        Ok(ended?.then_some(status))
    }

    /// Whether it has ended before the deadline. It is not reaped, so that its number is still the group's.
    fn watch(&mut self, deadline: Instant) -> io::Result<bool> {
        let handle = pidfd(&self.child);
        let mut open = true;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let Some(handle) = &handle else {
                if is_zombie(&self.child) {
                    return Ok(true);
                }
                std::thread::sleep(left.min(LOOK_PAUSE));
                open = open && self.listen()?;
                continue;
            };
            let mut both = [handle.as_fd(), self.output.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            // Rounded up, or the last millisecond would be spent in a loop.
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(if open { &mut both[..] } else { &mut both[..1] }, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let [ended, said] = both.map(|fd| fd.any().unwrap_or(false));
            if said {
                open = self.listen()?;
            }
            if ended {
                return Ok(true);
            }
        }
    }

    /// Reads what is there; whether more may come.
    fn listen(&mut self) -> io::Result<bool> {
        let mut chunk = [0; OUTPUT_BYTES_MAX];
        // Bounded: a program that writes without end is read again in the next turn.
        for _ in 0..16 {
            let mut fds = [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::ZERO)? == 0 {
                return Ok(true);
            }
            let read = self.output.read(&mut chunk)?;
            if read == 0 {
                return Ok(false);
            }
            let room = OUTPUT_BYTES_MAX.saturating_sub(self.said.len());
            self.said.extend(&chunk[..read.min(room)]);
        }
        Ok(true)
    }

    /// The child is not reaped yet, so the group is its own.
    fn kill(&self) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            // A group in which nothing lives any more is no failure.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

/// A descriptor that becomes readable when the child ends; `None` on a kernel older than 5.3.
fn pidfd(child: &Child) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1; the child is unreaped, so its number is its own.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    match i32::try_from(raw) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
        Ok(fd) if fd >= 0 => Some(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => None,
    }
}

/// Whether it has ended and waits to be reaped, which this does not do.
fn is_zombie(child: &Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}
