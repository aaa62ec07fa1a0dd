//! A launcher's process as a child of ours, to be reaped. While it lives nothing is held open for it: its end shows in its channel, and only behind
//! that is its process waited for. A descriptor for each, which tokio's own children have, would be a third of the files that an agent costs.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    process::Child,
    sync::Arc,
    time::Duration,
};

use nix::libc;
use parking_lot::Mutex;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

/// Between two looks at a child for which no descriptor can be had, because there is none left or the kernel is older than 5.3: an end takes a
/// few milliseconds.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Children that nobody waits for any more and that lived on: a launch that was left to its lease, a kill without effect yet.
#[derive(Default)]
pub(super) struct Left(Mutex<Vec<Child>>);

impl Left {
    /// Reaps those that have ended meanwhile.
    pub(super) fn reap(&self) {
        self.0.lock().retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

/// One that has not been reaped.
pub(super) struct Process {
    /// Until it is reaped.
    child: Option<Child>,
    left: Arc<Left>,
}

impl Process {
    /// Whoever drops it before its end leaves it to `left`.
    pub(super) fn new(child: Child, left: Arc<Left>) -> Self {
        Self { child: Some(child), left }
    }

    /// Its process id, until it is reaped.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits until it has ended, and reaps it. Safe to drop half-way.
    pub(super) async fn ended(&mut self) -> io::Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if child.try_wait()?.is_none() {
            match held(child) {
                Ok(held) => loop {
                    let mut ready = held.readable().await?;
                    if child.try_wait()?.is_some() {
                        break;
                    }
                    ready.clear_ready();
                },
                Err(_) => {
                    while child.try_wait()?.is_none() {
                        sleep(LOOK_PAUSE).await;
                    }
                }
            }
        }
        self.child = None;
        Ok(())
    }

    /// Kills it, and waits for its end.
    pub(super) async fn kill(&mut self) -> io::Result<()> {
        if let Some(child) = &mut self.child {
            child.kill()?;
        }
        self.ended().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.left.0.lock().extend(self.child.take());
        self.left.reap();
    }
}

/// A descriptor that becomes readable when a child ends.
fn held(child: &Child) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1; the child is unreaped, so its number is its own.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let held = match i32::try_from(raw) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
        Ok(fd) if fd >= 0 => unsafe { OwnedFd::from_raw_fd(fd) },
        _ => return Err(io::Error::last_os_error()),
    };
    // SAFETY: what is registered is owned, so it stays open and the same for as long as it is.
    Ok(unsafe { AsyncFd::register_with_interest(held, Interest::READABLE) }?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn cat() -> Child {
        Command::new("cat").stdin(Stdio::piped()).spawn().unwrap()
    }

    fn is_there(id: u32) -> bool {
        std::path::Path::new(&format!("/proc/{id}")).exists()
    }

    #[tokio::test]
    async fn an_end_is_waited_for_and_leaves_no_zombie() {
        let mut child = cat();
        let (stdin, id) = (child.stdin.take(), child.id());
        let mut process = Process::new(child, Arc::default());
        let early = tokio::time::timeout(Duration::from_millis(50), process.ended()).await;
        assert!(early.is_err(), "it lives");
        drop(stdin);
        process.ended().await.unwrap();
        assert!(!is_there(id));
        assert_eq!(process.id(), None);
        process.kill().await.unwrap();
    }

    #[tokio::test]
    async fn a_kill_is_an_end() {
        let mut process = Process::new(cat(), Arc::default());
        let id = process.id().unwrap();
        process.kill().await.unwrap();
        assert!(!is_there(id));
    }

    #[test]
    fn who_is_left_alone_is_reaped_at_the_next_look() {
        let mut child = cat();
        let (stdin, id) = (child.stdin.take(), child.id());
        let left = Arc::<Left>::default();
        drop(Process::new(child, Arc::clone(&left)));
        assert!(is_there(id));
        drop(stdin);
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while is_there(id) && std::time::Instant::now() < deadline {
            left.reap();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!is_there(id));
        assert!(left.0.lock().is_empty());
    }
}
