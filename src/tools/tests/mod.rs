//! Every tool as every door calls it, on a desk in memory. What a tool takes and answers is held against its own schemas with each call.

mod documents;
mod doors;
mod locks;
mod messages;
mod overview;
mod schema;
mod tasks;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::{
    coordination::{Fate, testing},
    model::{AgentId, AgentName, HiveHealth, SwarmHealth, SwarmName},
    view::tests::laptop,
};

/// Three agents, of which those live that are said to.
#[derive(Default)]
struct Home {
    living: Mutex<HashSet<(AgentId, u64)>>,
}

impl House for Home {
    fn agents(&self, swarm: &SwarmName) -> Option<Vec<AgentName>> {
        let names = ["coder-1", "coder-2", "coder-3"].map(|name| name.parse().unwrap());
        (*swarm == testing::swarm()).then(|| names.to_vec())
    }

    fn lives(&self, agent: &AgentId, incarnation: u64) -> bool {
        self.living.lock().contains(&(agent.clone(), incarnation))
    }

    fn hive(&self) -> Arc<HiveHealth> {
        Arc::new(laptop())
    }

    fn swarm(&self, name: &SwarmName) -> Option<Arc<SwarmHealth>> {
        laptop().swarms.into_iter().find(|swarm| swarm.name == *name)
    }
}

struct Bench {
    home: Arc<Home>,
    tools: Tools,
}

/// Who asks in most tests.
const ME: &str = "coder-1";
const OTHER: &str = "coder-2";
/// The id of nothing.
const NIL: &str = "00000000-0000-0000-0000-000000000000";

fn agent(name: &str) -> Caller {
    Caller::Agent(testing::party(name, 1))
}

fn operator() -> Caller {
    Caller::Client { control: true }
}

impl Bench {
    /// On which the first incarnation of each agent lives.
    fn new() -> Self {
        let home = Arc::<Home>::default();
        let bench = Self { tools: Tools::new(testing::desk(), Arc::clone(&home) as _), home };
        for name in ["coder-1", "coder-2", "coder-3"] {
            bench.begins(name, 1);
        }
        bench
    }

    fn begins(&self, name: &str, incarnation: u64) {
        self.home.living.lock().insert((testing::party(name, 1).id, incarnation));
    }

    fn dies(&self, name: &str, incarnation: u64) {
        let party = testing::party(name, incarnation);
        self.home.living.lock().remove(&(party.id.clone(), incarnation));
        self.tools.desk.fate(&party, Fate::Ended);
    }

    #[track_caller]
    fn held_against(&self, schema: &Value, value: &Value) {
        let wrong = schema::judge(schema, value);
        assert!(wrong.is_empty(), "{wrong:#?}\n{value:#}");
    }

    async fn call(&self, caller: &Caller, name: &str, arguments: Value) -> Result<Value, ToolError> {
        let answer = self.tools.call(caller, name, &arguments.to_string(), &Unhurried).await?;
        let answer = serde_json::from_str(&answer.0).unwrap();
        let tool = find(name).unwrap();
        self.held_against(&(tool.arguments)(), &arguments);
        self.held_against(&(tool.answer)(), &answer);
        Ok(answer)
    }

    /// By an agent.
    async fn ok(&self, who: &str, name: &str, arguments: Value) -> Value {
        match self.call(&agent(who), name, arguments.clone()).await {
            Ok(answer) => answer,
            Err(error) => panic!("{name} {arguments}: {} {error}", error.code()),
        }
    }

    /// By an agent, who is refused: the code, and what is said of it.
    async fn refused(&self, who: &str, name: &str, arguments: Value) -> (&'static str, String) {
        match self.call(&agent(who), name, arguments).await {
            Ok(answer) => panic!("{name} is not refused: {answer:#}"),
            Err(error) => (error.code(), error.to_string()),
        }
    }

    async fn create(&self, tasks: Value) -> Vec<String> {
        let made = self.ok(ME, "task_create", json!({ "tasks": tasks })).await;
        made["tasks"].as_array().unwrap().iter().map(|task| text(&task["id"])).collect()
    }

    /// One task with nothing but a title, held.
    async fn hold(&self, who: &str) -> (String, u64) {
        let id = self.create(json!([{ "title": "t" }])).await.remove(0);
        let held = self.ok(who, "task_take", json!({ "id": id })).await;
        (id, held["claim"]["fence"].as_u64().unwrap())
    }

    async fn lock(&self, who: &str, mode: &str, resource: &str) -> (String, u64) {
        let held = self.ok(who, "lock_acquire", json!({ "resources": [resource], "mode": mode })).await;
        (text(&held["id"]), held["fence"].as_u64().unwrap())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// The same text with each id as `id-1`, `id-2` in the order in which they come, and each time as `time`.
fn scrubbed(text: &str) -> String {
    let (mut clean, mut ids) = (String::new(), HashMap::new());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(id) = rest.get(..36).filter(|id| id.parse::<uuid::Uuid>().is_ok()) {
            let number = ids.len() + 1;
            clean.push_str(&format!("id-{}", ids.entry(id.to_owned()).or_insert(number)));
            rest = &rest[36..];
        } else if rest.get(..24).is_some_and(|time| time.ends_with('Z') && crate::view::parse_rfc3339(time).is_some()) {
            clean.push_str("time");
            rest = &rest[24..];
        } else {
            clean.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    clean
}

/// A document without what differs from run to run.
fn document(value: &Value) -> Value {
    serde_json::from_str(&scrubbed(&value.to_string())).unwrap()
}

/// Waits, with the clock of the test standing, until somebody waits for a lock.
async fn until_waiting(bench: &Bench, number: usize) {
    for _ in 0..1000 {
        let waiting = bench.ok(ME, "lock_list", json!({ "held": false })).await;
        if waiting["locks"].as_array().unwrap().len() == number {
            return;
        }
    }
    panic!("nobody waits");
}
