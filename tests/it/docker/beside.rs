//! A container that somebody else has made, for swarms to run in.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use hivekeeper::model::{ContainerSpec, HiveId};

use super::harness::{DEBIAN, PATIENCE};

/// A container that is not ours; removed at the end, also of a panic.
pub(crate) struct Beside {
    pub(crate) name: String,
}

impl Beside {
    pub(crate) fn unmade() -> Self {
        let id = HiveId::mint().0.simple().to_string();
        Self { name: format!("beside-{}", &id[id.len() - 12..]) }
    }

    pub(crate) fn made(options: &[&str], image: &str, command: &[&str]) -> Self {
        let beside = Self::unmade();
        beside.make(options, image, command);
        beside
    }

    pub(crate) fn make(&self, options: &[&str], image: &str, command: &[&str]) {
        let first = ["run", "-d", "--init", "--name", &self.name];
        cli(&[&first, options, &[image], command].concat());
    }

    /// The same without starting it.
    pub(crate) fn create(&self, options: &[&str], image: &str, command: &[&str]) {
        let first = ["create", "--init", "--name", &self.name];
        cli(&[&first, options, &[image], command].concat());
    }

    /// With a shell and a root that can be written.
    pub(crate) fn debian(options: &[&str]) -> Self {
        Self::made(options, DEBIAN, &["sleep", "infinity"])
    }

    pub(crate) fn spec(&self) -> ContainerSpec {
        ContainerSpec::sidecar(self.name.clone())
    }

    /// Does something to it that its owner would do.
    pub(crate) fn does(&self, words: &[&str]) {
        cli(&[words, &[&self.name]].concat());
    }

    pub(crate) fn says(&self, script: &str) -> String {
        cli(&["exec", &self.name, "sh", "-c", script])
    }

    pub(crate) fn inspect(&self, what: &str) -> String {
        cli(&["inspect", "--format", what, &self.name])
    }

    /// All that run in it, a line each.
    pub(crate) fn processes(&self) -> String {
        cli(&["top", &self.name, "-eo", "pid,args"])
    }

    /// It lives on as it was made, with its own processes and files alone.
    #[track_caller]
    pub(crate) fn is_untouched(&self, started_at: &str) {
        assert_eq!(
            self.inspect("{{.State.StartedAt}} {{.State.Running}} {{.State.Paused}}"),
            format!("{started_at} true false")
        );
        let until = Instant::now() + PATIENCE;
        loop {
            let processes = self.processes();
            let files = cli(&["diff", &self.name]);
            if !processes.contains(" agent ") && !files.contains("hivekeeper-") {
                return;
            }
            assert!(Instant::now() < until, "left behind:\n{processes}\n{files}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn started_at(&self) -> String {
        self.inspect("{{.State.StartedAt}}")
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", "-v", &self.name]).output();
    }
}

/// What the engine's own program says.
#[track_caller]
pub(crate) fn cli(words: &[&str]) -> String {
    let output = Command::new("docker").args(words).output().expect("the docker program");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {words:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
