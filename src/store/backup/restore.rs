//! Making a data directory out of a backup.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufReader},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, lchown},
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use super::{
    archive,
    error::BackupError,
    manifest::{Entry, FORMAT, Manifest, NAME},
};
use crate::store::{
    data_dir::{RESTORING, files, make},
    forms, sqlite,
};

/// Longer than the manifest of a hundred thousand log segments; what claims to be longer is none.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// What a restored directory has beside its log books.
const FILES: [&str; 4] = ["hive.db", "history.sqlite", "hive-id", "epoch"];

/// Makes `data_dir`, which must be new or empty, out of a backup. It is there whole, or no daemon starts on it, and its epoch is above that of any daemon
/// that led this hive so far: the next one on it fences them off wherever it meets what they launched. What was there before stays: the directory, which
/// may be where a volume is mounted, and whose it is. Blocks.
///
/// # Errors
/// Why nothing was restored.
pub fn restore(file: &Path, data_dir: &Path) -> Result<Manifest, BackupError> {
    let made = !data_dir.exists();
    let data_dir = make(data_dir)?;
    refuse_used(&data_dir)?;
    let target = Target { dir: data_dir, made, whole: false };
    clear(&target.dir).map_err(BackupError::io(&target.dir))?;
    let beside = target.dir.join(RESTORING);
    DirBuilder::new().mode(0o700).create(&beside).map_err(BackupError::io(&beside))?;
    let manifest = unpack(file, &beside)?;
    let unusable = |why: String| BackupError::Unusable { path: file.to_owned(), why };
    let named = fs::read_to_string(beside.join("hive-id")).map_err(BackupError::io(&beside))?;
    check_words(&manifest, &named).map_err(unusable)?;
    let database = beside.join("hive.db");
    sqlite::check_schema(&database).map_err(BackupError::database(&database))?;
    let epoch = forms::unsigned(forms::millis(SystemTime::now()));
    files::replace(&beside.join("epoch"), &format!("{epoch}\n"))?;
    target.settle(&beside)?;
    Ok(manifest)
}

/// A directory that becomes a data directory; emptied again when this is dropped before.
struct Target {
    dir: PathBuf,
    /// By us, a moment ago.
    made: bool,
    whole: bool,
}

impl Target {
    /// Puts what was unpacked in its place, synced, and given to whom the directory belongs: an operator may restore for a daemon of another user.
    fn settle(mut self, beside: &Path) -> Result<(), BackupError> {
        let settle = || {
            let owner = fs::metadata(&self.dir)?;
            hand_over(beside, &owner)?;
            for entry in fs::read_dir(beside)? {
                let entry = entry?;
                fs::rename(entry.path(), self.dir.join(entry.file_name()))?;
            }
            File::open(&self.dir)?.sync_all()?;
            fs::remove_dir(beside)?;
            File::open(&self.dir)?.sync_all()?;
            files::sync_parent(&self.dir)
        };
        settle().map_err(BackupError::io(&self.dir))?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.whole {
            return;
        }
        // Whatever stays keeps a daemon from starting here, and the next attempt takes it away.
        let _ = clear(&self.dir);
        if self.made {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

/// Takes away what a restore that did not end has left, its mark last.
fn clear(dir: &Path) -> io::Result<()> {
    let beside = dir.join(RESTORING);
    if !beside.exists() {
        return Ok(());
    }
    for name in FILES {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    for below in [dir.join("logs"), beside] {
        match fs::remove_dir_all(below) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Refuses a directory in which anything is, save what a restore that did not end has left.
fn refuse_used(data_dir: &Path) -> Result<(), BackupError> {
    let mut entries = match fs::read_dir(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(BackupError::io(data_dir))?,
    };
    if let Ok(lock) = File::open(data_dir.join("lock"))
        && lock.try_lock_shared().is_err()
    {
        return Err(BackupError::Living { path: data_dir.to_owned() });
    }
    if data_dir.join(RESTORING).exists() {
        return Ok(());
    }
    match entries.next() {
        None => Ok(()),
        Some(entry) => {
            let name = entry.map_err(BackupError::io(data_dir))?.file_name();
            Err(BackupError::Used { path: data_dir.to_owned(), found: name.to_string_lossy().into_owned() })
        }
    }
}

fn unpack(file: &Path, into: &Path) -> Result<Manifest, BackupError> {
    let unusable = |why: String| BackupError::Unusable { path: file.to_owned(), why };
    let read = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => unusable("it is cut off".to_owned()),
        io::ErrorKind::InvalidData => unusable(error.to_string()),
        _ => BackupError::Io { path: file.to_owned(), source: error },
    };
    let mut from = BufReader::new(File::open(file).map_err(BackupError::io(file))?);
    let mut found = BTreeMap::new();
    while let Some((path, bytes)) = archive::next(&mut from).map_err(read)? {
        if path == NAME {
            if bytes > MANIFEST_BYTES_MAX {
                return Err(unusable(format!("its manifest has {bytes} bytes")));
            }
            let mut text = Vec::new();
            archive::content(&mut from, &mut text, bytes).map_err(read)?;
            let manifest: Manifest = serde_json::from_slice(&text)
                .map_err(|error| unusable(format!("its manifest can't be read: {error}")))?;
            return compare(manifest, found).map_err(unusable);
        }
        if !is_ours(&path) {
            return Err(unusable(format!("it holds {path:?}, which no backup has")));
        }
        let target = into.join(&path);
        let mut to = create(&target).map_err(BackupError::io(&target))?;
        let sha256 = archive::content(&mut from, &mut to, bytes).map_err(read)?;
        to.sync_all().map_err(BackupError::io(&target))?;
        found.insert(path.clone(), Entry { path, bytes, sha256 });
    }
    Err(unusable("it has no manifest".to_owned()))
}

/// Whether the archive holds what its manifest says, byte by byte.
fn compare(manifest: Manifest, mut found: BTreeMap<String, Entry>) -> Result<Manifest, String> {
    if manifest.format != FORMAT {
        let (version, format) = (&manifest.version, manifest.format);
        return Err(format!("version {version:?} wrote it in form {format}, this version knows {FORMAT}"));
    }
    for entry in &manifest.files {
        match found.remove(&entry.path) {
            Some(same) if same == *entry => {}
            Some(_) => return Err(format!("{} is not what was backed up: its checksum differs", entry.path)),
            None => return Err(format!("{} is missing", entry.path)),
        }
    }
    match found.into_keys().next() {
        Some(path) => Err(format!("it holds {path:?}, which its manifest does not name")),
        None if !manifest.files.iter().any(|entry| entry.path == "hive.db") => Err("hive.db is missing".to_owned()),
        None => Ok(manifest),
    }
}

/// Whether what is shown to people is fit for a terminal, and both say which hive it is, and the same: no daemon would start on anything else.
fn check_words(manifest: &Manifest, named: &str) -> Result<(), String> {
    let Manifest { hive_id, version, begun_at, .. } = manifest;
    let named = named.trim();
    if named.parse::<uuid::Uuid>().is_err() || named != hive_id {
        return Err(format!(
            "its hive-id is {named:?}, and its manifest names {hive_id:?}: allowed is one UUID in both"
        ));
    }
    match [version, begun_at].into_iter().find(|text| text.contains(char::is_control)) {
        Some(odd) => Err(format!("its manifest says {odd:?}, which no backup does")),
        None => Ok(()),
    }
}

/// The names that a backup may hold, none of which leads out of the directory.
fn is_ours(path: &str) -> bool {
    if matches!(path, "hive.db" | "history.sqlite" | "hive-id") {
        return true;
    }
    let parts: Vec<_> = Path::new(path).components().collect();
    let plain = parts.iter().all(|part| matches!(part, Component::Normal(_)));
    plain && parts.len() == 4 && path.starts_with("logs/") && path.ends_with(".log")
}

fn create(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().mode(0o700).recursive(true).create(parent)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Gives a directory and all in it to an owner, and syncs the names in it, so that a power cut takes none of them.
fn hand_over(dir: &Path, owner: &fs::Metadata) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let found = fs::symlink_metadata(&path)?;
        if found.is_dir() {
            hand_over(&path, owner)?;
        }
        if (found.uid(), found.gid()) != (owner.uid(), owner.gid()) {
            lchown(&path, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    File::open(dir)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_what_its_manifest_says_and_nothing_else() {
        let entry = |path: &str| Entry { path: path.to_owned(), bytes: 1, sha256: "x".to_owned() };
        let of = |format: u32, said: &[&str], found: &[&str]| {
            let text = || "x".to_owned();
            let files = said.iter().map(|path| entry(path)).collect();
            let manifest = Manifest { format, version: text(), hive_id: text(), begun_at: text(), files };
            let found = found.iter().map(|path| ((*path).to_owned(), entry(path))).collect();
            compare(manifest, found).map(drop).map_err(|why| why.split(' ').next_back().unwrap_or_default().to_owned())
        };
        let good = ["hive.db", "hive-id"];
        assert_eq!(of(FORMAT, &good, &good), Ok(()));
        assert_eq!(of(FORMAT + 1, &good, &good), Err("1".to_owned()), "a form of a later version");
        assert_eq!(of(FORMAT, &good, &["hive.db"]), Err("missing".to_owned()));
        assert_eq!(of(FORMAT, &["hive.db"], &good), Err("name".to_owned()), "a file of which it does not say a word");
        assert_eq!(of(FORMAT, &["hive-id"], &["hive-id"]), Err("missing".to_owned()), "no hive without its journal");
    }

    #[test]
    fn only_names_of_a_data_directory_are_taken() {
        for good in ["hive.db", "history.sqlite", "hive-id", "logs/demo/clock/00001.log"] {
            assert!(is_ours(good), "{good}");
        }
        for bad in [
            "epoch",
            "lock",
            "logs/demo/1.log",
            "logs/demo/clock/a/1.log",
            "logs/../../1.log",
            "/logs/demo/clock/1.log",
            "logs/demo/clock/1.txt",
            "run/demo/clock/1.log",
            "logs/./clock/1.log",
        ] {
            assert!(!is_ours(bad), "{bad}");
        }
    }

    #[test]
    fn a_backup_says_plainly_whose_it_is() {
        let id = "01a201de-39cb-74db-a2c1-fdb6fb8fc3e5";
        let said = |hive_id: &str, version: &str, named: &str| {
            let (hive_id, version) = (hive_id.to_owned(), version.to_owned());
            let manifest =
                Manifest { format: FORMAT, version, hive_id, begun_at: "2026".to_owned(), files: Vec::new() };
            check_words(&manifest, named)
        };
        assert_eq!(said(id, "1.0", &format!("{id}\n")), Ok(()));
        let other = id.replace('0', "1");
        for (hive_id, version, named) in [
            (id, "1.0", "../../x"),
            ("\u{1b}[31m", "1.0", "\u{1b}[31m"),
            (id, "1.0", &*other),
            (id, "\u{1b}]0;x\u{7}", id),
        ] {
            let refused = said(hive_id, version, named).unwrap_err();
            assert!(!refused.contains(char::is_control), "{refused}");
        }
    }
}
