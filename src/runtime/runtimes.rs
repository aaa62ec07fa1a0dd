//! The runtimes of a daemon, and which swarm lives on which.

use std::{sync::Arc, time::Duration};

use dashmap::DashSet;

use super::{contract::Runtime, docker::DockerRuntime};
use crate::model::{Finding, Home, RuntimeKind, SwarmName, SwarmSpec};

/// One for each kind of home. Cheap to clone.
#[derive(Clone)]
pub struct Runtimes {
    /// Where every swarm lives that is not in a container.
    process: Arc<dyn Runtime>,
    docker: Option<Docker>,
}

#[derive(Clone)]
struct Docker {
    runtime: Arc<DockerRuntime>,
    /// The same, as everybody else sees it.
    shown: Arc<dyn Runtime>,
    swarms: Arc<DashSet<SwarmName>>,
}

/// A swarm needs a runtime that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("swarm {0} lives in containers, and there is no runtime for them")]
pub struct NoRuntime(pub SwarmName);

impl Runtimes {
    /// Every swarm lives on this one.
    pub fn one(process: Arc<dyn Runtime>) -> Self {
        Self { process, docker: None }
    }

    /// Swarms in containers live on the second.
    pub fn with_docker(process: Arc<dyn Runtime>, docker: Arc<DockerRuntime>) -> Self {
        let shown = Arc::clone(&docker) as Arc<dyn Runtime>;
        Self { process, docker: Some(Docker { runtime: docker, shown, swarms: Arc::default() }) }
    }

    /// Says where a swarm lives. To be called before anything of it is launched or looked for; a second time where its document has changed.
    ///
    /// # Errors
    /// There is no such runtime.
    pub fn house(&self, swarm: &SwarmSpec) -> Result<(), NoRuntime> {
        match (&swarm.home, &self.docker) {
            (Home::Process { .. }, docker) => {
                if let Some(docker) = docker {
                    docker.swarms.remove(&swarm.name);
                }
                Ok(())
            }
            (Home::Docker(spec), Some(docker)) => {
                let lease_max = swarm.agents.iter().map(|agent| agent.lease).max().unwrap_or(Duration::ZERO);
                docker.runtime.declare(&swarm.name, Arc::clone(spec), lease_max);
                docker.swarms.insert(swarm.name.clone());
                Ok(())
            }
            (Home::Docker(_), None) => Err(NoRuntime(swarm.name.clone())),
        }
    }

    /// A swarm lives nowhere any more: what was made for it alone is removed, within a deadline.
    pub async fn evict(&self, swarm: &SwarmName) {
        if let Some(docker) = &self.docker {
            docker.swarms.remove(swarm);
            docker.runtime.evict(swarm).await;
        }
    }

    /// Looks for what is there and should not be; see [`DockerRuntime::reconcile`]. What `process` left behind is found at boot.
    ///
    /// # Errors
    /// It can't be looked for now, and why.
    pub async fn reconcile(&self, dry_run: bool) -> Result<Vec<Finding>, String> {
        match &self.docker {
            Some(docker) => docker.runtime.reconcile(dry_run).await,
            None => Ok(Vec::new()),
        }
    }

    /// Where a swarm lives.
    pub fn of(&self, swarm: &SwarmName) -> &Arc<dyn Runtime> {
        match &self.docker {
            Some(docker) if docker.swarms.contains(swarm) => &docker.shown,
            _ => &self.process,
        }
    }

    /// The one of a kind; `process` where there is no other.
    pub fn of_kind(&self, kind: RuntimeKind) -> &Arc<dyn Runtime> {
        match (&self.docker, kind) {
            (Some(docker), RuntimeKind::Docker) => &docker.shown,
            _ => &self.process,
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        std::iter::once(&self.process).chain(self.docker.iter().map(|docker| &docker.shown))
    }
}
