//! Programs of others that tests use, installed once below `target/`.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Whether the long tests are asked for; others need nothing that must be fetched.
pub(crate) fn long() -> bool {
    std::env::var("HK_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

/// A directory for a program; what is there already is used.
pub(crate) fn home(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

pub(crate) fn command(program: impl AsRef<OsStr>, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    command
}

/// Whether all these go well.
pub(crate) fn succeed(commands: &mut [Command]) -> bool {
    commands.iter_mut().all(|command| {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

/// Where a package of npm lies for node's `createRequire`. Each has a directory of its own, so that tests beside each other don't install into one.
pub(crate) fn npm(package: &str) -> Option<String> {
    let at = home(&format!("npm-{}", package.replace(['@', '/'], "_")));
    let at = at.to_str().unwrap();
    let has = || {
        Path::new(at).join("node_modules").join(package).join("package.json").exists()
            && succeed(&mut [command("node", &["--version"])])
    };
    let install = ["install", "--silent", "--no-audit", "--no-fund", "--prefix", at, package];
    let installed = has() || succeed(&mut [command("npm", &install)]) && has();
    installed.then(|| at.to_owned())
}
