//! The health of the hive as `/sse/hybrid-health` tells it, kept current.

use std::{collections::BTreeMap, sync::mpsc::SyncSender, thread};

use serde::Deserialize;

use super::{
    client::Client,
    error::CliError,
    shapes::{Agent, Hive, Swarm},
    sse::{Frames, RETRY},
};

/// What the stream tells.
#[derive(Debug)]
pub(super) enum News {
    /// The whole.
    Whole(Box<Hive>),
    /// What has changed.
    Changed(Box<Changed>),
    /// Nothing comes until it is said otherwise; the stream is opened anew every second.
    Broken,
    /// It can't be had.
    Refused(CliError),
}

/// A `session_update`.
#[derive(Debug, Deserialize)]
pub(super) struct Changed {
    #[serde(default)]
    agents: Vec<Agent>,
    #[serde(default)]
    swarms: Vec<Swarm>,
    #[serde(default)]
    removed: Vec<String>,
}

/// Swarms and agents as they were last told of.
#[derive(Debug, Default)]
pub(super) struct Picture {
    /// Name and level of the hive, once anything was told.
    pub(super) hive: Option<(String, String)>,
    pub(super) swarms: BTreeMap<String, Swarm>,
    /// By `SWARM/NAME`.
    pub(super) agents: BTreeMap<String, Agent>,
    /// Whether the stream is broken at present, so that all of it is old.
    pub(super) is_stale: bool,
}

impl Picture {
    /// Takes what the stream tells.
    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Whole(hive) => {
                let Hive { hive: name, level, swarms, agents, .. } = *hive;
                self.hive = Some((name, level));
                self.swarms = swarms.into_iter().map(|swarm| (swarm.name.clone(), swarm)).collect();
                self.agents = agents.into_iter().map(|agent| (agent.id(), agent)).collect();
                self.is_stale = false;
            }
            News::Changed(changed) => {
                self.swarms.extend(changed.swarms.into_iter().map(|swarm| (swarm.name.clone(), swarm)));
                self.agents.extend(changed.agents.into_iter().map(|agent| (agent.id(), agent)));
                for id in &changed.removed {
                    self.agents.remove(id);
                }
                // A swarm whose last agent is gone is gone: nothing else tells of it before the next whole document.
                let left: Vec<&str> = changed.removed.iter().filter_map(|id| Some(id.split_once('/')?.0)).collect();
                let agents = &self.agents;
                self.swarms.retain(|name, _| {
                    !left.contains(&name.as_str()) || agents.values().any(|agent| agent.swarm == *name)
                });
            }
            News::Broken | News::Refused(_) => self.is_stale = true,
        }
    }
}

impl Agent {
    /// `SWARM/NAME`
    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.swarm, self.name)
    }
}

/// Reads the stream on a thread of its own until nobody listens or it is refused.
pub(super) fn watch<T: Send + 'static>(
    client: Client,
    swarm: Option<&str>,
    to: SyncSender<T>,
    wrap: impl Fn(News) -> T + Send + 'static,
) {
    let only = swarm.map(|swarm| format!("&swarms={swarm}")).unwrap_or_default();
    let path = format!("/sse/hybrid-health?subscriptions=status,sessions{only}");
    thread::spawn(move || {
        let mut first = true;
        loop {
            match client.stream(&path, None) {
                Ok(stream) => {
                    for frame in Frames::new(stream) {
                        let Some(news) = read(&client, &frame.data).transpose() else { continue };
                        if to.send(wrap(news.unwrap_or_else(News::Refused))).is_err() {
                            return;
                        }
                    }
                }
                Err(error) if first || matches!(error, CliError::Refused { .. } | CliError::Usage(_)) => {
                    // Whoever listened may be gone already.
                    let _ = to.send(wrap(News::Refused(error)));
                    return;
                }
                Err(_) => {}
            }
            first = false;
            if to.send(wrap(News::Broken)).is_err() {
                return;
            }
            thread::sleep(RETRY);
        }
    });
}

fn read(client: &Client, text: &str) -> Result<Option<News>, CliError> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
    }
    let head: Head<'_> = client.parse_borrowed(text)?;
    Ok(match &*head.kind {
        "status_update" => Some(News::Whole(client.parse(text)?)),
        "session_update" => Some(News::Changed(client.parse(text)?)),
        _ => None,
    })
}
