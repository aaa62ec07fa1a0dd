//! Swarm documents that come through the API: read like the file's, with its defaults, and held to what strangers may ask for.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    engine::Sockets,
    home::{ApiRights, Author, Machine},
    problem::{Place, Problem},
    swarm::{self, AgentSlots, Ground, SwarmSlots},
    tree::{Entry, Node, Value},
};
use crate::model::{Origin, SwarmSpec};

/// What documents of the API are read against: the defaults and rules of one configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Documents {
    pub(super) swarm: SwarmSlots,
    pub(super) agent: AgentSlots,
    pub(super) sample_interval: Duration,
    pub(super) engine: Option<PathBuf>,
    pub(super) rights: ApiRights,
}

impl Documents {
    /// The same rules with the defaults of another configuration.
    #[must_use]
    pub fn with_defaults_of(&self, other: &Self) -> Self {
        Self { swarm: other.swarm.clone(), agent: other.agent.clone(), ..self.clone() }
    }

    /// The swarm that a document means. `resolve` resolves the symbolic links of a path that must exist.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(
        &self,
        document: &serde_json::Value,
        resolve: &dyn Fn(&Path) -> io::Result<PathBuf>,
    ) -> Result<SwarmSpec, Vec<Problem>> {
        let sockets = Sockets::new(self.engine.as_deref(), resolve);
        let machine = Machine { base: None, resolve, sockets: &sockets, author: Author::Api(&self.rights) };
        let ground = Ground { machine, swarm: &self.swarm, agent: &self.agent, sample_interval: self.sample_interval };
        let mut problems = Vec::new();
        let spec = swarm::document(node(document), &ground, &mut problems);
        match spec {
            Some(spec) if problems.is_empty() => Ok(SwarmSpec { origin: Origin::Api, ..spec }),
            _ => Err(problems),
        }
    }
}

fn node(value: &serde_json::Value) -> Node {
    use serde_json::Value as Json;
    let value = match value {
        // Not said. A table leaves such a key out; anywhere else it is nothing that a key takes.
        Json::Null => Value::String(String::new()),
        Json::Bool(truth) => Value::Boolean(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(fits) => Value::Integer(fits),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::Array(items.iter().map(node).collect()),
        Json::Object(entries) => {
            let said = entries.iter().filter(|(_, value)| !value.is_null());
            let entry =
                |(key, value): (&String, &Json)| Entry { key: key.clone(), place: Place::Document, node: node(value) };
            Value::Table(said.map(entry).collect())
        }
    };
    Node { place: Place::Document, value }
}
