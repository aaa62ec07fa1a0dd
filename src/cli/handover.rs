//! `handover`: the daemon exits at once, its agents wait for the next one under their leases.

use std::{
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{error::CliError, locate, screen::Screen};

/// Leaving takes the daemon milliseconds: it stops nothing.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Signals the daemon that wrote endpoints.json and waits until it is gone.
pub(super) fn handover(data_dir: &Path, json: bool, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let pid = locate::endpoints(data_dir)?.pid;
    let gone = |what: String| {
        CliError::Failed(format!("{what}\nIts agents end with their leases unless a new daemon takes them over."))
    };
    // The descriptor pins the process: from here on the number can't come to mean another one.
    let process =
        open(pid).map_err(|error| gone(format!("the daemon that was process {pid} can't be reached: {error}")))?;
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let is_ours = exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with("hivekeeper"));
    if !is_ours {
        return Err(gone(format!("process {pid} is not the daemon any more")));
    }
    signal(&process).map_err(|error| CliError::Failed(format!("process {pid} can't be signalled: {error}")))?;
    let timeout = PollTimeout::try_from(LEAVE_TIMEOUT).unwrap_or(PollTimeout::MAX);
    let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    match poll(&mut ended, timeout) {
        Ok(0) => Err(CliError::TimedOut {
            what: format!("the daemon, process {pid},"),
            within: humantime::format_duration(LEAVE_TIMEOUT).to_string(),
            hint: "Look at its log.".to_owned(),
        }),
        Ok(_) if json => Ok(screen.json(&serde_json::json!({ "pid": pid, "left": true }).to_string())?),
        Ok(_) => Ok(screen.line(&format!(
            "the daemon, process {pid}, has left; its agents wait for the next one until their leases end"
        ))?),
        Err(error) => Err(CliError::Failed(format!("can't wait for process {pid}: {error}"))),
    }
}

/// A descriptor of a process: it never comes to mean another one.
pub(super) fn open(pid: u32) -> std::io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes a number and flags and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn signal(process: &OwnedFd) -> std::io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without a siginfo the call reads nothing of ours; the descriptor is open.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGUSR2, no_info, 0) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
