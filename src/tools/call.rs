//! One call: who asks, for whom, and how it is answered.

use std::{sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    error::ToolError,
    list::{Effect, Who, find},
};
use crate::{
    coordination::Desk,
    model::{AgentId, AgentName, HiveHealth, Party, SwarmHealth, SwarmName},
};

/// What the tools ask of the house. The composition root implements it.
pub trait House: Send + Sync {
    /// The agents that the swarm is to have, by name; `None`: there is no such swarm.
    fn agents(&self, swarm: &SwarmName) -> Option<Vec<AgentName>>;
    /// Whether this incarnation lives.
    fn lives(&self, agent: &AgentId, incarnation: u64) -> bool;
    /// The health of all.
    fn hive(&self) -> Arc<HiveHealth>;
    /// The health of one swarm.
    fn swarm(&self, name: &SwarmName) -> Option<Arc<SwarmHealth>>;
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// An incarnation of an agent that has proven itself.
    Agent(Party),
    /// Whoever may ask the daemon; he says for whom he acts.
    Client {
        /// Whether he may change anything.
        control: bool,
    },
}

/// Hears that an answer takes its time, about once a second.
pub trait Patience: Send + Sync {
    /// For so long now, and what is waited for, for people.
    fn waits(&self, waited: Duration, what: &str);
}

/// Whoever waits and wants to hear nothing meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Unhurried;

impl Patience for Unhurried {
    fn waits(&self, _: Duration, _: &str) {}
}

/// An answer: a JSON object as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer(pub String);

impl Answer {
    /// Writes a document down.
    pub(super) fn of(document: &impl Serialize) -> Self {
        // Documents are ours and have text for keys, which is all that could fail.
        Self(serde_json::to_string(document).unwrap_or_default())
    }
}

/// All tools, and what they work on.
#[derive(Clone)]
pub struct Tools {
    pub(super) desk: Desk,
    pub(super) house: Arc<dyn House>,
}

/// One call of a tool, as the tool sees it.
pub struct Call<'a> {
    pub(super) tools: &'a Tools,
    /// Whose work; always there for tools that need it.
    pub(super) swarm: Option<SwarmName>,
    /// For whom; always there for tools that need it.
    pub(super) party: Option<Party>,
    pub(super) patience: &'a dyn Patience,
}

impl Tools {
    /// Tools that work with this desk.
    pub fn new(desk: Desk, house: Arc<dyn House>) -> Self {
        Self { desk, house }
    }

    /// Calls a tool with the text of its arguments, a JSON object. Who drops this no longer waits; what was decided stands.
    ///
    /// # Errors
    /// Why it has no answer.
    pub async fn call(
        &self,
        caller: &Caller,
        name: &str,
        arguments: &str,
        patience: &dyn Patience,
    ) -> Result<Answer, ToolError> {
        let tool = find(name).ok_or_else(|| ToolError::UnknownTool(name.chars().take(80).collect()))?;
        if *caller == (Caller::Client { control: false }) && tool.effect != Effect::Reads {
            return Err(ToolError::ReadOnly(tool.name));
        }
        let mut arguments: Map<String, Value> = serde_json::from_str(arguments).map_err(unreadable)?;
        let (swarm, party) = self.who(caller, tool.who, &mut arguments)?;
        (tool.run)(Call { tools: self, swarm, party, patience }, arguments).await
    }

    /// Whose work it is and who acts, taken out of the arguments.
    fn who(
        &self,
        caller: &Caller,
        who: Who,
        arguments: &mut Map<String, Value>,
    ) -> Result<(Option<SwarmName>, Option<Party>), ToolError> {
        let swarm: Option<SwarmName> = name(arguments, "swarm")?;
        if let Caller::Agent(party) = caller {
            if let Some(found) = swarm.filter(|swarm| *swarm != party.id.swarm) {
                return Err(wrong("swarm", found, format!("{}, to which this session belongs", party.id.swarm)));
            }
            return match party.incarnation {
                Some(incarnation) if !self.house.lives(&party.id, incarnation) => {
                    Err(ToolError::NotAlive { agent: party.id.clone(), incarnation })
                }
                _ => Ok((Some(party.id.swarm.clone()), Some(party.clone()))),
            };
        }
        let Some(swarm) = swarm else {
            return if who == Who::Anyone {
                Ok((None, None))
            } else {
                Err(wrong("swarm", "nothing", "the name of a swarm"))
            };
        };
        let agents = self.house.agents(&swarm).ok_or_else(|| ToolError::UnknownSwarm(swarm.to_string()))?;
        if who == Who::Anyone {
            return Ok((Some(swarm), None));
        }
        let agent: Option<AgentName> = name(arguments, "agent")?;
        let incarnation = arguments.remove("incarnation").unwrap_or_default();
        let Some(agent) = agent else {
            return match who {
                Who::Party => Err(wrong("agent", "nothing", "the name of an agent, or another for a client")),
                Who::Swarm | Who::Anyone => Ok((Some(swarm), None)),
            };
        };
        let is_agent = agents.contains(&agent);
        let id = AgentId { swarm: swarm.clone(), name: agent };
        let incarnation = match (is_agent, incarnation) {
            (false, Value::Null) => None,
            (false, found) => return Err(wrong("incarnation", found, format!("nothing: {id} is no agent"))),
            (true, found) => match found.as_u64() {
                Some(incarnation) if self.house.lives(&id, incarnation) => Some(incarnation),
                Some(incarnation) => return Err(ToolError::NotAlive { agent: id, incarnation }),
                None => {
                    return Err(wrong(
                        "incarnation",
                        found,
                        format!("which start of {id} this is, as it finds it in HIVEKEEPER_INCARNATION"),
                    ));
                }
            },
        };
        Ok((Some(swarm), Some(Party { id, incarnation })))
    }
}

impl Call<'_> {
    /// Whose work.
    ///
    /// # Errors
    /// It was not said.
    pub(super) fn swarm(&self) -> Result<&SwarmName, ToolError> {
        self.swarm.as_ref().ok_or_else(|| wrong("swarm", "nothing", "the name of a swarm"))
    }

    /// For whom.
    ///
    /// # Errors
    /// It was not said.
    pub(super) fn party(&self) -> Result<&Party, ToolError> {
        self.party.as_ref().ok_or_else(|| wrong("agent", "nothing", "a name"))
    }
}

/// Reads what is the tool's own of the arguments.
///
/// # Errors
/// What is wrong with them.
pub(super) fn form<T: DeserializeOwned>(arguments: Map<String, Value>) -> Result<T, ToolError> {
    serde_json::from_value(Value::Object(arguments)).map_err(unreadable)
}

pub(super) fn wrong(key: &str, found: impl ToString, allowed: impl ToString) -> ToolError {
    ToolError::Arguments { key: key.to_owned(), found: found.to_string(), allowed: allowed.to_string() }
}

fn unreadable(error: serde_json::Error) -> ToolError {
    wrong("arguments", error, "a JSON object as the schema of the tool says")
}

fn name<T: std::str::FromStr<Err: std::fmt::Display>>(
    arguments: &mut Map<String, Value>,
    key: &'static str,
) -> Result<Option<T>, ToolError> {
    match arguments.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => text.parse().map(Some).map_err(|why| wrong(key, format!("{text:?}"), why)),
        Some(other) => Err(wrong(key, other, "a name")),
    }
}
