//! The rules of one connection, pure: a line and a time in, effects out. No IO, no clock, no lock.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use uuid::Uuid;

use super::{
    bucket::Bucket,
    calls::{Ask, Word},
    heard::Heard,
    limits::{
        ATTRIBUTES_BYTES_MAX, CALLS_MAX, EVENT_BYTES_MAX, HEARTBEAT_INTERVAL, LAST_WORDS_WAIT, LINE_BYTES_MAX_UNOPENED,
        PROGRESS_BYTES_MAX, PlaneLimits,
    },
    notice,
};
use crate::{
    mcp::{self, Deaf},
    model::{Admission, AgentId, Party, Refusal, Telemetry},
    tools,
    wire::{
        lines::{LINE_BYTES_MAX, Line},
        rpc::{
            BadParams, Batch, Code, Id, Limits, METHODS, Message, Open, Opened, Told, Version, object, parse, told,
            write_error, write_request, write_result, write_text, write_tool_error, write_waits,
        },
    },
};

/// The protocol that is spoken here.
const PROTOCOL: u64 = 1;

/// The time, by both clocks: telemetry carries the one, deadlines are judged by the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// For people and documents.
    pub(super) wall: SystemTime,
    /// For intervals.
    pub(super) steady: Instant,
}

impl Now {
    /// Reads both clocks.
    pub(super) fn read() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }
}

/// What a session asks of the house at each line.
#[derive(Clone, Copy)]
pub(super) struct Gate<'a> {
    /// Who may open.
    pub(super) admission: &'a dyn Admission,
    /// Newcomers are sent away.
    pub(super) shutting_down: bool,
    /// Tools may be called.
    pub(super) has_tools: bool,
}

/// An accepted `hive/open`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    /// Who.
    pub(super) agent: AgentId,
    /// Which start of it.
    pub(super) incarnation: u64,
    /// Whether `hive/drain` is enough to end it.
    pub(super) drains: bool,
    /// Whether it is that of a tool, which says nothing of the agent's life.
    pub(super) is_tool: bool,
}

/// What is to be done, gathered over some lines.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Bytes for the peer, whole lines.
    pub(super) replies: Vec<u8>,
    /// What was told, summed up; [`Session::gather`] makes telemetry of it.
    pub(super) heard: Heard,
    /// Telemetry.
    pub(super) telemetry: Vec<Telemetry>,
    /// What was refused, in order.
    pub(super) refused: Vec<Code>,
    /// Tools to be called, in order.
    pub(super) asked: Vec<Ask>,
    /// A line for the MCP room, to be handed over before anything that comes later.
    pub(super) spoken: Option<Vec<u8>>,
    /// The session was opened; to be performed before anything that comes later.
    pub(super) opened: Option<Opening>,
    /// Nothing more is read. Replies are written before.
    pub(super) close: bool,
    /// It closes because a deadline was missed.
    pub(super) overdue: bool,
}

enum State {
    /// Nothing is believed.
    New,
    /// Proven.
    Open(Pass),
    /// Proven, and asked to finish.
    Draining(Pass),
    /// The incarnation has ended. What it wrote last is read until then.
    Leaving(Pass, Instant),
    /// Nothing more is read.
    Closed,
}

/// What was proven.
struct Pass {
    agent: AgentId,
    incarnation: u64,
    is_tool: bool,
}

/// The state of one connection.
pub(super) struct Session {
    id: Uuid,
    limits: Arc<PlaneLimits>,
    state: State,
    /// Stays when the session has ended, so that its last refusal is put down to somebody.
    agent: Option<AgentId>,
    bucket: Bucket,
    began: Instant,
    heard: Instant,
    pinged: Option<Instant>,
    requests: u64,
    /// Calls without an answer.
    unanswered: usize,
    /// Whether a request has said by itself who asks.
    proven: bool,
}

impl Session {
    /// A fresh connection.
    pub(super) fn new(id: Uuid, now: Now, limits: Arc<PlaneLimits>) -> Self {
        let bucket = Bucket::new(now.steady, limits.notifications_per_second, limits.notifications_burst);
        Self {
            id,
            limits,
            state: State::New,
            agent: None,
            bucket,
            began: now.steady,
            heard: now.steady,
            pinged: None,
            requests: 0,
            unanswered: 0,
            proven: false,
        }
    }

    /// Whom it serves, once that is proven.
    pub(super) fn agent(&self) -> Option<&AgentId> {
        self.agent.as_ref()
    }

    /// Whom it serves while that is proven, and in which incarnation.
    pub(super) fn serves(&self) -> Option<(&AgentId, u64)> {
        self.pass().map(|pass| (&pass.agent, pass.incarnation))
    }

    /// The same, as it takes part in work.
    pub(super) fn party(&self) -> Option<Party> {
        self.pass().map(|pass| Party { id: pass.agent.clone(), incarnation: Some(pass.incarnation) })
    }

    /// Longest line that is taken now.
    pub(super) fn line_bytes_max(&self) -> usize {
        if matches!(self.state, State::New) { LINE_BYTES_MAX_UNOPENED } else { LINE_BYTES_MAX }
    }

    /// Asks again whether the incarnation still lives. To be called before the lines of each read, and when it is said to have ended. Who tells its
    /// last totals and ends leaves them behind in a socket: they are read for a moment, and nobody can open a session in its name any more.
    pub(super) fn verify(&mut self, now: Now, gate: Gate<'_>) {
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(pass) | State::Draining(pass) if !gate.admission.lives(&pass.agent, pass.incarnation) => {
                State::Leaving(pass, now.steady + LAST_WORDS_WAIT)
            }
            other => other,
        };
    }

    /// Takes one line.
    pub(super) fn line(&mut self, now: Now, line: &Line<'_>, gate: Gate<'_>, out: &mut Effects) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.heard = self.heard.max(now.steady);
        if let (Line::Whole(line), Some(_)) = (line, self.pass())
            && let Some(told) = told(line)
        {
            let class = Class::of(&told);
            if let Err((code, _)) = self.within_rate(now, class, out, |heard| notice::take(told, heard)) {
                out.refused.push(code);
            }
            return;
        }
        let message = match line {
            Line::Whole(line) => parse(line),
            Line::TooLong => Err(Code::LineTooLong),
        };
        if let (Line::Whole(line), Ok(Message::Request { method, .. } | Message::Notification { method, .. })) =
            (line, &message)
            && gate.has_tools
            && mcp::speaks(method)
        {
            return self.speak(now, line, &message, out);
        }
        match (&self.state, message) {
            (_, Err(code)) => out.refuse(Some(Id::NULL), code, ""),
            (State::New, Ok(Message::Request { id, method, params })) if method == "hive/open" => {
                self.open(now, id, params, gate, out);
            }
            (State::New, Ok(Message::Request { id, .. })) => {
                out.refuse(Some(id), Code::NotOpen, "send hive/open first");
            }
            (State::New, Ok(Message::Notification { .. } | Message::Answer { .. })) => {
                out.refuse(None, Code::NotOpen, "")
            }
            (State::Closed, Ok(_)) => {}
            (_, Ok(Message::Answer { .. })) => self.answered(out),
            (_, Ok(Message::Request { id, method, .. })) if method == "hive/open" => {
                out.refuse(Some(id), Code::InvalidRequest, "the session is open already");
            }
            (_, Ok(Message::Request { id, method, params })) => match tool(&method, gate) {
                Some(tool) => self.ask(now, id, tool, params, out),
                None => self.notice(now, Some(id), &method, params, out),
            },
            // Nobody would hear what came of it.
            (_, Ok(Message::Notification { method, .. })) if tool(&method, gate).is_some() => {
                out.refuse(None, Code::InvalidRequest, "");
            }
            (_, Ok(Message::Notification { method, params })) => self.notice(now, None, &method, params, out),
        }
    }

    /// Hands a line of MCP's over. Who may ask for what is judged there: each request may say by itself who asks.
    fn speak(&mut self, now: Now, line: &[u8], message: &Result<Message<'_>, Code>, out: &mut Effects) {
        if self.bucket.take(now.steady) {
            out.spoken = Some(line.to_vec());
        } else if let Ok(Message::Request { id, .. }) = message {
            out.refuse(Some(*id), Code::RateLimited, "slow down");
        } else {
            out.refuse(None, Code::RateLimited, "");
        }
    }

    /// The MCP room did not take a line.
    pub(super) fn unheard(&mut self, line: &[u8], why: Deaf, out: &mut Effects) {
        let code = match why {
            Deaf::Malformed | Deaf::Over => Code::InvalidRequest,
            Deaf::Busy => Code::TooManyCalls,
        };
        let id = match parse(line) {
            Ok(Message::Request { id, .. }) => Some(id),
            _ => None,
        };
        out.refuse(id, code, &why.to_string());
    }

    /// A request has proven who asks, which opens no session: there is time for the next one.
    pub(super) fn proven(&mut self, now: Now) {
        (self.proven, self.began) = (true, now.steady);
    }

    /// A request still waits for its answer, and whoever has proven who asks may wait for that.
    pub(super) fn waits(&mut self, now: Now) {
        if self.proven {
            self.began = now.steady;
        }
    }

    /// Says what has become of a call.
    pub(super) fn answer(&mut self, word: &Word, out: &mut Effects) {
        match word {
            Word::Answer(id, answer) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                match answer {
                    Ok(answer) => write_text(&mut out.replies, id.id(), &answer.0),
                    Err(error) => write_tool_error(&mut out.replies, id.id(), error.code(), &error.to_string()),
                }
            }
            Word::Waits(id, waited, what) => {
                let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                write_waits(&mut out.replies, "hive/progress", id.id(), waited_ms, what);
            }
        }
    }

    /// Asks the agent to finish; once.
    pub(super) fn drain(&mut self, out: &mut Effects) {
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(pass) => {
                self.request("hive/drain", out);
                State::Draining(pass)
            }
            other => other,
        };
    }

    /// When [`Session::tick`] is due.
    pub(super) fn deadline(&self) -> Instant {
        match self.state {
            State::New => self.began + self.limits.open_deadline,
            State::Open(_) | State::Draining(_) => {
                let since = self.pinged.map_or(self.heard, |asked| asked.max(self.heard));
                (since + self.limits.ping_after).min(self.heard + self.limits.silence_max)
            }
            State::Leaving(_, until) => until,
            State::Closed => self.heard,
        }
    }

    /// Judges silence.
    pub(super) fn tick(&mut self, now: Now, gate: Gate<'_>, out: &mut Effects) {
        if now.steady < self.deadline() {
            return;
        }
        self.verify(now, gate);
        let silent = now.steady.saturating_duration_since(self.heard);
        match self.state {
            State::Leaving(_, until) if now.steady < until => {}
            State::Open(_) | State::Draining(_) if silent < self.limits.silence_max => {
                self.pinged = Some(now.steady);
                self.request("hive/ping", out);
            }
            State::New | State::Open(_) | State::Draining(_) => {
                out.overdue = true;
                self.close(out);
            }
            State::Leaving(..) | State::Closed => self.close(out),
        }
    }

    fn pass(&self) -> Option<&Pass> {
        match &self.state {
            State::Open(pass) | State::Draining(pass) | State::Leaving(pass, _) => Some(pass),
            State::New | State::Closed => None,
        }
    }

    fn open(&mut self, now: Now, id: Id<'_>, params: Params<'_>, gate: Gate<'_>, out: &mut Effects) {
        if gate.shutting_down {
            out.refuse(Some(id), Code::ShuttingDown, "the daemon ends");
            return self.close(out);
        }
        match object::<Version>(params) {
            Err(why) => return out.refuse(Some(id), Code::InvalidParams, &why.detail),
            Ok(Version { protocol: PROTOCOL }) => {}
            Ok(_) => return out.refuse(Some(id), Code::UnsupportedProtocol, "protocol 1 is spoken here"),
        }
        let Open { token, agent, incarnation, capabilities } = match object(params) {
            Err(why) => return out.refuse(Some(id), Code::InvalidParams, &why.detail),
            Ok(open) => open,
        };
        // A name that can't be one gets the answer of a name that nobody has: who guesses learns nothing.
        let admitted = match agent.parse::<AgentId>() {
            Ok(agent) => gate.admission.admit(&agent, incarnation, &token).map(|()| agent),
            Err(_) => Err(Refusal::BadToken),
        };
        match admitted {
            Err(Refusal::BadToken) => {
                out.refuse(Some(id), Code::BadToken, "no such agent, or not its token");
                self.close(out);
            }
            Err(Refusal::StaleIncarnation) => {
                out.refuse(Some(id), Code::StaleIncarnation, "this incarnation does not live");
                self.close(out);
            }
            Ok(agent) => {
                let interval = gate.admission.heartbeat_interval(&agent).unwrap_or(HEARTBEAT_INTERVAL);
                write_result(&mut out.replies, id, &self.opened(interval));
                let (drains, is_tool) = (capabilities.drain, capabilities.tool);
                out.opened = Some(Opening { agent: agent.clone(), incarnation, drains, is_tool });
                self.agent = Some(agent.clone());
                self.bucket =
                    Bucket::new(now.steady, self.limits.notifications_per_second, self.limits.notifications_burst);
                self.state = State::Open(Pass { agent, incarnation, is_tool });
            }
        }
    }

    fn opened(&self, heartbeat_interval: Duration) -> Opened {
        Opened {
            session: self.id.to_string(),
            heartbeat_interval_ms: u64::try_from(heartbeat_interval.as_millis()).unwrap_or(u64::MAX),
            limits: Limits {
                line_bytes_max: LINE_BYTES_MAX,
                notifications_per_second: self.limits.notifications_per_second,
                notifications_burst: self.limits.notifications_burst,
                progress_bytes_max: PROGRESS_BYTES_MAX,
                attributes_bytes_max: ATTRIBUTES_BYTES_MAX,
                event_bytes_max: EVENT_BYTES_MAX,
                calls_max: CALLS_MAX,
            },
        }
    }

    fn ask(&mut self, now: Now, id: Id<'_>, tool: &'static str, params: Params<'_>, out: &mut Effects) {
        if !self.bucket.take(now.steady) {
            return out.refuse(Some(id), Code::RateLimited, "slow down");
        }
        if self.unanswered == CALLS_MAX {
            return out.refuse(Some(id), Code::TooManyCalls, "wait for the answer to one");
        }
        let arguments = params.map_or("{}", |raw| raw.get());
        if !arguments.starts_with('{') {
            return out.refuse(Some(id), Code::InvalidParams, "the arguments of a tool are an object");
        }
        self.unanswered += 1;
        out.asked.push(Ask { id: id.into(), tool, arguments: arguments.to_owned() });
    }

    /// A notification, or the same as a request, which gets `{}` for an answer.
    fn notice(&mut self, now: Now, id: Option<Id<'_>>, method: &str, params: Params<'_>, out: &mut Effects) {
        let told =
            if method == "hive/batch" { self.batch(now, params, out) } else { self.one(now, method, params, out) };
        match (told, id) {
            (Ok(()), None) => {}
            (Ok(()), Some(id)) => write_result(&mut out.replies, id, &serde_json::Map::new()),
            (Err((code, detail)), id) => out.refuse(id, code, &detail),
        }
    }

    /// Each member stands for itself: a bad one is counted and the others are taken.
    fn batch(&mut self, now: Now, params: Params<'_>, out: &mut Effects) -> Result<(), (Code, String)> {
        let batch: Batch<'_> = object(params).map_err(|why| (Code::InvalidParams, why.detail))?;
        for item in batch.notifications {
            let told = if item.has_id || item.method == "hive/batch" {
                Err((Code::InvalidRequest, String::new()))
            } else {
                self.one(now, &item.method, item.params, out)
            };
            if let Err((code, _)) = told {
                out.refused.push(code);
            }
        }
        Ok(())
    }

    fn one(&mut self, now: Now, method: &str, params: Params<'_>, out: &mut Effects) -> Result<(), (Code, String)> {
        let mut known = true;
        let take = |heard: &mut Heard| {
            notice::read(method, params, heard).unwrap_or_else(|| {
                known = false;
                Ok(())
            })
        };
        self.within_rate(now, Class::named(method), out, take)?;
        if known { Ok(()) } else { Err((Code::MethodNotFound, String::new())) }
    }

    /// Takes a message if it comes within the rate of the connection. Heartbeats and totals come through beyond it, too: of each read the last word
    /// stands for all.
    fn within_rate(
        &mut self,
        now: Now,
        class: Class,
        out: &mut Effects,
        take: impl FnOnce(&mut Heard) -> Result<(), BadParams>,
    ) -> Result<(), (Code, String)> {
        out.heard.beyond = !self.bucket.take(now.steady);
        if out.heard.beyond && !matches!(class, Class::Heartbeat | Class::Usage) {
            let lost = &mut out.heard.lost;
            match class {
                Class::Log => lost.logs += 1,
                Class::Metric => lost.metrics += 1,
                Class::Event => lost.events += 1,
                Class::Heartbeat | Class::Usage | Class::Other => {}
            }
            return Err((Code::RateLimited, "slow down".to_owned()));
        }
        take(&mut out.heard).map_err(|why| (Code::InvalidParams, why.detail))
    }

    /// Makes telemetry of what was heard so far. To be called before what is left of the effects is performed, and after all that may let
    /// go of some of it.
    pub(super) fn gather(&self, now: Now, out: &mut Effects) {
        let Some((agent, incarnation)) = self.serves() else { return };
        let telemetry = |kind| Telemetry { agent: agent.clone(), incarnation, at: now.wall, kind };
        out.telemetry.extend(out.heard.take().into_iter().map(telemetry));
    }

    /// Whatever the answer says: who answers, lives, save that a tool's life is not its agent's. Agents that ignore `hive/ping` are not worse off than those that know it.
    fn answered(&mut self, out: &mut Effects) {
        if self.pinged.take().is_none() || self.pass().is_some_and(|pass| pass.is_tool) {
            return;
        }
        out.heard.beat(None, None);
    }

    fn request(&mut self, method: &str, out: &mut Effects) {
        self.requests += 1;
        write_request(&mut out.replies, self.requests, method);
    }

    fn close(&mut self, out: &mut Effects) {
        self.state = State::Closed;
        out.close = true;
    }
}

/// The tool that a method calls.
fn tool(method: &str, gate: Gate<'_>) -> Option<&'static str> {
    let name = method.strip_prefix(METHODS).filter(|_| gate.has_tools)?;
    tools::find(name).map(|tool| tool.name)
}

type Params<'a> = Option<&'a serde_json::value::RawValue>;

impl Effects {
    /// Counts, and answers where there is something to answer.
    fn refuse(&mut self, id: Option<Id<'_>>, code: Code, detail: &str) {
        self.refused.push(code);
        if let Some(id) = id {
            write_error(&mut self.replies, id, code, detail);
        }
    }
}

/// What becomes of a message when there is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Heartbeat,
    Usage,
    Log,
    Metric,
    Event,
    /// Not known.
    Other,
}

impl Class {
    fn of(told: &Told<'_>) -> Self {
        match told {
            Told::Heartbeat(_) => Self::Heartbeat,
            Told::Log(_) => Self::Log,
            Told::Metric(_) => Self::Metric,
        }
    }

    fn named(method: &str) -> Self {
        match method {
            "hive/heartbeat" => Self::Heartbeat,
            "hive/log" => Self::Log,
            "hive/usage" => Self::Usage,
            "hive/metric" => Self::Metric,
            "hive/event" => Self::Event,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
