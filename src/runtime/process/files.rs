//! The run directory: one socket and, after the end, one exit record per launch.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use crate::{model::LaunchId, wire::channel::Exit};

/// `DATA_DIR/run`, held open.
pub(super) struct RunDir {
    path: PathBuf,
    /// Reaches a socket whatever the length of the path: an address holds 108 bytes, a path 4096.
    fd: File,
}

impl RunDir {
    /// Makes it if it is not there, for our user alone.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let path = path.canonicalize()?;
        let fd = File::open(&path)?;
        fd.set_permissions(Permissions::from_mode(0o700))?;
        Ok(Self { path, fd })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The address of a launch's socket.
    pub(super) fn socket(&self, launch_id: LaunchId) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{launch_id}.sock", self.fd.as_raw_fd()))
    }

    /// The exit record, if there is one that can be read.
    pub(super) fn record(&self, launch_id: LaunchId) -> Option<Exit> {
        let bytes = fs::read(self.path.join(format!("{launch_id}.exit"))).ok()?;
        serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!(%launch_id, %error, "exit record can't be read"))
            .ok()
    }

    /// Removes what is kept of an ended launch.
    pub(super) fn forget(&self, launch_id: LaunchId) {
        for suffix in ["exit", "sock"] {
            match fs::remove_file(self.path.join(format!("{launch_id}.{suffix}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%launch_id, %error, "file of an ended launch was not removed");
                }
                _ => {}
            }
        }
    }

    /// The launches that have a socket, and those that have an exit record.
    pub(super) fn list(&self) -> io::Result<(Vec<LaunchId>, Vec<LaunchId>)> {
        let (mut sockets, mut records) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let Some((stem, suffix)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
            let Ok(id) = stem.parse() else { continue };
            match suffix {
                "sock" => sockets.push(id),
                "exit" => records.push(id),
                _ => {}
            }
        }
        Ok((sockets, records))
    }
}
