//! Files of ours put into containers as archives, running or not: the launcher, and the directory that it lives in where nothing is mounted.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc, time::Duration};

use bollard::{
    body_full, body_stream,
    query_parameters::{ContainerArchiveInfoOptionsBuilder, UploadToContainerOptionsBuilder},
};
use futures_util::{Stream, StreamExt, stream};
use parking_lot::Mutex;

use super::{
    client::{CHANGE_DEADLINE, Engine, LOOK_DEADLINE, bounded},
    error::{CallError, DeliverError},
    names::container_ref,
    tar,
};

/// For sending the executable: 70 MB of a debug build take under a second here; a slow disk may take a hundred times as long.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(120);
/// Read and sent at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// The launcher's name.
pub(super) const FILE: &str = "hivekeeper";
/// Written behind it: an archive is unpacked in order, so where this is, the launcher is whole.
pub(super) const COMPLETE: &str = "complete";
/// Of a home: each of the container's users makes its own things there, and can't touch those of another.
const HOME_MODE: u32 = 0o1777;
/// Of the launcher's directory.
const DIR_MODE: u32 = 0o755;

/// Why the launcher was not sent.
pub(super) enum SendError {
    Read(io::Error),
    Call(CallError),
}

/// A directory in the root of a container, with the launcher in a directory of its version. Each is one plain word.
#[derive(Debug, Clone, Copy)]
pub struct Parcel<'a> {
    /// The directory's name.
    pub home: &'a str,
    /// The launcher's directory in it. A launcher that is whole is not sent again, so another program needs another name.
    pub version: &'a str,
}

impl Parcel<'_> {
    /// The directory.
    pub fn home_path(&self) -> String {
        format!("/{}", self.home)
    }

    /// The launcher.
    pub fn launcher_path(&self) -> String {
        format!("/{}/{}/{FILE}", self.home, self.version)
    }
}

impl Engine {
    /// Puts a directory into the root of any container, ours or not, and the launcher into it, unless it is there and whole. Other users of the
    /// container may write to the directory, and change nothing of what is another's in it. Returns whether the directory was there already. It is put
    /// into the container's own file system: what is mounted over the root is not seen. At most 3 minutes.
    ///
    /// # Errors
    /// See [`DeliverError`].
    pub async fn deliver(
        &self,
        container: &str,
        parcel: Parcel<'_>,
        launcher: Option<&Arc<File>>,
    ) -> Result<bool, DeliverError> {
        let container = container_ref(container)?;
        let home = parcel.home_path();
        let there = self.has(container, &home).await?;
        let complete = format!("{home}/{}/{COMPLETE}", parcel.version);
        if there && launcher.is_some() && self.has(container, &complete).await? {
            return Ok(true);
        }
        let archive = [tar::directory(&format!("{}/", parcel.home), HOME_MODE), tar::end()].concat();
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        let upload = self.docker().upload_to_container(container, Some(options), body_full(archive.into()));
        bounded(CHANGE_DEADLINE, upload).await?;
        if let Some(exe) = launcher {
            let dir = format!("{}/", parcel.version);
            let sent = self.send_launcher(container, &home, tar::directory(&dir, DIR_MODE), &dir, exe).await;
            sent.map_err(|error| match error {
                SendError::Read(error) => DeliverError::Read(error),
                SendError::Call(error) => error.into(),
            })?;
        }
        Ok(there)
    }

    /// Whether a path leads to something in a container's file system and volumes; the container need not run. What lies in a tmpfs is not seen.
    ///
    /// # Errors
    /// The call fails.
    pub async fn has(&self, container: &str, path: &str) -> Result<bool, CallError> {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        let asked = self.docker().get_container_archive_info(container_ref(container)?, Some(options));
        match bounded(LOOK_DEADLINE, asked).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Unpacks `before`, the launcher below `dir` (empty, or with a slash at its end), and the mark that it is whole, in `path`, which exists.
    pub(super) async fn send_launcher(
        &self,
        container: &str,
        path: &str,
        before: Vec<u8>,
        dir: &str,
        exe: &Arc<File>,
    ) -> Result<(), SendError> {
        let size = exe.metadata().map_err(SendError::Read)?.len();
        let failure = Arc::new(Mutex::new(None));
        let archive = archive(before, dir, Arc::clone(exe), size, Arc::clone(&failure));
        let options = UploadToContainerOptionsBuilder::default().path(path).build();
        let upload = self.docker().upload_to_container(container, Some(options), body_stream(archive.map(Into::into)));
        let sent = bounded(UPLOAD_DEADLINE, upload).await;
        if let Some(error) = failure.lock().take() {
            return Err(SendError::Read(error));
        }
        sent.map_err(SendError::Call)
    }
}

/// The archive in pieces, behind what goes `before`. When the file can't be read to the promised length the archive ends there, without the mark
/// that makes it whole.
fn archive(
    before: Vec<u8>,
    dir: &str,
    exe: Arc<File>,
    size: u64,
    failure: Arc<Mutex<Option<io::Error>>>,
) -> impl Stream<Item = Vec<u8>> + Send + use<> {
    let tail = [tar::padding(size), tar::head(&format!("{dir}{COMPLETE}"), 0o444, 0), tar::end()].concat();
    let content = stream::unfold((exe, 0, Some(tail)), move |(exe, at, tail)| {
        let failure = Arc::clone(&failure);
        async move {
            if at == size {
                return tail.map(|tail| (tail, (exe, at, None)));
            }
            let reading = Arc::clone(&exe);
            let read = tokio::task::spawn_blocking(move || chunk(&reading, at, size)).await;
            match read.unwrap_or_else(|died| Err(io::Error::other(died))) {
                Ok(bytes) => {
                    let next = at + bytes.len() as u64;
                    Some((bytes, (exe, next, tail)))
                }
                Err(error) => {
                    *failure.lock() = Some(error);
                    None
                }
            }
        }
    });
    let head = stream::iter([[before, tar::head(&format!("{dir}{FILE}"), 0o555, size)].concat()]);
    head.chain(content)
}

fn chunk(exe: &File, at: u64, size: u64) -> io::Result<Vec<u8>> {
    let want = usize::try_from(size - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
    let mut bytes = vec![0; want];
    exe.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}
