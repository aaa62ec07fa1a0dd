//! What stands before a server for a browser, as a reverse proxy does: it serves a page of the test's own, takes what that page asks of the test,
//! and passes everything else on as it is. And the browser.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use serde_json::Value;

use super::{
    outside::{command, succeed},
    skipped,
};

/// What a page asks of its test. Answers are the texts of its requests.
pub(crate) enum Asked {
    /// `/page/miss/N`: let so many events happen; the number of the last.
    Miss(u64, mpsc::SyncSender<String>),
    /// `/page/cut/N`: the same with all connections cut first.
    Cut(u64, mpsc::SyncSender<String>),
    /// `/page/report`.
    Report(Value),
}

#[derive(Default)]
struct Shared {
    upstream: Mutex<Option<SocketAddr>>,
    over: AtomicBool,
    /// Both ends of what is passed on.
    passing: Mutex<Vec<TcpStream>>,
}

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    asked: mpsc::Receiver<Asked>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    pub(crate) fn new(page: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asks, asked) = mpsc::sync_channel(16);
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                // The first connection after the end, which is our own, ends it.
                while let Ok((stream, _)) = listener.accept() {
                    if shared.over.load(Ordering::Relaxed) {
                        return;
                    }
                    let (shared, asks, page) = (Arc::clone(&shared), asks.clone(), page.clone());
                    std::thread::spawn(move || {
                        if let Some((head, rest)) = head(&stream) {
                            if head.split(' ').nth(1).is_some_and(|path| path.starts_with("/page")) {
                                own(&stream, &head, rest, &page, &asks);
                            } else {
                                pass(stream, &head, &rest, &shared);
                            }
                        }
                    });
                }
            }
        });
        Self { address, shared, asked, thread: Some(thread) }
    }

    pub(crate) fn forward_to(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().unwrap() = Some(upstream);
    }

    #[track_caller]
    pub(crate) fn asked(&self, within: Duration) -> Asked {
        self.asked.recv_timeout(within).expect("the page asks for something")
    }

    /// Cuts everything that is passed on, and passes nothing on until it is told again where to.
    pub(crate) fn cut(&self) {
        *self.shared.upstream.lock().unwrap() = None;
        for stream in self.shared.passing.lock().unwrap().drain(..) {
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.cut();
        self.shared.over.store(true, Ordering::Relaxed);
        let _woken = TcpStream::connect(self.address);
        let _ended = self.thread.take().unwrap().join();
    }
}

/// A request's head, and what came behind it.
fn head(mut stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Some((String::from_utf8(bytes).ok()?, rest));
        }
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
}

fn own(mut stream: &TcpStream, head: &str, mut body: Vec<u8>, page: &str, asks: &mpsc::SyncSender<Asked>) {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut chunk = [0; 4096];
    while body.len() < length.unwrap_or(0) {
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => body.extend_from_slice(&chunk[..n]),
            _ => return,
        }
    }
    let (answer, answered) = mpsc::sync_channel(1);
    let number = || path.rsplit('/').next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let asked = match path {
        "/page/report" => {
            // It has no answer to wait for.
            drop(answer);
            Some(Asked::Report(serde_json::from_slice(&body).unwrap_or_default()))
        }
        path if path.starts_with("/page/miss/") => Some(Asked::Miss(number(), answer)),
        path if path.starts_with("/page/cut/") => Some(Asked::Cut(number(), answer)),
        _ => None,
    };
    let text = match asked {
        None => page.to_owned(),
        Some(asked) => {
            if asks.send(asked).is_err() {
                return;
            }
            answered.recv().unwrap_or_default()
        }
    };
    let _gone = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
}

fn pass(stream: TcpStream, head: &str, rest: &[u8], shared: &Arc<Shared>) {
    let Some(upstream) = *shared.upstream.lock().unwrap() else { return };
    let Ok(mut behind) = TcpStream::connect(upstream) else { return };
    let mut passing = shared.passing.lock().unwrap();
    passing.extend([stream.try_clone().unwrap(), behind.try_clone().unwrap()]);
    drop(passing);
    if behind.write_all(head.as_bytes()).and_then(|()| behind.write_all(rest)).is_err() {
        return;
    }
    let (mut from, mut to) = (behind.try_clone().unwrap(), stream.try_clone().unwrap());
    let back = std::thread::spawn(move || {
        let _gone = std::io::copy(&mut from, &mut to);
        let _ended = to.shutdown(Shutdown::Both);
    });
    let _gone = std::io::copy(&mut &stream, &mut behind);
    let _ended = behind.shutdown(Shutdown::Both);
    let _joined = back.join();
}

/// A browser on a page, in a directory of its own. Killed and reaped with the test.
pub(crate) struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Whether there is one on this machine; says that the test is left out where there is none.
    pub(crate) fn is_there() -> bool {
        let there = succeed(&mut [command("chromium", &["--version"])]);
        if !there {
            skipped("needs Chromium (Debian: apt-get install chromium)");
        }
        there
    }

    /// `names` are rules of its resolver, such as `MAP hive.example 127.0.0.1`.
    pub(crate) fn open(url: &str, names: &str) -> Self {
        let profile = tempfile::Builder::new().prefix("hk").tempdir().unwrap();
        let mut browser =
            command("chromium", &["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        browser.arg(format!("--user-data-dir={}", profile.path().display()));
        browser.arg(format!("--host-resolver-rules={names}")).arg(url);
        // A group of its own, so that its helpers can be ended with it.
        browser.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: browser.spawn().unwrap(), _profile: profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).unwrap();
        // SAFETY: kill has no memory effects; the group was made for this child, which has not been reaped.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        let _reaped = self.child.wait();
    }
}
