//! A receiver of webhooks on loopback that does what it is told to, right or wrong.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use serde_json::Value;

use crate::hive::PATIENCE;

/// What it does with a request.
#[derive(Debug, Clone)]
pub(super) enum How {
    Ok,
    Status(u16),
    /// Takes it and closes the connection.
    Cut,
    /// Closes the connection before it reads.
    Refuse,
    /// Takes it and says nothing.
    Silent,
    Redirect(String),
    /// 200 with a body without end.
    Huge,
}

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    #[track_caller]
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_else(|| panic!("no {name}: {self:?}"))
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(super) fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }
}

pub(super) struct Receiver {
    port: u16,
    plan: Arc<Mutex<VecDeque<How>>>,
    got: mpsc::Receiver<Request>,
    count: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Receiver {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (plan, count, over) =
            (Arc::<Mutex<VecDeque<How>>>::default(), Arc::default(), Arc::<AtomicBool>::default());
        let (tell, got) = mpsc::sync_channel(1024);
        let shared = (Arc::clone(&plan), Arc::clone(&count), Arc::clone(&over));
        std::thread::spawn(move || {
            let (plan, count, over) = shared;
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let how = plan.lock().unwrap().pop_front().unwrap_or(How::Ok);
                let (tell, count, over) = (tell.clone(), Arc::clone(&count), Arc::clone(&over));
                std::thread::spawn(move || serve(stream, &how, &tell, &count, &over));
            }
        });
        Self { port, plan, got, count, over }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// What it does with the next requests; all behind them are answered with 200.
    pub(super) fn will(&self, plan: &[How]) {
        *self.plan.lock().unwrap() = plan.iter().cloned().collect();
    }

    #[track_caller]
    pub(super) fn next(&self) -> Request {
        self.got.recv_timeout(PATIENCE).expect("a message")
    }

    pub(super) fn got(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Nothing comes for as long as something that follows at once would take.
    #[track_caller]
    pub(super) fn is_silent(&self) {
        if let Ok(more) = self.got.recv_timeout(Duration::from_millis(700)) {
            panic!("nothing more was to come: {more:?}");
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(mut stream: TcpStream, how: &How, tell: &mpsc::SyncSender<Request>, count: &AtomicUsize, over: &AtomicBool) {
    if matches!(how, How::Refuse) {
        return;
    }
    let Some(request) = read(&stream) else { return };
    count.fetch_add(1, Ordering::SeqCst);
    let answer =
        |status: &str, more: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n{more}\r\n");
    let written = match how {
        How::Ok => stream.write_all(answer("200 OK", "").as_bytes()),
        How::Status(status) => stream.write_all(answer(&format!("{status} No"), "").as_bytes()),
        How::Redirect(to) => stream.write_all(answer("308 Gone On", &format!("location: {to}\r\n")).as_bytes()),
        How::Cut | How::Refuse => Ok(()),
        How::Silent => {
            let _ = tell.send(request);
            while !over.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            return;
        }
        How::Huge => {
            let _ = tell.send(request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while !over.load(Ordering::SeqCst) && stream.write_all(chunk.as_bytes()).is_ok() {}
            return;
        }
    };
    // Whoever has gone is told nothing.
    let _ = written;
    let _ = tell.send(request);
}

fn read(stream: &TcpStream) -> Option<Request> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body: String::from_utf8(body).ok()? })
}
