//! The run directory: one socket and, after the end, one exit record per launch. Others of our user may write there, too: nothing that is found
//! is trusted to be small, or a file.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::OpenOptionsExt,
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::sys;
use crate::wire::channel::Exit;

/// Ends the name of a launch's socket.
pub(super) const SOCKET_SUFFIX: &str = ".sock";
/// A record has a dozen short fields.
const RECORD_LEN_MAX: u64 = 64 * 1024;

/// A name that stays in its directory.
pub(super) fn plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The socket of a launch.
pub(super) fn socket_path(run_dir: &Path, launch_id: &str) -> PathBuf {
    run_dir.join(format!("{launch_id}{SOCKET_SUFFIX}"))
}

fn record_path(run_dir: &Path, launch_id: &str) -> PathBuf {
    run_dir.join(format!("{launch_id}.exit"))
}

fn unfinished_path(run_dir: &Path, launch_id: &str) -> PathBuf {
    run_dir.join(format!(".{launch_id}.exit.tmp"))
}

/// A name for the socket that fits into an address of 108 bytes: its own, by which the kernel then lists it, or one by the directory's descriptor.
fn address(run_dir: &Path, launch_id: &str) -> io::Result<(PathBuf, File)> {
    let directory = File::open(run_dir)?;
    let path = socket_path(run_dir, launch_id);
    let path = if SocketAddr::from_pathname(&path).is_ok() {
        path
    } else {
        format!("/proc/self/fd/{}/{launch_id}{SOCKET_SUFFIX}", directory.as_raw_fd()).into()
    };
    Ok((path, directory))
}

/// Whether the kernel lists the sockets of this directory by their own names.
pub(super) fn is_listed(run_dir: &Path, launch_id_len: usize) -> bool {
    SocketAddr::from_pathname(socket_path(run_dir, &"x".repeat(launch_id_len))).is_ok()
}

/// Listens on the socket of a launch.
pub(super) fn listen(run_dir: &Path, launch_id: &str) -> io::Result<UnixListener> {
    let (path, _directory) = address(run_dir, launch_id)?;
    let _private = sys::PrivateFiles::new();
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the socket of a launch. `WouldBlock` when too many wait there already: a launcher that is stopped accepts nobody.
pub(super) fn reach(run_dir: &Path, launch_id: &str) -> io::Result<UnixStream> {
    let (path, _directory) = address(run_dir, launch_id)?;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let stream: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(stream.as_raw_fd(), &UnixAddr::new(&path)?)?;
    Ok(stream.into())
}

/// Writes the exit record so that a reader sees all of it or nothing. It is not synced: a machine that loses power has lost the processes, too,
/// and that is what a missing record means.
pub(super) fn write_record(run_dir: &Path, launch_id: &str, exit: &Exit) -> io::Result<()> {
    let unfinished = unfinished_path(run_dir, launch_id);
    let written = serde_json::to_vec(exit)
        .map_err(io::Error::other)
        .and_then(|json| fs::write(&unfinished, json))
        .and_then(|()| fs::rename(&unfinished, record_path(run_dir, launch_id)));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// The exit record.
pub(super) fn read_record(run_dir: &Path, launch_id: &str) -> io::Result<Exit> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = File::options().read(true).custom_flags(flags).open(record_path(run_dir, launch_id))?;
    let mut bytes = Vec::new();
    file.take(RECORD_LEN_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Removes what is kept of ended launches. What can't be removed stays, and costs its place.
pub(super) fn forget(run_dir: &Path, launch_ids: &[String]) {
    for id in launch_ids {
        for path in [record_path(run_dir, id), unfinished_path(run_dir, id), socket_path(run_dir, id)] {
            let _ = fs::remove_file(path);
        }
    }
}
