//! A daemon that answers by a script, and commands that are run against it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::SystemTime,
};

use hivekeeper::{
    cli::{Exit, Interrupts, Screen, Surroundings, execute},
    config::Config,
};

/// One request as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) line: String,
    pub(super) head: String,
    pub(super) body: String,
}

/// What is answered: status, media type, text.
pub(super) type Answer = (u16, &'static str, String);

/// Answers each connection by a script until it is dropped.
pub(super) struct Daemon {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(super) fn new(mut script: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, end) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let Some(request) = read(stream.as_ref().unwrap()) else { continue };
                let (status, media_type, body) = script(&request);
                log.lock().unwrap().push(request);
                let length = if media_type == "text/event-stream" {
                    String::new()
                } else {
                    format!("content-length: {}\r\n", body.len())
                };
                let head =
                    format!("HTTP/1.1 {status} X\r\ncontent-type: {media_type}\r\n{length}connection: close\r\n\r\n");
                // The client may have gone already, as one whose output is gone does.
                let _ = stream.unwrap().write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { url, seen, stop, thread: Some(thread) }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        if self.thread.take().unwrap().join().is_err() && !thread::panicking() {
            panic!("the scripted daemon panicked");
        }
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut field = String::new();
        input.read_line(&mut field).ok()?;
        if field.trim().is_empty() {
            break;
        }
        let field = field.to_ascii_lowercase();
        if let Some(value) = field.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&field);
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request { line, head, body: String::from_utf8(body).unwrap() })
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) exit: Exit,
    pub(super) out: String,
    pub(super) err: String,
    pub(super) served: Option<Config>,
}

/// 2026-11-21T04:00:00Z
fn now() -> SystemTime {
    humantime::parse_rfc3339("2026-11-21T04:00:00Z").unwrap()
}

pub(super) fn run_in(cwd: &Path, env: &[(&str, &str)], args: &[&str]) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (exit, served) = run_to(cwd, env, args, &mut out, &mut err);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { exit, out: text(out), err: text(err), served }
}

pub(super) fn run_to(
    cwd: &Path,
    env: &[(&str, &str)],
    args: &[&str],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> (Exit, Option<Config>) {
    run_with(cwd, env, args, Screen { out, err, colour: false, live: None }, &Interrupts::by_hand())
}

/// Everything by hand.
pub(super) fn run_with(
    cwd: &Path,
    env: &[(&str, &str)],
    args: &[&str],
    mut screen: Screen<'_>,
    interrupts: &Interrupts,
) -> (Exit, Option<Config>) {
    let env: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let around = Surroundings { env, cwd: cwd.to_owned(), now, interrupts: interrupts.clone() };
    let args = ["hivekeeper"].iter().chain(args).map(OsString::from);
    let mut served = None;
    let exit = execute(args, &around, &mut screen, &mut |config, _| {
        served = Some(config);
        Ok(())
    });
    (exit, served)
}

pub(super) fn run(daemon: &Daemon, args: &[&str]) -> Ran {
    run_in(Path::new("/nowhere"), &[("HIVEKEEPER_URL", &daemon.url), ("HIVEKEEPER_ADDR", "127.0.0.1:1")], args)
}
