//! Who holds the directory. The holder has the file `lock` flocked and touches it every second; a holder that stopped touching it is stopped, hung or
//! on a machine that slept, and is replaced: a new file takes the place of the old one, whose lock then locks nothing.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{error::DataDirError, files};
use crate::model::Epoch;

/// How long another daemon may take to open the directory: two waits of SQLite for its lock.
const OPENING_WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two looks at a lock, or at a holder's touch.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What the holder says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) pid: u32,
    pub(super) epoch: u64,
    /// RFC 3339.
    pub(super) since: String,
}

/// Takes the file that only one opener may hold. Released when dropped.
pub(super) fn take_opening(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join("opening");
    let file = files::open_private(&path).map_err(|e| DataDirError::io(&path, e))?;
    let deadline = Instant::now() + OPENING_WAIT_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOOK_INTERVAL),
            Err(TryLockError::WouldBlock) => return Err(DataDirError::Opening { path: dir.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(DataDirError::io(&path, error)),
        }
    }
}

/// The lock, and whether a holder that seems dead had to be pushed aside for it. To be called by who holds `opening`.
pub(super) fn take(dir: &Path, stale: Duration, watch: Duration) -> Result<(File, bool), DataDirError> {
    let path = dir.join("lock");
    let io = |e| DataDirError::io(&path, e);
    let file = files::open_private(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => return Ok((file, false)),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    if holder_lives(&file, stale, watch).map_err(io)? {
        return Err(in_use(dir, &path));
    }
    let beside = dir.join("lock.new");
    let ours =
        File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(io)?;
    ours.try_lock().map_err(|e| io(e.into()))?;
    fs::rename(&beside, &path).map_err(io)?;
    files::sync_parent(&path).map_err(io)?;
    Ok((ours, true))
}

/// Whether the holder touches its file. A touch that is fresh by the wall clock is enough; since that clock may have been set, a stale one is not, and
/// the file is watched for a while.
fn holder_lives(file: &File, stale: Duration, watch: Duration) -> std::io::Result<bool> {
    let touched = file.metadata()?.modified()?;
    if SystemTime::now().duration_since(touched).is_ok_and(|age| age < stale) {
        return Ok(true);
    }
    let deadline = Instant::now() + watch;
    while Instant::now() < deadline {
        thread::sleep(LOOK_INTERVAL);
        if file.metadata()?.modified()? != touched {
            return Ok(true);
        }
    }
    Ok(false)
}

fn in_use(dir: &Path, path: &Path) -> DataDirError {
    let holder = files::read(path).ok().flatten().and_then(|text| serde_json::from_str::<Holder>(&text).ok());
    // A holder that has not yet written who it is has only just come.
    let Holder { pid, epoch, since } = holder.unwrap_or(Holder { pid: 0, epoch: 0, since: "just now".to_owned() });
    DataDirError::InUse { path: dir.to_owned(), pid, epoch: Epoch(epoch), since }
}

/// Writes into the lock who holds it.
pub(super) fn sign(mut file: &File, holder: &Holder) -> std::io::Result<()> {
    let text = serde_json::to_string(holder)?;
    file.set_len(0)?;
    std::io::Seek::rewind(&mut file)?;
    writeln!(file, "{text}")
}
