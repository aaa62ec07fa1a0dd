//! Tools for messages.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    call::{Answer, Call, WAIT_MAX},
    error::ToolError,
    form::{Arguments, form, time, within, wrong},
    list::{Effect, Tool, Who},
    pile::Pile,
    schema,
};
use crate::{
    coordination::{
        Bell, Refused,
        mail::{Letter, LetterKind, REPLY_MAX, Sent, To, Wanted},
    },
    model::{AgentId, AgentName, Fence, Priority, SwarmName},
    view::work::{
        Id, Json, MessageIdText, MessagePageView, MessageStateView, MessagesView, PriorityWord, SentView, envelope,
        message, message_state, names,
    },
};

/// How long a delivered message may go unacknowledged where nothing is said.
const REDELIVERY: Duration = Duration::from_secs(60);
/// Messages in one answer of a list.
const LISTED_MAX: usize = 1_000;

pub(super) const TOOLS: &[Tool] = &[
    Tool {
        name: "message_send",
        title: "Send a message",
        about: "Sends a message to one agent or, with `*`, to all others of the swarm. It waits for its recipient, also for the one's next incarnation, until it is \
                acknowledged. With `reply_within_ms` it asks for an answer, which comes as a message whose `about` is the id of this one; when none comes in \
                time, the daemon tells you so in the same way.",
        effect: Effect::Adds,
        who: Who::Swarm,
        arguments: || schema::arguments::<Send>(Who::Swarm),
        answer: schema::of::<SentView<'_>>,
        run: |call, arguments| Box::pin(send(call, arguments)),
    },
    Tool {
        name: "message_reply",
        title: "Answer a request",
        about: "Answers a message of the kind `request`, which is acknowledged with that.",
        effect: Effect::Adds,
        who: Who::Party,
        arguments: || schema::arguments::<Reply>(Who::Party),
        answer: schema::of::<SentView<'_>>,
        run: |call, arguments| Box::pin(reply(call, arguments)),
    },
    Tool {
        name: "message_receive",
        title: "Receive messages",
        about: "Gives you the messages that wait for you, the most urgent first, each with a token (`fence`). Acknowledge each with message_ack once you have dealt \
                with it: what is not acknowledged in time is delivered again. Answers with none when there is none, after waiting `wait_ms` for one.",
        effect: Effect::Adds,
        who: Who::Party,
        arguments: || schema::arguments::<Receive>(Who::Party),
        answer: schema::of::<MessagesView<'_>>,
        run: |call, arguments| Box::pin(receive(call, arguments)),
    },
    Tool {
        name: "message_ack",
        title: "Acknowledge a message",
        about: "Says that you have dealt with a message, which is not delivered again. Saying it again is as good as once.",
        effect: Effect::AddsOnce,
        who: Who::Party,
        arguments: || schema::arguments::<Acknowledge>(Who::Party),
        answer: schema::of::<MessageStateView<'_>>,
        run: |call, arguments| Box::pin(ack(call, arguments)),
    },
    Tool {
        name: "message_nack",
        title: "Hand a message back",
        about: "Hands a message back, to be delivered again after a pause. After five deliveries it is given up and becomes a dead letter, and its sender is told.",
        effect: Effect::Adds,
        who: Who::Party,
        arguments: || schema::arguments::<HandBack>(Who::Party),
        answer: schema::of::<MessageStateView<'_>>,
        run: |call, arguments| Box::pin(nack(call, arguments)),
    },
    Tool {
        name: "message_list",
        title: "List messages",
        about: "Shows messages of the swarm that are not acknowledged, or its dead letters, without taking them from anybody, and without their bodies unless `full`.",
        effect: Effect::Reads,
        who: Who::Swarm,
        arguments: || schema::arguments::<List>(Who::Swarm),
        answer: schema::of::<MessagePageView>,
        run: |call, arguments| Box::pin(list(call, arguments)),
    },
    Tool {
        name: "message_redrive",
        title: "Put a dead letter back",
        about: "Puts a dead letter back into the queue of each of its recipients that has room, with all its deliveries.",
        effect: Effect::Adds,
        who: Who::Swarm,
        arguments: || schema::arguments::<Redrive>(Who::Swarm),
        answer: schema::of::<SentView<'_>>,
        run: |call, arguments| Box::pin(redrive(call, arguments)),
    },
];

/// What to send, and to whom.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Send {
    /// The name of an agent of the swarm, or `*` for all of them save yourself.
    to: String,
    /// `to` is the name of a client, which nobody supervises: it is not looked for among the agents.
    #[serde(default)]
    client: bool,
    /// What it is about, for filters of recipients.
    #[serde(default)]
    #[schema(max_length = 128)]
    topic: String,
    /// What to say: any JSON value of at most 64 KiB.
    #[schema(value_type = Json, required = false)]
    body: Option<Json>,
    /// How urgent it is. Where a queue is full, the least urgent gives way.
    #[schema(value_type = PriorityWord, required = false, default = "normal")]
    priority: Option<PriorityWord>,
    /// Asks for an answer within this time.
    #[schema(minimum = 1, maximum = 2_592_000_000_u64)]
    reply_within_ms: Option<u64>,
    /// Your name for this call, so that repeating it sends nothing twice.
    #[schema(min_length = 1, max_length = 128)]
    key: Option<String>,
}

/// An answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Reply {
    /// The request.
    id: MessageIdText,
    /// What it is about, for filters of whoever asked.
    #[serde(default)]
    #[schema(max_length = 128)]
    topic: String,
    /// What to say: any JSON value of at most 64 KiB.
    #[schema(value_type = Json, required = false)]
    body: Option<Json>,
    /// How urgent it is.
    #[schema(value_type = PriorityWord, required = false, default = "normal")]
    priority: Option<PriorityWord>,
    /// Your name for this call, so that repeating it sends nothing twice.
    #[schema(min_length = 1, max_length = 128)]
    key: Option<String>,
}

/// Which messages to receive.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Receive {
    /// Of these topics alone, or, with `*` behind, of all that begin so; none: of all.
    #[serde(default)]
    #[schema(max_items = 64)]
    topics: Vec<String>,
    /// Only what this request has come to: its answer, or word that there is none.
    #[schema(value_type = MessageIdText, required = false)]
    about: Option<MessageIdText>,
    /// At most so many.
    #[serde(default = "received")]
    #[schema(minimum = 1, maximum = 100, default = 10)]
    max: usize,
    /// How long you may take to acknowledge them before they are delivered again.
    #[schema(minimum = 1, maximum = 86_400_000, default = 60_000)]
    redeliver_after_ms: Option<u64>,
    /// How long to wait for a message when there is none.
    #[serde(default)]
    #[schema(maximum = 300_000, default = 0)]
    wait_ms: u64,
}

/// A message that was dealt with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Acknowledge {
    /// The message.
    id: MessageIdText,
    /// The token of its delivery.
    fence: u64,
}

/// A message to be handed back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HandBack {
    /// The message.
    id: MessageIdText,
    /// The token of its delivery.
    fence: u64,
    /// The pause before it is delivered again.
    #[serde(default)]
    #[schema(maximum = 86_400_000, default = 0)]
    delay_ms: u64,
}

/// Which messages to show.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct List {
    /// Dead letters, rather than what is not acknowledged yet.
    #[serde(default)]
    dead: bool,
    /// Only those for this recipient.
    to: Option<String>,
    /// Only this message, of which each recipient has a copy, also one that is acknowledged or dead.
    #[schema(value_type = MessageIdText, required = false)]
    id: Option<MessageIdText>,
    /// At most so many.
    #[serde(default = "listed")]
    #[schema(minimum = 1, maximum = 1000, default = 100)]
    limit: usize,
    /// With their bodies.
    #[serde(default)]
    full: bool,
}

/// Which dead letter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Redrive {
    /// The message.
    id: MessageIdText,
}

fn received() -> usize {
    10
}

fn listed() -> usize {
    100
}

fn recipient(text: &str) -> Result<AgentName, ToolError> {
    text.parse().map_err(|_| {
        wrong("to", format!("{:?}", text.chars().take(80).collect::<String>()), "the name of an agent or a client")
    })
}

impl Call<'_> {
    /// The one recipient that is named.
    fn one(&self, swarm: &SwarmName, agents: &[AgentName], wanted: &Send) -> Result<AgentName, ToolError> {
        let name = recipient(&wanted.to)?;
        if wanted.client || agents.contains(&name) {
            return Ok(name);
        }
        Err(ToolError::UnknownRecipient(AgentId { swarm: swarm.clone(), name }))
    }
}

async fn send(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: Send = form(arguments)?;
    let swarm = call.swarm()?.clone();
    let agents = call.tools.house.agents(&swarm).ok_or_else(|| ToolError::UnknownSwarm(swarm.to_string()))?;
    let own = call.party.as_ref().map(|party| &party.id.name);
    let (to, to_client) = match wanted.to.as_str() {
        "*" => (To::All(agents.into_iter().filter(|agent| Some(agent) != own).collect()), false),
        _ => {
            let one = call.one(&swarm, &agents, &wanted)?;
            let is_client = !agents.contains(&one);
            (To::One(one), is_client)
        }
    };
    let reply_max_ms = u64::try_from(REPLY_MAX.as_millis()).unwrap_or(u64::MAX);
    let reply_within =
        wanted.reply_within_ms.map(|found| within("reply_within_ms", found, 1, reply_max_ms)).transpose()?;
    let reply_within = reply_within.map(Duration::from_millis);
    let (by, priority) = (call.party.clone(), wanted.priority.map_or(Priority::Normal, |word| word.0));
    let body = wanted.body.unwrap_or_else(Json::null).0;
    let (topic, key) = (Arc::from(wanted.topic), wanted.key.map(Arc::from));
    let sent = call
        .decide(move |cores, now| {
            let kind = match (to, reply_within) {
                (to, None) => LetterKind::Note { to },
                (To::One(to), Some(within)) => LetterKind::Request { to, reply_by: now + within },
                (To::All(_), Some(_)) => {
                    let (found, allowed) =
                        ("it beside `to`: \"*\"".to_owned(), "one recipient, who is to answer".to_owned());
                    return Err(Refused::Invalid { key: "reply_within_ms".to_owned(), found, allowed });
                }
            };
            cores.mail.send(
                &mut cores.counter,
                Letter { swarm, from: by, kind, to_client, priority, topic, body, key },
                now,
            )
        })
        .await?;
    Ok(Answer::of(&shown(&sent)))
}

async fn reply(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: Reply = form(arguments)?;
    let party = call.party()?.clone();
    let letter = Letter {
        swarm: party.id.swarm.clone(),
        from: Some(party),
        kind: LetterKind::Reply { to: wanted.id.0 },
        to_client: false,
        priority: wanted.priority.map_or(Priority::Normal, |word| word.0),
        topic: wanted.topic.into(),
        body: wanted.body.unwrap_or_else(Json::null).0,
        key: wanted.key.map(Arc::from),
    };
    let sent = call.decide(move |cores, now| cores.mail.send(&mut cores.counter, letter, now)).await?;
    Ok(Answer::of(&shown(&sent)))
}

fn shown(sent: &Sent) -> SentView<'_> {
    SentView {
        id: Id(sent.id),
        recipients: names(&sent.recipients),
        full: names(&sent.full),
        displaced: sent.displaced,
        repeated: sent.repeated,
    }
}

async fn receive(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: Receive = form(arguments)?;
    let party = call.party()?.clone();
    let until = Instant::now() + time("wait_ms", wanted.wait_ms, WAIT_MAX)?;
    let mut bell = call.tools.desk.listen(Bell::Mail(party.id.swarm.clone(), party.id.name.clone()));
    let topics: Arc<[Arc<str>]> = wanted.topics.into_iter().map(Arc::from).collect();
    let (about, max) = (wanted.about.map(|id| id.0), wanted.max);
    let redeliver_after = wanted.redeliver_after_ms.map_or(REDELIVERY, Duration::from_millis);
    loop {
        bell.forget();
        let (party, topics) = (party.clone(), Arc::clone(&topics));
        let received = call
            .decide(move |cores, now| {
                let wanted = Wanted { topics: &topics, about };
                cores.mail.receive(&mut cores.counter, &party, wanted, max, redeliver_after, now)
            })
            .await?;
        if !received.is_empty() || Instant::now() >= until {
            return Ok(Answer::of(&MessagesView { messages: received.iter().map(|one| message(one)).collect() }));
        }
        call.attend_until(until, "a message", bell.rings()).await;
    }
}

async fn ack(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Acknowledge { id, fence } = form(arguments)?;
    let party = call.party()?.clone();
    let after = call.decide(move |cores, now| cores.mail.ack(&party, id.0, Fence(fence), now)).await?;
    Ok(Answer::of(&message_state(&after)))
}

async fn nack(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let HandBack { id, fence, delay_ms } = form(arguments)?;
    let (party, delay) = (call.party()?.clone(), Duration::from_millis(delay_ms));
    let after = call
        .decide(move |cores, now| {
            cores.mail.nack(&mut cores.counter, &party, id.0, Fence(fence), delay, now)?;
            let own = |copy: &&Arc<crate::model::Message>| copy.to == party.id.name;
            cores.mail.copies(&party.id.swarm, id.0).find(own).cloned().ok_or(Refused::UnknownMessage(id.0))
        })
        .await?;
    Ok(Answer::of(&message_state(&after)))
}

async fn list(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: List = form(arguments)?;
    let limit = within("limit", wanted.limit, 1, LISTED_MAX)?;
    let to = wanted.to.as_deref().map(recipient).transpose()?;
    let (swarm, dead) = (call.swarm()?.clone(), wanted.dead);
    let found = call
        .decide(move |cores, _| {
            let fits = |copy: &&Arc<crate::model::Message>| to.as_ref().is_none_or(|to| copy.to == *to);
            // One more than wanted tells whether there are more.
            Ok(match (wanted.id, dead) {
                (Some(id), _) => cores.mail.copies(&swarm, id.0).filter(fits).take(limit + 1).cloned().collect(),
                (None, true) => cores.mail.dead(&swarm).filter(fits).take(limit + 1).cloned().collect(),
                (None, false) => cores.mail.list(&swarm, to.as_ref()).take(limit + 1).cloned().collect::<Vec<_>>(),
            })
        })
        .await?;
    let (mut pile, mut more) = (Pile::one_of(1), false);
    for one in &found {
        let document = if wanted.full { message(one) } else { envelope(one) };
        if pile.len() == limit || !pile.add(&document) {
            more = true;
            break;
        }
    }
    Ok(Answer::of(&MessagePageView { messages: pile.documents(), more }))
}

async fn redrive(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Redrive { id } = form(arguments)?;
    let swarm = call.swarm()?.clone();
    let sent = call.decide(move |cores, now| cores.mail.redrive(&mut cores.counter, &swarm, id.0, now)).await?;
    Ok(Answer::of(&shown(&sent)))
}
