//! What a swarm document means once it has been read and checked.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use hivekeeper_actors::{Backoff, OnExceeded, RestartType, Strategy};

use super::{
    container::ContainerSpec,
    ids::{AgentId, AgentName, InvalidName, SwarmName},
    secret::Environment,
};

/// What runs commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeKind {
    /// Child processes of launchers on this machine.
    Process,
    /// Commands that a container engine executes in containers.
    Docker,
}

/// Where a swarm's agents run. Resolved once; never changed silently.
#[derive(Debug, Clone, PartialEq)]
pub enum Home {
    /// On this machine, as child processes.
    Process {
        /// Their absolute working directory; `None` is a directory of the swarm's own below the data directory.
        workdir: Option<PathBuf>,
    },
    /// In a container.
    Docker(Arc<ContainerSpec>),
}

impl Home {
    /// What runs the commands there.
    pub fn kind(&self) -> RuntimeKind {
        match self {
            Self::Process { .. } => RuntimeKind::Process,
            Self::Docker(_) => RuntimeKind::Docker,
        }
    }

    /// In what the swarm is less shut in than in a container by default, a few words each; empty where it is not. A process of this machine is shut
    /// in by nothing, and that is one of them.
    pub fn relaxations(&self) -> Vec<String> {
        match self {
            Self::Process { .. } => vec!["no container".to_owned()],
            Self::Docker(spec) => spec.relaxations(),
        }
    }
}

/// Where a swarm's document comes from; boot restores each from its own place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    Config,
    /// A request to the API.
    Api,
}

/// What counts as an agent's first sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// The launcher's report that execve succeeded and the process lives.
    Process,
    /// The agent's own `hive/open`.
    Session,
}

/// What happens to an agent that shows no progress within its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStuck {
    /// It is shown as `stuck`.
    Report,
    /// It is shown as `stuck` and its exit is forced, which its restart type then judges.
    Restart,
}

/// One `[[swarm]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct SwarmSpec {
    /// Unique in the hive.
    pub name: SwarmName,
    /// Who wrote it.
    pub origin: Origin,
    /// Where its agents run.
    pub home: Home,
    /// Who is restarted when one agent ends.
    pub strategy: Strategy,
    /// Automatic restarts of one agent within `period`; the exit that would exceed it makes the agent `failed`.
    pub intensity: u32,
    /// The sliding window of `intensity`.
    pub period: Duration,
    /// What follows when `intensity` is exceeded.
    pub on_exceeded: OnExceeded,
    /// The delay before each automatic restart.
    pub backoff: Backoff,
    /// Added to the environment of each agent.
    pub env: Environment,
    /// In start order.
    pub agents: Vec<Arc<AgentSpec>>,
}

/// Heartbeats asked for within an agent's `heartbeat_timeout`: one may be lost and one late before the agent is `degraded`.
pub const HEARTBEATS_WITHIN_TIMEOUT: u32 = 3;

/// One `[[swarm.agent]]`, which stands for one agent, or for `replicas` numbered ones.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSpec {
    /// The name, or the stem of the numbered names.
    pub name: AgentName,
    /// `Some(n)`: `NAME-1` to `NAME-n`. `None`: the plain name.
    pub replicas: Option<u32>,
    /// argv; no shell stands between.
    pub command: Vec<String>,
    /// Added to the swarm's `env`, and wins over it.
    pub env: Environment,
    /// OTP's restart type.
    pub restart: RestartType,
    /// What counts as the first sign of life.
    pub ready: Ready,
    /// How long the first sign of life may take.
    pub start_timeout: Duration,
    /// Silence after which the agent is `degraded`.
    pub heartbeat_timeout: Duration,
    /// Time without progress after which the agent is `stuck`; zero does not judge progress.
    pub progress_timeout: Duration,
    /// What a `stuck` agent's fate is.
    pub on_stuck: OnStuck,
    /// Time between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// How long the agent goes on without a daemon.
    pub lease: Duration,
}

impl AgentSpec {
    /// How often it is asked to send a heartbeat once it has a session.
    pub fn heartbeat_interval(&self) -> Duration {
        self.heartbeat_timeout / HEARTBEATS_WITHIN_TIMEOUT
    }
}

/// Agents of the whole hive: the five thousand that one daemon is tested with, and room. With a launcher each they are twice as many processes, half of what
/// systems number by default.
pub const AGENTS_MAX: usize = 8192;
/// Most numbered agents of one entry: what one machine can run as processes, with a launcher each.
pub const REPLICAS_MAX: u32 = 1000;

impl SwarmSpec {
    /// How many agents it stands for.
    pub fn count(&self) -> usize {
        self.agents.iter().map(|agent| agent.replicas.unwrap_or(1) as usize).sum()
    }

    /// What runs its agents.
    pub fn runtime(&self) -> RuntimeKind {
        self.home.kind()
    }

    /// The environment of one of its agents: the swarm's with the agent's own over it.
    pub fn environment(&self, agent: &AgentSpec) -> Environment {
        let mut env = self.env.clone();
        env.extend(agent.env.clone());
        env
    }

    /// The working directory that its document names: a path of this machine on `process`, one in the container on `docker`.
    pub fn workdir(&self) -> Option<&Path> {
        match &self.home {
            Home::Process { workdir } => workdir.as_deref(),
            Home::Docker(container) => container.workdir.as_deref(),
        }
    }

    /// The same with another number of one agent; an agent that is not numbered stays as it is.
    #[must_use]
    pub fn scaled(&self, agent: &AgentName, replicas: u32) -> Self {
        let mut spec = self.clone();
        for one in spec.agents.iter_mut().filter(|one| one.name == *agent && one.replicas.is_some()) {
            Arc::make_mut(one).replicas = Some(replicas);
        }
        spec
    }

    /// Every agent of the swarm in start order.
    ///
    /// # Errors
    /// A numbered name that is too long to be a DNS label.
    pub fn expand(&self) -> Result<Vec<(AgentId, Arc<AgentSpec>)>, InvalidName> {
        let mut all = Vec::new();
        for agent in &self.agents {
            let names = match agent.replicas {
                None => vec![agent.name.clone()],
                Some(n) => {
                    (1..=n).map(|i| format!("{}-{i}", agent.name).parse()).collect::<Result<Vec<AgentName>, _>>()?
                }
            };
            all.extend(names.into_iter().map(|name| (AgentId { swarm: self.name.clone(), name }, Arc::clone(agent))));
        }
        Ok(all)
    }
}
