//! A client for agents that Hivekeeper starts; copy this file. It needs `serde_json` alone.
//!
//! No call blocks, panics or ends the program. A thread connects, beats at least as often as the daemon asks for, sends what was told, and comes
//! back when the connection is lost. What was not answered is sent again then, so a line may come twice. What finds no place in the queue is
//! dropped, the oldest log lines first, and the agent's log says how many. Without the daemon's variables (started by hand) nothing is sent.

use std::collections::{VecDeque, hash_map::RandomState};
use std::hash::BuildHasher as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{env, thread};

use serde_json::{Value, json};

const QUEUE_MAX: usize = 1000;
/// A log text is cut here; any other message that is longer than the second is dropped. A batch of so many fits into a line of 1 MiB.
const TEXT_BYTES_MAX: usize = 8 * 1024;
const MESSAGE_BYTES_MAX: usize = 20 * 1024;
const BATCH_MAX: usize = 50;
/// How long an answer may take before the connection counts as lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Each turn is a heartbeat and what waits. So far apart at least, for few large batches; at most, for the daemon is heard in turns alone.
const TURNS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

#[derive(Default)]
struct State {
    /// Messages as JSON, and which of them are logs. The first `in_flight` are sent, and stay until they are answered.
    queue: VecDeque<(bool, String)>,
    in_flight: usize,
    /// What heartbeats say, and whether that is new.
    beat: String,
    beat_is_new: bool,
    dropped: u64,
    /// Those that the log has not told of.
    untold: u64,
    on_drain: Option<Box<dyn FnOnce() + Send>>,
    /// Nobody listens, or will: nothing waits any more.
    ended: bool,
}

/// The session of this program; clones are the same.
#[derive(Clone)]
pub struct Agent(Arc<(Mutex<State>, Condvar)>);

impl Agent {
    /// Connects with what the daemon gave this program. `on_drain` is called once, on a thread of its own, within a second after the daemon asked
    /// to finish. SIGTERM comes along: who wants to finish by itself has to handle or ignore it.
    pub fn from_env(on_drain: impl FnOnce() + Send + 'static) -> Self {
        let state = State { beat: "{}".to_owned(), on_drain: Some(Box::new(on_drain)), ..State::default() };
        let me = Self(Arc::new((Mutex::new(state), Condvar::new())));
        if me.start().is_none() {
            me.change(|state| state.ended = true);
        }
        me
    }

    /// `level` is one of trace, debug, info, warn, error.
    pub fn log(&self, level: &str, text: &str) {
        self.tell("hive/log", &json!({"level": level, "line": &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]}));
    }
    /// Any notification of `docs/asyncapi.yaml`: `hive/metric` with `name`, `value` and `unit`, `hive/event` with a `kind`, `hive/usage` with absolute
    /// totals by OpenTelemetry's names, `gen_ai.usage.input_tokens` and so on, and `cost_usd`. What waits goes in batches, in its order.
    pub fn tell(&self, method: &str, params: &Value) {
        let text = json!({"method": method, "params": params}).to_string();
        self.change(|state| state.push(method == "hive/log", text));
    }
    /// Anything that changes when work goes on. It goes with the next heartbeat, which it brings forward.
    pub fn progress(&self, progress: &Value, busy: bool) {
        let beat = json!({"progress": progress, "busy": busy}).to_string();
        self.change(|state| (state.beat, state.beat_is_new) = (beat, true));
    }
    /// How many messages were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }
    /// Waits until the daemon has everything that was told, at most so long; says whether it has.
    pub fn flush(&self, within: Duration) -> bool {
        let state = self.wait(within, |state| !state.ended && !state.queue.is_empty());
        !state.ended && state.queue.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, within: Duration, waits: fn(&mut State) -> bool) -> MutexGuard<'_, State> {
        self.0.1.wait_timeout_while(self.lock(), within, waits).unwrap_or_else(PoisonError::into_inner).0
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.0.1.notify_all();
    }

    /// Nothing where the daemon's variables are not.
    fn start(&self) -> Option<()> {
        let of = |name: &str| env::var(format!("HIVEKEEPER_{name}")).ok();
        let (token, agent, incarnation) = (of("TOKEN")?, of("AGENT")?, of("INCARNATION")?.parse::<u64>().ok()?);
        let open = json!({"token": token, "agent": agent, "incarnation": incarnation, "protocol": 1});
        let (me, addr, open) = (self.clone(), of("ADDR")?, open.to_string());
        thread::Builder::new().spawn(move || me.run(&addr, &open)).ok().map(drop)
    }

    fn run(&self, addr: &str, open: &str) {
        let mut pause = PAUSES[0];
        while self.serve(addr, open, &mut pause).is_err() {
            // Between half of it and the whole, so that a swarm does not come back as one.
            thread::sleep(pause.mul_f64(0.5 + (RandomState::new().hash_one(0) % 1000) as f64 / 2000.0));
            pause = (pause * 2).min(PAUSES[1]);
        }
        self.change(|state| state.ended = true);
    }

    /// One connection; an error when there is to be another. Its end is good when this incarnation is not wanted any more.
    fn serve(&self, addr: &str, open: &str, pause: &mut Duration) -> io::Result<()> {
        let stream = TcpStream::connect(addr)?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        let mut lines = BufReader::new(stream);
        let answer = self.ask(&mut lines, "hive/open", open)?;
        if matches!(answer["error"]["code"].as_u64(), Some(1002 | 1003)) {
            return Ok(());
        }
        let interval = answer["result"]["heartbeat_interval_ms"].as_u64().ok_or(io::ErrorKind::InvalidData)?;
        let interval = Duration::from_millis(interval).clamp(TURNS[0], TURNS[1]);
        *pause = PAUSES[0];
        loop {
            let mut state = self.wait(interval - TURNS[0], |state| state.queue.is_empty() && !state.beat_is_new);
            state.beat_is_new = false;
            let beat = state.beat.clone();
            drop(state);
            self.ask(&mut lines, "hive/heartbeat", &beat)?;
            for _ in 0..QUEUE_MAX / BATCH_MAX {
                let Some(batch) = self.lock().batch() else { break };
                self.ask(&mut lines, "hive/batch", &batch)?;
                self.change(|state| drop(state.queue.drain(..std::mem::take(&mut state.in_flight))));
            }
            thread::sleep(TURNS[0]);
        }
    }

    /// Waits for the answer, and does what the daemon asks for meanwhile.
    fn ask(&self, lines: &mut BufReader<TcpStream>, method: &str, params: &str) -> io::Result<Value> {
        let ask = format!("{{\"jsonrpc\":\"2.0\",\"id\":\"{method}\",\"method\":\"{method}\",\"params\":{params}}}\n");
        lines.get_mut().write_all(ask.as_bytes())?;
        loop {
            let mut line = String::new();
            // The daemon's own lines are far shorter.
            lines.take(64 * 1024).read_line(&mut line)?;
            let said: Value = serde_json::from_str(&line)?;
            if said["id"] == method {
                return Ok(said);
            }
            if said["method"] == "hive/drain" {
                self.lock().on_drain.take().map(|call| thread::Builder::new().spawn(call));
            }
            if said["method"].is_string() {
                let answer = json!({"jsonrpc": "2.0", "id": said["id"], "result": {}});
                lines.get_mut().write_all(format!("{answer}\n").as_bytes())?;
            }
        }
    }
}

impl State {
    fn push(&mut self, is_log: bool, text: String) {
        if text.len() <= MESSAGE_BYTES_MAX && !self.ended {
            self.queue.push_back((is_log, text));
            if self.queue.len() <= QUEUE_MAX {
                return;
            }
            let mut waiting = self.queue.range(self.in_flight..);
            let oldest = waiting.position(|(is_log, _)| *is_log).unwrap_or(0);
            self.queue.remove(self.in_flight + oldest);
        }
        self.dropped += 1;
        self.untold += 1;
    }

    /// What waits, as the next batch.
    fn batch(&mut self) -> Option<String> {
        if self.untold > 0 {
            let line = format!("messages dropped on the way to Hivekeeper: {}", self.untold);
            let told = json!({"method": "hive/log", "params": {"level": "warn", "line": line}});
            self.queue.push_front((true, told.to_string()));
            self.untold = 0;
        }
        self.in_flight = self.queue.len().min(BATCH_MAX);
        let batch: Vec<&str> = self.queue.range(..self.in_flight).map(|(_, text)| text.as_str()).collect();
        (!batch.is_empty()).then(|| format!("{{\"notifications\":[{}]}}", batch.join(",")))
    }
}
