//! One call: who asks, for whom, and how it is answered.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    error::ToolError,
    form::{Arguments, members, wrong},
    list::{Effect, Tool, Who, find},
    meter::Meter,
};
use crate::{
    coordination::{Cores, Desk, Refused},
    model::{AgentId, AgentName, HiveHealth, Party, SwarmHealth, SwarmName},
};

/// How long a call may wait: longer than a client's usual patience, and short enough that whoever is gone is noticed.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(300);
/// Between two words to whoever waits.
const WORD_EVERY: Duration = Duration::from_secs(1);

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
    pub(super) meter: Arc<Meter>,
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
        Self { desk, house, meter: Arc::default() }
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
        let tool = find(name);
        let running = self.meter.begin(tool.map_or("unknown", |tool| tool.name));
        let answer = match tool {
            Some(tool) => self.answer(caller, tool, arguments, patience).await,
            None => Err(ToolError::UnknownTool(name.chars().take(80).collect())),
        };
        running.ended(&answer);
        answer
    }

    async fn answer(
        &self,
        caller: &Caller,
        tool: &Tool,
        arguments: &str,
        patience: &dyn Patience,
    ) -> Result<Answer, ToolError> {
        if *caller == (Caller::Client { control: false }) && tool.effect != Effect::Reads {
            return Err(ToolError::ReadOnly(tool.name));
        }
        let mut arguments = members("arguments", arguments)?;
        let (swarm, party) = self.who(caller, tool.who, &mut arguments)?;
        (tool.run)(Call { tools: self, swarm, party, patience }, &arguments).await
    }

    /// Whose work it is and who acts, taken out of the arguments.
    fn who(
        &self,
        caller: &Caller,
        who: Who,
        arguments: &mut Arguments,
    ) -> Result<(Option<SwarmName>, Option<Party>), ToolError> {
        let swarm: Option<SwarmName> = name(arguments, "swarm")?;
        if let Caller::Agent(party) = caller {
            let own = |key, found: String| {
                Err(wrong(key, found, format!("nothing else than {party}, whose session this is")))
            };
            if let Some(found) = swarm.filter(|swarm| *swarm != party.id.swarm) {
                return own("swarm", found.to_string());
            }
            if let Some(found) = name(arguments, "agent")?.filter(|agent: &AgentName| *agent != party.id.name) {
                return own("agent", found.to_string());
            }
            let incarnation = value(arguments, "incarnation");
            if !incarnation.is_null() && incarnation.as_u64() != party.incarnation {
                return own("incarnation", incarnation.to_string());
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
        let incarnation = value(arguments, "incarnation");
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
            (false, found) => return Err(wrong("incarnation", found, format!("nothing, for {id} is no agent"))),
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

    /// Lets the rules decide.
    ///
    /// # Errors
    /// Why it is refused, or was not done.
    pub(super) async fn decide<T, F>(&self, decide: F) -> Result<T, ToolError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Cores, SystemTime) -> Result<T, Refused> + Send + 'static,
    {
        Ok(self.tools.desk.call(decide).await?)
    }

    /// Waits for something, and says so every second.
    pub(super) async fn attend<T>(&self, what: &str, for_it: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let mut for_it = std::pin::pin!(for_it);
        loop {
            match timeout(WORD_EVERY, &mut for_it).await {
                Ok(there) => return there,
                Err(_) => self.patience.waits(began.elapsed(), what),
            }
        }
    }

    /// Waits for something until then at most, and says so every second.
    pub(super) async fn attend_until(&self, until: Instant, what: &str, for_it: impl Future) {
        // Whether it came or the time is over, the caller looks again.
        let _ = self.attend(what, timeout_at(until, for_it)).await;
    }
}

/// What a name may be.
const NAMES: &str = "a name: 1 to 63 of a-z, 0-9 and '-', not at the ends";

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

fn value(arguments: &mut Arguments, key: &str) -> Value {
    arguments.remove(key).and_then(|text| serde_json::from_str(text.get()).ok()).unwrap_or_default()
}

fn name<T: std::str::FromStr<Err: std::fmt::Display>>(
    arguments: &mut Arguments,
    key: &str,
) -> Result<Option<T>, ToolError> {
    match value(arguments, key) {
        Value::Null => Ok(None),
        Value::String(text) => text.parse().map(Some).map_err(|_| wrong(key, format!("{:?}", short(&text)), NAMES)),
        other => Err(wrong(key, short(&other.to_string()), NAMES)),
    }
}
