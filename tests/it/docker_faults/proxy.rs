//! A socket between a daemon and its engine, through which a test holds, cuts and silences what they say to each other. The daemon's own code has
//! no hook for any of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{oneshot, watch},
};

use super::harness::PATIENCE;

/// Longest head of a request or an answer: the engine's client sends far less.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Where a conversation can be held: in front of which step. The client library asks one question on each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// The engine has not been asked.
    Asked,
    /// It has done what it was asked for; the daemon does not know.
    Answered,
    /// The launcher that was started in a container has introduced itself; it has not got its order.
    Ordered,
    /// It has got its order and answers; the daemon does not know.
    Obeyed,
    /// The daemon knows, and has had no time to do anything with it.
    Told,
}

/// A conversation that is held. Dropping it cuts the connection, on both sides, unless it is let go on.
pub(super) struct Held {
    reached: mpsc::Receiver<()>,
    go_on: oneshot::Sender<()>,
}

impl Held {
    /// Waits until the moment has come.
    #[track_caller]
    pub(super) fn wait(&self) {
        self.reached.recv_timeout(PATIENCE).expect("the moment never came");
    }

    /// As if nobody had held it; also where the moment has not come.
    pub(super) fn go_on(self) {
        let _ = self.go_on.send(());
    }
}

struct Hook {
    moment: Moment,
    request: &'static str,
    reached: mpsc::SyncSender<()>,
    go_on: oneshot::Receiver<()>,
}

/// What all connections see.
struct Shared {
    engine: PathBuf,
    /// Nobody hears anybody; no connection is closed.
    silent: watch::Sender<bool>,
    /// Counts cuts: each ends every connection that there is.
    cuts: watch::Sender<u64>,
    /// The same for connections on which something like this was asked.
    cut_only: watch::Sender<&'static str>,
    /// See [`Proxy::keep_containers`].
    keeps: AtomicBool,
    hooks: Mutex<Vec<Hook>>,
    asked: Mutex<Vec<String>>,
}

/// The socket. Dropping it ends all of its connections.
pub(super) struct Proxy {
    dir: tempfile::TempDir,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// In front of the engine at `engine`, a socket.
    pub(super) fn new(engine: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("hkp").tempdir_in("/tmp").unwrap();
        let shared = Arc::new(Shared {
            engine: engine.to_owned(),
            silent: watch::Sender::new(false),
            cuts: watch::Sender::new(0),
            cut_only: watch::Sender::new(""),
            keeps: AtomicBool::new(false),
            hooks: Mutex::default(),
            asked: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let (path, carried) = (dir.path().join("engine"), Arc::clone(&shared));
        let (bound, is_bound) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = UnixListener::bind(path).unwrap();
                bound.send(()).unwrap();
                tokio::select! {
                    () = accept(listener, carried) => {}
                    _ = stopped => {}
                }
            });
        });
        is_bound.recv_timeout(PATIENCE).unwrap();
        Self { dir, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// The key of a configuration that sends the daemon here.
    pub(super) fn key(&self) -> String {
        format!("[docker]\nhost = \"unix://{}\"\n", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("engine")
    }

    /// Holds the first conversation from now on that comes to this moment. `request` is `METHOD /path?query` without the version, with `*` for anything.
    pub(super) fn hold(&self, moment: Moment, request: &'static str) -> Held {
        let ((reached, is_reached), (held, go_on)) = (mpsc::sync_channel(1), oneshot::channel());
        self.shared.hooks.lock().unwrap().push(Hook { moment, request, reached, go_on });
        Held { reached: is_reached, go_on: held }
    }

    /// The engine is not there: every connection breaks, and there is no socket.
    pub(super) fn leave(&self) {
        fs::rename(self.socket(), self.dir.path().join("away")).unwrap();
        self.cut();
    }

    /// It is there again.
    pub(super) fn come_back(&self) {
        fs::rename(self.dir.path().join("away"), self.socket()).unwrap();
    }

    /// Ends every connection once.
    pub(super) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends once every connection on which this was asked and passed on. `request` as for [`Proxy::hold`].
    pub(super) fn cut_only(&self, request: &'static str) {
        self.shared.cut_only.send_replace(request);
    }

    /// Containers are made without the engine's duty to remove them. An engine before 24.0.8 removes such containers when it starts, living or not, even
    /// with live-restore (moby issue 46308); one that is not asked to behaves as a younger one does.
    pub(super) fn keep_containers(&self) {
        self.shared.keeps.store(true, Relaxed);
    }

    /// Nothing is passed on any more, in either direction, and nothing is closed; or again.
    pub(super) fn silence(&self, silent: bool) {
        self.shared.silent.send_replace(silent);
    }

    /// What has been asked so far.
    pub(super) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the proxy has panicked");
        }
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let mut open = tokio::task::JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        while open.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        open.spawn(async move {
            let mut cuts = shared.cuts.subscribe();
            tokio::select! {
                _ = cuts.changed() => {}
                // Who goes away in mid-sentence is the subject of the tests.
                _ = carry(client, &shared) => {}
            }
        });
    }
}

/// One connection: a question, its answer, and what follows when a command was started.
async fn carry(client: UnixStream, shared: &Shared) -> io::Result<()> {
    let (mut from_daemon, mut to_daemon) = client.into_split();
    let mut head = head(&mut from_daemon).await?;
    shared.alter(&mut head);
    let request = request(&head);
    shared.asked.lock().unwrap().push(request.clone());
    shared.pass(Moment::Asked, &request).await?;
    let (mut from_engine, mut to_engine) = UnixStream::connect(&shared.engine).await?.into_split();
    to_engine.write_all(&head).await?;
    let talk = Talk { shared, request: &request, stage: watch::Sender::new(Stage::Question) };
    // Each direction may end before the other; what breaks, breaks both.
    let both = async {
        tokio::try_join!(talk.down(&mut from_engine, &mut to_daemon), talk.up(&mut from_daemon, &mut to_engine))
    };
    tokio::select! {
        carried = both => carried.map(drop),
        () = shared.cut_of(&request) => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Question,
    /// The answer's head has been passed on.
    Answer,
    /// The first words to the command that was started have been passed on.
    Order,
    /// And its answer.
    Report,
}

struct Talk<'a> {
    shared: &'a Shared,
    request: &'a str,
    stage: watch::Sender<Stage>,
}

impl Talk<'_> {
    fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    async fn down(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> io::Result<()> {
        let head = head(from).await?;
        // The head and what follows it apart, so that what a launcher says first is not taken for a part of the answer.
        let end = head_end(&head).unwrap_or(head.len());
        self.shared.pass(Moment::Answered, self.request).await?;
        to.write_all(&head[..end]).await?;
        self.stage.send_replace(Stage::Answer);
        to.write_all(&head[end..]).await?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = from.read(&mut buffer).await?;
            if len == 0 {
                return to.shutdown().await;
            }
            if self.stage() == Stage::Order {
                self.shared.pass(Moment::Obeyed, self.request).await?;
                self.shared.heard().await;
                to.write_all(&buffer[..len]).await?;
                self.stage.send_replace(Stage::Report);
                self.shared.pass(Moment::Told, self.request).await?;
            } else {
                self.shared.heard().await;
                to.write_all(&buffer[..len]).await?;
            }
        }
    }

    async fn up(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = from.read(&mut buffer).await?;
            if len == 0 {
                return to.shutdown().await;
            }
            if self.stage() == Stage::Answer {
                self.shared.pass(Moment::Ordered, self.request).await?;
                self.stage.send_replace(Stage::Order);
            }
            self.shared.heard().await;
            if self.stage() == Stage::Question {
                self.shared.alter(&mut buffer[..len]);
            }
            to.write_all(&buffer[..len]).await?;
        }
    }
}

impl Shared {
    /// `null` is no wish, and as long as `true`.
    fn alter(&self, question: &mut [u8]) {
        const WISH: &[u8] = b"\"AutoRemove\":true";
        if self.keeps.load(Relaxed)
            && let Some(at) = question.windows(WISH.len()).position(|found| found == WISH)
        {
            question[at + WISH.len() - 4..at + WISH.len()].copy_from_slice(b"null");
        }
    }

    /// Waits until a connection on which this was asked is cut alone.
    async fn cut_of(&self, asked: &str) {
        let mut cut = self.cut_only.subscribe();
        while cut.changed().await.is_ok() {
            if fits(*cut.borrow_and_update(), asked) {
                return;
            }
        }
    }

    /// Waits while nobody hears anybody.
    async fn heard(&self) {
        let mut silent = self.silent.subscribe();
        let _ = silent.wait_for(|silent| !silent).await;
    }

    /// Past a moment, if no test holds it; an error when the test has let go.
    async fn pass(&self, moment: Moment, request: &str) -> io::Result<()> {
        self.heard().await;
        let hook = {
            let mut hooks = self.hooks.lock().unwrap();
            let at = hooks.iter().position(|hook| hook.moment == moment && fits(hook.request, request));
            at.map(|at| hooks.remove(at))
        };
        let Some(hook) = hook else { return Ok(()) };
        let _ = hook.reached.send(());
        hook.go_on.await.map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }
}

/// Reads at least to the end of the head.
async fn head(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while head_end(&bytes).is_none() {
        if from.read_buf(&mut bytes).await? == 0 || bytes.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(bytes)
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// `METHOD /path?query` of a head, without the version in the path.
fn request(head: &[u8]) -> String {
    let text = String::from_utf8_lossy(head);
    let mut words = text.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let versioned = path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/'));
    format!("{method} /{}", versioned.map_or(path.trim_start_matches('/'), |(_, path)| path))
}

/// Whether a text is the pattern, whose `*` stand for anything.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text
            .strip_prefix(start)
            .is_some_and(|text| rest.is_empty() || text.char_indices().any(|(at, _)| fits(rest, &text[at..]))),
    }
}

#[test]
fn patterns() {
    assert!(fits("POST /containers/*/start", "POST /containers/ab/start"));
    assert!(fits("GET /events?*", "GET /events?filters=a"));
    assert!(!fits("POST /containers/*/start", "POST /containers/ab/stop"));
    assert!(!fits("GET /events", "GET /events?filters=a"));
    assert_eq!(request(b"POST /v1.41/containers/create?name=a HTTP/1.1\r\n"), "POST /containers/create?name=a");
    assert_eq!(request(b"GET /version HTTP/1.1\r\n"), "GET /version");
}
