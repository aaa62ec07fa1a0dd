//! A message as receivers read it: a CloudEvent 1.0 in structured JSON. Pure.

use std::{collections::BTreeMap, time::SystemTime};

use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::{
    sighting::{Found, Subject, Trouble},
    watch::News,
};
use crate::{
    model::{HiveId, Seq, Topic},
    view::Rfc3339,
};

/// What all types begin with.
const PREFIX: &str = "dev.hivekeeper";
/// Longest document that goes along: an agent says what it likes as its progress, and receivers refuse bodies beyond some 64 KiB.
const DOCUMENT_BYTES_MAX: usize = 48 * 1024;
/// Subjects that a summary lists; of the rest it has the number.
const LISTED_MAX: usize = 50;

/// Who speaks.
#[derive(Debug, Clone)]
pub(super) struct Speaker {
    pub(super) hive: HiveId,
    pub(super) name: String,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) kind: String,
    /// Empty for the hive, and where it is about many.
    pub(super) subject: String,
    pub(super) time: String,
    /// The whole CloudEvent.
    pub(super) body: String,
    /// The first event that it tells of.
    pub(super) seq: Seq,
    pub(super) at: SystemTime,
    /// What receivers know once it has arrived.
    pub(super) tells: Vec<(Subject, Option<Trouble>)>,
    /// How many messages it stands for; 1 unless it is a summary.
    pub(super) stands_for: u64,
}

#[derive(Serialize)]
struct CloudEvent<'a, D> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subject: &'a str,
    time: &'a str,
    datacontenttype: &'static str,
    data: D,
}

#[derive(Serialize)]
struct Data<'a> {
    hive: &'a str,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relapses: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    document_left_out: bool,
    #[serde(flatten)]
    document: BTreeMap<&'static str, Box<RawValue>>,
}

#[derive(Serialize)]
struct SummaryData<'a> {
    hive: &'a str,
    text: String,
    messages: u64,
    by_type: &'a BTreeMap<String, u64>,
    subjects: u64,
    latest: Vec<Value>,
}

impl Speaker {
    fn wrap(&self, id: &str, kind: &str, subject: &str, time: &str, data: impl Serialize) -> String {
        let source = format!("/hives/{}", self.hive);
        let datacontenttype = "application/json";
        let event = CloudEvent { specversion: "1.0", id, source, kind, subject, time, datacontenttype, data };
        // Our own types hold no map with keys that JSON can't have, which is all that can fail.
        serde_json::to_string(&event).unwrap_or_default()
    }

    /// What a receiver is told of one subject.
    pub(super) fn tell(&self, news: &News) -> Message {
        let News { topic, trouble, sighting, relapses } = news;
        let recovered = *topic == Topic::Recovered;
        let kind = format!("{PREFIX}.{}.{}", sighting.subject.kind(), topic.word());
        let subject = sighting.subject.text();
        let time = time(sighting.at);
        let document = sighting.document.json();
        let document_left_out = document.as_ref().is_some_and(|document| document.get().len() > DOCUMENT_BYTES_MAX);
        let key = if sighting.subject == Subject::Hive { "health" } else { sighting.subject.kind() };
        let now = match &sighting.found {
            Found::Good(word) if recovered => Some(word.as_str()),
            _ => None,
        };
        let who = if subject.is_empty() { "the hive" } else { &subject };
        let why = document.as_deref().and_then(reasons).map(|why| format!(": {why}")).unwrap_or_default();
        let text = match (topic, now) {
            (Topic::Failed, _) => format!("{who} failed{why}"),
            (Topic::Critical, _) => format!("{who} is critical{why}"),
            (Topic::Stuck, _) => format!("{who} is stuck{why}"),
            (Topic::Recovered, Some("removed")) => format!("{who}, which was {}, was removed", trouble.topic().word()),
            (Topic::Recovered, now) => {
                format!("{who}, which was {}, is {}", trouble.topic().word(), now.unwrap_or("well"))
            }
        };
        let data = Data {
            hive: &self.name,
            text,
            was: recovered.then(|| trouble.topic().word()),
            now,
            relapses: recovered.then_some(*relapses),
            document_left_out,
            document: document.filter(|_| !document_left_out).map(|document| (key, document)).into_iter().collect(),
        };
        let body = self.wrap(&sighting.id, &kind, &subject, &time, data);
        let told = (!recovered).then_some(*trouble);
        Message {
            id: sighting.id.clone(),
            kind,
            subject,
            time,
            body,
            seq: sighting.seq,
            at: sighting.at,
            tells: vec![(sighting.subject.clone(), told)],
            stands_for: 1,
        }
    }

    /// Many messages in one.
    pub(super) fn sum_up(&self, held: Held) -> Message {
        let (id, kind) = (format!("{}/summary", held.last_id), format!("{PREFIX}.summary"));
        let time = time(held.at);
        let counts: Vec<String> = held
            .by_type
            .iter()
            .map(|(kind, count)| format!("{count} {}", kind.strip_prefix("dev.hivekeeper.").unwrap_or(kind)))
            .collect();
        let latest =
            held.latest.iter().take(LISTED_MAX).map(
                |(subject, (kind, at))| serde_json::json!({ "subject": subject.text(), "type": kind, "time": at }),
            );
        let data = SummaryData {
            hive: &self.name,
            text: format!("{} more: {}", held.messages, counts.join(", ")),
            messages: held.messages,
            by_type: &held.by_type,
            subjects: held.latest.len() as u64,
            latest: latest.collect(),
        };
        let body = self.wrap(&id, &kind, "", &time, data);
        Message {
            id,
            kind,
            subject: String::new(),
            time,
            body,
            seq: held.first.unwrap_or(Seq(0)),
            at: held.at,
            tells: held.tells.into_iter().collect(),
            stands_for: held.messages,
        }
    }

    /// A message that says nothing, by which an operator sees that messages arrive.
    pub(super) fn test(&self, id: &str, at: SystemTime) -> Message {
        let kind = format!("{PREFIX}.notify.test");
        let time = time(at);
        let data = serde_json::json!({ "hive": self.name, "text": "a test; nothing has happened" });
        let body = self.wrap(id, &kind, "", &time, data);
        let (seq, tells) = (Seq(0), Vec::new());
        Message { id: id.to_owned(), kind, subject: String::new(), time, body, seq, at, tells, stands_for: 1 }
    }
}

/// Messages that are told of as a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) messages: u64,
    by_type: BTreeMap<String, u64>,
    /// The last of each subject. Bounded by the agents and swarms that there are.
    latest: BTreeMap<Subject, (String, String)>,
    tells: BTreeMap<Subject, Option<Trouble>>,
    pub(super) first: Option<Seq>,
    last_id: String,
    at: SystemTime,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            messages: 0,
            by_type: BTreeMap::new(),
            latest: BTreeMap::new(),
            tells: BTreeMap::new(),
            first: None,
            last_id: String::new(),
            at: SystemTime::UNIX_EPOCH,
        }
    }
}

impl Held {
    /// Takes a message in.
    pub(super) fn add(&mut self, message: &Message) {
        self.messages += 1;
        *self.by_type.entry(message.kind.clone()).or_default() += 1;
        self.first = Some(self.first.map_or(message.seq, |first| first.min(message.seq)));
        for (subject, trouble) in &message.tells {
            self.tells.insert(subject.clone(), *trouble);
            self.latest.insert(subject.clone(), (message.kind.clone(), message.time.clone()));
        }
        self.last_id.clone_from(&message.id);
        self.at = message.at;
    }

    /// Puts what is younger behind this.
    pub(super) fn append(&mut self, younger: Self) {
        if younger.messages == 0 {
            return;
        }
        self.messages += younger.messages;
        for (kind, count) in younger.by_type {
            *self.by_type.entry(kind).or_default() += count;
        }
        self.first = [self.first, younger.first].into_iter().flatten().min();
        self.latest.extend(younger.latest);
        self.tells.extend(younger.tells);
        (self.last_id, self.at) = (younger.last_id, younger.at);
    }
}

fn time(at: SystemTime) -> String {
    Rfc3339(at).to_string()
}

/// The reasons of a document in one line.
fn reasons(document: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Document {
        reasons: Vec<Reason>,
    }
    #[derive(serde::Deserialize)]
    struct Reason {
        code: String,
        detail: String,
    }
    let Document { reasons } = serde_json::from_str(document.get()).ok()?;
    let words = reasons.iter().map(|why| if why.detail.is_empty() { &why.code } else { &why.detail });
    let words: Vec<&str> = words.map(String::as_str).collect();
    (!words.is_empty()).then(|| words.join("; "))
}
