//! A peer that is a program of its own: started for the benchmark on a port of 127.0.0.1, and ended with it.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};

use super::processes;

/// How long anything may take that should happen; the slowest run lasts a few seconds.
pub const WAIT: Duration = Duration::from_secs(60);
/// How long a program may take until it listens.
const START_WAIT: Duration = Duration::from_secs(10);

pub struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Server {
    /// Starts what `command` makes of a port and a directory of its own. `None` if there is no such program.
    pub fn start(
        name: &str,
        scratch: &Path,
        command: impl FnOnce(u16, &Path) -> Command,
    ) -> anyhow::Result<Option<Self>> {
        let dir = scratch.join(name);
        fs::create_dir(&dir)?;
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let said = dir.join("said");
        let mut command = command(addr.port(), &dir);
        command.stdin(Stdio::null()).stdout(File::create(&said)?).stderr(File::options().append(true).open(&said)?);
        processes::end_with_us(&mut command);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot start {name}")),
        };
        let mut server = Self { child, addr };
        processes::until(&format!("{name} listens"), START_WAIT, || {
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} ended with {status}: {}", fs::read_to_string(&said).unwrap_or_default());
            }
            Ok(TcpStream::connect(addr).ok())
        })?;
        Ok(Some(server))
    }

    /// A connection that does not wait for ever.
    pub fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(self.addr)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        Ok(stream)
    }

    /// Asks it to end, and waits until it has.
    pub fn interrupt(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            processes::signal(pid, libc::SIGINT);
            let _late = processes::end(&mut self.child, START_WAIT);
        }
    }

    /// So many of them.
    pub fn connections(&self, count: usize) -> anyhow::Result<Vec<TcpStream>> {
        (0..count).map(|_| self.connect()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing that it has is to be kept.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// What a program says about its version, else why it says nothing.
pub fn version(program: &str) -> String {
    match Command::new(program).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => format!("{program}: {error}"),
    }
}
