//! PostgreSQL: a table of tasks, claimed by the query that its users recommend for queues, `FOR UPDATE SKIP LOCKED`. Its settings are its own defaults, so each
//! commit is on the disk before it is answered. There is no lease that ends by itself, and no dependency.

use std::{
    fs,
    io::{BufReader, Read, Write},
    net::TcpStream,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use super::lane::{Client, Lane, PAYLOAD, RESULT, Work};
use crate::support::{processes, server::Server};

pub(crate) const PROGRAM: &str = "postgres";
pub(crate) const INSTALL: &str = "apt-get install postgresql";
/// `nobody`: PostgreSQL does not run as root.
const NOBODY: u32 = 65_534;
/// How long it may take to be ready.
const START_WAIT: Duration = Duration::from_secs(30);

const SCHEMA: &str = "CREATE SEQUENCE fences; CREATE TABLE tasks (id bigserial PRIMARY KEY, priority int NOT NULL, \
    category text NOT NULL, payload text NOT NULL, state text NOT NULL DEFAULT 'ready', holder text, \
    lease_until timestamptz, fence bigint, result text); \
    CREATE INDEX ready ON tasks (priority, id) WHERE state = 'ready'";
const CLAIM: &str = "UPDATE tasks SET state = 'claimed', holder = $1, lease_until = now() + interval '60 seconds', \
    fence = nextval('fences') WHERE id = (SELECT id FROM tasks WHERE state = 'ready' ORDER BY priority, id LIMIT 1 \
    FOR UPDATE SKIP LOCKED) RETURNING id, fence, payload";
const COMPLETE: &str = "UPDATE tasks SET state = 'done', result = $1 WHERE id = $2::bigint AND fence = $3::bigint \
    AND state = 'claimed' RETURNING id";

pub(crate) struct Postgres(Server);

impl Postgres {
    /// A cluster of its own. `None` if it is not installed.
    pub(crate) fn start(scratch: &Path) -> anyhow::Result<Option<Self>> {
        let home = scratch.join("postgres-home");
        fs::create_dir(&home)?;
        // The way to it must be open to whoever it runs as.
        fs::set_permissions(scratch, fs::Permissions::from_mode(0o711))?;
        // SAFETY: the call takes nothing and can't fail.
        let root = unsafe { libc::geteuid() } == 0;
        if root {
            chown(&home, Some(NOBODY), Some(NOBODY))?;
        }
        let as_nobody = |mut command: Command| {
            command.env_clear().env("PATH", search_path()).env("LC_ALL", "C").current_dir(&home);
            if root {
                command.uid(NOBODY).gid(NOBODY);
            }
            command
        };
        let mut initdb = as_nobody(Command::new("initdb"));
        initdb.args(["--auth=trust", "--username=bench", "--no-sync", "--encoding=UTF8", "-D"]).arg(home.join("db"));
        match initdb.stdout(Stdio::null()).stderr(Stdio::piped()).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => bail!("initdb: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("cannot start initdb"),
        }
        let server = Server::start("postgres", scratch, |port, _| {
            let mut command = as_nobody(Command::new(PROGRAM));
            command.arg("-D").arg(home.join("db")).args(["-p", &port.to_string()]);
            command.args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=100", "-k"]).arg(&home);
            command
        })?;
        let Some(server) = server else { return Ok(None) };
        // It listens before it is ready for anybody.
        let ready = processes::until("postgresql takes a client", START_WAIT, || Ok(Talk::open(&server).ok()));
        ready?.script(SCHEMA)?;
        Ok(Some(Self(server)))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its way to end at once in good order, with nothing left in shared memory.
        self.0.interrupt();
    }
}

/// Where a distribution that has several versions of it keeps the newest.
fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest: Option<PathBuf> = versions.map(|entry| entry.path().join("bin")).max();
    newest.map_or_else(|| path.clone(), |newest| format!("{path}:{}", newest.display()))
}

impl Lane for Postgres {
    fn name(&self) -> String {
        "postgresql".to_owned()
    }

    fn fill(&mut self, tasks: usize) -> anyhow::Result<()> {
        let mut talk = Talk::open(&self.0)?;
        talk.script("TRUNCATE tasks")?;
        talk.script(&format!(
            "INSERT INTO tasks (priority, category, payload) SELECT 2, 'code', '{PAYLOAD}' FROM generate_series(1, {tasks})"
        ))?;
        // Its best: it knows the table, and no checkpoint of what is not measured falls into the measurement.
        talk.script("ANALYZE tasks")?;
        talk.script("CHECKPOINT")
    }

    fn client(&self, n: usize) -> anyhow::Result<Box<dyn Client>> {
        let mut talk = Talk::open(&self.0)?;
        talk.prepare("claim", CLAIM)?;
        talk.prepare("complete", COMPLETE)?;
        Ok(Box::new(Worker { talk, name: format!("w-{n}") }))
    }
}

struct Worker {
    talk: Talk,
    name: String,
}

impl Client for Worker {
    fn turn(&mut self, work: &Work) -> anyhow::Result<bool> {
        let Some(row) = self.talk.run("claim", &[&self.name])? else { return Ok(false) };
        let [id, fence, _] = &row[..] else { bail!("postgresql gives {row:?}") };
        work()?;
        let done = self.talk.run("complete", &[RESULT, id, fence])?;
        ensure!(done.is_some(), "a task was completed that nobody had");
        Ok(true)
    }
}

/// A connection that speaks its protocol, version 3, as far as it is needed here: prepared statements, values as text, one row at most.
struct Talk(BufReader<TcpStream>);

impl Talk {
    fn open(server: &Server) -> anyhow::Result<Self> {
        let stream = server.connect()?;
        stream.set_nodelay(true)?;
        let mut talk = Self(BufReader::new(stream));
        let mut body = 196_608_i32.to_be_bytes().to_vec();
        body.extend_from_slice(b"user\0bench\0database\0postgres\0\0");
        let mut message = i32::try_from(body.len() + 4)?.to_be_bytes().to_vec();
        message.extend(body);
        talk.0.get_mut().write_all(&message)?;
        talk.until_ready().context("the greeting")?;
        Ok(talk)
    }

    /// Statements without values.
    fn script(&mut self, text: &str) -> anyhow::Result<()> {
        let message = frame(b'Q', &[text.as_bytes(), b"\0"].concat())?;
        self.0.get_mut().write_all(&message)?;
        self.until_ready().map(drop)
    }

    fn prepare(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        let parse = frame(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat())?;
        let message = [parse, frame(b'S', b"")?].concat();
        self.0.get_mut().write_all(&message)?;
        self.until_ready().map(drop)
    }

    /// Runs a prepared statement in a transaction of its own; the row that it gives, if it gives one.
    fn run(&mut self, name: &str, values: &[&str]) -> anyhow::Result<Option<Vec<String>>> {
        let mut bind = [b"\0", name.as_bytes(), b"\0", &[0, 0]].concat();
        bind.extend(i16::try_from(values.len())?.to_be_bytes());
        for value in values {
            bind.extend(i32::try_from(value.len())?.to_be_bytes());
            bind.extend_from_slice(value.as_bytes());
        }
        bind.extend([0, 0]);
        let message = [frame(b'B', &bind)?, frame(b'E', b"\0\0\0\0\0")?, frame(b'S', b"")?].concat();
        self.0.get_mut().write_all(&message)?;
        self.until_ready()
    }

    /// Reads until the server waits for the next; the last row that came.
    fn until_ready(&mut self) -> anyhow::Result<Option<Vec<String>>> {
        let (mut row, mut failed) = (None, None);
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head)?;
            let length = usize::try_from(i32::from_be_bytes([head[1], head[2], head[3], head[4]]))?;
            let mut body = vec![0; length.checked_sub(4).context("a length that can't be")?];
            self.0.read_exact(&mut body)?;
            match head[0] {
                b'D' => row = Some(columns(&body)?),
                b'E' => failed = Some(String::from_utf8_lossy(&body).replace('\0', " ")),
                b'Z' => break,
                _ => {}
            }
        }
        match failed {
            Some(said) => bail!("postgresql says {said}"),
            None => Ok(row),
        }
    }
}

fn frame(kind: u8, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut frame = vec![kind];
    frame.extend(i32::try_from(body.len() + 4)?.to_be_bytes());
    frame.extend_from_slice(body);
    Ok(frame)
}

fn columns(body: &[u8]) -> anyhow::Result<Vec<String>> {
    let (count, mut rest) = body.split_first_chunk::<2>().context("a row without columns")?;
    let mut columns = Vec::new();
    for _ in 0..i16::from_be_bytes(*count) {
        let (length, behind) = rest.split_first_chunk::<4>().context("a short row")?;
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let (value, behind) = behind.split_at_checked(length).context("a short row")?;
        columns.push(String::from_utf8(value.to_vec())?);
        rest = behind;
    }
    Ok(columns)
}
