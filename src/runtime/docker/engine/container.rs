//! Containers: made, looked at, acted on.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt, path::Path};

use bollard::{
    errors::Error as ClientError,
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
        ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
        WaitContainerOptionsBuilder,
    },
};
use futures_util::{StreamExt, pin_mut};

use super::{
    client::{CHANGE_DEADLINE, Engine, LOOK_DEADLINE, bounded},
    error::{CallError, ContainerError, CreateError, PlanError},
    names::{container_ref, image_ref, label},
    observed::{ContainerState, Listed},
    plan::{self, ContainerPlan, Network},
};

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: String,
    /// What the engine could not do as asked (a limit that this kernel does not have), for people.
    pub warnings: Vec<String>,
}

/// What [`Engine::wait`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// PID 1 has ended.
    Stopped,
    /// Its name is free again.
    Removed,
}

impl Engine {
    /// Makes and starts a swarm's container, hardened: all capabilities dropped, no new privileges, the engine's seccomp profile, own IPC, an init
    /// that reaps, no restart by the engine, removed by the engine when it ends. At most 3 minutes. An entrypoint that can't be started is no error here:
    /// the init is there, and the container ends at once with code 127.
    ///
    /// # Errors
    /// See [`CreateError`]. A container that did not start is removed.
    pub async fn create_swarm_container(&self, plan: &ContainerPlan) -> Result<Created, CreateError> {
        self.check(plan)?;
        let options = CreateContainerOptionsBuilder::default().name(container_ref(&plan.name)?).build();
        image_ref(&plan.image)?;
        if let Network::Named(name) = &plan.network {
            container_ref(name)?;
        }
        let body = plan::body(plan, &self.inner.owner);
        let made = bounded(CHANGE_DEADLINE, self.docker().create_container(Some(options), body)).await;
        let made = made.map_err(|error| match error.status() {
            Some(404) => CreateError::ImageMissing(plan.image.clone()),
            Some(409) => CreateError::NameTaken(plan.name.clone()),
            _ => CreateError::Call(error),
        })?;
        match self.start_whole(&made.id, plan).await {
            Ok(()) => Ok(Created { id: made.id, warnings: made.warnings }),
            Err(error) => {
                // Whether this works or not, the start's own error is the one to tell. What is left is labelled, and found.
                let _ = self.force_remove(&made.id).await;
                Err(error)
            }
        }
    }

    /// Starts a container that was made, once it is sure that the launcher is in it: without it, the start's error would say less.
    async fn start_whole(&self, id: &str, plan: &ContainerPlan) -> Result<(), CreateError> {
        if !self.is_complete(id).await? {
            return Err(CreateError::LauncherMissing(plan.launcher.name().to_owned()));
        }
        let started = self.docker().start_container(id, None::<StartContainerOptions>);
        bounded(CHANGE_DEADLINE, started).await.map_err(|error| match error {
            CallError::Refused { message, status } if status != 503 => CreateError::NotStarted(message),
            other => CreateError::Call(other),
        })
    }

    /// The label by which a container tells the plan that it was made by.
    pub fn plan_label(&self, plan: &ContainerPlan) -> String {
        let mut labels = plan::body(plan, &self.inner.owner).labels.unwrap_or_default();
        labels.remove(label::PLAN).unwrap_or_default()
    }

    /// Looks at any container, ours or not.
    ///
    /// # Errors
    /// There is none of that name or id, or the call fails.
    pub async fn inspect(&self, container: &str) -> Result<ContainerState, ContainerError> {
        let container = container_ref(container)?;
        let call = self.docker().inspect_container(container, None::<InspectContainerOptions>);
        Ok(ContainerState::read(bounded(LOOK_DEADLINE, call).await?))
    }

    /// Every container of our hive, in whatever state.
    ///
    /// # Errors
    /// The call fails.
    pub async fn list_ours(&self) -> Result<Vec<Listed>, CallError> {
        self.list(format!("{}={}", label::HIVE_ID, self.inner.owner.hive_id)).await
    }

    /// Every container of every hive on this engine: to report those that bear our name under another id.
    ///
    /// # Errors
    /// The call fails.
    pub async fn list_all_hives(&self) -> Result<Vec<Listed>, CallError> {
        self.list(format!("{}={}", label::MANAGED_BY, label::US)).await
    }

    async fn list(&self, with_label: String) -> Result<Vec<Listed>, CallError> {
        let filters = HashMap::from([("label", vec![with_label])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = bounded(LOOK_DEADLINE, self.docker().list_containers(Some(options))).await?;
        // Whatever labels it was given: a daemon that took its own container for one of a swarm's would end itself.
        let others = found.into_iter().map(Listed::read).filter(|found| !self.is_own_container(&found.id));
        Ok(others.collect())
    }

    /// SIGKILL to a container of ours. The engine removes it afterwards: [`Engine::wait`] for [`Until::Removed`], or [`Engine::remove`] it.
    ///
    /// # Errors
    /// It is not there, not ours or not running, or the call fails.
    pub async fn kill(&self, container: &str) -> Result<(), ContainerError> {
        let id = self.ours(container).await?;
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        Ok(bounded(CHANGE_DEADLINE, self.docker().kill_container(&id, Some(options))).await?)
    }

    /// Removes a container of ours, killing it if it runs, with its anonymous volumes. It is gone when this returns; one that is not there is fine.
    ///
    /// # Errors
    /// It is not ours, or the call fails.
    pub async fn remove(&self, container: &str) -> Result<(), ContainerError> {
        match self.ours(container).await {
            Ok(id) => self.force_remove(&id).await,
            Err(ContainerError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn force_remove(&self, id: &str) -> Result<(), ContainerError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed = bounded(CHANGE_DEADLINE, self.docker().remove_container(id, Some(options))).await;
        match removed.map_err(ContainerError::from) {
            // The engine is at it already: after a kill, a container made to be removed goes by itself.
            Err(ContainerError::WrongState(_)) => {
                match tokio::time::timeout(CHANGE_DEADLINE, self.wait(id, Until::Removed)).await {
                    Ok(Ok(_) | Err(ContainerError::Missing)) => Ok(()),
                    Ok(Err(error)) => Err(error),
                    Err(_) => Err(ContainerError::Call(CallError::TimedOut(CHANGE_DEADLINE))),
                }
            }
            Ok(()) | Err(ContainerError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Freezes every process in a container of ours.
    ///
    /// # Errors
    /// It is not there, not ours, not running or paused already, or the call fails.
    pub async fn pause(&self, container: &str) -> Result<(), ContainerError> {
        let id = self.ours(container).await?;
        Ok(bounded(CHANGE_DEADLINE, self.docker().pause_container(&id)).await?)
    }

    /// Unfreezes a container of ours.
    ///
    /// # Errors
    /// It is not there, not ours or not paused, or the call fails.
    pub async fn unpause(&self, container: &str) -> Result<(), ContainerError> {
        let id = self.ours(container).await?;
        Ok(bounded(CHANGE_DEADLINE, self.docker().unpause_container(&id)).await?)
    }

    /// Waits for the end of any container; without a deadline, drop it to give up. Returns PID 1's exit code.
    ///
    /// # Errors
    /// It is not there (any more), or the connection breaks.
    pub async fn wait(&self, container: &str, until: Until) -> Result<i64, ContainerError> {
        let condition = match until {
            Until::Stopped => "not-running",
            Until::Removed => "removed",
        };
        let options = WaitContainerOptionsBuilder::default().condition(condition).build();
        let answers = self.docker().wait_container(container_ref(container)?, Some(options));
        pin_mut!(answers);
        match answers.next().await {
            Some(Ok(end)) => Ok(end.status_code),
            // The library takes every code but 0 for an error.
            Some(Err(ClientError::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(CallError::from_client(error, CHANGE_DEADLINE).into()),
            None => Err(CallError::Unreachable("the engine closed the connection".into()).into()),
        }
    }

    /// The id of a container that carries our hive's id. The id, because a name may be another container's by the time it is used.
    async fn ours(&self, container: &str) -> Result<String, ContainerError> {
        let state = self.inspect(container).await?;
        let ours = self.inner.owner.owns(&state.labels) && !self.is_own_container(&state.id);
        if ours { Ok(state.id) } else { Err(ContainerError::NotOurs) }
    }

    /// The plan's rules, for the paths as written and for what they lead to on this machine. An engine on another machine has links of its own, which
    /// can't be seen from here; there the paths as written are judged.
    fn check(&self, plan: &ContainerPlan) -> Result<(), PlanError> {
        let socket = self.inner.socket.as_deref();
        let resolved = socket.and_then(|socket| fs::canonicalize(socket).ok());
        plan::check(plan, socket)?;
        // In a container the plan's paths are the engine's, and so has to be the socket's.
        if let Some(outside) = resolved.as_deref().and_then(|socket| self.outside(socket).ok()) {
            plan::check(plan, Some(&outside))?;
        }
        for mount in &plan.mounts {
            let Ok(real) = fs::canonicalize(&mount.source) else { continue };
            plan::check_source(&real, socket)?;
            plan::check_source(&real, resolved.as_deref())?;
            if socket.is_some_and(|socket| same_file(&real, socket)) {
                return Err(PlanError::EngineSocket(mount.source.clone()));
            }
        }
        Ok(())
    }
}

/// Whether two paths are one file, by a hard link or a bind mount.
fn same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
}
