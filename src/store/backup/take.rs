//! Making a backup.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use rusqlite::{
    Connection, OptionalExtension,
    backup::{Backup, StepResult},
};

use super::{
    archive,
    error::BackupError,
    manifest::{Entry, FORMAT, Manifest, NAME},
};
use crate::store::{StoreError, data_dir::files, sqlite::database};

/// How long a database may be locked by others before we give up; a daemon's transactions take milliseconds.
const LOCKED_MAX: Duration = Duration::from_secs(30);
/// Between two tries.
const LOCKED_PAUSE: Duration = Duration::from_millis(20);
/// All pages at once: a copy in bites begins anew with every write of the daemon.
const ALL_PAGES: i32 = -1;

/// Writes a backup of the hive in `data_dir` to `file`, whole or not at all; what was there before is replaced. The daemon may run. Blocks.
///
/// # Errors
/// Why there is no backup. `file` is as it was then.
pub fn take(data_dir: &Path, file: &Path, with_logs: bool) -> Result<Manifest, BackupError> {
    if !data_dir.join("hive.db").is_file() {
        return Err(BackupError::NoHive { path: data_dir.to_owned() });
    }
    let begun = SystemTime::now();
    // Beside the file, so that the last step is a rename; gone when it fails.
    let beside = Scratch::beside(file, "new");
    let create = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside.path);
    let mut archive = Archive {
        to: BufWriter::new(create.map_err(BackupError::io(&beside.path))?),
        file: &beside.path,
        begun,
        entries: Vec::new(),
    };
    let hive_id = archive.add_journal(&data_dir.join("hive.db"))?;
    archive.add_bytes("hive-id", format!("{hive_id}\n").as_bytes())?;
    let history = data_dir.join("history.sqlite");
    if history.is_file() {
        archive.add_database("history.sqlite", &history, |_| Ok(()))?;
    }
    if with_logs {
        archive.add_logs(&data_dir.join("logs"))?;
    }
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hive_id,
        begun_at: humantime::format_rfc3339_millis(begun).to_string(),
        files: std::mem::take(&mut archive.entries),
    };
    archive.close(&manifest)?;
    fs::rename(&beside.path, file).and_then(|()| files::sync_parent(file)).map_err(BackupError::io(file))?;
    Ok(manifest)
}

struct Archive<'a> {
    to: BufWriter<File>,
    file: &'a Path,
    begun: SystemTime,
    entries: Vec<Entry>,
}

impl Archive<'_> {
    /// The hive's id, as the journal has it.
    fn add_journal(&mut self, path: &Path) -> Result<String, BackupError> {
        self.add_database("hive.db", path, |copy| {
            let id = copy.query_row("SELECT value FROM meta WHERE key = 'hive_id'", [], |row| row.get(0));
            id.optional()?.ok_or_else(|| StoreError::Corrupt("it does not say whose it is".to_owned()))
        })
    }

    /// Copies a database as of one moment, reads the copy through, and adds it.
    fn add_database<T>(
        &mut self,
        name: &str,
        path: &Path,
        look: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, BackupError> {
        let copy = Scratch::beside(self.file, "database");
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&copy.path)
            .map_err(BackupError::io(&copy.path))?;
        let found = copy_database(path, &copy.path, look).map_err(BackupError::database(path))?;
        self.add_file(name, &copy.path)?;
        Ok(found)
    }

    /// The books as far as they are written now. Segments that retention takes away meanwhile are passed over.
    fn add_logs(&mut self, logs: &Path) -> Result<(), BackupError> {
        for swarm in names(logs)? {
            for agent in names(&logs.join(&swarm))? {
                let book = logs.join(&swarm).join(&agent);
                for segment in names(&book)?.into_iter().filter(|name| name.ends_with(".log")) {
                    self.add_file(&format!("logs/{swarm}/{agent}/{segment}"), &book.join(&segment))?;
                }
            }
        }
        Ok(())
    }

    fn add_file(&mut self, name: &str, path: &Path) -> Result<(), BackupError> {
        let mut from = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(BackupError::io(path))?,
        };
        let bytes = from.metadata().map_err(BackupError::io(path))?.len();
        self.append(name, bytes, &mut from).map_err(BackupError::io(path))
    }

    fn add_bytes(&mut self, name: &str, mut bytes: &[u8]) -> Result<(), BackupError> {
        self.append(name, bytes.len() as u64, &mut bytes).map_err(BackupError::io(self.file))
    }

    fn append(&mut self, name: &str, bytes: u64, from: &mut impl io::Read) -> io::Result<()> {
        let begun_s = self.begun.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.entries.push(archive::append(&mut self.to, name, bytes, begun_s, from)?);
        Ok(())
    }

    fn close(mut self, manifest: &Manifest) -> Result<(), BackupError> {
        let mut text = serde_json::to_vec_pretty(manifest).unwrap_or_default();
        text.push(b'\n');
        self.add_bytes(NAME, &text)?;
        let mut end = || {
            archive::finish(&mut self.to)?;
            self.to.flush()?;
            self.to.get_ref().sync_all()
        };
        end().map_err(BackupError::io(self.file))
    }
}

fn copy_database<T>(
    from: &Path,
    to: &Path,
    look: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let source = database::open_for_reading(from)?;
    let mut copy = Connection::open(to)?;
    {
        let backup = Backup::new(&source, &mut copy)?;
        let deadline = Instant::now() + LOCKED_MAX;
        loop {
            match backup.step(ALL_PAGES)? {
                StepResult::Done => break,
                _ if Instant::now() >= deadline => return Err(StoreError::Busy),
                _ => std::thread::sleep(LOCKED_PAUSE),
            }
        }
    }
    // A backup of a damaged database would be found out when it is needed.
    database::check(&copy)?;
    look(&copy)
}

/// What lies in a directory, sorted; nothing where there is none.
fn names(dir: &Path) -> Result<Vec<String>, BackupError> {
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    };
    match read() {
        // No book was ever begun, or a stray file lies where a directory should be.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        other => other.map_err(BackupError::io(dir)),
    }
}

/// A file beside another that is gone when this is dropped, unless it was renamed.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn beside(file: &Path, what: &str) -> Self {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{what}.{}", std::process::id()));
        Self { path: PathBuf::from(name) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = self.path.as_os_str().to_owned();
            name.push(suffix);
            // Mostly there is none of that name.
            let _ = fs::remove_file(PathBuf::from(name));
        }
    }
}
