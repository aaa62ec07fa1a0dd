//! The agent that everybody supervises here: this very executable, told by its environment to be one. Its first act is to read the clock, its
//! second to send that time and its process id to the benchmark. So the sign of life is the same for all keepers and comes from inside the agent.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};

use super::{clock, processes};

/// Names the socket to announce to.
const SOCKET: &str = "HKB_SOCKET";
/// What the agent calls itself there.
const NAME: &str = "HKB_NAME";
/// Its name in its directory.
const EAR: &str = "ear";
/// A datagram is a name, a process id and a time in ns.
const SIGN_LEN_MAX: usize = 256;

/// To be called first in `main`: does not return in an agent.
pub fn be_one_if_asked() {
    if announced() {
        // SAFETY: the call takes and touches no memory. The agent ends with its parent, so that a benchmark that is killed leaves none behind.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        rest();
    }
}

/// Whether this process is an agent, which has then given its sign of life. For agents that have more to do than to live; to be called first in `main`.
pub fn announced() -> bool {
    tell("", clock::now())
}

/// Tells the ear a time of its own, under the agent's name with `of` behind it. False where there is no ear, which is no agent.
pub fn tell(of: &str, time: Duration) -> bool {
    let (Some(socket), Ok(name)) = (std::env::var_os(SOCKET), std::env::var(NAME)) else { return false };
    let sign = format!("{name}{of} {} {}", std::process::id(), time.as_nanos());
    // Where nobody listens there is nobody to tell.
    if let Ok(mouth) = UnixDatagram::unbound() {
        let _ = mouth.send_to(sign.as_bytes(), socket);
    }
    true
}

/// Lives until it is killed.
pub fn rest() -> ! {
    loop {
        // SAFETY: the call takes and touches no memory.
        unsafe { libc::pause() };
    }
}

/// An agent has begun.
#[derive(Debug)]
pub struct Sign {
    pub name: String,
    pub pid: i32,
    /// The agent's own reading of the clock.
    pub at: Duration,
}

/// Where agents announce themselves.
pub struct Ear {
    socket: UnixDatagram,
    /// As agents find it.
    path: PathBuf,
}

impl Ear {
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        Self::open_for(dir, dir)
    }

    /// For agents that find the directory under another name and run as another user: those in containers.
    pub fn open_for(dir: &Path, seen_as: &Path) -> anyhow::Result<Self> {
        let path = dir.join(EAR);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        Ok(Self { socket, path: seen_as.join(EAR) })
    }

    /// The environment that makes this executable an agent.
    pub fn env(&self, name: &str) -> BTreeMap<String, String> {
        env(&self.path, name)
    }

    /// Its socket, as agents find it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The agent as a command of our own.
    pub fn command(&self, name: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(program()?);
        command.envs(self.env(name)).stdin(std::process::Stdio::null());
        Ok(command)
    }

    /// The next sign; `None` when none comes within the time.
    pub fn hear(&self, within: Duration) -> anyhow::Result<Option<Sign>> {
        // Zero would mean for ever.
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1))))?;
        let mut buffer = [0; SIGN_LEN_MAX];
        let len = match self.socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error).context("cannot hear the agents"),
        };
        let text = std::str::from_utf8(&buffer[..len])?;
        let [name, pid, at] = text.split(' ').collect::<Vec<_>>()[..] else { bail!("not a sign of life: {text:?}") };
        Ok(Some(Sign { name: name.to_owned(), pid: pid.parse()?, at: Duration::from_nanos(at.parse()?) }))
    }

    /// The first `count` signs of this name, all within the time.
    pub fn hear_all(&self, name: &str, count: usize, within: Duration) -> anyhow::Result<Vec<Sign>> {
        let deadline = clock::now() + within;
        let mut signs = Vec::with_capacity(count);
        while signs.len() < count {
            let left = deadline.saturating_sub(clock::now());
            match self.hear(left)? {
                Some(sign) if sign.name == name => signs.push(sign),
                Some(_) => {}
                None => bail!("{} of {count} agents have begun within {within:?}", signs.len()),
            }
        }
        Ok(signs)
    }

    /// Processes that carry this ear's environment: agents, and keepers that were given it.
    pub fn carriers(&self) -> Vec<i32> {
        processes::carrying(&format!("{SOCKET}={}", self.path.display()))
    }
}

/// The environment that makes this executable an agent with an ear at this path.
pub fn env(ear: &Path, name: &str) -> BTreeMap<String, String> {
    [(SOCKET.to_owned(), ear.display().to_string()), (NAME.to_owned(), name.to_owned())].into()
}

/// The living processes that announce themselves by this name, to whatever ear.
pub fn named(name: &str) -> Vec<i32> {
    processes::carrying(&format!("{NAME}={name}"))
}

/// This executable.
pub fn program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this executable")
}
