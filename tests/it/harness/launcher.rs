//! A launcher under test, and a daemon's side of its channel.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use hivekeeper::wire::channel::{
    Attach, Decoder, Exit, FromLauncher, Launch, Output, State, ToLauncher, VERSION, encode,
};
use tempfile::TempDir;

use super::processes::{PATIENCE, marked, wait_for};

/// The epoch of the daemon that launches.
pub(crate) const EPOCH: u64 = 10;

static LAUNCHES: AtomicU32 = AtomicU32::new(0);

/// The executable under test.
pub(crate) fn executable() -> Command {
    Command::new(env!("CARGO_BIN_EXE_hivekeeper"))
}

/// A daemon's side.
pub(crate) struct Channel {
    reader: File,
    writer: File,
    decoder: Decoder<FromLauncher>,
}

impl Channel {
    fn new(reader: impl Into<OwnedFd>, writer: impl Into<OwnedFd>) -> Self {
        Self {
            reader: File::from(reader.into()),
            writer: File::from(writer.into()),
            decoder: Decoder::expecting_magic(),
        }
    }

    pub(crate) fn send(&mut self, frame: &ToLauncher) {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes).unwrap();
        self.writer.write_all(&bytes).unwrap();
    }

    /// Sends to somebody who may have gone.
    pub(crate) fn try_send(&mut self, frame: &ToLauncher) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes).unwrap();
        self.writer.write_all(&bytes)
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).unwrap();
    }

    pub(crate) fn renew(&mut self) {
        self.send(&ToLauncher::Renew { epoch: EPOCH });
    }

    pub(crate) fn close_writer(&mut self) {
        self.writer = File::options().write(true).open("/dev/null").unwrap();
    }

    pub(crate) fn close_reader(&mut self) {
        self.reader = File::open("/dev/null").unwrap();
    }

    /// The next frame within a time; `Err` when the time is over, `Ok(None)` at the end of the channel.
    pub(crate) fn next_within(&mut self, time: Duration) -> Result<Option<FromLauncher>, ()> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(frame) = self.decoder.next().unwrap() {
                return Ok(Some(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fd = libc::pollfd { fd: self.reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one live pollfd.
            let ready = unsafe { libc::poll(&raw mut fd, 1, i32::try_from(left.as_millis()).unwrap()) };
            if ready < 0 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted {
                // Tests that run children in this process have SIGCHLD handled, which ends a poll, also that of another test's thread.
                continue;
            }
            if ready <= 0 {
                return Err(());
            }
            let mut bytes = [0; 65_536];
            match self.reader.read(&mut bytes) {
                Ok(0) | Err(_) => return Ok(None),
                Ok(len) => self.decoder.push(&bytes[..len]),
            }
        }
    }

    /// The next frame; `None` at the end of the channel.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<FromLauncher> {
        self.next_within(PATIENCE).expect("no frame came")
    }

    /// Passes frames over until one is wanted.
    #[track_caller]
    pub(crate) fn until<T>(&mut self, mut wanted: impl FnMut(FromLauncher) -> Option<T>) -> T {
        loop {
            let frame = self.next().expect("the channel ended before the wanted frame");
            if let Some(value) = wanted(frame) {
                return value;
            }
        }
    }

    #[track_caller]
    pub(crate) fn started(&mut self) -> i32 {
        self.until(|frame| match frame {
            FromLauncher::Started { pid, .. } => Some(pid.cast_signed()),
            FromLauncher::StartFailed { message } => panic!("start failed: {message}"),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn start_failure(&mut self) -> String {
        self.until(|frame| match frame {
            FromLauncher::StartFailed { message } => Some(message),
            FromLauncher::Started { .. } => panic!("it started"),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn output(&mut self) -> Output {
        self.until(|frame| match frame {
            FromLauncher::Output(output) => Some(output),
            _ => None,
        })
    }

    /// The text of the next line.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        String::from_utf8(self.output().bytes).unwrap()
    }

    #[track_caller]
    pub(crate) fn exit(&mut self) -> Exit {
        self.until(|frame| match frame {
            FromLauncher::Exit(exit) => Some(exit),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn paused(&mut self) -> bool {
        self.until(|frame| match frame {
            FromLauncher::Paused { paused } => Some(paused),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn refused(&mut self) -> String {
        self.until(|frame| match frame {
            FromLauncher::Refused { code, .. } => Some(code),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn state(&mut self) -> State {
        self.until(|frame| match frame {
            FromLauncher::State(state) => Some(state),
            _ => None,
        })
    }
}

/// A launcher and everything below it. Dropping it kills the launcher and asserts that nothing is left.
pub(crate) struct Launcher {
    pub(crate) channel: Channel,
    pub(crate) launch: Launch,
    pub(crate) directory: TempDir,
    child: Child,
}

impl Launcher {
    /// A launch of `sh -c SCRIPT` with limits that no test runs into by accident.
    pub(crate) fn order(directory: &Path, script: &str) -> Launch {
        Self::order_of(directory, &["sh", "-c", script])
    }

    pub(crate) fn order_of(directory: &Path, argv: &[&str]) -> Launch {
        let number = LAUNCHES.fetch_add(1, Ordering::Relaxed);
        Launch {
            version: VERSION,
            epoch: EPOCH,
            launch_id: format!("test-{}-{number}", std::process::id()),
            agent: "swarm/agent-1".into(),
            incarnation: 3,
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: vec![("PATH".into(), std::env::var("PATH").unwrap()), ("GREETING".into(), "hello".into())],
            cwd: directory.to_str().unwrap().into(),
            token: "a-token".into(),
            lease_ms: 60_000,
            grace_ms: 300,
            sample_interval_ms: 60_000,
            run_dir: directory.to_str().unwrap().into(),
            ring_bytes: 256 * 1024,
            forget: Vec::new(),
            in_container: false,
        }
    }

    /// Runs a script.
    pub(crate) fn run(script: &str) -> Self {
        Self::run_with(script, |_| {})
    }

    /// Runs a script with other limits.
    pub(crate) fn run_with(script: &str, change: impl FnOnce(&mut Launch)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut launch = Self::order(directory.path(), script);
        change(&mut launch);
        Self::send(directory, launch)
    }

    /// Starts a launcher and sends it an order.
    pub(crate) fn send(directory: TempDir, launch: Launch) -> Self {
        let mut command = executable();
        command.env_clear();
        Self::send_by(command, directory, launch)
    }

    /// The same with a prepared command, whose environment the agent inherits.
    pub(crate) fn send_by(mut command: Command, directory: TempDir, launch: Launch) -> Self {
        let mut child =
            command.args(["agent", "--stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut channel = Channel::new(child.stdout.take().unwrap(), child.stdin.take().unwrap());
        channel.send(&ToLauncher::Launch(Box::new(launch.clone())));
        Self { channel, launch, directory, child }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join(format!("{}.sock", self.launch.launch_id))
    }

    pub(crate) fn record_path(&self) -> PathBuf {
        self.directory.path().join(format!("{}.exit", self.launch.launch_id))
    }

    /// The exit record, once it is there.
    #[track_caller]
    pub(crate) fn record(&self) -> Exit {
        wait_for("the exit record", || serde_json::from_slice(&fs::read(self.record_path()).ok()?).ok())
    }

    /// A connection to its socket, before the attach.
    pub(crate) fn connect(&self) -> Channel {
        let stream = UnixStream::connect(self.socket()).unwrap();
        Channel::new(stream.try_clone().unwrap(), stream)
    }

    /// A new daemon takes over.
    pub(crate) fn attach(&self, epoch: u64, last_seq: u64) -> Channel {
        let mut channel = self.connect();
        channel.send(&ToLauncher::Attach(Attach { version: VERSION, epoch, last_seq }));
        channel
    }

    /// The daemon dies: both ends of the channel close.
    pub(crate) fn abandon(&mut self) {
        let null = || File::options().read(true).write(true).open("/dev/null").unwrap();
        self.channel = Channel::new(null(), null());
    }

    /// A new daemon takes over from outside: what it says goes through a bridge.
    pub(crate) fn attach_outside(&self, epoch: u64, last_seq: u64) -> Errand {
        let mut bridge = self.bridge();
        // Where nobody listens it may have ended by now.
        let _ = bridge.channel.try_send(&ToLauncher::Attach(Attach { version: VERSION, epoch, last_seq }));
        bridge
    }

    /// A bridge to its socket.
    pub(crate) fn bridge(&self) -> Errand {
        Errand::start(&["--attach", self.directory.path().to_str().unwrap(), &self.launch.launch_id])
    }

    /// Dies as by the kernel's hand.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the launcher itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_for("the launcher's end", || self.child.try_wait().unwrap())
    }

    /// Processes of the agent's tree.
    pub(crate) fn tree(&self) -> Vec<i32> {
        marked(&self.launch.launch_id)
    }

    /// Waits until nothing of the tree is left.
    #[track_caller]
    pub(crate) fn wait_until_empty(&self) {
        wait_for("the end of the agent's tree", || self.tree().is_empty().then_some(()));
    }
}

/// `hivekeeper agent` with other arguments: one command in a container. Dropping it kills it.
pub(crate) struct Errand {
    pub(crate) channel: Channel,
    child: Child,
}

impl Errand {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_by(executable(), arguments)
    }

    pub(crate) fn start_by(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command
            .arg("agent")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let channel = Channel::new(child.stdout.take().unwrap(), child.stdin.take().unwrap());
        Self { channel, child }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Whether it goes on.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end and returns its exit code.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Option<i32> {
        wait_for("the errand's end", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            // Gently, so that the launcher sweeps; a test that has stopped it still gets it to run.
            for signal in [libc::SIGTERM, libc::SIGCONT] {
                super::processes::signal(self.pid(), signal);
            }
            let deadline = Instant::now() + Duration::from_secs(8);
            while self.child.try_wait().unwrap().is_none() && Instant::now() < deadline {
                self.drain();
                std::thread::sleep(Duration::from_millis(2));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let left = self.tree();
        for pid in &left {
            super::processes::signal(*pid, libc::SIGKILL);
        }
        if !std::thread::panicking() {
            assert_eq!(left, [] as [i32; 0], "processes were left behind");
        }
    }
}

impl Launcher {
    /// Reads what is there, so that the launcher's last words don't wait for a reader.
    fn drain(&mut self) {
        while let Ok(Some(_)) = self.channel.next_within(Duration::ZERO) {}
    }
}
