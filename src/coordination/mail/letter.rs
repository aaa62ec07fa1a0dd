//! What is sent, and what is asked for.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

use super::{BODY_MAX, FILTERS_MAX, RECIPIENTS_MAX, REPLY_MAX, TOPIC_MAX};
use crate::{
    coordination::Refused,
    model::{AgentName, Message, MessageId, MessageKind, Party, Priority, SwarmName},
};

/// For whom a note is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// One recipient.
    One(AgentName),
    /// Everybody else: the members of the swarm without the sender, as the caller knows them. Each has a copy.
    All(Vec<AgentName>),
}

/// What a letter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetterKind {
    /// To be known.
    Note {
        /// By whom.
        to: To,
    },
    /// To be answered.
    Request {
        /// By whom.
        to: AgentName,
        /// Until when; the sender is told if it was not.
        reply_by: SystemTime,
    },
    /// The answer to a request, for whoever has sent that.
    Reply {
        /// Which.
        to: MessageId,
    },
}

/// Something to be sent.
#[derive(Debug, Clone)]
pub struct Letter {
    /// In which swarm.
    pub swarm: SwarmName,
    /// By whom; `None`: an operator, who gets no answers.
    pub from: Option<Party>,
    /// What it is, and for whom.
    pub kind: LetterKind,
    /// Whether the one recipient that it names is a client, which nobody supervises: names of clients take no place that an agent needs. Nothing is named by
    /// a broadcast or a reply.
    pub to_client: bool,
    /// How urgent.
    pub priority: Priority,
    /// What it is about, for filters; may be empty.
    pub topic: Arc<str>,
    /// JSON text.
    pub body: Arc<str>,
    /// The sender's name for this sending. The same again, by any of his incarnations, is not sent again while a copy waits, and for
    /// [`SETTLED_KEPT`](super::SETTLED_KEPT) after the last was acknowledged. What has become a dead letter may be sent again.
    pub key: Option<Arc<str>>,
}

/// What has become of a letter, or of a dead letter that was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub id: MessageId,
    /// Who has a copy.
    pub recipients: Vec<AgentName>,
    /// Members for whom it had no room: they have only more urgent ones.
    pub full: Vec<AgentName>,
    /// Less urgent, or older, messages that made room and are dead letters now.
    pub displaced: usize,
    /// It was sent before, under the same key; nothing has changed.
    pub repeated: bool,
}

/// What a recipient wants to have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Topics, exactly, or their beginnings with `*` behind them; none: all.
    pub topics: &'a [Arc<str>],
    /// Only what this request has come to: the answer, or the notice that there is none.
    pub about: Option<MessageId>,
}

fn invalid(key: &str, found: impl Into<String>, allowed: impl Into<String>) -> Refused {
    Refused::Invalid { key: key.to_owned(), found: found.into(), allowed: allowed.into() }
}

/// A text of at most so many bytes in one line, without a star.
fn word(key: &str, text: &str, min: usize) -> Result<(), Refused> {
    let allowed = || format!("{min} to {TOPIC_MAX} bytes in one line, without '*'");
    if text.len() < min || text.len() > TOPIC_MAX {
        return Err(invalid(key, format!("{} bytes", text.len()), allowed()));
    }
    match text.chars().find(|c| c.is_control() || *c == '*') {
        Some(c) => Err(invalid(key, format!("{c:?}"), allowed())),
        None => Ok(()),
    }
}

/// A time between two bounds.
pub(super) fn time(key: &str, found: Duration, min: Duration, max: Duration) -> Result<(), Refused> {
    if found < min || found > max {
        let allowed = format!("{} to {}", min.as_millis(), max.as_millis());
        return Err(invalid(key, found.as_millis().to_string(), allowed));
    }
    Ok(())
}

/// A number from 1 to a bound.
pub(super) fn number(key: &str, found: usize, max: usize) -> Result<(), Refused> {
    if found == 0 || found > max {
        return Err(invalid(key, found.to_string(), format!("1 to {max}")));
    }
    Ok(())
}

impl Letter {
    /// Whether it can be at all.
    pub(super) fn check(&self, now: SystemTime) -> Result<(), Refused> {
        word("topic", &self.topic, 0)?;
        if let Some(key) = &self.key {
            word("key", key, 1)?;
        }
        if self.body.len() > BODY_MAX {
            return Err(invalid("body", format!("{} bytes", self.body.len()), format!("at most {BODY_MAX} bytes")));
        }
        if let Some(from) = self.from.as_ref().filter(|from| from.id.swarm != self.swarm) {
            return Err(invalid("from", from.to_string(), format!("a member of {}", self.swarm)));
        }
        match &self.kind {
            LetterKind::Note { to: To::All(members) } if members.len() > RECIPIENTS_MAX => {
                Err(invalid("to", format!("{} recipients", members.len()), format!("at most {RECIPIENTS_MAX}")))
            }
            LetterKind::Note { .. } => Ok(()),
            LetterKind::Request { .. } | LetterKind::Reply { .. } if self.from.is_none() => {
                Err(invalid("kind", "a request or a reply without a sender", "a note"))
            }
            LetterKind::Request { reply_by, .. } => {
                let within = reply_by.duration_since(now).unwrap_or_default();
                time("reply_within_ms", within, Duration::from_millis(1), REPLY_MAX)
            }
            LetterKind::Reply { .. } => Ok(()),
        }
    }

    /// What tells it from another under the same key. The deadline and the members of the swarm are no part of it: whoever repeats himself does so later.
    pub(super) fn digest(&self) -> u64 {
        let (kind, to) = match &self.kind {
            LetterKind::Note { to: To::All(_) } => ("all", String::new()),
            LetterKind::Note { to: To::One(to) } => ("note", to.to_string()),
            LetterKind::Request { to, .. } => ("request", to.to_string()),
            LetterKind::Reply { to } => ("reply", to.to_string()),
        };
        let mut sha = Sha256::new();
        for part in [kind, &to, self.priority.word(), &self.topic, &self.body] {
            sha.update((part.len() as u64).to_be_bytes());
            sha.update(part);
        }
        let digest = sha.finalize();
        digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
    }
}

impl Wanted<'_> {
    /// Whether it can be at all.
    pub(super) fn check(&self) -> Result<(), Refused> {
        if self.topics.len() > FILTERS_MAX {
            return Err(invalid("topics", self.topics.len().to_string(), format!("at most {FILTERS_MAX}")));
        }
        self.topics.iter().try_for_each(|topic| word("topics", topic.strip_suffix('*').unwrap_or(topic), 0))
    }

    /// Whether this is one of those.
    pub(super) fn has(&self, message: &Message) -> bool {
        let about = |request: MessageId| match &message.kind {
            MessageKind::Reply { to } => *to == request,
            MessageKind::Undelivered { of, .. } => *of == request,
            MessageKind::Note | MessageKind::Request { .. } => false,
        };
        let fits = |topic: &Arc<str>| match topic.strip_suffix('*') {
            Some(beginning) => message.topic.starts_with(beginning),
            None => message.topic == *topic,
        };
        self.about.is_none_or(about) && (self.topics.is_empty() || self.topics.iter().any(fits))
    }
}
