//! What can be seen of this machine and of the daemon. It judges nothing.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    sys::{
        resource::{Resource, getrlimit},
        statvfs::{FsFlags, statvfs},
    },
    unistd::{AccessFlags, access, geteuid},
};
use serde::Deserialize;

use crate::{
    config::Config,
    model::{RuntimeKind, SwarmSpec},
    store::journal_schema,
};

use super::{
    super::{
        client::Client,
        error::CliError,
        locate::{self, Place},
        ports::{self, Held},
    },
    engine::{self, EngineFacts},
};

/// How long the two clocks are compared: a jump of a clock that is being set shows in any span, and this one keeps nobody waiting.
const CLOCKS_WATCHED: Duration = Duration::from_millis(100);
/// The engine's socket where the configuration can't be read.
const ENGINE_DEFAULT: &str = "/var/run/docker.sock";
/// Directories below each other in a data directory: the log books have one for each swarm, and in it one for each agent.
const DEPTH_MAX: u32 = 4;
/// Where a database keeps the number of its schema (SQLite's file format, 1.3).
const SCHEMA_AT: std::ops::Range<usize> = 60..64;

/// Where to look.
pub(in super::super) struct Ground<'a> {
    pub(in super::super) place: Place<'a>,
    /// A client of the daemon that would be asked.
    pub(in super::super) client: &'a dyn Fn() -> Result<Client, CliError>,
}

/// All that was seen.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) config: Result<ConfigFacts, Vec<String>>,
    pub(super) daemon: Daemon,
    pub(super) engine_socket: PathBuf,
    pub(super) engine: Result<EngineFacts, String>,
    pub(super) limits: Limits,
    pub(super) data_dir: DataDir,
    pub(super) disk: Result<Disk, String>,
    pub(super) clock: Clock,
    pub(super) ports: Vec<Port>,
    pub(super) kernel: Kernel,
}

/// What the configuration asks of the machine.
#[derive(Debug, Clone, Default)]
pub(super) struct ConfigFacts {
    pub(super) file: Option<PathBuf>,
    pub(super) swarms: usize,
    pub(super) agents: u64,
    pub(super) needs_engine: bool,
    pub(super) connections_max: u64,
    /// What the data directory may grow to, and what must stay free beside it.
    pub(super) bytes_max: u64,
    pub(super) free_min: u64,
    /// The file with the token, and its mode.
    pub(super) token_file: Option<(PathBuf, u32)>,
}

/// The daemon that answers, or why none does.
#[derive(Debug, Clone)]
pub(super) enum Daemon {
    Answers { url: String, version: Option<String>, level: String, last_error: Option<String> },
    Refuses(String),
    Silent(String),
}

/// What a process may have, of the daemon where one runs here, else of this one.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits {
    /// The process whose limits these are; `None` is this one.
    pub(super) of: Option<u32>,
    pub(super) files: Option<u64>,
    pub(super) processes: Option<u64>,
    /// The kernel's bound of threads of the whole machine.
    pub(super) threads: Option<u64>,
}

/// The data directory.
#[derive(Debug, Clone, Default)]
pub(super) struct DataDir {
    pub(super) path: PathBuf,
    pub(super) mode: Option<u32>,
    pub(super) owner: Option<u32>,
    pub(super) user: u32,
    /// Whether it, or where it is to be made, can be written.
    pub(super) writable: bool,
    pub(super) holder: Option<Holder>,
    /// The journal's schema, and the youngest one that this program knows.
    pub(super) schema: Option<(u32, u32)>,
}

/// Who says that he holds the directory.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Holder {
    pub(super) pid: u32,
    #[serde(default)]
    pub(super) since: String,
    /// Whether the lock is held.
    #[serde(skip)]
    pub(super) locked: bool,
    /// When it was touched last.
    #[serde(skip)]
    pub(super) touched_ago: Option<Duration>,
}

/// The file system of the data directory.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) free: u64,
    pub(super) total: u64,
    pub(super) free_files: u64,
    pub(super) read_only: bool,
    /// What the data directory takes already.
    pub(super) used: u64,
}

/// The machine's clock.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    pub(super) now: SystemTime,
    /// How much further the wall clock went than the monotonic one, in milliseconds.
    pub(super) jumped_ms: i64,
    /// Whether the kernel says that somebody keeps it; `None` where it does not say.
    pub(super) kept: Option<bool>,
}

/// A port that the configuration names.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) key: &'static str,
    pub(super) address: SocketAddr,
    pub(super) held: Held,
    /// Whether it is the daemon's of this data directory.
    pub(super) ours: bool,
}

/// What of the kernel launchers and limits stand on.
#[derive(Debug, Clone, Default)]
pub(super) struct Kernel {
    pub(super) release: String,
    pub(super) subreaper: bool,
    pub(super) pidfd: bool,
    /// `1`, `2`, or nothing.
    pub(super) cgroup: Option<u8>,
}

/// Looks at everything. It takes a fraction of a second, and seconds only where somebody hangs.
pub(super) fn look(ground: &Ground<'_>) -> Facts {
    let loaded = Config::load(&ground.place);
    let data_dir = Config::data_dir(&ground.place).unwrap_or_default();
    let endpoints = locate::endpoints(&data_dir).ok().filter(|endpoints| is_alive(endpoints.pid));
    let pid = endpoints.as_ref().map(|endpoints| endpoints.pid);
    let socket = loaded.as_ref().ok().and_then(|config| config.docker.socket.clone());
    let engine_socket = socket.unwrap_or_else(|| PathBuf::from(ENGINE_DEFAULT));
    let mut ports = Vec::new();
    if let Ok(config) = &loaded {
        for (key, bind) in [("http.bind", config.http.bind), ("data_plane.bind", config.data_plane.bind)] {
            if bind.port() != 0 {
                let held = ports::holder(bind);
                let ours = matches!((&held, pid), (Held::By(Some(process)), Some(pid)) if process.pid == pid);
                ports.push(Port { key, address: bind, held, ours });
            }
        }
    }
    Facts {
        daemon: daemon(ground.client),
        engine: engine::ask(&engine_socket),
        engine_socket,
        limits: limits(pid),
        disk: disk(&data_dir),
        data_dir: directory(data_dir),
        clock: clock(),
        ports,
        kernel: kernel(),
        config: loaded
            .map(|config| wishes(&config, Config::token_file(&ground.place)))
            .map_err(|errors| errors.problems().iter().map(ToString::to_string).collect()),
    }
}

fn wishes(config: &Config, token_file: Option<PathBuf>) -> ConfigFacts {
    let agents =
        |swarm: &SwarmSpec| swarm.agents.iter().map(|agent| u64::from(agent.replicas.unwrap_or(1))).sum::<u64>();
    let mode = |path: PathBuf| Some((path.clone(), fs::metadata(path).ok()?.mode()));
    ConfigFacts {
        file: config.file.clone(),
        swarms: config.swarms.len(),
        agents: config.swarms.iter().map(agents).sum(),
        needs_engine: config.swarms.iter().any(|swarm| swarm.runtime() == RuntimeKind::Docker),
        connections_max: config.data_plane.connections_max as u64,
        bytes_max: config.disk.bytes_max,
        free_min: config.disk.free_bytes_min,
        token_file: token_file.and_then(mode),
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[derive(Deserialize)]
struct Health {
    level: String,
    control_plane: ControlPlane,
}

#[derive(Deserialize)]
struct ControlPlane {
    reachable: bool,
    last_error: Option<String>,
}

fn daemon(client: &dyn Fn() -> Result<Client, CliError>) -> Daemon {
    let asked = client().and_then(|client| {
        let (_, health): (_, Health) = client.get_as("/api/v1/health")?;
        // A daemon that shows its counts to nobody still answered.
        let version = client.get("/metrics").ok().and_then(|metrics| version(&metrics.text));
        let ControlPlane { reachable, last_error } = health.control_plane;
        let last_error = last_error.filter(|_| !reachable);
        Ok(Daemon::Answers { url: client.url().to_owned(), version, level: health.level, last_error })
    });
    asked.unwrap_or_else(|error| match error {
        CliError::Refused { .. } => Daemon::Refuses(error.to_string()),
        error => Daemon::Silent(error.to_string()),
    })
}

/// `hivekeeper_build_info{version="0.1.0"} 1`
fn version(metrics: &str) -> Option<String> {
    let labels = metrics.lines().find_map(|line| line.strip_prefix("hivekeeper_build_info{"))?;
    Some(labels.split("version=\"").nth(1)?.split('"').next()?.to_owned())
}

fn limits(daemon: Option<u32>) -> Limits {
    let threads = fs::read_to_string("/proc/sys/kernel/threads-max").ok().and_then(|text| text.trim().parse().ok());
    // The daemon raises its own limit of files to the hard one.
    let hard = |resource| getrlimit(resource).ok().map(|(_, hard)| hard);
    let ours =
        Limits { of: None, files: hard(Resource::RLIMIT_NOFILE), processes: hard(Resource::RLIMIT_NPROC), threads };
    let Some(pid) = daemon else { return ours };
    let Ok(table) = fs::read_to_string(format!("/proc/{pid}/limits")) else { return ours };
    let of = |name: &str| {
        let line = table.lines().find_map(|line| line.strip_prefix(name))?;
        match line.split_whitespace().nth(1)? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        }
    };
    Limits { of: Some(pid), files: of("Max open files"), processes: of("Max processes"), threads }
}

fn directory(path: PathBuf) -> DataDir {
    let metadata = fs::metadata(&path).ok();
    DataDir {
        mode: metadata.as_ref().map(|metadata| metadata.mode() & 0o777),
        owner: metadata.as_ref().map(|metadata| metadata.uid()),
        user: geteuid().as_raw(),
        writable: access(standing(&path), AccessFlags::W_OK | AccessFlags::X_OK).is_ok(),
        holder: holder(&path.join("lock")),
        schema: schema(&path.join("hive.db")).map(|found| (found, journal_schema())),
        path,
    }
}

/// The path, or the nearest directory above it that is there.
fn standing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// From `/proc/locks`: taking the lock, however shortly, could keep a daemon from it.
fn holder(lock: &Path) -> Option<Holder> {
    let metadata = fs::metadata(lock).ok()?;
    let mut holder: Holder = serde_json::from_str(&fs::read_to_string(lock).ok()?).ok()?;
    let inode = format!(":{} ", metadata.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    holder.locked = locks.lines().any(|line| line.contains("FLOCK") && line.contains(&inode));
    holder.touched_ago = metadata.modified().ok().and_then(|touched| touched.elapsed().ok());
    Some(holder)
}

/// Read from the file and not by SQLite, which would make itself at home beside it. What only its log holds yet is not seen.
fn schema(database: &Path) -> Option<u32> {
    use io::Read as _;
    let mut head = [0; SCHEMA_AT.end];
    fs::File::open(database).ok()?.read_exact(&mut head).ok()?;
    head[SCHEMA_AT].try_into().ok().map(u32::from_be_bytes).filter(|found| *found > 0)
}

fn disk(data_dir: &Path) -> Result<Disk, String> {
    let found = statvfs(standing(data_dir)).map_err(|error| error.to_string())?;
    Ok(Disk {
        free: found.blocks_available().saturating_mul(found.fragment_size()),
        total: found.blocks().saturating_mul(found.fragment_size()),
        free_files: found.files_available(),
        read_only: found.flags().contains(FsFlags::ST_RDONLY),
        used: size(data_dir, DEPTH_MAX),
    })
}

/// Bytes of the files below a directory. What goes while it is looked at, or is not ours to look at, counts for nothing.
fn size(dir: &Path, depth: u32) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let one = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() && depth > 0 => size(&entry.path(), depth - 1),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    entries.flatten().map(one).sum()
}

fn clock() -> Clock {
    let (began, wall) = (Instant::now(), SystemTime::now());
    thread::sleep(CLOCKS_WATCHED);
    let (went, now) = (began.elapsed(), SystemTime::now());
    let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let walked = now.duration_since(wall).map_or_else(|back| -millis(back.duration()), millis);
    Clock { now, jumped_ms: walked.saturating_sub(millis(went)), kept: kept() }
}

fn kept() -> Option<bool> {
    // SAFETY: all zeros is a value of this plain structure of numbers.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives across the call; with `modes` zero nothing is set, only told.
    let told = unsafe { libc::adjtimex(&raw mut state) };
    (told >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}

fn kernel() -> Kernel {
    let there = |path: &str| Path::new(path).exists();
    let cgroup = match (there("/sys/fs/cgroup/cgroup.controllers"), there("/sys/fs/cgroup/memory")) {
        (true, _) => Some(2),
        (false, true) => Some(1),
        (false, false) => None,
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let pidfd = super::super::handover::open(std::process::id()).is_ok();
    Kernel { release, subreaper: nix::sys::prctl::get_child_subreaper().is_ok(), pidfd, cgroup }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_counts() {
        let text = "# HELP x\nhivekeeper_build_info{version=\"1.2.3\"} 1\n";
        assert_eq!(version(text).as_deref(), Some("1.2.3"));
        assert_eq!(version("nothing"), None);
    }

    #[test]
    fn a_held_lock_is_seen_without_taking_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        fs::write(&path, "{\"pid\":7,\"epoch\":1,\"since\":\"2026-11-21T04:00:00.000Z\"}\n").unwrap();
        assert!(!holder(&path).unwrap().locked);
        let file = fs::File::open(&path).unwrap();
        file.try_lock().unwrap();
        let held = holder(&path).unwrap();
        assert_eq!((held.locked, held.pid), (true, 7));
    }

    #[test]
    fn a_database_says_its_schema() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hive.db");
        rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 41).unwrap();
        assert_eq!(schema(&path), Some(41));
        assert_eq!(schema(&dir.path().join("none")), None);
    }

    #[test]
    fn the_machine_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let found = directory(dir.path().join("not/there/yet"));
        assert!(found.writable && found.mode.is_none() && found.schema.is_none());
        assert!(disk(&found.path).unwrap().total > 0);
        fs::create_dir_all(dir.path().join("logs/demo")).unwrap();
        fs::write(dir.path().join("logs/demo/clock"), [0; 700]).unwrap();
        fs::write(dir.path().join("hive.db"), [0; 300]).unwrap();
        assert_eq!(disk(dir.path()).unwrap().used, 1000);
        assert!(limits(None).files.is_some());
        assert!(kernel().subreaper);
        assert!(clock().jumped_ms.abs() < 1000);
    }
}
