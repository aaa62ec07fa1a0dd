//! What an event says of whether something is wrong, be it from the feed or from the journal. Pure.

use std::{sync::Arc, time::SystemTime};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    model::{
        AgentHealth, AgentId, AgentState, Desired, Epoch, Event, EventKind, HiveHealth, Level, Seq, SwarmHealth,
        SwarmName, Topic,
    },
    store::StoredEvent,
    view::{self, words},
};

/// Who something is wrong with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Hive,
    Swarm(SwarmName),
    Agent(AgentId),
}

impl Subject {
    /// Empty for the hive, as events have it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Hive => String::new(),
            Self::Swarm(name) => name.to_string(),
            Self::Agent(id) => id.to_string(),
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "" => Some(Self::Hive),
            text if text.contains('/') => text.parse().ok().map(Self::Agent),
            text => text.parse().ok().map(Self::Swarm),
        }
    }

    /// `agent`, `swarm` or `hive`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Hive => "hive",
            Self::Swarm(_) => "swarm",
            Self::Agent(_) => "agent",
        }
    }

    /// The swarm that it is or belongs to.
    pub(super) fn swarm(&self) -> Option<&SwarmName> {
        match self {
            Self::Hive => None,
            Self::Swarm(name) => Some(name),
            Self::Agent(id) => Some(&id.swarm),
        }
    }
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Failed,
    Stuck,
    Critical,
}

impl Trouble {
    pub(super) fn topic(self) -> Topic {
        match self {
            Self::Failed => Topic::Failed,
            Self::Stuck => Topic::Stuck,
            Self::Critical => Topic::Critical,
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::Failed, Self::Stuck, Self::Critical].into_iter().find(|trouble| trouble.topic().word() == word)
    }
}

/// How somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Something is wrong.
    Bad(Trouble),
    /// Nothing is; the state or the level that says so.
    Good(String),
    /// On its way from one to the other, or not to be seen: what held before holds on.
    Unclear,
}

/// Somebody, as an event shows them.
#[derive(Debug, Clone)]
pub(super) struct Sighting {
    /// Unique: whoever reads the same event again makes the same.
    pub(super) id: String,
    pub(super) seq: Seq,
    pub(super) at: SystemTime,
    pub(super) subject: Subject,
    pub(super) found: Found,
    pub(super) document: Document,
}

/// What is known of the subject, made into JSON only when it is told.
#[derive(Debug, Clone)]
pub(super) enum Document {
    /// Of an event of the feed.
    Live(Arc<Event>),
    /// Of one of the journal, cut out of its body.
    Stored(Arc<str>),
    /// It is gone.
    None,
}

impl Document {
    /// As the API shows it.
    pub(super) fn json(&self) -> Option<Box<RawValue>> {
        let text = match self {
            Self::Live(event) => match &event.kind {
                EventKind::AgentChanged { agent, .. } => serde_json::to_string(&view::agent(agent)),
                EventKind::SwarmChanged { swarm, .. } => serde_json::to_string(&view::swarm(swarm)),
                EventKind::HiveChanged { to, reasons, .. } => hive_text(words::level(*to), reasons),
                _ => return None,
            }
            .ok()?,
            Self::Stored(text) => text.to_string(),
            Self::None => return None,
        };
        RawValue::from_string(text).ok()
    }
}

/// The hive's own event carries no document, so this is what there is of it.
fn hive_text(level: &str, reasons: &[String]) -> serde_json::Result<String> {
    let reason = |text: &String| {
        let (code, detail) = text.split_once(": ").unwrap_or((text, ""));
        serde_json::json!({ "code": code, "detail": detail })
    };
    let reasons: Vec<_> = reasons.iter().map(reason).collect();
    serde_json::to_string(&serde_json::json!({ "level": level, "reasons": reasons }))
}

/// The identity of what one event says.
fn id(epoch: Epoch, seq: Seq) -> String {
    format!("{epoch}/{seq}")
}

/// From an event of the feed; `None` when it says nothing of the kind.
pub(super) fn of_event(event: &Arc<Event>) -> Option<Sighting> {
    let (subject, found) = match &event.kind {
        EventKind::AgentChanged { agent, .. } => (Subject::Agent(agent.id.clone()), of_agent(agent)),
        EventKind::SwarmChanged { swarm, .. } => (Subject::Swarm(swarm.name.clone()), of_level(swarm.level)),
        EventKind::HiveChanged { to, .. } => (Subject::Hive, of_level(*to)),
        EventKind::AgentRemoved { agent } => (Subject::Agent(agent.clone()), Found::Good("removed".to_owned())),
        _ => return None,
    };
    let document = match &event.kind {
        EventKind::AgentRemoved { .. } => Document::None,
        _ => Document::Live(Arc::clone(event)),
    };
    Some(Sighting { id: id(event.epoch, event.seq), seq: event.seq, at: event.at, subject, found, document })
}

/// The same from the journal. What can't be read says nothing.
pub(super) fn of_stored(event: &StoredEvent) -> Option<Sighting> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        agent: Option<&'a RawValue>,
        #[serde(borrow)]
        swarm: Option<&'a RawValue>,
        to: Option<String>,
        #[serde(borrow)]
        reasons: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Said<'a> {
        state: Option<&'a str>,
        level: Option<&'a str>,
        desired: Option<&'a str>,
    }
    let body: Body<'_> = serde_json::from_str(&event.body).ok()?;
    let subject = Subject::parse(&event.subject)?;
    let (found, document) = match (event.kind.as_str(), body.agent, body.swarm) {
        ("agent_changed", Some(agent), _) => {
            let said: Said<'_> = serde_json::from_str(agent.get()).ok()?;
            let stopped = said.desired == Some(words::desired(Desired::Stopped));
            (of_state_word(said.state?, stopped), Document::Stored(Arc::from(agent.get())))
        }
        ("swarm_changed", _, Some(swarm)) => {
            let said: Said<'_> = serde_json::from_str(swarm.get()).ok()?;
            (of_level_word(said.level?), Document::Stored(Arc::from(swarm.get())))
        }
        ("hive_changed", ..) => {
            let level = body.to?;
            let reasons = body.reasons.map_or("[]", RawValue::get);
            let text = format!("{{\"level\":\"{level}\",\"reasons\":{reasons}}}");
            (of_level_word(&level), Document::Stored(Arc::from(text)))
        }
        ("agent_removed", ..) => (Found::Good("removed".to_owned()), Document::None),
        _ => return None,
    };
    Some(Sighting { id: id(event.epoch, event.seq), seq: event.seq, at: event.at, subject, found, document })
}

/// Everybody as the health documents show them now: for whoever lost the thread. Nothing before `seq` is left to be told.
pub(super) fn of_hive(hive: &HiveHealth, epoch: Epoch, seq: Seq, at: SystemTime) -> Vec<Sighting> {
    let made = |subject: Subject, found: Found, text: serde_json::Result<String>| Sighting {
        id: format!("{}/{}", id(epoch, seq), if subject == Subject::Hive { "hive".to_owned() } else { subject.text() }),
        seq,
        at,
        subject,
        found,
        document: text.map_or(Document::None, |text| Document::Stored(Arc::from(text))),
    };
    let reasons: Vec<String> = hive.reasons.iter().map(|why| format!("{}: {}", why.code, why.detail)).collect();
    let whole = hive_text(words::level(hive.level), &reasons);
    let mut all = vec![made(Subject::Hive, of_level(hive.level), whole)];
    all.extend(hive.swarms.iter().map(|swarm: &Arc<SwarmHealth>| {
        made(Subject::Swarm(swarm.name.clone()), of_level(swarm.level), serde_json::to_string(&view::swarm(swarm)))
    }));
    all.extend(hive.agents.iter().map(|agent: &Arc<AgentHealth>| {
        made(Subject::Agent(agent.id.clone()), of_agent(agent), serde_json::to_string(&view::agent(agent)))
    }));
    all
}

/// It is no longer part of the hive, and no event may have said so.
pub(super) fn of_gone(subject: Subject, epoch: Epoch, seq: Seq, at: SystemTime) -> Sighting {
    let id = format!("{}/{}", id(epoch, seq), subject.text());
    Sighting { id, seq, at, subject, found: Found::Good("removed".to_owned()), document: Document::None }
}

fn of_agent(agent: &AgentHealth) -> Found {
    of_state_word(words::agent_state(agent.state), agent.desired == Desired::Stopped)
}

fn of_state_word(state: &str, stopped: bool) -> Found {
    let is = |known: AgentState| state == words::agent_state(known);
    if is(AgentState::Failed) {
        // Who was told to stop is not missed.
        if stopped { Found::Good(state.to_owned()) } else { Found::Bad(Trouble::Failed) }
    } else if is(AgentState::Stuck) {
        Found::Bad(Trouble::Stuck)
    } else if is(AgentState::Running) || is(AgentState::Completed) || is(AgentState::Stopped) && stopped {
        Found::Good(state.to_owned())
    } else {
        Found::Unclear
    }
}

fn of_level(level: Level) -> Found {
    of_level_word(words::level(level))
}

fn of_level_word(level: &str) -> Found {
    let is = |known: Level| level == words::level(known);
    if is(Level::Critical) {
        Found::Bad(Trouble::Critical)
    } else if is(Level::Healthy) || is(Level::Degraded) {
        Found::Good(level.to_owned())
    } else {
        Found::Unclear
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::model::Reason;

    fn stored(event: &Event) -> StoredEvent {
        StoredEvent {
            seq: event.seq,
            epoch: event.epoch,
            at: event.at,
            kind: event.kind.word().to_owned(),
            subject: view::event(event).subject().to_owned(),
            body: Arc::from(serde_json::to_string(&view::event(event)).unwrap()),
        }
    }

    fn agent(state: AgentState, desired: Desired) -> EventKind {
        let reasons = vec![Reason { code: "too_many_restarts", detail: "6 in 60 s".to_owned() }];
        let unknown = AgentHealth::unknown("review/coder".parse().unwrap(), SystemTime::UNIX_EPOCH);
        EventKind::AgentChanged { from: None, agent: Arc::new(AgentHealth { state, desired, reasons, ..unknown }) }
    }

    /// Both ways to an event lead to the same, the document included.
    #[test]
    fn the_journal_says_what_the_feed_said() {
        let hive = |to| EventKind::HiveChanged {
            from: Level::Healthy,
            to,
            reasons: vec!["swarms_critical: review".to_owned(), "bare".to_owned()],
        };
        let states = [
            (agent(AgentState::Failed, Desired::Running), Found::Bad(Trouble::Failed)),
            (agent(AgentState::Stuck, Desired::Running), Found::Bad(Trouble::Stuck)),
            (agent(AgentState::Running, Desired::Running), Found::Good("running".to_owned())),
            (agent(AgentState::Completed, Desired::Running), Found::Good("completed".to_owned())),
            (agent(AgentState::Stopped, Desired::Stopped), Found::Good("stopped".to_owned())),
            (agent(AgentState::Failed, Desired::Stopped), Found::Good("failed".to_owned())),
            // The daemon's own end stops agents that nobody has told to.
            (agent(AgentState::Stopped, Desired::Running), Found::Unclear),
            (agent(AgentState::BackingOff, Desired::Running), Found::Unclear),
            (agent(AgentState::Unknown, Desired::Running), Found::Unclear),
            (hive(Level::Critical), Found::Bad(Trouble::Critical)),
            (hive(Level::Degraded), Found::Good("degraded".to_owned())),
            (hive(Level::Unknown), Found::Unclear),
            (EventKind::AgentRemoved { agent: "review/coder".parse().unwrap() }, Found::Good("removed".to_owned())),
        ];
        for (kind, found) in states {
            let event = Arc::new(Event { seq: Seq(7), epoch: Epoch(3), at: SystemTime::UNIX_EPOCH, kind });
            let (live, late) = (of_event(&event).unwrap(), of_stored(&stored(&event)).unwrap());
            assert_eq!((&live.found, &late.found), (&found, &found), "{event:?}");
            assert_eq!((&live.id, &live.subject, live.seq), (&late.id, &late.subject, late.seq));
            assert_eq!(live.id, "3/7");
            let json = |sighting: &Sighting| {
                let document = sighting.document.json()?;
                Some(serde_json::from_str::<serde_json::Value>(document.get()).unwrap())
            };
            assert_eq!(json(&live), json(&late), "{event:?}");
        }
    }

    #[test]
    fn other_events_say_nothing() {
        let kind = EventKind::DaemonStopping { how: "stop" };
        let event = Arc::new(Event { seq: Seq(7), epoch: Epoch(3), at: SystemTime::UNIX_EPOCH, kind });
        assert!(of_event(&event).is_none() && of_stored(&stored(&event)).is_none());
    }

    #[test]
    fn subjects_are_read_back() {
        for text in ["", "review", "review/coder-1"] {
            assert_eq!(Subject::parse(text).unwrap().text(), text);
        }
        assert_eq!(Subject::parse("review/"), None);
    }
}
