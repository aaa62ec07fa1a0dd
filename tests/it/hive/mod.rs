//! A whole hive under test: the real executable on a directory of its own, spoken to over its real ports.

#![allow(dead_code, reason = "each module uses its part")]

mod session;

use std::{
    collections::HashSet,
    fs,
    io::Read,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

pub(crate) use session::Session;

/// How long anything may take before a test fails: far above what is measured on a loaded machine, so that only a fault reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A variable that agents inherit from their daemon, so that what a test left behind is found.
const MARK: &str = "HK_TEST_HIVE";

/// Waits for a condition; fails the test with `what` when it does not come.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, &mut look)
}

/// The same with its own patience.
#[track_caller]
pub(crate) fn until_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An answer of the API.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

pub(crate) struct Hive {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) http: String,
    pub(crate) data_plane: String,
    pub(crate) pid: u32,
    /// A program and its arguments that execute the daemon, as `setsid` and `nohup` do; none: it is started directly.
    pub(crate) through: &'static [&'static str],
    daemon: Option<Child>,
}

impl Hive {
    /// Writes the configuration and starts the daemon. `swarms` is TOML behind the tables of ports and directories.
    pub(crate) fn start(swarms: &str) -> Self {
        let mut hive = Self::prepare(swarms);
        hive.boot();
        hive
    }

    /// Writes the configuration only.
    pub(crate) fn prepare(swarms: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("hk").tempdir().unwrap();
        let hive = Self { dir, http: String::new(), data_plane: String::new(), pid: 0, through: &[], daemon: None };
        hive.configure(swarms);
        hive
    }

    pub(crate) fn configure(&self, swarms: &str) {
        let text = format!(
            "[hive]\nname = \"test\"\ndata_dir = \"data\"\n[http]\nbind = \"127.0.0.1:0\"\n[data_plane]\nbind = \"127.0.0.1:0\"\n\
             [runtime]\nsample_interval = \"200ms\"\n{swarms}"
        );
        fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A file that an agent of this hive may write.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn spawn(&self) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("daemon.log")).unwrap();
        let words = [self.through, &[env!("CARGO_BIN_EXE_hivekeeper"), "serve", "--config"]].concat();
        Command::new(words[0])
            .args(&words[1..])
            .arg(self.config())
            .current_dir(self.dir.path())
            .env(MARK, self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Starts a daemon on this directory and waits until it is ready.
    pub(crate) fn boot(&mut self) {
        self.launch();
        self.find();
    }

    /// Starts a daemon and waits for nothing.
    pub(crate) fn launch(&mut self) {
        let child = self.spawn();
        self.pid = child.id();
        self.daemon = Some(child);
    }

    /// Starts a second daemon beside one that is stopped; the old one is handed back.
    pub(crate) fn boot_beside(&mut self) -> Old {
        let old = self.daemon.take().unwrap();
        self.launch();
        self.find();
        Old(old)
    }

    /// Waits until the daemon that was launched is ready.
    pub(crate) fn find(&mut self) {
        self.find_within(PATIENCE);
    }

    /// The same with its own patience. Fails at once when the daemon has ended.
    pub(crate) fn find_within(&mut self, patience: Duration) {
        self.find_endpoints_within(patience);
        self.ready_within(patience);
    }

    /// Waits until the daemon that was launched has bound its ports, be it ready or not.
    pub(crate) fn find_endpoints(&mut self) {
        self.find_endpoints_within(PATIENCE);
    }

    fn find_endpoints_within(&mut self, patience: Duration) {
        let path = self.data().join("endpoints.json");
        let pid = self.pid;
        let deadline = Instant::now() + patience;
        let endpoints = loop {
            if let Some(child) = &mut self.daemon
                && let Some(status) = child.try_wait().unwrap()
            {
                panic!("the daemon ended at once: {status}\n{}", self.log());
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            if let Ok(value) = serde_json::from_str::<Value>(&text)
                && value["pid"] == pid
            {
                break value;
            }
            assert!(Instant::now() < deadline, "{patience:?} and the daemon writes no endpoints\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        };
        self.http = endpoints["http"].as_str().unwrap().to_owned();
        self.data_plane = endpoints["data_plane"].as_str().unwrap().to_owned();
    }

    /// Waits until the daemon that was launched is ready.
    fn ready_within(&self, patience: Duration) {
        until_within(patience, "readiness", || (self.get("/readyz").status == 200).then_some(()));
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("daemon.log")).unwrap_or_default()
    }

    /// A client of the API that a thread can take along.
    pub(crate) fn client(&self) -> Client {
        Client { base: if self.http.starts_with("http") { self.http.clone() } else { format!("http://{}", self.http) } }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.client().get(path)
    }

    pub(crate) fn post(&self, path: &str, body: Value) -> Answer {
        self.client().post(path, body)
    }

    /// A command that is waited for, and that must succeed.
    #[track_caller]
    pub(crate) fn command(&self, path: &str) -> Value {
        let answer = self.post(&format!("/api/v1{path}?wait=60s"), json!({}));
        assert_eq!(answer.status, 200, "{path}: {answer:?}\n{}", self.log());
        assert_eq!(answer.body["state"], "succeeded", "{path}: {:#}\n{}", answer.body, self.log());
        answer.body
    }

    pub(crate) fn agent(&self, id: &str) -> Value {
        let (swarm, name) = id.split_once('/').unwrap();
        let answer = self.get(&format!("/api/v1/swarms/{swarm}/agents/{name}"));
        assert_eq!(answer.status, 200, "{id}: {answer:?}");
        answer.body
    }

    /// Waits until an agent's document fits.
    #[track_caller]
    pub(crate) fn agent_until(&self, id: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let agent = self.agent(id);
            if fits(&agent) {
                return agent;
            }
            assert!(Instant::now() < deadline, "{id} never {what}: {agent:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    pub(crate) fn running(&self, id: &str) -> Value {
        self.agent_until(id, "runs", |agent| agent["state"] == "running" && agent["pid"].is_u64())
    }

    #[track_caller]
    pub(crate) fn agent_pid(&self, id: &str) -> i32 {
        i32::try_from(self.running(id)["pid"].as_u64().unwrap()).unwrap()
    }

    /// Whole lines of an agent's log that it wrote itself, pieces joined.
    pub(crate) fn lines(&self, id: &str) -> Vec<Value> {
        let (swarm, name) = id.split_once('/').unwrap();
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let page = self.get(&format!("/api/v1/swarms/{swarm}/agents/{name}/logs?after={after}&limit=1000"));
            assert_eq!(page.status, 200, "{page:?}");
            let lines = page.body["lines"].as_array().unwrap().clone();
            let Some(last) = lines.last() else { return all };
            after = last["number"].as_u64().unwrap();
            all.extend(lines);
        }
    }

    pub(crate) fn signal_daemon(&self, signal: i32) {
        kill(i32::try_from(self.pid).unwrap(), signal);
    }

    pub(crate) fn signal_agent(&self, id: &str, signal: i32) {
        kill(self.agent_pid(id), signal);
    }

    /// `kill -9` of the daemon.
    pub(crate) fn kill(&mut self) {
        self.signal_daemon(libc::SIGKILL);
        self.wait();
    }

    /// SIGTERM, and the exit status.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal_daemon(libc::SIGTERM);
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut child = self.daemon.take().unwrap();
        until("the daemon ends", || child.try_wait().unwrap())
    }

    /// Processes that this hive's daemon started, directly or not, launchers included.
    pub(crate) fn processes(&self) -> Vec<i32> {
        marked(self.dir.path(), &self.launches())
    }

    /// Launches that the journal knows; their launchers carry the id in an otherwise empty environment.
    fn launches(&self) -> Vec<String> {
        let path = self.data().join("hive.db");
        let Ok(db) = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY) else {
            return Vec::new();
        };
        let Ok(mut rows) = db.prepare("SELECT launch_id FROM incarnations") else { return Vec::new() };
        let Ok(ids) = rows.query_map([], |row| row.get(0)) else { return Vec::new() };
        ids.flatten().collect()
    }

    /// Each incarnation of an agent that the journal knows: its number, and its exit as it is kept there.
    pub(crate) fn incarnations(&self, agent: &str) -> Vec<(i64, Option<String>)> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let db = rusqlite::Connection::open_with_flags(self.data().join("hive.db"), flags).unwrap();
        let sql = "SELECT incarnation, exit FROM incarnations WHERE agent = ?1 ORDER BY incarnation";
        let mut rows = db.prepare(sql).unwrap();
        rows.query_map([agent], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    }

    /// The launcher that the daemon has started ahead: a child of it for a launch that the journal does not know.
    #[track_caller]
    pub(crate) fn spare(&self) -> i32 {
        until("a spare launcher", || {
            let known = self.launches();
            let is_spare = |pid: &i32| {
                let environ = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
                let launch = environ.strip_prefix("HIVEKEEPER_LAUNCH=").map(|rest| rest.trim_end_matches('\0'));
                launch.is_some_and(|launch| !known.iter().any(|known| known == launch)) && lives(*pid)
            };
            let spares: Vec<i32> = children(self.pid).into_iter().filter(is_spare).collect();
            if let [spare] = spares[..] { Some(spare) } else { None }
        })
    }

    /// Sockets of launches.
    pub(crate) fn sockets(&self) -> usize {
        let entries = fs::read_dir(self.data().join("run")).unwrap().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|suffix| suffix == "sock")).count()
    }

    #[track_caller]
    pub(crate) fn nothing_left(&self, patience: Duration) {
        until_within(patience, "every process of the hive ends", || self.processes().is_empty().then_some(()));
    }

    #[track_caller]
    pub(crate) fn nothing_left_but_daemon(&self, patience: Duration) {
        let daemon = i32::try_from(self.pid).unwrap();
        until_within(patience, "every agent of the hive ends", || {
            self.processes().iter().all(|pid| *pid == daemon).then_some(())
        });
    }

    /// A viewer of the health socket.
    pub(crate) fn viewer(&self) -> Viewer {
        Viewer::connect(self.http.trim_start_matches("http://"))
    }
}

impl Drop for Hive {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Launchers end with their pipes' lease; a failed test must not wait for it.
        for pid in self.processes() {
            kill(pid, libc::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- daemon.log of the failed test\n{}", self.log());
        }
    }
}

/// Of the daemon that was there when it was made.
pub(crate) struct Client {
    base: String,
}

impl Client {
    pub(crate) fn get(&self, path: &str) -> Answer {
        answer(agent().get(format!("{}{path}", self.base)).call())
    }

    pub(crate) fn post(&self, path: &str, body: Value) -> Answer {
        let request = agent().post(format!("{}{path}", self.base)).header("content-type", "application/json");
        answer(request.send(body.to_string()))
    }
}

impl Client {
    /// Any method, with headers.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        request = request.header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if method == "GET" { String::new() } else { body.to_string() };
        answer(agent().run(request.body(body).unwrap()))
    }
}

/// A daemon that a younger one has been started beside.
pub(crate) struct Old(Child);

impl Old {
    pub(crate) fn id(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the old daemon ends", || self.0.try_wait().unwrap())
    }
}

impl Drop for Old {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client of `/ws/hybrid-health`.
pub(crate) struct Viewer {
    socket: tungstenite::WebSocket<TcpStream>,
}

impl Viewer {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        // One that is broken off can't be begun again on the same connection.
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) =
            tungstenite::client(format!("ws://{address}/ws/hybrid-health"), stream).expect("the handshake");
        socket.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self { socket }
    }

    pub(crate) fn send(&mut self, message: Value) {
        self.socket.send(tungstenite::Message::text(message.to_string())).unwrap();
    }

    /// The next text frame within the patience.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Value {
        until("a frame", || match self.socket.read() {
            Ok(tungstenite::Message::Text(text)) => Some(serde_json::from_str(text.as_str()).unwrap()),
            Ok(_) => None,
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("the socket broke: {error}"),
        })
    }

    /// The next frame that fits.
    #[track_caller]
    pub(crate) fn next_that(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frame = self.next();
            if fits(&frame) {
                return frame;
            }
            assert!(Instant::now() < deadline, "no frame that {what}");
        }
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .timeout_global(Some(Duration::from_secs(90)))
        .build()
        .into()
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    match result {
        Ok(mut response) => {
            let status = response.status().as_u16();
            let mut text = String::new();
            response.body_mut().as_reader().read_to_string(&mut text).unwrap();
            Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
        }
        Err(error) => Answer { status: 0, body: Value::String(error.to_string()) },
    }
}

/// Sends a signal to one process by its id.
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: kill has no memory effects; the pid is one that this test started or was told of.
    unsafe { libc::kill(pid, signal) };
}

pub(crate) fn lives(pid: i32) -> bool {
    // A zombie is dead; its parent has not looked yet.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with('Z')))
        .unwrap_or(false)
}

fn children(parent: u32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(&parent.to_string())
    };
    pids.filter(is_child).collect()
}

fn marked(dir: &Path, launches: &[String]) -> Vec<i32> {
    // A set, as there may be thousands of launches and of processes.
    let launches = launches.iter().map(|launch| format!("HIVEKEEPER_LAUNCH={launch}"));
    let marks: HashSet<String> = launches.chain([format!("{MARK}={}", dir.display())]).collect();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(environ) = fs::read(entry.path().join("environ")) else { continue };
        let is_ours = |variable: &[u8]| std::str::from_utf8(variable).is_ok_and(|variable| marks.contains(variable));
        if environ.split(|byte| *byte == 0).any(is_ours) && lives(pid) {
            found.push(pid);
        }
    }
    found
}
