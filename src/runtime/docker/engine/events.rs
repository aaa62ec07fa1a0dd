//! What the engine says happens to containers. A hint, never the state: it tells when to look.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use bollard::{errors::Error as ClientError, models::EventMessage, query_parameters::EventsOptionsBuilder};
use futures_util::{Stream, StreamExt, pin_mut};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{client::Engine, names::label};
use crate::model::{HiveId, SwarmName};

/// Events that wait for us. The engine keeps 1024 for a slow reader and drops the rest without a word, so we read without waiting and count ourselves.
const QUEUE: usize = 1024;
/// What is asked for; the other thirty kinds would only fill the engine's queue.
const ASKED: &[&str] = &["start", "die", "oom", "exec_die", "pause", "unpause", "destroy"];

/// What may come out of [`Events::next`].
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// Something happened to a container.
    Container(ContainerEvent),
    /// So many events came faster than they were taken and are gone: look at everything.
    Lost(u64),
    /// The stream has ended, and why. The last one: connect anew, then look at everything.
    Ended(String),
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerEvent {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The hive whose label it carries.
    pub hive_id: Option<HiveId>,
    /// The swarm whose label it carries.
    pub swarm: Option<SwarmName>,
    /// By the engine's clock.
    pub at: SystemTime,
    /// What happened.
    pub incident: Incident,
}

/// What happens to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incident {
    /// It was started.
    Started,
    /// PID 1 ended.
    Died {
        /// Its exit code.
        code: Option<i64>,
    },
    /// Memory ran out and somebody in it was killed; the only place where the engine says so of an exec'd process.
    OutOfMemory,
    /// A command ended that had been started in it.
    ExecDied {
        /// The command's id.
        exec: String,
        /// Its exit code; right also where [`super::Engine::exec_end`] is not.
        code: Option<i64>,
    },
    /// It was frozen.
    Paused,
    /// It was unfrozen.
    Unpaused,
    /// It is gone.
    Destroyed,
}

/// A stream of events; ends when dropped.
pub struct Events {
    queue: mpsc::Receiver<Happening>,
    reader: JoinHandle<()>,
}

impl Events {
    /// The next one; `None` behind `Ended`. Losing the race in a `select!` loses nothing.
    pub async fn next(&mut self) -> Option<Happening> {
        self.queue.recv().await
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Engine {
    /// Events of every container, ours or not (a sidecar is not). `since` closes the gap before the engine listens to us: take the time before the
    /// list that goes with it; what happened since then is said again, as far as the engine remembers (256 events, none across its restart).
    pub fn events(&self, since: SystemTime) -> Events {
        let asked: Vec<&str> = ASKED.to_vec();
        let filters = HashMap::from([("type", vec!["container"]), ("event", asked)]);
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
        let (sender, queue) = mpsc::channel(QUEUE);
        let engine = self.clone();
        let reader = tokio::spawn(async move {
            let messages = engine.docker().events(Some(options));
            pass_on(messages.map(|message| message.map(read)), sender).await;
        });
        Events { queue, reader }
    }
}

/// Reads as fast as events come, whatever becomes of them.
async fn pass_on(
    messages: impl Stream<Item = Result<Option<ContainerEvent>, ClientError>>,
    queue: mpsc::Sender<Happening>,
) {
    let mut lost = 0;
    pin_mut!(messages);
    let why = loop {
        tokio::select! {
            biased;
            // What was lost is told in its place: before anything that came later.
            room = queue.reserve(), if lost > 0 => match room {
                Ok(room) => {
                    room.send(Happening::Lost(lost));
                    lost = 0;
                }
                Err(_) => return,
            },
            message = messages.next() => match message {
                Some(Ok(Some(_))) if lost > 0 => lost += 1,
                Some(Ok(Some(event))) => lost += u64::from(queue.try_send(Happening::Container(event)).is_err()),
                Some(Ok(None)) => {}
                Some(Err(error)) => break error.to_string(),
                None => break "the engine closed the stream".to_owned(),
            },
        }
    };
    if lost > 0 && queue.send(Happening::Lost(lost)).await.is_err() {
        return;
    }
    // Nobody to tell is fine.
    let _ = queue.send(Happening::Ended(why)).await;
}

fn read(message: EventMessage) -> Option<ContainerEvent> {
    let actor = message.actor?;
    let attributes = actor.attributes.unwrap_or_default();
    let code = || attributes.get("exitCode").and_then(|code| code.parse().ok());
    // Some actions carry more behind a colon (`exec_start: COMMAND`).
    let action = message.action?;
    let incident = match action.split(':').next()? {
        "start" => Incident::Started,
        "die" => Incident::Died { code: code() },
        "oom" => Incident::OutOfMemory,
        "exec_die" => Incident::ExecDied { exec: attributes.get("execID").cloned().unwrap_or_default(), code: code() },
        "pause" => Incident::Paused,
        "unpause" => Incident::Unpaused,
        "destroy" => Incident::Destroyed,
        _ => return None,
    };
    let since_epoch = message.time_nano.and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or_default();
    Some(ContainerEvent {
        id: actor.id?,
        name: attributes.get("name").cloned().unwrap_or_default(),
        hive_id: attributes.get(label::HIVE_ID).and_then(|id| id.parse().ok()),
        swarm: attributes.get(label::SWARM).and_then(|swarm| swarm.parse().ok()),
        at: SystemTime::UNIX_EPOCH + Duration::from_nanos(since_epoch),
        incident,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use bollard::models::EventActor;
    use futures_util::stream;

    use super::*;

    fn message(action: &str, attributes: &[(&str, &str)]) -> EventMessage {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        EventMessage {
            action: Some(action.to_owned()),
            actor: Some(EventActor { id: Some("0a".to_owned()), attributes: Some(attributes) }),
            time_nano: Some(1_500_000_000),
            ..Default::default()
        }
    }

    #[test]
    fn an_event_says_whose_and_what() {
        let hive_id = HiveId::mint();
        let attributes =
            [("name", "c"), ("exitCode", "137"), (label::HIVE_ID, &hive_id.to_string()), (label::SWARM, "review")];
        let event = read(message("die", &attributes)).unwrap();
        assert_eq!(event.incident, Incident::Died { code: Some(137) });
        assert_eq!((event.id.as_str(), event.name.as_str(), event.hive_id), ("0a", "c", Some(hive_id)));
        assert_eq!(event.swarm.unwrap().as_str(), "review");
        assert_eq!(event.at, SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
        let exec = read(message("exec_die", &[("execID", "e1"), ("exitCode", "3")])).unwrap();
        assert_eq!(exec.incident, Incident::ExecDied { exec: "e1".to_owned(), code: Some(3) });
        assert_eq!(read(message("exec_start: sh -c x", &[])), None);
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_missed_and_why_it_ended() {
        let event = || Ok(read(message("start", &[])));
        let (sender, mut queue) = mpsc::channel(2);
        let reader = tokio::spawn(pass_on(stream::iter((0..5).map(move |_| event())), sender));
        let mut all = Vec::new();
        tokio::task::yield_now().await;
        while let Some(happening) = queue.recv().await {
            all.push(happening);
        }
        reader.await.unwrap();
        let kinds: Vec<String> = all
            .iter()
            .map(|happening| match happening {
                Happening::Container(_) => "event".to_owned(),
                Happening::Lost(count) => format!("lost {count}"),
                Happening::Ended(why) => why.clone(),
            })
            .collect();
        assert_eq!(kinds, ["event", "event", "lost 3", "the engine closed the stream"]);
    }
}
