//! `hivekeeper agent --list RUN_DIR`: the launches whose launchers may live here, by their sockets.

use std::{ffi::OsStr, fs, path::Path, process::ExitCode};

use super::{
    farewell,
    files::{SOCKET_SUFFIX, plain},
    link::Link,
    sys,
};
use crate::wire::channel::FromLauncher;

/// Launches that are told at once; a container that holds more is asked again when these have ended.
const LISTED_MAX: usize = 4096;
/// The directory can't be read.
const EXIT_UNSEEN: u8 = 1;

/// Lists and answers.
pub(super) fn list(run_dir: &Path) -> Result<ExitCode, String> {
    let (stdin, stdout) = sys::take_stdio().map_err(|error| format!("cannot use stdin and stdout: {error}"))?;
    let (frame, code) = match fs::read_dir(run_dir) {
        Ok(entries) => {
            let names = entries.flatten().map(|entry| entry.file_name());
            let launch_ids = names.filter_map(|name| launch_of(&name)).take(LISTED_MAX).collect();
            (FromLauncher::Listed { launch_ids }, ExitCode::SUCCESS)
        }
        Err(error) => {
            let message = format!("cannot list {}: {error}", run_dir.display());
            (FromLauncher::Refused { code: "unseen".to_owned(), message }, ExitCode::from(EXIT_UNSEEN))
        }
    };
    farewell::last_words(&mut Link::new(0, stdin, stdout), &frame);
    Ok(code)
}

/// Others of our user may write here, too: what is no launch's name is passed over.
fn launch_of(file: &OsStr) -> Option<String> {
    let launch_id = file.to_str()?.strip_suffix(SOCKET_SUFFIX)?;
    plain(launch_id).then(|| launch_id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_of_launches_are_told() {
        let told = |file: &str| launch_of(OsStr::new(file));
        assert_eq!(told("0190-a.sock").as_deref(), Some("0190-a"));
        for file in ["0190-a.exit", ".sock", "a b.sock", "..sock", "0190-a.sock.old"] {
            assert_eq!(told(file), None, "{file}");
        }
    }
}
