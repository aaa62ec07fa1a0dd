//! Messages.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    task::{PartyView, party},
    words::{Id, Json, MessageIdText, PriorityWord, Word},
};
use crate::{
    model::{AgentName, Message, MessageKind},
    view::{
        health::{self, ReasonView},
        time::Rfc3339,
    },
};

/// One recipient's copy of a message.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Message)]
pub struct MessageView<'a> {
    id: MessageIdText,
    swarm: &'a str,
    /// The order of sending.
    number: u64,
    to: &'a str,
    /// Who has sent it; null: an operator, or the daemon itself.
    from: Option<PartyView<'a>>,
    /// `note`; `request`, to be answered with message_reply; `reply`; or `undelivered`: the daemon tells the sender that a message has not arrived or was not answered.
    kind: &'static str,
    priority: PriorityWord,
    topic: &'a str,
    /// Whether it went to everybody.
    broadcast: bool,
    sent_at: Rfc3339,
    /// `waiting`, `delivered`, `dead`, `acknowledged`, `answered` or `unanswered`.
    state: &'static str,
    /// Of a request: until when it may be answered.
    reply_by: Option<Rfc3339>,
    /// Of a reply: the request. Of what is `undelivered`: the message that it is about.
    about: Option<MessageIdText>,
    /// Why it is dead, or why the message that it is about was not delivered or answered.
    reason: Option<ReasonView<'a>>,
    /// How often it was delivered, this time included.
    deliveries: u32,
    /// The token of this delivery, to be shown to message_ack or message_nack.
    fence: Option<u64>,
    /// When it is delivered again unless it is acknowledged.
    redelivered_at: Option<Rfc3339>,
    /// Until when its recipient has asked not to have it again.
    not_before: Option<Rfc3339>,
    /// When it was given up.
    dead_since: Option<Rfc3339>,
    /// In the words of the sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Json, required = false)]
    body: Option<Json>,
}

/// Messages.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Messages)]
pub struct MessagesView<'a> {
    /// The most urgent first, of these the oldest.
    pub messages: Vec<MessageView<'a>>,
}

/// Messages of a swarm.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = MessagePage)]
pub struct MessagePageView {
    /// By recipient, the most urgent first; dead letters by the time of their death.
    #[schema(value_type = Vec<MessageView<'static>>)]
    pub messages: Vec<Box<RawValue>>,
    /// Whether there are more than were asked for or fit into one answer: ask for one recipient, or for one message.
    pub more: bool,
}

/// What has become of what was sent.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Sent)]
pub struct SentView<'a> {
    /// Its id, which replies and notices name as `about`.
    pub id: MessageIdText,
    /// Who has a copy.
    #[schema(value_type = Vec<String>)]
    pub recipients: Vec<&'a str>,
    /// For whom there was no room: their queues are full of what is as urgent or more.
    #[schema(value_type = Vec<String>)]
    pub full: Vec<&'a str>,
    /// Less urgent or older messages that made room and are dead letters now.
    pub displaced: usize,
    /// It was sent before under the same key; nothing has changed.
    pub repeated: bool,
}

/// Where a message stands now.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = MessageState)]
pub struct MessageStateView<'a> {
    id: MessageIdText,
    to: &'a str,
    /// `waiting`, `delivered`, `dead`, `acknowledged`, `answered` or `unanswered`.
    state: &'static str,
}

/// Shows names.
pub fn names(names: &[AgentName]) -> Vec<&str> {
    names.iter().map(AgentName::as_str).collect()
}

/// Shows where a message stands.
pub fn message_state(message: &Message) -> MessageStateView<'_> {
    MessageStateView { id: Id(message.id), to: message.to.as_str(), state: state(message) }
}

/// Shows a message with its body.
pub fn message(message: &Message) -> MessageView<'_> {
    MessageView { body: Some(Json(message.body.clone())), ..envelope(message) }
}

/// Shows a message without its body.
pub fn envelope(message: &Message) -> MessageView<'_> {
    let (kind, reply_by, about, why) = match &message.kind {
        MessageKind::Note => ("note", None, None, None),
        MessageKind::Request { reply_by } => ("request", Some(Rfc3339(*reply_by)), None, None),
        MessageKind::Reply { to } => ("reply", None, Some(Id(*to)), None),
        MessageKind::Undelivered { of, reason } => ("undelivered", None, Some(Id(*of)), Some(reason)),
    };
    let why = message.dead.as_ref().map(|(_, reason)| reason).filter(|reason| !reason.is_empty()).or(why);
    MessageView {
        id: Id(message.id),
        swarm: message.swarm.as_str(),
        number: message.number,
        to: message.to.as_str(),
        from: message.from.as_ref().map(party),
        kind,
        priority: Word(message.priority),
        topic: &message.topic,
        broadcast: message.broadcast,
        sent_at: Rfc3339(message.sent_at),
        state: state(message),
        reply_by,
        about,
        reason: why.map(|text| health::reason_text(text)),
        deliveries: message.deliveries,
        fence: message.delivery.as_ref().map(|delivery| delivery.fence.0),
        redelivered_at: message.delivery.as_ref().map(|delivery| Rfc3339(delivery.until)),
        not_before: message.not_before.map(Rfc3339),
        dead_since: message.dead.as_ref().map(|(at, _)| Rfc3339(*at)),
        body: None,
    }
}

fn state(message: &Message) -> &'static str {
    match (&message.settled, &message.dead, &message.delivery) {
        (Some(settled), ..) => settled.how.word(),
        (None, Some(_), _) => "dead",
        (None, None, Some(_)) => "delivered",
        (None, None, None) => "waiting",
    }
}
