//! The swarm document: the form of the configuration, in JSON. Durations stay text (`"60s"`), numbers stay numbers.
//!
//! Holds the keys that the swarm's runtime honours and no others; an unknown key is an error. Every one of them is required but `workdir`, `user`,
//! `env`, `replicas` and each limit: defaults are the configuration's business and are filled in before a document is kept.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

use super::{
    environment::{self, EnvValueDocument},
    home::{HomeKeys, LimitsDocument, MountDocument},
    time::DurationText,
    words,
};
use crate::model::{
    AgentName, AgentSpec, Backoff, InvalidName, OnExceeded, OnStuck, Origin, Ready, RestartType, RuntimeKind, Strategy,
    SwarmName, SwarmSpec,
};

/// One `[[swarm]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SwarmDocument {
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    name: String,
    #[schema(value_type = words::RuntimeWord)]
    runtime: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    #[schema(schema_with = strategies)]
    strategy: String,
    intensity: u32,
    period: DurationText,
    on_exceeded: OnExceededDocument,
    backoff: BackoffDocument,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limits: Option<LimitsDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    workdir: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_only_root: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tmpfs: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cap_add: Option<Vec<String>>,
    #[serde(default)]
    env: BTreeMap<String, EnvValueDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mounts: Option<Vec<MountDocument>>,
    agent: Vec<AgentDocument>,
}

/// One `[[swarm.agent]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentDocument {
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replicas: Option<u32>,
    command: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, EnvValueDocument>,
    #[schema(value_type = words::RestartWord)]
    restart: String,
    #[schema(value_type = words::ReadyWord)]
    ready: String,
    start_timeout: DurationText,
    heartbeat_timeout: DurationText,
    progress_timeout: DurationText,
    #[schema(value_type = words::OnStuckWord)]
    on_stuck: String,
    stop_grace: DurationText,
    lease: DurationText,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = OnExceeded)]
#[serde(rename_all = "snake_case")]
enum OnExceededDocument {
    Fail,
    RetryAfter(DurationText),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Backoff)]
#[serde(deny_unknown_fields)]
pub(super) struct BackoffDocument {
    initial: DurationText,
    then: DurationText,
    factor: f64,
    max: DurationText,
    jitter: f64,
    reset_after: DurationText,
}

/// Why a document means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// A name that is no name.
    #[error("{key}: {error}")]
    Name {
        /// Where.
        key: &'static str,
        /// What is wrong with it.
        error: InvalidName,
    },
    /// A word that is none of those allowed.
    #[error("{key}: found {found:?}, allowed: {allowed}")]
    Word {
        /// Where.
        key: &'static str,
        /// What was found.
        found: String,
        /// The words that are allowed.
        allowed: String,
    },
    /// A key that is missing, or that does not go with the others.
    #[error("{key}: {rule}")]
    Key {
        /// Which.
        key: &'static str,
        /// What holds for it.
        rule: &'static str,
    },
}

/// A document names its agents, so `simple_one_for_one`, which is for children that come and go, is none of its words.
const STRATEGIES: [Strategy; 3] = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];

fn strategies() -> RefOr<Schema> {
    words::one_of("Who is restarted with whom.", &STRATEGIES.map(words::strategy))
}

/// Shows a swarm's document.
pub fn document(spec: &SwarmSpec) -> SwarmDocument {
    let home = HomeKeys::of(&spec.home);
    SwarmDocument {
        name: spec.name.to_string(),
        runtime: words::runtime(spec.runtime()).to_owned(),
        image: home.image,
        container: home.container,
        strategy: words::strategy(spec.strategy).to_owned(),
        intensity: spec.intensity,
        period: DurationText(spec.period),
        on_exceeded: match spec.on_exceeded {
            OnExceeded::Fail => OnExceededDocument::Fail,
            OnExceeded::RetryAfter(after) => OnExceededDocument::RetryAfter(DurationText(after)),
        },
        backoff: BackoffDocument {
            initial: DurationText(spec.backoff.initial),
            then: DurationText(spec.backoff.then),
            factor: spec.backoff.factor,
            max: DurationText(spec.backoff.max),
            jitter: spec.backoff.jitter,
            reset_after: DurationText(spec.backoff.reset_after),
        },
        network: home.network,
        limits: home.limits,
        user: home.user,
        workdir: home.workdir,
        read_only_root: home.read_only_root,
        tmpfs: home.tmpfs,
        cap_add: home.cap_add,
        env: environment::document(&spec.env),
        mounts: home.mounts,
        agent: spec.agents.iter().map(|agent| agent_document(agent)).collect(),
    }
}

fn agent_document(agent: &AgentSpec) -> AgentDocument {
    AgentDocument {
        name: agent.name.to_string(),
        replicas: agent.replicas,
        command: agent.command.clone(),
        env: environment::document(&agent.env),
        restart: words::restart(agent.restart).to_owned(),
        ready: words::ready(agent.ready).to_owned(),
        start_timeout: DurationText(agent.start_timeout),
        heartbeat_timeout: DurationText(agent.heartbeat_timeout),
        progress_timeout: DurationText(agent.progress_timeout),
        on_stuck: words::on_stuck(agent.on_stuck).to_owned(),
        stop_grace: DurationText(agent.stop_grace),
        lease: DurationText(agent.lease),
    }
}

/// A strong entity tag of a document's text; 16 hexadecimal digits tell versions of one document apart.
pub fn document_tag(document: &SwarmDocument) -> String {
    let digest = Sha256::digest(serde_json::to_vec(document).unwrap_or_default());
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

impl SwarmDocument {
    /// What the document means. The counterpart of [`document()`]: together they are the identity.
    ///
    /// # Errors
    /// A name or a word that is not allowed, or keys that don't go together.
    pub fn into_spec(self, origin: Origin) -> Result<SwarmSpec, DocumentError> {
        let home = HomeKeys {
            image: self.image,
            container: self.container,
            network: self.network,
            limits: self.limits,
            user: self.user,
            workdir: self.workdir,
            read_only_root: self.read_only_root,
            tmpfs: self.tmpfs,
            cap_add: self.cap_add,
            mounts: self.mounts,
        };
        let runtime = word("runtime", &self.runtime, &[RuntimeKind::Process, RuntimeKind::Docker], words::runtime)?;
        Ok(SwarmSpec {
            name: self.name.parse::<SwarmName>().map_err(|error| DocumentError::Name { key: "name", error })?,
            origin,
            home: home.into_home(runtime)?,
            strategy: word("strategy", &self.strategy, &STRATEGIES, words::strategy)?,
            intensity: self.intensity,
            period: self.period.0,
            on_exceeded: match self.on_exceeded {
                OnExceededDocument::Fail => OnExceeded::Fail,
                OnExceededDocument::RetryAfter(after) => OnExceeded::RetryAfter(after.0),
            },
            backoff: Backoff {
                initial: self.backoff.initial.0,
                then: self.backoff.then.0,
                max: self.backoff.max.0,
                reset_after: self.backoff.reset_after.0,
                factor: self.backoff.factor,
                jitter: self.backoff.jitter,
            },
            env: environment::meant(self.env)?,
            agents: self
                .agent
                .into_iter()
                .map(|agent| agent.into_spec().map(Arc::new))
                .collect::<Result<_, DocumentError>>()?,
        })
    }
}

impl AgentDocument {
    fn into_spec(self) -> Result<AgentSpec, DocumentError> {
        let restarts = [RestartType::Permanent, RestartType::Transient, RestartType::Temporary];
        Ok(AgentSpec {
            name: self.name.parse::<AgentName>().map_err(|error| DocumentError::Name { key: "agent.name", error })?,
            replicas: self.replicas,
            command: self.command,
            env: environment::meant(self.env)?,
            restart: word("agent.restart", &self.restart, &restarts, words::restart)?,
            ready: word("agent.ready", &self.ready, &[Ready::Process, Ready::Session], words::ready)?,
            start_timeout: self.start_timeout.0,
            heartbeat_timeout: self.heartbeat_timeout.0,
            progress_timeout: self.progress_timeout.0,
            on_stuck: word("agent.on_stuck", &self.on_stuck, &[OnStuck::Report, OnStuck::Restart], words::on_stuck)?,
            stop_grace: self.stop_grace.0,
            lease: self.lease.0,
        })
    }
}

fn word<T: Copy>(
    key: &'static str,
    found: &str,
    allowed: &[T],
    show: impl Fn(T) -> &'static str,
) -> Result<T, DocumentError> {
    allowed.iter().copied().find(|one| show(*one) == found).ok_or_else(|| DocumentError::Word {
        key,
        found: found.to_owned(),
        allowed: allowed.iter().map(|one| show(*one)).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> serde_json::Value {
        json!({
            "name": "review", "runtime": "process", "strategy": "one_for_one", "intensity": 5, "period": "60s",
            "on_exceeded": { "retry_after": "10m" },
            "backoff": { "initial": "0s", "then": "1s", "factor": 2.0, "max": "60s", "jitter": 0.25, "reset_after": "10m" },
            "workdir": "/workspace",
            "env": { "LANG": "C.UTF-8" },
            "agent": [{
                "name": "coder", "replicas": 3, "command": ["my-agent", "--role", "coder"], "env": {},
                "restart": "permanent", "ready": "process", "start_timeout": "30s", "heartbeat_timeout": "15s",
                "progress_timeout": "0s", "on_stuck": "report", "stop_grace": "10s", "lease": "30s"
            }, {
                "name": "job", "command": ["sh", "-c", "exit 0"], "env": { "A": "1" },
                "restart": "transient", "ready": "session", "start_timeout": "250ms", "heartbeat_timeout": "15s",
                "progress_timeout": "5m", "on_stuck": "restart", "stop_grace": "10s", "lease": "24h"
            }]
        })
    }

    #[test]
    fn the_document_of_the_specification_survives_the_way_there_and_back() {
        let read: SwarmDocument = serde_json::from_value(sample()).unwrap();
        let spec = read.into_spec(Origin::Config).unwrap();
        assert_eq!(spec.period.as_secs(), 60);
        assert_eq!(spec.agents[1].ready, Ready::Session);
        assert_eq!(serde_json::to_value(document(&spec)).unwrap(), sample());
        let again: SwarmDocument = serde_json::from_value(sample()).unwrap();
        assert_eq!(again.into_spec(Origin::Config).unwrap(), spec);
    }

    #[test]
    fn a_spec_without_optional_keys_survives_too() {
        let mut value = sample();
        value["on_exceeded"] = json!("fail");
        value.as_object_mut().unwrap().remove("workdir");
        let spec = serde_json::from_value::<SwarmDocument>(value.clone()).unwrap().into_spec(Origin::Api).unwrap();
        assert_eq!((spec.workdir(), spec.on_exceeded), (None, OnExceeded::Fail));
        assert_eq!(serde_json::to_value(document(&spec)).unwrap(), value);
    }

    #[test]
    fn every_strategy_of_a_document_survives() {
        for (word, strategy) in [
            ("one_for_one", Strategy::OneForOne),
            ("one_for_all", Strategy::OneForAll),
            ("rest_for_one", Strategy::RestForOne),
        ] {
            let mut value = sample();
            value["strategy"] = json!(word);
            let spec = serde_json::from_value::<SwarmDocument>(value.clone()).unwrap().into_spec(Origin::Api).unwrap();
            assert_eq!(spec.strategy, strategy);
            assert_eq!(serde_json::to_value(document(&spec)).unwrap(), value);
        }
    }

    #[test]
    fn unknown_keys_words_and_names_are_named() {
        let refused = |change: fn(&mut serde_json::Value)| {
            let mut value = sample();
            change(&mut value);
            match serde_json::from_value::<SwarmDocument>(value) {
                Err(error) => error.to_string(),
                Ok(document) => document.into_spec(Origin::Api).unwrap_err().to_string(),
            }
        };
        assert!(refused(|v| v["imago"] = json!("debian")).contains("unknown field `imago`"));
        assert!(refused(|v| v["agent"][0]["colour"] = json!(1)).contains("unknown field `colour`"));
        assert_eq!(refused(|v| v["runtime"] = json!("auto")), "runtime: found \"auto\", allowed: process, docker");
        assert_eq!(
            refused(|v| v["strategy"] = json!("simple_one_for_one")),
            "strategy: found \"simple_one_for_one\", allowed: one_for_one, one_for_all, rest_for_one"
        );
        assert_eq!(refused(|v| v["runtime"] = json!("docker")), "image: it or `container` is missing");
        assert_eq!(refused(|v| v["tmpfs"] = json!([])), "tmpfs: only the docker runtime honours it");
        assert_eq!(
            refused(|v| v["agent"][0]["restart"] = json!("always")),
            "agent.restart: found \"always\", allowed: permanent, transient, temporary"
        );
        assert!(refused(|v| v["name"] = json!("Review")).starts_with("name: \"Review\" is not a name"));
        assert!(refused(|v| v["period"] = json!(60)).contains("invalid type"));
    }
}
