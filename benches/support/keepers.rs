//! What keeps an agent alive here: the peers, each as its own documentation sets it up, and the floor below which nobody can get.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, bail};

use super::{
    agent::{Ear, program},
    hive::Hive,
    processes,
};

/// How long a keeper may take to end itself and its agent.
const STOP_WAIT: Duration = Duration::from_secs(15);

/// Somebody who keeps one agent alive.
pub enum Keeper {
    /// A program of its own.
    Peer(Child),
    Floor(Floor),
    Hive(Box<Hive>),
}

/// How somebody is started: in a directory of its own, with an agent that takes this name.
pub type Begin = fn(&Path, &Ear, &str) -> anyhow::Result<Start>;

/// What came of it.
pub enum Start {
    Started(Keeper),
    NotInstalled,
}

impl Keeper {
    /// Ends it in its own orderly way.
    pub fn stop(mut self) -> anyhow::Result<()> {
        match &mut self {
            Self::Peer(child) => {
                processes::signal(i32::try_from(child.id())?, libc::SIGTERM);
                processes::end(child, STOP_WAIT).map(drop)
            }
            Self::Floor(floor) => floor.stop(),
            Self::Hive(hive) => hive.stop(),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Self::Peer(child) = self
            && matches!(child.try_wait(), Ok(None))
        {
            // Its agent asks the kernel to be ended with it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `runsv` on a service whose `run` is a shell script that ends in `exec`, as runit's manual has it.
pub fn runit_script(dir: &Path, ear: &Ear, name: &str) -> anyhow::Result<Start> {
    let Some(runsv) = installed("runsv") else { return Ok(Start::NotInstalled) };
    let run = dir.join("run");
    fs::write(&run, format!("#!/bin/sh\nexec {}\n", program()?.display()))?;
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755))?;
    peer(Command::new(runsv).arg(dir), dir, ear.env(name))
}

/// `runsv` at its best: `run` is the agent itself, no shell stands between.
pub fn runit(dir: &Path, ear: &Ear, name: &str) -> anyhow::Result<Start> {
    let Some(runsv) = installed("runsv") else { return Ok(Start::NotInstalled) };
    symlink(program()?, dir.join("run"))?;
    peer(Command::new(runsv).arg(dir), dir, ear.env(name))
}

/// `s6-supervise` at its best: `run` is the agent itself.
pub fn s6(dir: &Path, ear: &Ear, name: &str) -> anyhow::Result<Start> {
    let Some(supervise) = installed("s6-supervise") else { return Ok(Start::NotInstalled) };
    symlink(program()?, dir.join("run"))?;
    peer(Command::new(supervise).arg(dir), dir, ear.env(name))
}

/// `supervisord` in the foreground with one program and nothing else.
pub fn supervisord(dir: &Path, ear: &Ear, name: &str) -> anyhow::Result<Start> {
    let Some(supervisord) = installed("supervisord") else { return Ok(Start::NotInstalled) };
    let config = dir.join("supervisord.conf");
    let text = format!(
        "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={dir}/pid\n\
         [program:agent]\ncommand={program}\nautorestart=true\nstartsecs=1\nstartretries=1000\n\
         stdout_logfile=NONE\nstderr_logfile=NONE\n",
        dir = dir.display(),
        program = program()?.display(),
    );
    fs::write(&config, text)?;
    peer(Command::new(supervisord).arg("-c").arg(&config), dir, ear.env(name))
}

/// Hivekeeper with one agent. Its restarts are due at once and never run out: back-off and window are policy, which the peers' set-up has none of.
pub fn hivekeeper(dir: &Path, ear: &Ear, name: &str) -> anyhow::Result<Start> {
    let swarm = format!("{}{}", Hive::AT_ONCE, Hive::swarm("bench", "agent", None, &ear.env(name))?);
    Ok(Start::Started(Keeper::Hive(Box::new(Hive::start(dir, &swarm)?))))
}

fn peer(command: &mut Command, dir: &Path, env: BTreeMap<String, String>) -> anyhow::Result<Start> {
    command.current_dir(dir).envs(env).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    processes::end_with_us(command);
    let child = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    Ok(Start::Started(Keeper::Peer(child)))
}

/// The path of a program, if it is there.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// A thread that spawns, waits, and spawns again: what the kernel alone costs.
pub struct Floor {
    /// Asked to end.
    ending: Arc<AtomicBool>,
    /// The agent of the moment.
    pid: Arc<AtomicI32>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Floor {
    pub fn begin(_: &Path, ear: &Ear, name: &str) -> anyhow::Result<Start> {
        let mut command = ear.command(name)?;
        let (ending, pid) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI32::new(0)));
        let thread = std::thread::spawn({
            let (ending, pid) = (ending.clone(), pid.clone());
            move || {
                while !ending.load(Ordering::SeqCst) {
                    let mut child = command.spawn().context("cannot start the agent")?;
                    pid.store(i32::try_from(child.id())?, Ordering::SeqCst);
                    child.wait()?;
                }
                Ok(())
            }
        });
        Ok(Start::Started(Keeper::Floor(Self { ending, pid, thread: Some(thread) })))
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        self.ending.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // One more may have been spawned after the last look.
        processes::until("the last agent ends", STOP_WAIT, || {
            if thread.is_finished() {
                return Ok(Some(()));
            }
            processes::signal(self.pid.load(Ordering::SeqCst), libc::SIGKILL);
            Ok(None)
        })?;
        match thread.join() {
            Ok(ended) => ended,
            Err(_) => bail!("the floor's thread panicked"),
        }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // Also when the measurement failed; then there is nobody to tell.
        let _ = self.stop();
    }
}
