//! What an answer says of agents. Pure. Each value is taken as its server's claim, under the server's own words; one whose unit is not said is
//! no measurement and is not taken at all.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value};

use super::{
    answer::shown,
    limits::{AGENTS_DEPTH_MAX, AGENTS_MAX, PROGRESS_BYTES_MAX, TEXT_CHARS_MAX},
};
use crate::{
    model::{Measured, Source, SourceAgent, health::Absent},
    view::parse_rfc3339,
};

/// Agents of one poll, each once, in the order in which they were named.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) agents: Vec<SourceAgent>,
    /// Without a name or an id, or beyond the limit.
    pub(super) left_out: u64,
    /// Whether any answer had a list, be it empty.
    pub(super) any: bool,
    keys: BTreeSet<Arc<str>>,
}

impl Listed {
    /// Adds what one answer lists. Who was named before stays as he was.
    pub(super) fn add(&mut self, payload: &Value, at: SystemTime) {
        let Some(items) = list(payload, AGENTS_DEPTH_MAX) else { return };
        self.any = true;
        for item in items {
            let Some(agent) = agent(item, at) else {
                self.left_out += 1;
                continue;
            };
            if self.keys.contains(agent.key()) {
                continue;
            }
            if self.agents.len() >= AGENTS_MAX {
                self.left_out += 1;
                continue;
            }
            self.keys.insert(Arc::clone(agent.key()));
            self.agents.push(agent);
        }
    }
}

/// The nearest member called `agents` that is an array of objects.
fn list(value: &Value, depth: usize) -> Option<&Vec<Value>> {
    let members = value.as_object()?;
    if let Some(Value::Array(items)) = members.get("agents")
        && items.iter().all(|item| item.is_object())
    {
        return Some(items);
    }
    let depth = depth.checked_sub(1)?;
    members.values().find_map(|member| list(member, depth))
}

fn agent(item: &Value, at: SystemTime) -> Option<SourceAgent> {
    let item = item.as_object()?;
    let said = |keys: &[&str]| keys.iter().find_map(|key| item.get(*key).filter(|value| !value.is_null()));
    let id = said(&["id", "agent_id", "agentId"]).and_then(word);
    let name = said(&["name"]).and_then(word).or_else(|| id.clone())?;
    Some(SourceAgent {
        name,
        id,
        state: claim(said(&["state", "status"]), word, at),
        kind: claim(said(&["type", "kind", "role", "agent_type", "agentType"]), word, at),
        task: claim(said(&["task", "current_task", "currentTask"]), task, at),
        cpu: with_unit(item, "cpu_cores", &["cpu", "cpu_usage", "cpuUsage"], cores, at),
        memory: with_unit(item, "memory_bytes", &["memory", "memory_usage", "memoryUsage"], Value::as_u64, at),
        last_heartbeat: claim(
            said(&["last_heartbeat", "lastHeartbeat", "last_seen", "lastSeen", "last_activity", "lastActivity"]),
            time,
            at,
        ),
        progress: claim(said(&["progress"]), |value| shown(value, PROGRESS_BYTES_MAX).map(Arc::from), at),
    })
}

/// Nothing said is never observed; what is said in a form that we can't read is unsupported.
fn claim<T>(said: Option<&Value>, read: impl Fn(&Value) -> Option<T>, at: SystemTime) -> Measured<T> {
    match said.map(read) {
        None => Measured::Absent(Absent::NeverObserved),
        Some(None) => Measured::Absent(Absent::Unsupported),
        Some(Some(value)) => Measured::Value { value, observed_at: at, source: Source::Mcp },
    }
}

/// Megabytes have been taken for percent before: only a key that names the unit counts.
fn with_unit<T>(
    item: &Map<String, Value>,
    key: &str,
    without: &[&str],
    read: impl Fn(&Value) -> Option<T>,
    at: SystemTime,
) -> Measured<T> {
    let said = item.get(key).filter(|value| !value.is_null());
    if said.is_none() && without.iter().any(|key| item.get(*key).is_some_and(|value| !value.is_null())) {
        return Measured::Absent(Absent::Unsupported);
    }
    claim(said, read, at)
}

fn cores(value: &Value) -> Option<f64> {
    value.as_f64().filter(|cores| cores.is_finite() && *cores >= 0.0)
}

/// Text, or a number as text, cut to what is shown.
fn word(value: &Value) -> Option<Arc<str>> {
    let text = match value {
        Value::String(text) => text.trim().chars().take(TEXT_CHARS_MAX).collect(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!text.is_empty()).then(|| Arc::from(text))
}

/// A task's words, or the name of an object that is one.
fn task(value: &Value) -> Option<Arc<str>> {
    word(value).or_else(|| ["description", "name", "title", "id"].iter().find_map(|key| word(value.get(*key)?)))
}

/// RFC 3339 text. A number could be seconds or milliseconds, of any epoch.
fn time(value: &Value) -> Option<SystemTime> {
    let far = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(253_402_300_799))?;
    parse_rfc3339(value.as_str()?).filter(|at| *at <= far)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    const AT: SystemTime = SystemTime::UNIX_EPOCH;

    fn listed(payloads: &[Value]) -> Listed {
        let mut listed = Listed::default();
        for payload in payloads {
            listed.add(payload, AT);
        }
        listed
    }

    fn names(listed: &Listed) -> Vec<&str> {
        listed.agents.iter().map(|agent| &*agent.name).collect()
    }

    #[test]
    fn lists_are_found_where_servers_put_them() {
        let agents = json!([{ "name": "a" }, { "agentId": "b-1" }, { "id": 3, "name": "" }]);
        for payload in [
            json!({ "agents": agents }),
            json!({ "success": true, "data": { "agents": agents } }),
            json!({ "swarm": { "status": { "x": 1, "agents": agents } } }),
            json!({ "agents": 3, "swarm": { "agents": agents } }),
        ] {
            let listed = listed(std::slice::from_ref(&payload));
            assert_eq!(names(&listed), ["a", "b-1", "3"], "{payload}");
        }
        for payload in
            [json!([]), json!("agents"), json!({ "agents": 3 }), json!({ "agents": ["a"] }), json!({ "a": [agents] })]
        {
            let listed = listed(std::slice::from_ref(&payload));
            assert!(!listed.any && listed.agents.is_empty(), "{payload}");
        }
        assert!(listed(&[json!({ "agents": [] })]).any, "an empty list is a list");
    }

    #[test]
    fn each_agent_is_listed_once_and_what_is_left_out_is_counted() {
        let first = json!({ "agents": [{ "id": "1", "name": "x", "status": "idle" }, {}, { "name": [] }] });
        let second = json!({ "agents": [{ "id": "1", "name": "y" }, { "id": "2", "name": "x" }] });
        let both = listed(&[first, second]);
        assert_eq!((names(&both), both.left_out), (vec!["x", "x"], 2));
        let many: Vec<Value> = (0..AGENTS_MAX + 5).map(|n| json!({ "id": n })).collect();
        let many = listed(&[json!({ "agents": many })]);
        assert_eq!((many.agents.len(), many.left_out), (AGENTS_MAX, 5));
    }

    #[test]
    fn what_is_not_said_is_null_and_why() {
        let payload = json!({ "agents": [
            { "name": "quiet" },
            { "name": "loud", "status": "busy", "type": "coder", "currentTask": { "id": "t-1" }, "cpu_cores": 0.5,
              "memory_bytes": 1024, "lastSeen": "2026-11-21T04:05:06Z", "progress": { "done": 3 } },
            { "name": "vague", "status": { "x": 1 }, "cpu": 50, "memory": "90", "lastActivity": 1_763_697_906,
              "cpu_cores": null, "progress": "x".repeat(PROGRESS_BYTES_MAX) },
            { "name": "wrong", "cpu_cores": -1, "memory_bytes": 1.5, "status": null, "state": 3 },
        ] });
        let listed = listed(&[payload]);
        let [quiet, loud, vague, wrong] = &listed.agents[..] else { panic!("{listed:?}") };
        let never = Measured::Absent(Absent::NeverObserved);
        assert_eq!((&quiet.state, &quiet.task, &quiet.kind), (&never, &never, &never));
        assert_eq!(quiet.cpu, Measured::Absent(Absent::NeverObserved));
        assert_eq!(loud.state, Measured::Value { value: Arc::from("busy"), observed_at: AT, source: Source::Mcp });
        assert_eq!(loud.task.value().map(|task| &**task), Some("t-1"));
        assert_eq!((loud.cpu.value(), loud.memory.value()), (Some(&0.5), Some(&1024)));
        assert_eq!(loud.last_heartbeat.value(), parse_rfc3339("2026-11-21T04:05:06Z").as_ref());
        assert_eq!(loud.progress.value().map(|progress| &**progress), Some(r#"{"done":3}"#));
        let unsupported = Measured::Absent(Absent::Unsupported);
        assert_eq!((&vague.state, &vague.progress), (&unsupported, &unsupported));
        assert_eq!(vague.cpu, Measured::Absent(Absent::Unsupported), "fifty of what?");
        assert_eq!(vague.memory, Measured::Absent(Absent::Unsupported));
        assert_eq!(vague.last_heartbeat, Measured::Absent(Absent::Unsupported));
        assert_eq!(wrong.state.value().map(|state| &**state), Some("3"));
        assert_eq!(wrong.cpu, Measured::Absent(Absent::Unsupported));
        assert_eq!(wrong.memory, Measured::Absent(Absent::Unsupported));
    }
}
