//! What the store's own tests share: a small disk that can be full, and a second process that can be killed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use tempfile::TempDir;

/// Names the directory that a second process works in.
pub(super) const DIR: &str = "HIVEKEEPER_STORE_TEST_DIR";

/// A directory below which the data directory's path is short enough.
pub(super) fn short_dir() -> TempDir {
    tempfile::Builder::new().prefix("hk").tempdir_in("/tmp").unwrap()
}

/// A file system of its own, unmounted when dropped. Needs the right to mount; says so and gives nothing without it.
pub(super) struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    pub(super) fn mount(kib: u64) -> Option<Self> {
        let dir = short_dir();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: no right to mount a small disk");
        }
        mounted.then_some(Self { dir })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all space that is left.
    pub(super) fn fill(&self) {
        let mut file = std::fs::File::create(self.path().join("ballast")).unwrap();
        let chunk = [b'x'; 512];
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
    }

    /// Gives it back.
    pub(super) fn free(&self) {
        std::fs::remove_file(self.path().join("ballast")).unwrap();
    }

    pub(super) fn remount(&self, mode: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{mode}")]).arg(self.path()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a failed test may still hold files open.
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

/// Another process that runs one ignored test of this executable, and what it prints.
pub(super) struct Second {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Second {
    pub(super) fn start(test: &str, dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next number that it says. Panics when it ends instead.
    pub(super) fn said(&mut self) -> u64 {
        loop {
            let line = self.lines.next().expect("the second process ended").unwrap();
            // libtest writes its own words around; ours stand behind a mark.
            if let Some((_, number)) = line.split_once("said ") {
                return number.trim().parse().unwrap();
            }
        }
    }

    pub(super) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Kills it; returns the last number that it said.
    pub(super) fn kill(&mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut last = 0;
        for line in self.lines.by_ref().map_while(Result::ok) {
            if let Some((_, number)) = line.split_once("said ") {
                last = number.trim().parse().unwrap_or(last);
            }
        }
        last
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
