//! Small files that are whole or not there at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use super::error::DataDirError;

/// Makes a directory that is ours alone; one that is there already is made so.
pub(super) fn make_private(path: &Path) -> Result<(), DataDirError> {
    let made = match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        }
        other => other,
    };
    made.map_err(|e| DataDirError::io(path, e))
}

/// Opens a file that is ours alone for reading and writing; makes it when it is not there.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Puts `text` in the place of the file. After a crash or a power cut there is the old text or the new one.
pub(in crate::store) fn replace(path: &Path, text: &str) -> Result<(), DataDirError> {
    let beside = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_parent(path)
    };
    write().map_err(|e| DataDirError::io(path, e))
}

/// Makes a rename outlive a power cut.
pub(in crate::store) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// The text of a file, without the newline at its end; `None` when the file is not there.
pub(super) fn read(path: &Path) -> Result<Option<String>, DataDirError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DataDirError::io(path, error)),
    }
}

/// The value in a one-line file; `None` when the file is not there.
pub(super) fn read_as<T: std::str::FromStr>(path: &Path, expected: &'static str) -> Result<Option<T>, DataDirError> {
    let Some(text) = read(path)? else { return Ok(None) };
    match text.parse() {
        Ok(value) => Ok(Some(value)),
        Err(_) => {
            Err(DataDirError::Garbled { path: path.to_owned(), found: text.chars().take(80).collect(), expected })
        }
    }
}
