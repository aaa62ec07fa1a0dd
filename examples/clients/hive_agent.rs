//! A client for agents that Hivekeeper starts; copy this file. It needs `serde_json` alone.
//!
//! No call blocks, panics or ends the program. A thread connects, beats as often as the daemon asks for, sends what was told, and comes back
//! when the connection is lost. What was not answered is sent again then, so a line may come twice. What finds no place in the queue is dropped,
//! the oldest log lines first, and the agent's log says how many. Without the daemon's variables (a program started by hand) nothing is sent.

use std::collections::{VecDeque, hash_map::RandomState};
use std::hash::BuildHasher as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use serde_json::{Value, json};

const QUEUE_MAX: usize = 1000;
/// A log text is cut here; any other message that is longer than the second is dropped. A batch of so many fits into a line of 1 MiB.
const TEXT_BYTES_MAX: usize = 8 * 1024;
const MESSAGE_BYTES_MAX: usize = 20 * 1024;
const BATCH_MAX: usize = 50;
/// How long an answer may take before the connection counts as lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Heartbeats that new progress brings forward come no faster.
const BEAT_APART: Duration = Duration::from_millis(100);
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

#[derive(Default)]
struct State {
    queue: VecDeque<(&'static str, Value)>,
    /// What was sent and is not answered, and the id of its answer.
    in_flight: (u64, Vec<(&'static str, Value)>),
    /// What heartbeats say, and whether that is new.
    beat: (Option<Value>, bool),
    /// Answers to the daemon's own requests.
    answers: String,
    /// In all, and those that the log has not told of.
    dropped: (u64, u64),
    on_drain: Option<Box<dyn FnOnce() + Send>>,
    sent: u64,
    lost: bool,
    /// Nobody listens, or will: nothing waits any more.
    ended: bool,
}

/// The session of this program; clones are the same.
#[derive(Clone, Default)]
pub struct Agent(Arc<(Mutex<State>, Condvar)>);

impl Agent {
    /// Connects with what the daemon gave this program. `on_drain` is called once, on a thread of its own, when the daemon asks to finish. SIGTERM
    /// comes along: who wants to finish by itself has to handle or ignore it.
    pub fn from_env(on_drain: impl FnOnce() + Send + 'static) -> Self {
        let me = Self::default();
        let of = |name: &str| env::var(format!("HIVEKEEPER_{name}")).ok();
        let (addr, n) = (of("ADDR"), of("INCARNATION").and_then(|n| n.parse::<u64>().ok()));
        if let (Some(addr), Some(token), Some(agent), Some(n)) = (addr, of("TOKEN"), of("AGENT"), n) {
            let open = json!({"token": token, "agent": agent, "incarnation": n, "protocol": 1, "capabilities": {}});
            me.lock().on_drain = Some(Box::new(on_drain));
            let worker = me.clone();
            drop(thread::Builder::new().spawn(move || worker.run(&addr, &open)));
        } else {
            me.lock().ended = true;
        }
        me
    }

    /// `level` is one of trace, debug, info, warn, error.
    pub fn log(&self, level: &str, text: &str) {
        self.tell("hive/log", json!({"level": level, "line": &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]}));
    }
    pub fn metric(&self, name: &str, value: f64, unit: &str) {
        self.tell("hive/metric", json!({"name": name, "value": value, "unit": unit}));
    }
    /// Absolute totals by OpenTelemetry's names, `gen_ai.usage.input_tokens` and so on, and `cost_usd`.
    pub fn usage(&self, totals: Value) {
        self.tell("hive/usage", totals);
    }
    /// An object with a `kind`.
    pub fn event(&self, event: Value) {
        self.tell("hive/event", event);
    }
    /// Several at once, in order. Whatever waits is sent as one batch anyway.
    pub fn batch(&self, messages: impl IntoIterator<Item = (&'static str, Value)>) {
        messages.into_iter().for_each(|(method, params)| self.tell(method, params));
    }
    /// Anything that changes when work goes on. It goes with the next heartbeat, which it brings forward.
    pub fn progress(&self, progress: Value, busy: bool) {
        self.lock().beat = (Some(json!({"progress": progress, "busy": busy})), true);
        self.0.1.notify_all();
    }
    /// How many messages were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped.0
    }
    /// Waits until the daemon has everything that was told, at most so long; says whether it has.
    pub fn flush(&self, within: Duration) -> bool {
        let waits = |state: &mut State| !(state.ended || state.queue.is_empty() && state.in_flight.1.is_empty());
        let waited = self.0.1.wait_timeout_while(self.lock(), within, waits);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out() && !state.ended
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, method: &'static str, params: Value) {
        let (state, fits) = (&mut *self.lock(), params.to_string().len() <= MESSAGE_BYTES_MAX);
        if state.ended {
            return;
        } else if fits {
            state.queue.push_back((method, params));
        }
        if !fits || state.queue.len() > QUEUE_MAX {
            let oldest = state.queue.iter().position(|(method, _)| *method == "hive/log").unwrap_or(0);
            drop(fits.then(|| state.queue.remove(oldest)));
            state.dropped = (state.dropped.0 + 1, state.dropped.1 + 1);
        }
        self.0.1.notify_all();
    }

    fn run(&self, addr: &str, open: &Value) {
        let mut pause = PAUSES[0];
        while self.serve(addr, open, &mut pause).is_err() {
            // Between half of it and the whole, so that a swarm does not come back as one.
            thread::sleep(pause.mul_f64(0.5 + (RandomState::new().hash_one(0) % 1000) as f64 / 2000.0));
            pause = (pause * 2).min(PAUSES[1]);
        }
        self.lock().ended = true;
        self.0.1.notify_all();
    }

    /// One connection; an error when there is to be another. Its end is good when this incarnation is not wanted any more.
    fn serve(&self, addr: &str, open: &Value, pause: &mut Duration) -> io::Result<()> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        let mut lines = BufReader::new(stream.try_clone()?);
        stream.write_all(request(0, "hive/open", Some(open)).as_bytes())?;
        let answer = read(&mut lines)?;
        if [1002, 1003].iter().any(|code| answer["error"]["code"] == *code) {
            return Ok(());
        }
        let interval = answer["result"]["heartbeat_interval_ms"].as_u64().ok_or(io::ErrorKind::InvalidData)?;
        let interval = Duration::from_millis(interval);
        // Every heartbeat is answered: who says nothing for longer is gone.
        stream.set_read_timeout(Some(interval + ANSWER_WITHIN))?;
        *pause = PAUSES[0];
        self.lock().begin();
        let reader = self.clone();
        let reader = thread::Builder::new().spawn(move || while reader.hear(read(&mut lines)) {})?;
        let end = self.talk(&mut stream, interval);
        // This ends the reader, which must not speak of the next connection.
        let _ = stream.shutdown(Shutdown::Both);
        let _ = reader.join();
        end
    }

    fn talk(&self, stream: &mut TcpStream, interval: Duration) -> io::Result<()> {
        let mut beaten = None::<Instant>;
        loop {
            let mut state = self.lock();
            if state.lost {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let apart = if state.beat.1 { BEAT_APART.min(interval) } else { interval };
            let rest = beaten.map_or(Duration::ZERO, |at| apart.saturating_sub(at.elapsed()));
            if rest.is_zero() {
                beaten = Some(Instant::now());
            }
            let out = state.due(rest.is_zero());
            if out.is_empty() {
                drop(self.0.1.wait_timeout(state, rest));
            } else {
                drop(state);
                stream.write_all(out.as_bytes())?;
            }
        }
    }

    /// Takes what the daemon says; whether to listen on.
    fn hear(&self, message: io::Result<Value>) -> bool {
        let state = &mut *self.lock();
        state.lost = message.is_err();
        let message = message.unwrap_or_default();
        if message["method"] == "hive/drain" {
            state.on_drain.take().map(|call| thread::Builder::new().spawn(call));
        }
        if message["method"].is_string() {
            state.answers += &format!("{}\n", json!({"jsonrpc": "2.0", "id": message["id"], "result": {}}));
        } else if message["id"] == state.in_flight.0 {
            state.in_flight.1.clear();
        }
        self.0.1.notify_all();
        !state.lost
    }
}

impl State {
    fn begin(&mut self) {
        let again = std::mem::take(&mut self.in_flight.1);
        again.into_iter().rev().for_each(|message| self.queue.push_front(message));
        self.lost = false;
    }

    fn due(&mut self, beats: bool) -> String {
        let mut out = std::mem::take(&mut self.answers);
        if beats {
            (self.beat.1, self.sent) = (false, self.sent + 1);
            out += &request(self.sent, "hive/heartbeat", self.beat.0.as_ref());
        }
        if self.in_flight.1.is_empty() && (!self.queue.is_empty() || self.dropped.1 > 0) {
            self.sent += 1;
            let line = format!("messages dropped on the way to Hivekeeper: {}", self.dropped.1);
            let told = (self.dropped.1 > 0).then(|| ("hive/log", json!({"level": "warn", "line": line})));
            let next = told.into_iter().chain(self.queue.drain(..self.queue.len().min(BATCH_MAX)));
            (self.in_flight, self.dropped.1) = ((self.sent, next.collect()), 0);
            let batch = self.in_flight.1.iter().map(|(method, params)| json!({"method": method, "params": params}));
            out += &request(self.sent, "hive/batch", Some(&json!({"notifications": batch.collect::<Vec<_>>()})));
        }
        out
    }
}

fn request(id: u64, method: &str, params: Option<&Value>) -> String {
    let params = params.cloned().unwrap_or_else(|| json!({}));
    format!("{}\n", json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
}

/// One line; the daemon's own are far shorter than 64 KiB.
fn read(lines: &mut BufReader<TcpStream>) -> io::Result<Value> {
    let mut line = String::new();
    lines.take(64 * 1024).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
