//! Two errands in a container that somebody else has made, where nothing is prepared for us and there may be no shell: `hivekeeper agent --settle
//! RUN_DIR` makes the run directory, `--clear HOME [KEEP...]` removes what lies in our directory there, and the directory itself if nothing is kept.
//!
//! Others live in that container, too. A directory in which somebody else could put another file in a socket's place is not used.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt},
    },
    path::Path,
    process::ExitCode,
};

use nix::unistd;

use super::{farewell, link::Link, sys};
use crate::wire::channel::FromLauncher;

/// Nobody else looks into our directory: not even the names of launches are theirs to know.
const MODE: u32 = 0o700;
/// Whoever owns a file there may remove or rename it, and nobody else.
const STICKY: u32 = 0o1000;
/// Others, and the group, may write.
const SHARED: u32 = 0o022;
/// How the name of a directory of ours begins; nothing else is ever removed.
const OURS: [&str; 2] = ["hivekeeper-", ".hivekeeper-"];
/// It could not be done.
const EXIT_UNDONE: u8 = 1;

/// Makes the run directory and the one in which it lies, and answers.
pub(super) fn settle(run_dir: &Path) -> Result<ExitCode, String> {
    answer("unsettled", make(run_dir))
}

/// Removes what does not begin with a word of `keep`, and answers. What can't be removed does not keep the rest.
pub(super) fn clear(home: &Path, keep: &[&str]) -> Result<ExitCode, String> {
    answer("uncleared", remove(home, keep))
}

/// There is nothing to tell but that it is done, so it is told as an empty list of launches.
fn answer(code: &str, done: Result<(), String>) -> Result<ExitCode, String> {
    let (stdin, stdout) = sys::take_stdio().map_err(|error| format!("cannot use stdin and stdout: {error}"))?;
    let (frame, exit) = match done {
        Ok(()) => (FromLauncher::Listed { launch_ids: Vec::new() }, ExitCode::SUCCESS),
        Err(message) => (FromLauncher::Refused { code: code.to_owned(), message }, ExitCode::from(EXIT_UNDONE)),
    };
    farewell::last_words(&mut Link::new(0, stdin, stdout), &frame);
    Ok(exit)
}

fn make(run_dir: &Path) -> Result<(), String> {
    let me = unistd::geteuid().as_raw();
    let home = run_dir.parent().ok_or("the run directory has no place")?;
    for dir in [home, run_dir] {
        let made = DirBuilder::new().mode(MODE).create(dir);
        let found = match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::symlink_metadata(dir),
        };
        let found = found.map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        if !is_safe(&found, me) {
            return Err(format!("{} is there already and belongs to somebody else", dir.display()));
        }
    }
    Ok(())
}

/// Whether nobody but us and root can take away or rename what is ours in it.
fn is_safe(dir: &Metadata, me: u32) -> bool {
    let owned = dir.uid() == me || dir.uid() == 0;
    dir.is_dir() && owned && (dir.mode() & SHARED == 0 || dir.mode() & STICKY != 0)
}

fn remove(home: &Path, keep: &[&str]) -> Result<(), String> {
    let name = home.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if !OURS.iter().any(|ours| name.starts_with(ours)) || !home.is_absolute() {
        return Err(format!("{} is no directory of ours", home.display()));
    }
    let failed = |path: &Path, error: &io::Error| format!("cannot remove {}: {error}", path.display());
    let mut left = None;
    match fs::read_dir(home) {
        Ok(entries) => {
            let kept = |name: &OsStr| keep.iter().any(|kept| name.as_bytes().starts_with(kept.as_bytes()));
            for entry in entries.flatten().filter(|entry| !kept(&entry.file_name())) {
                let path = entry.path();
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                // A launcher that is just ending takes its socket away itself.
                if let Err(error) = removed.or_else(gone) {
                    left.get_or_insert(failed(&path, &error));
                }
            }
        }
        Err(error) => gone::<()>(error).map_err(|error| failed(home, &error))?,
    }
    if keep.is_empty() && left.is_none() {
        fs::remove_dir(home).or_else(gone).map_err(|error| failed(home, &error))?;
    }
    left.map_or(Ok(()), Err)
}

fn gone<T: Default>(error: io::Error) -> io::Result<T> {
    if error.kind() == io::ErrorKind::NotFound { Ok(T::default()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_run_directory_is_made_once_and_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("hivekeeper-a/run-1");
        for _ in 0..2 {
            make(&run_dir).unwrap();
            assert_eq!(fs::metadata(&run_dir).unwrap().mode() & 0o777, MODE);
        }
    }

    #[test]
    fn a_directory_that_others_can_write_or_a_link_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("hivekeeper-a");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(make(&home.join("run-1")).unwrap_err().contains("somebody else"));
        fs::set_permissions(&home, PermissionsExt::from_mode(0o1777)).unwrap();
        make(&home.join("run-1")).unwrap();
        symlink(&home, dir.path().join("hivekeeper-b")).unwrap();
        assert!(make(&dir.path().join("hivekeeper-b/run-1")).unwrap_err().contains("somebody else"));
        assert!(make(&dir.path().join("no/such/run-1")).unwrap_err().contains("cannot make"));
    }

    #[test]
    fn what_is_kept_stays_and_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join(".hivekeeper-a");
        for name in ["run-1", "run-2", "run-2-root", "0123"] {
            make(&home.join(name)).unwrap();
            fs::write(home.join(name).join("file"), "").unwrap();
        }
        remove(&home, &["run-2", "0123"]).unwrap();
        let mut left: Vec<_> = fs::read_dir(&home).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["0123", "run-2", "run-2-root"]);
        remove(&home, &[]).unwrap();
        assert!(!home.exists());
        remove(&home, &[]).unwrap();
    }

    #[test]
    fn nothing_of_others_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("theirs"), "").unwrap();
        assert!(remove(dir.path(), &[]).is_err());
        assert!(remove(Path::new("hivekeeper-here"), &[]).is_err());
        let home = dir.path().join("hivekeeper-a");
        make(&home.join("run-1")).unwrap();
        symlink(dir.path(), home.join("link")).unwrap();
        remove(&home, &[]).unwrap();
        assert!(dir.path().join("theirs").exists(), "a link was followed");
    }
}
