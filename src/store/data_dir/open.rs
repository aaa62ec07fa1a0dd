//! Taking, holding and leaving a data directory.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    error::DataDirError,
    files,
    lock::{self, Holder},
};
use crate::{
    model::{Epoch, HiveId, NotifierName},
    store::{StoreError, forms, sqlite},
};

/// A unix socket's path has 108 bytes with its end (`sun_path`); `/run/`, a UUID and `.sock` take 46, and 60 is a round number below the rest.
const PATH_LEN_MAX: usize = 60;

/// Where a backup is unpacked below the directory that it becomes. While it is there, the rest is not whole.
pub(in crate::store) const RESTORING: &str = "restoring";

/// When a holder counts as dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A touch younger than this proves a holder alive. Five times the interval of [`DataDir::beat`]: a loop that is late by a busy disk is not dead.
    pub stale: Duration,
    /// So long an older one is watched for another touch: two intervals.
    pub watch: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { stale: Duration::from_secs(5), watch: Duration::from_secs(2) }
    }
}

/// A data directory that is ours until a younger daemon takes it, or this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    hive_id: HiveId,
    fence: Fence,
    lock: File,
}

impl DataDir {
    /// Makes the directory when it is not there, takes it, and numbers this daemon: the epoch is on the disk when this returns. A holder that is
    /// alive keeps it; one that is stopped or hung is fenced off. Blocks, for a few seconds at most.
    ///
    /// # Errors
    /// Why the directory can't be had.
    pub fn open(path: &Path, name: &str, options: Options) -> Result<Self, DataDirError> {
        let path = make(path)?;
        if path.join(RESTORING).exists() {
            return Err(DataDirError::Restoring { path });
        }
        let _opening = lock::take_opening(&path)?;
        let (lock, usurped) = lock::take(&path, options.stale, options.watch)?;
        for below in ["run", "logs", "work", "notify"] {
            files::make_private(&path.join(below))?;
        }
        let (id_file, epoch_file, database) = (path.join("hive-id"), path.join("epoch"), path.join("hive.db"));
        let now = SystemTime::now();
        let claim = sqlite::Claim {
            hive_id: files::read_as(&id_file, "a UUID")?,
            epoch: files::read_as(&epoch_file, "a number")?.map(Epoch),
            first_epoch: Epoch(forms::unsigned(forms::millis(now))),
        };
        let (hive_id, epoch) =
            sqlite::claim(&database, name, claim).map_err(|source| DataDirError::database(database.clone(), source))?;
        if claim.hive_id.is_none() {
            files::replace(&id_file, &format!("{hive_id}\n"))?;
        }
        files::replace(&epoch_file, &format!("{epoch}\n"))?;
        let holder = Holder {
            pid: std::process::id(),
            epoch: epoch.0,
            since: humantime::format_rfc3339_millis(now).to_string(),
        };
        lock::sign(&lock, &holder).map_err(|e| DataDirError::io(path.join("lock"), e))?;
        let fence = Fence { epoch_file: epoch_file.into(), epoch, usurped };
        Ok(Self { path, hive_id, fence, lock })
    }

    /// The hive that lives here.
    pub fn hive_id(&self) -> HiveId {
        self.hive_id
    }

    /// Our number.
    pub fn epoch(&self) -> Epoch {
        self.fence.epoch
    }

    /// Absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The journal's database.
    pub fn database(&self) -> PathBuf {
        self.path.join("hive.db")
    }

    /// The history's database.
    pub fn history(&self) -> PathBuf {
        self.path.join("history.sqlite")
    }

    /// Sockets and exit records of launchers.
    pub fn run_dir(&self) -> PathBuf {
        self.path.join("run")
    }

    /// Log books.
    pub fn logs_dir(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Below it lie the working directories of swarms that name none. They are made by who launches there.
    pub fn work_dir(&self) -> PathBuf {
        self.path.join("work")
    }

    /// What tells whether a younger daemon has come.
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// To be called every second: shows that we live.
    ///
    /// # Errors
    /// `Fenced` when a younger daemon holds the directory: end at once and touch nothing. Other errors say that the touch failed.
    pub fn beat(&self) -> Result<(), StoreError> {
        if self.fence.is_fenced() {
            return Err(StoreError::Fenced);
        }
        // By the open file: when another has taken its place, nothing of the new one is touched.
        Ok(self.lock.set_modified(SystemTime::now())?)
    }

    /// Writes `endpoints.json`, whole or not at all.
    ///
    /// # Errors
    /// `Fenced`, or why it can't be written.
    pub fn write_endpoints(&self, json: &str) -> Result<(), DataDirError> {
        let path = self.endpoints();
        if self.fence.is_fenced() {
            return Err(DataDirError::Database { path, source: StoreError::Fenced });
        }
        files::replace(&path, json)
    }

    /// What a notifier noted down last; `None` when it never did.
    ///
    /// # Errors
    /// Why it can't be read.
    pub fn read_note(&self, notifier: &NotifierName) -> Result<Option<String>, DataDirError> {
        files::read(&self.note(notifier))
    }

    /// Keeps what a notifier must know after this daemon's end, whole or not at all. Blocks.
    ///
    /// # Errors
    /// `Fenced`, or why it can't be written.
    pub fn write_note(&self, notifier: &NotifierName, text: &str) -> Result<(), DataDirError> {
        let path = self.note(notifier);
        if self.fence.is_fenced() {
            return Err(DataDirError::Database { path, source: StoreError::Fenced });
        }
        files::replace(&path, text)
    }

    fn note(&self, notifier: &NotifierName) -> PathBuf {
        self.path.join("notify").join(format!("{notifier}.json"))
    }

    /// Takes `endpoints.json` away, unless it is a younger daemon's.
    pub fn remove_endpoints(&self) {
        let path = self.endpoints();
        if self.fence.is_fenced() {
            return;
        }
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "failed to remove the endpoints file");
        }
    }

    fn endpoints(&self) -> PathBuf {
        self.path.join("endpoints.json")
    }
}

/// Tells whether a younger daemon has taken the directory.
#[derive(Debug, Clone)]
pub struct Fence {
    epoch_file: Arc<Path>,
    epoch: Epoch,
    usurped: bool,
}

impl Fence {
    /// Reads one small file: cheap enough for every tick and every write. A file that can't be read proves no younger daemon.
    pub fn is_fenced(&self) -> bool {
        files::read_as::<u64>(&self.epoch_file, "a number").ok().flatten().is_some_and(|found| found > self.epoch.0)
    }

    /// Whether we pushed a holder aside that may wake up yet.
    pub fn usurped(&self) -> bool {
        self.usurped
    }
}

/// The absolute path of a directory that is to be a data directory; what is above it is made.
fn prepare(path: &Path) -> Result<PathBuf, DataDirError> {
    let io = |e| DataDirError::io(path, e);
    let absolute = std::path::absolute(path).map_err(io)?;
    check_length(&absolute)?;
    if let Some(parent) = absolute.parent() {
        fs::create_dir_all(parent).map_err(io)?;
    }
    Ok(absolute)
}

/// The directory itself, absolute, without links.
pub(in crate::store) fn make(path: &Path) -> Result<PathBuf, DataDirError> {
    let io = |e| DataDirError::io(path, e);
    let absolute = prepare(path)?;
    match DirBuilder::new().mode(0o700).create(&absolute) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !absolute.is_dir() {
                return Err(DataDirError::NotADirectory { path: absolute });
            }
        }
        other => other.map_err(io)?,
    }
    let real = fs::canonicalize(&absolute).map_err(io)?;
    check_length(&real)?;
    Ok(real)
}

fn check_length(path: &Path) -> Result<(), DataDirError> {
    let len = path.as_os_str().len();
    if len > PATH_LEN_MAX {
        return Err(DataDirError::TooLong { path: path.to_owned(), len, max: PATH_LEN_MAX });
    }
    Ok(())
}
