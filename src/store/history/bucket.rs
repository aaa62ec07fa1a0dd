//! From documents to buckets of ten seconds, pure. A bucket that time has left is closed and handed out; coarser ones are made of these where they
//! are written, so that a daemon that is killed loses ten seconds and not ten minutes.
//!
//! Time is whatever the caller says. When the clock is set, back or forth, the open bucket is closed and another is opened where the clock is now; two of
//! the same span become one where they are written.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use super::{
    point::{Resolution, Tokens},
    tally::{Gauge, Tally},
};
use crate::{
    model::{AgentHealth, AgentId, AgentName, Measured, SwarmName, Target},
    store::forms::{millis, unsigned},
};

/// A bucket that nothing is added to any more.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Closed {
    /// Whose.
    pub(crate) of: Target,
    /// When it begins, seconds since 1970; ten seconds long.
    pub(crate) start_s: u64,
    /// What was counted.
    pub(crate) tally: Tally,
}

/// A reading, and when it was taken: a document shows one until the next comes, and it counts once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading<T> {
    pub(super) value: T,
    pub(super) at: SystemTime,
}

/// What the history takes of an agent's document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Seen {
    pub(super) incarnation: u64,
    pub(super) cpu: Option<Reading<f64>>,
    pub(super) memory: Option<Reading<u64>>,
    pub(super) latency_ms: Option<Reading<u64>>,
    /// Totals over all incarnations.
    pub(super) tokens: Tokens,
    /// When the last of them was told.
    pub(super) tokens_at: Option<SystemTime>,
    /// Total over all incarnations.
    pub(super) restarts: u64,
}

impl From<&AgentHealth> for Seen {
    fn from(doc: &AgentHealth) -> Self {
        Self {
            incarnation: doc.incarnation,
            cpu: reading(&doc.cpu).filter(|cpu| cpu.value.is_finite() && cpu.value >= 0.0),
            memory: reading(&doc.memory),
            latency_ms: reading(&doc.heartbeat_latency_ms),
            tokens: doc.usage.value().map_or_else(Tokens::default, |usage| Tokens {
                input: usage.input_tokens,
                output: usage.output_tokens,
            }),
            tokens_at: reading(&doc.usage).map(|usage| usage.at),
            restarts: doc.restarts,
        }
    }
}

fn reading<T: Copy>(measured: &Measured<T>) -> Option<Reading<T>> {
    match measured {
        Measured::Value { value, observed_at, .. } => Some(Reading { value: *value, at: *observed_at }),
        Measured::Absent(_) => None,
    }
}

/// An open bucket.
#[derive(Debug, Default)]
struct Open {
    bucket: Option<(u64, Tally)>,
}

impl Open {
    /// The tally of the bucket that begins at `start_s`; another that is open is closed.
    fn at(&mut self, start_s: u64, of: impl Fn() -> Target, out: &mut Vec<Closed>) -> &mut Tally {
        self.leave(|open| open != start_s, of, out);
        &mut self.bucket.get_or_insert_with(|| (start_s, Tally::default())).1
    }

    fn leave(&mut self, left: impl Fn(u64) -> bool, of: impl Fn() -> Target, out: &mut Vec<Closed>) {
        if let Some((start_s, tally)) = self.bucket.take_if(|(start_s, _)| left(*start_s)) {
            out.push(Closed { of: of(), start_s, tally });
        }
    }
}

#[derive(Debug, Default)]
struct Agent {
    open: Open,
    last: Option<Seen>,
    /// What the next totals are measured against; `None` while nothing is known of what was used before.
    tokens: Tokens,
    /// The totals of its first document, and when they were told: an earlier daemon knew them, and may have counted more before it was killed.
    inherited: Option<(Tokens, SystemTime)>,
}

#[derive(Debug, Default)]
struct Swarm {
    open: Open,
    agents: BTreeMap<AgentName, Agent>,
}

/// The open buckets of a hive, one for each agent and each swarm.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    swarms: BTreeMap<SwarmName, Swarm>,
}

impl Buckets {
    /// Counts what documents show that were published together, and closes what time has left.
    pub(crate) fn see<'a>(
        &mut self,
        at: SystemTime,
        docs: impl IntoIterator<Item = &'a AgentHealth>,
        out: &mut Vec<Closed>,
    ) {
        self.take(start_s(at), docs.into_iter().map(|doc| (&doc.id, Seen::from(doc))), out);
    }

    pub(super) fn take<'a>(
        &mut self,
        start_s: u64,
        seen: impl IntoIterator<Item = (&'a AgentId, Seen)>,
        out: &mut Vec<Closed>,
    ) {
        let mut measured: BTreeSet<(&SwarmName, bool)> = BTreeSet::new();
        for (id, seen) in seen {
            let swarm = entry(&mut self.swarms, &id.swarm);
            let agent = entry(&mut swarm.agents, &id.name);
            let news = agent.news(&seen);
            news.count(agent.open.at(start_s, || Target::Agent(id.clone()), out));
            let sums = News { cpu: None, memory: None, ..news };
            sums.count(swarm.open.at(start_s, || Target::Swarm(id.swarm.clone()), out));
            measured.extend(news.cpu.map(|_| (&id.swarm, true)));
            measured.extend(news.memory.map(|_| (&id.swarm, false)));
        }
        // Once all of them are as they were together.
        for (name, cpu) in measured {
            let Some(swarm) = self.swarms.get_mut(name) else { continue };
            let shown = swarm.agents.values().filter_map(|agent| agent.last.as_ref());
            let sum: f64 = match cpu {
                true => shown.filter_map(|seen| seen.cpu).map(|cpu| cpu.value).sum(),
                false => shown.filter_map(|seen| seen.memory).map(|memory| memory.value as f64).sum(),
            };
            let tally = swarm.open.at(start_s, || Target::Swarm(name.clone()), out);
            let gauge: &mut Gauge = if cpu { &mut tally.cpu } else { &mut tally.memory };
            gauge.add(sum);
        }
    }

    /// An agent is no longer part of the hive.
    pub(crate) fn remove(&mut self, id: &AgentId, out: &mut Vec<Closed>) {
        let Some(swarm) = self.swarms.get_mut(&id.swarm) else { return };
        if let Some(mut agent) = swarm.agents.remove(&id.name) {
            agent.open.leave(|_| true, || Target::Agent(id.clone()), out);
        }
        if swarm.agents.is_empty() {
            swarm.open.leave(|_| true, || Target::Swarm(id.swarm.clone()), out);
            self.swarms.remove(&id.swarm);
        }
    }

    /// Documents went by unseen, and this is how things stand now. What happened in between is in no bucket, for nobody knows in which.
    pub(crate) fn resume<'a>(&mut self, docs: impl IntoIterator<Item = &'a AgentHealth>, out: &mut Vec<Closed>) {
        self.resume_with(docs.into_iter().map(|doc| (&doc.id, Seen::from(doc))), out);
    }

    pub(super) fn resume_with<'a>(
        &mut self,
        seen: impl IntoIterator<Item = (&'a AgentId, Seen)>,
        out: &mut Vec<Closed>,
    ) {
        self.close(out);
        self.swarms.clear();
        for (id, seen) in seen {
            let agent = entry(&mut entry(&mut self.swarms, &id.swarm).agents, &id.name);
            (agent.tokens, agent.last) = (seen.tokens, Some(seen));
        }
    }

    /// Closes what time has left.
    pub(crate) fn expire(&mut self, at: SystemTime, out: &mut Vec<Closed>) {
        let now = start_s(at);
        self.leave(|open| open != now, out);
    }

    /// Closes everything.
    pub(crate) fn close(&mut self, out: &mut Vec<Closed>) {
        self.leave(|_| true, out);
    }

    fn leave(&mut self, left: impl Fn(u64) -> bool, out: &mut Vec<Closed>) {
        for (name, swarm) in &mut self.swarms {
            swarm.open.leave(&left, || Target::Swarm(name.clone()), out);
            for (agent, open) in &mut swarm.agents {
                let id = || Target::Agent(AgentId { swarm: name.clone(), name: agent.clone() });
                open.open.leave(&left, id, out);
            }
        }
    }

    /// What is open of one series: when it begins, and what was counted so far.
    pub(crate) fn open(&self, of: &Target) -> Option<(u64, Tally)> {
        let swarm = self.swarms.get(of.swarm())?;
        match of {
            Target::Swarm(_) => swarm.open.bucket,
            Target::Agent(id) => swarm.agents.get(&id.name)?.open.bucket,
        }
    }
}

/// Without a copy of the name where it is known.
fn entry<'a, K: Ord + Clone, V: Default>(map: &'a mut BTreeMap<K, V>, key: &K) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.clone(), V::default());
    }
    map.entry(key.clone()).or_default()
}

/// When the bucket begins that holds `at`.
pub(crate) fn start_s(at: SystemTime) -> u64 {
    let span_s = Resolution::TenSeconds.span_s();
    unsigned(millis(at)) / 1000 / span_s * span_s
}

/// What a document adds to what was known.
#[derive(Debug, Clone, Copy)]
struct News {
    cpu: Option<f64>,
    memory: Option<u64>,
    latency_ms: Option<u64>,
    tokens: Tokens,
    restarts: u64,
}

impl News {
    fn count(&self, tally: &mut Tally) {
        if let Some(cores) = self.cpu {
            tally.cpu.add(cores);
        }
        if let Some(bytes) = self.memory {
            tally.memory.add(bytes as f64);
        }
        if let Some(ms) = self.latency_ms {
            tally.add_latency(ms);
        }
        tally.add_tokens(self.tokens);
        tally.add_restarts(self.restarts);
    }
}

impl Agent {
    /// Puts a document beside the last one.
    fn news(&mut self, seen: &Seen) -> News {
        let last = self.last.replace(*seen);
        if last.is_none() {
            self.inherited = seen.tokens_at.map(|at| (seen.tokens, at));
        }
        let inherited = self.inherited.filter(|(_, at)| seen.tokens_at == Some(*at));
        let begun =
            last.is_some_and(|last| seen.incarnation > last.incarnation) || (last.is_none() && seen.incarnation == 0);
        if begun {
            // Whatever it uses from here on, it uses under our eyes.
            let before = self.inherited.map_or_else(Tokens::default, |(tokens, _)| tokens);
            self.tokens.input.get_or_insert(before.input.unwrap_or(0));
            self.tokens.output.get_or_insert(before.output.unwrap_or(0));
        }
        let told = if inherited.is_some() { Tokens::default() } else { seen.tokens };
        let tokens = Tokens {
            input: used(&mut self.tokens.input, told.input),
            output: used(&mut self.tokens.output, told.output),
        };
        News {
            cpu: fresh(seen.cpu, last.and_then(|last| last.cpu)),
            memory: fresh(seen.memory, last.and_then(|last| last.memory)),
            latency_ms: fresh(seen.latency_ms, last.and_then(|last| last.latency_ms)),
            tokens,
            // A total that goes back is a new one.
            restarts: last.map_or(0, |last| seen.restarts.saturating_sub(last.restarts)),
        }
    }
}

/// By how much a total has grown since the last one; one that goes back is a new one to count from.
fn used(base: &mut Option<u64>, total: Option<u64>) -> Option<u64> {
    let total = total?;
    base.replace(total).map(|base| total.saturating_sub(base))
}

fn fresh<T: Copy>(now: Option<Reading<T>>, last: Option<Reading<T>>) -> Option<T> {
    now.filter(|now| last.is_none_or(|last| last.at != now.at)).map(|now| now.value)
}
