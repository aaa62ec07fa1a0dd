//! An engine of a test's own, to be stopped and killed: in namespaces of its own, so that it shares neither bridges nor mounts nor process ids with
//! the machine's, and so that the kernel ends all of it, containers included, together with the test.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::{
    harness::{client, kill, parent, until},
    steps::engine_socket,
};
use crate::{harness::skipped, hive::lives};

/// Prefix of its cgroups; the rest is the name of its directory.
const CGROUPS: &str = "/sys/fs/cgroup";

pub(super) struct SecondEngine {
    dir: tempfile::TempDir,
    /// `unshare`, which waits for the first process of the namespaces; that one ends with it, and everything else with that one.
    holder: Child,
    /// Its own id on this machine.
    init: i32,
    /// `nsenter`, which waits for the engine.
    engine: Option<Child>,
}

impl SecondEngine {
    /// One that does not run yet, or `None` once it has been said why there is none.
    pub(super) fn new() -> Option<Self> {
        if !engine_socket().exists() || !is_root() || !has_unshare() {
            skipped(
                "needs a second engine: root, unshare(1) that may make namespaces, and the first engine on this machine",
            );
            return None;
        }
        let dir = tempfile::Builder::new().prefix("hke").tempdir_in("/tmp").unwrap();
        let mut command = Command::new("unshare");
        command.args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
        ]);
        command.args(["docker-init", "--", "sleep", "infinity"]).stdin(Stdio::null()).stderr(Stdio::null());
        // SAFETY: prctl(PR_SET_PDEATHSIG) is async-signal-safe and touches no memory.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let holder = command.spawn().unwrap();
        let init = until("the namespaces", || child_of(holder.id(), "docker-init"));
        Some(Self { dir, holder, init, engine: None })
    }

    pub(super) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("s.sock")
    }

    /// The key of a configuration that sends the daemon here.
    pub(super) fn key(&self) -> String {
        format!("[docker]\nhost = \"{}\"\n", self.host())
    }

    /// Starts it and waits until it answers.
    pub(super) fn start(&mut self, live_restore: bool) {
        assert!(self.engine.is_none());
        let path = |name: &str| self.dir.path().join(name).into_os_string().into_string().unwrap();
        // Of an engine that was killed: the next one would take whoever has its number now for it.
        let _ = fs::remove_file(path("pid"));
        let log = fs::OpenOptions::new().create(true).append(true).open(path("log")).unwrap();
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--net", "--mount", "--pid", "dockerd"]);
        command.args(["--data-root", &path("data"), "--exec-root", &path("x"), "--pidfile", &path("pid")]);
        // Its swarms have no network, so it needs neither a bridge nor rules.
        command.args([
            "--host",
            &self.host(),
            "--bridge",
            "none",
            "--iptables=false",
            "--cgroup-parent",
            &self.cgroup(),
        ]);
        if live_restore {
            command.arg("--live-restore");
        }
        let mut engine = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        until("the second engine answers", || {
            if let Some(status) = engine.try_wait().unwrap() {
                panic!("the second engine ended: {status}\n{}", fs::read_to_string(path("log")).unwrap());
            }
            client(Some(&self.host()), &["version"]).status.success().then_some(())
        });
        self.engine = Some(engine);
    }

    /// Brings an image over from the first engine.
    pub(super) fn load(&self, image: &str) {
        let file = self.dir.path().join("image");
        let file = file.to_str().unwrap();
        assert!(client(None, &["save", "-o", file, image]).status.success());
        assert!(client(Some(&self.host()), &["load", "-i", file]).status.success());
    }

    /// SIGTERM, and waits for its end.
    pub(super) fn stop(&mut self) {
        self.signal(libc::SIGTERM);
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        self.signal(libc::SIGKILL);
    }

    fn signal(&mut self, signal: i32) {
        let mut engine = self.engine.take().unwrap();
        let dockerd = until("the engine's process", || child_of(engine.id(), "dockerd"));
        kill(dockerd, signal);
        until("the engine ends", || engine.try_wait().unwrap());
        until("the engine has ended", || (!lives(dockerd)).then_some(()));
    }

    /// Freezes the engine's process: its socket takes connections, and nobody answers.
    pub(super) fn freeze(&self, frozen: bool) {
        let waits = self.engine.as_ref().unwrap().id();
        let dockerd = until("the engine's process", || child_of(waits, "dockerd"));
        if frozen {
            kill(dockerd, libc::SIGSTOP);
        } else {
            // `nsenter` stops when what it waits for does, and wakes it when it is woken.
            kill(dockerd, libc::SIGCONT);
            kill(i32::try_from(waits).unwrap(), libc::SIGCONT);
        }
    }

    fn cgroup(&self) -> String {
        format!("/{}", self.dir.path().file_name().unwrap().to_str().unwrap())
    }
}

impl Drop for SecondEngine {
    fn drop(&mut self) {
        // The first process of its namespace: the kernel ends all others with it.
        kill(self.init, libc::SIGKILL);
        let _ = self.holder.wait();
        if let Some(mut engine) = self.engine.take() {
            let _ = engine.kill();
            let _ = engine.wait();
        }
        // Empty by now; one below the other.
        let find =
            ["-depth", "-type", "d", "-path", &format!("{CGROUPS}/*{}*", self.cgroup()), "-exec", "rmdir", "{}", ";"];
        let _ = Command::new("find").arg(CGROUPS).args(find).stderr(Stdio::null()).status();
    }
}

/// The child of a process that has this name.
fn child_of(of: u32, name: &str) -> Option<i32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_it = |pid: &i32| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        comm.trim_end() == name && lives(*pid) && u32::try_from(parent(*pid)).ok() == Some(of)
    };
    pids.into_iter().find(is_it)
}

/// There, and allowed to.
fn has_unshare() -> bool {
    let mut tried = Command::new("unshare");
    tried.args(["--net", "--mount", "--pid", "--fork", "true"]).stdin(Stdio::null()).stderr(Stdio::null());
    tried.status().is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    // SAFETY: it takes nothing and can't fail.
    unsafe { libc::geteuid() == 0 }
}
