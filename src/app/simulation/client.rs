//! The other end of `/ws/hybrid-health`: a client that believes only what it is sent, behind a socket that holds so much and no more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Rule;
use crate::stream::simulated::Viewer;

/// Bytes that a socket holds while its client does not read.
const SOCKET_BYTES: usize = 48 * 1024;

/// What is on its way to a client.
#[derive(Debug)]
enum Packet {
    Text(String),
    Ping(u64),
}

/// What a client knows, each document as the text that it was sent.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) agents: BTreeMap<String, String>,
    pub(super) swarms: BTreeMap<String, String>,
    pub(super) level: Option<String>,
}

/// A frame as a client reads it. `swarms` are documents, or names in an acknowledgement.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    epoch: u64,
    seq: u64,
    prev_seq: u64,
    #[serde(borrow, default)]
    agents: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    swarms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    removed: Vec<&'a str>,
    #[serde(borrow, default)]
    subscriptions: Vec<&'a str>,
    #[serde(borrow, default)]
    level: Option<&'a str>,
}

/// Whose document it is.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    swarm: Option<&'a str>,
    name: &'a str,
}

pub(super) struct Client {
    pub(super) number: usize,
    pub(super) ours: Option<Viewer>,
    wire: VecDeque<Packet>,
    held: usize,
    /// The last ping that was ordered and not written.
    ordered: Option<u64>,
    pub(super) reads: bool,
    pub(super) stopped_at: u64,
    pub(super) reads_since: u64,
    pub(super) known: Known,
    pub(super) topics: BTreeSet<String>,
    pub(super) filter: Option<BTreeSet<String>>,
    /// Numbers of the last frame that was read; `None` before the first.
    pub(super) last_seq: Option<u64>,
    /// Where a resumption was asked for that is not acknowledged yet.
    pub(super) resuming: Option<u64>,
    /// What is known does not belong to what is subscribed, until the next whole document.
    pub(super) needs_status: bool,
    epoch: u64,
}

type Told = Result<(), (Rule, String)>;

fn check(holds: bool, rule: Rule, detail: impl FnOnce() -> String) -> Told {
    if holds { Ok(()) } else { Err((rule, detail())) }
}

impl Client {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            ours: None,
            wire: VecDeque::new(),
            held: 0,
            ordered: None,
            reads: true,
            stopped_at: 0,
            reads_since: 0,
            known: Known::default(),
            topics: BTreeSet::new(),
            filter: None,
            last_seq: None,
            resuming: None,
            needs_status: true,
            epoch: 0,
        }
    }

    /// It has connected anew; what it knew it still knows.
    pub(super) fn connected(&mut self, viewer: Viewer, frames: Vec<String>, epoch: u64) {
        self.ours = Some(viewer);
        self.epoch = epoch;
        (self.reads, self.last_seq, self.resuming) = (true, None, None);
        self.wire.clear();
        (self.held, self.ordered) = (0, None);
        self.topics = ["sessions", "status"].map(str::to_owned).into();
        self.filter = None;
        self.send(frames);
    }

    pub(super) fn disconnected(&mut self) {
        self.ours = None;
        self.wire.clear();
        self.held = 0;
    }

    pub(super) fn send(&mut self, frames: Vec<String>) {
        for frame in frames {
            self.held += frame.len();
            self.wire.push_back(Packet::Text(frame));
        }
    }

    fn has_room(&self) -> bool {
        self.held < SOCKET_BYTES
    }

    /// A ping is to be written, as soon as the socket takes it.
    pub(super) fn ping(&mut self, number: u64) {
        self.ordered = Some(number);
        self.write_ping();
    }

    fn write_ping(&mut self) {
        if self.has_room()
            && let (Some(viewer), Some(number)) = (&mut self.ours, self.ordered.take())
        {
            viewer.wrote_ping(number);
            self.wire.push_back(Packet::Ping(number));
        }
    }

    /// Our end writes what the feed has, while the socket takes it.
    pub(super) fn pump(&mut self) -> Told {
        let mut longest = 0;
        self.write_ping();
        while self.has_room() {
            let Some(frame) = self.ours.as_mut().and_then(Viewer::next) else { break };
            longest = longest.max(frame.len());
            self.send(vec![frame]);
        }
        check(self.held < SOCKET_BYTES + longest.max(64 * 1024), Rule::QueuesAreBounded, || {
            format!("viewer {} holds {} bytes", self.number, self.held)
        })
    }

    /// The client reads everything that is there. Returns how many frames, and the pings to be answered.
    pub(super) fn read(&mut self) -> Result<(usize, Vec<u64>), (Rule, String)> {
        let (mut frames, mut pings) = (0, Vec::new());
        while let Some(packet) = self.wire.pop_front() {
            match packet {
                Packet::Ping(number) => pings.push(number),
                Packet::Text(text) => {
                    frames += 1;
                    self.held -= text.len();
                    let frame: Frame<'_> =
                        serde_json::from_str(&text).map_err(|why| (Rule::FramesChain, format!("{why}: {text}")))?;
                    self.take(&frame)?;
                }
            }
        }
        Ok((frames, pings))
    }

    fn take(&mut self, frame: &Frame<'_>) -> Told {
        let Frame { kind, epoch, seq, prev_seq, .. } = *frame;
        let who = self.number;
        if kind == "subscription_ack"
            && let Some(after) = self.resuming.take()
        {
            check(seq == after && prev_seq == after, Rule::FramesChain, || {
                format!("viewer {who} resumed behind {after} and is told {prev_seq} -> {seq}")
            })?;
        } else if let Some(last) = self.last_seq {
            check(prev_seq == last, Rule::FramesChain, || {
                format!("viewer {who}: {kind} follows {prev_seq}, the last one was {last}")
            })?;
        }
        let moves = if kind == "session_update" { seq > prev_seq } else { seq >= prev_seq };
        check(moves, Rule::FramesChain, || format!("viewer {who}: {kind} goes from {prev_seq} to {seq}"))?;
        check(epoch == self.epoch, Rule::FramesChain, || format!("viewer {who}: epoch {epoch}"))?;
        self.last_seq = Some(seq);
        match kind {
            "subscription_ack" => self.acknowledged(frame),
            "status_update" => self.replace(frame)?,
            "session_update" => self.update(frame)?,
            _ => {}
        }
        Ok(())
    }

    fn acknowledged(&mut self, frame: &Frame<'_>) {
        let filter: Option<BTreeSet<String>> =
            frame.swarms.and_then(|swarms| serde_json::from_str(swarms.get()).ok()).flatten();
        let topics = frame.subscriptions.iter().map(|topic| (*topic).to_owned()).collect();
        // What was not told before is not known; what is told no more is not right for long.
        self.needs_status |= filter != self.filter || topics != self.topics;
        (self.topics, self.filter) = (topics, filter);
    }

    fn lets_through(&self, swarm: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.contains(swarm))
    }

    fn replace(&mut self, frame: &Frame<'_>) -> Told {
        self.known = Known { level: frame.level.map(str::to_owned), ..Known::default() };
        self.needs_status = false;
        self.upsert(frame)
    }

    fn update(&mut self, frame: &Frame<'_>) -> Told {
        check(self.topics.contains("sessions"), Rule::FramesAreFiltered, || {
            format!("viewer {} is told of sessions that it did not ask for", self.number)
        })?;
        self.upsert(frame)?;
        for removed in &frame.removed {
            let swarm = removed.split('/').next().unwrap_or_default();
            check(self.lets_through(swarm), Rule::FramesAreFiltered, || format!("{removed} is removed"))?;
            self.known.agents.remove(*removed);
        }
        Ok(())
    }

    fn upsert(&mut self, frame: &Frame<'_>) -> Told {
        let broken = |why: serde_json::Error| (Rule::FramesChain, format!("a frame that nobody can read: {why}"));
        for raw in &frame.agents {
            let Head { swarm, name } = serde_json::from_str(raw.get()).map_err(broken)?;
            check(self.lets_through(swarm.unwrap_or_default()), Rule::FramesAreFiltered, || {
                format!("viewer {} is told of {swarm:?}/{name}", self.number)
            })?;
            self.known.agents.insert(format!("{}/{name}", swarm.unwrap_or_default()), raw.get().to_owned());
        }
        let swarms: Vec<&RawValue> = match frame.swarms {
            Some(swarms) => serde_json::from_str(swarms.get()).map_err(broken)?,
            None => Vec::new(),
        };
        for raw in swarms {
            let Head { name, .. } = serde_json::from_str(raw.get()).map_err(broken)?;
            check(self.lets_through(name), Rule::FramesAreFiltered, || {
                format!("viewer {} is told of {name}", self.number)
            })?;
            self.known.swarms.insert(name.to_owned(), raw.get().to_owned());
        }
        Ok(())
    }

    /// Compares what it knows with the documents.
    pub(super) fn agrees(&self, truth: &Known) -> Told {
        if !self.topics.contains("sessions") || self.needs_status || self.ours.is_none() {
            return Ok(());
        }
        let shown = |all: &BTreeMap<String, String>| -> BTreeMap<String, String> {
            let swarm = |id: &str| id.split('/').next().unwrap_or_default().to_owned();
            all.iter()
                .filter(|(id, _)| self.lets_through(&swarm(id)))
                .map(|(id, doc)| (id.clone(), doc.clone()))
                .collect()
        };
        let (agents, swarms) = (shown(&truth.agents), shown(&truth.swarms));
        check(agents == self.known.agents, Rule::FramesLeadToTheDocument, || {
            format!("viewer {} knows\n{:#?}\nand there are\n{agents:#?}", self.number, self.known.agents)
        })?;
        // Of a swarm that is gone only its agents' ends are told.
        let is_known = |(name, doc): (&String, &String)| self.known.swarms.get(name) == Some(doc);
        check(swarms.iter().all(is_known), Rule::FramesLeadToTheDocument, || {
            format!("viewer {} knows\n{:#?}\nand there are\n{swarms:#?}", self.number, self.known.swarms)
        })?;
        let is_level = !self.topics.contains("status") || self.known.level == truth.level;
        check(is_level, Rule::FramesLeadToTheDocument, || {
            format!("viewer {} believes {:?}, the level is {:?}", self.number, self.known.level, truth.level)
        })
    }
}
