//! OTP's own requests of a supervisor, with OTP's results.

use crate::child::Child;
use crate::flags::SupervisorFlags;
use crate::init::check_childspecs;
use crate::snapshot::{ChildKind, Counts};
use crate::spec::{ChildId, ChildSpec};
use crate::supervisor::Bench;
use crate::supervisor_ref::{SupervisorError, SupervisorRef};
use crate::tree::Request;

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// This incarnation runs.
    Running(u64),
    /// Its factory [declined](crate::Ignore) to make one (OTP `{ok, undefined}`).
    Ignored,
}

impl Started {
    /// The incarnation that runs.
    #[must_use]
    pub fn incarnation(self) -> Option<u64> {
        match self {
            Self::Running(incarnation) => Some(incarnation),
            Self::Ignored => None,
        }
    }
}

/// One child as OTP's `which_children` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildInfo {
    /// Its name.
    pub id: ChildId,
    /// Whether it has an incarnation.
    pub state: Presence,
    /// Whether it works or supervises.
    pub kind: ChildKind,
}

/// Whether a child has an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has none, and none is on its way by itself.
    Undefined,
    /// It waits for an automatic restart, or is being started by one.
    Restarting,
    /// This incarnation lives: from its first start on, and, when it has been asked to stop, until it has ended.
    Running(u64),
}

impl SupervisorRef {
    /// Takes a new child and starts it (OTP). A child whose start fails is discarded. Resolves when it has started.
    ///
    /// # Errors
    /// `AlreadyPresent`, `AlreadyStarted`, `Invalid`; `StartFailed` (the child is discarded); `Superseded`.
    pub async fn start_child(&self, child: Child) -> Result<Started, SupervisorError> {
        child.validate().map_err(SupervisorError::Invalid)?;
        Ok(started(self.request(Request::Start(Bench::admit(child))).await?))
    }

    /// Starts a child that has no incarnation (OTP). A child whose start fails stays stopped. Resolves when it has started.
    ///
    /// # Errors
    /// `NotFound`, `Running`, `Restarting`, `SimpleOneForOne`, `StartFailed`, `Superseded`.
    pub async fn restart_child(&self, id: &ChildId) -> Result<Started, SupervisorError> {
        Ok(started(self.request(Request::Restart(id.clone())).await?))
    }

    /// Stops a child and keeps its specification (OTP); under `simple_one_for_one`, and when it is temporary, forgets it. Resolves when its
    /// incarnation has ended.
    ///
    /// # Errors
    /// `NotFound`, `Unresponsive`, `Superseded` (it is being deleted).
    pub async fn terminate_child(&self, id: &ChildId) -> Result<(), SupervisorError> {
        self.request(Request::Terminate(id.clone())).await.map(drop)
    }

    /// Forgets a child that has no incarnation (OTP).
    ///
    /// # Errors
    /// `NotFound`, `Running`, `Restarting`, `SimpleOneForOne`.
    pub async fn delete_child(&self, id: &ChildId) -> Result<(), SupervisorError> {
        self.request(Request::Delete(id.clone())).await.map(drop)
    }

    /// Every child in start order (OTP shows the reverse).
    ///
    /// # Errors
    /// `Gone`, `Unreachable`, `Busy`.
    pub async fn which_children(&self) -> Result<Vec<ChildInfo>, SupervisorError> {
        self.accepted(|supervisor, _| supervisor.mind().which()).await
    }

    /// How many children there are (OTP). Looks at each child once, not at what lies below.
    ///
    /// # Errors
    /// As [`SupervisorRef::which_children`].
    pub async fn count_children(&self) -> Result<Counts, SupervisorError> {
        self.accepted(|supervisor, _| supervisor.mind().counts()).await
    }

    /// The specification of a child (OTP).
    ///
    /// # Errors
    /// `NotFound`; as [`SupervisorRef::which_children`].
    pub async fn get_childspec(&self, id: &ChildId) -> Result<ChildSpec, SupervisorError> {
        let id = id.clone();
        let spec = self.accepted(move |supervisor, _| supervisor.mind().spec_of(&id)).await?;
        spec.ok_or(SupervisorError::NotFound)
    }

    /// Replaces what the supervisor is told about itself and the specifications of its children while it runs (OTP `code_change`).
    ///
    /// A child of the same name keeps its incarnation, its inbox (with the capacity it has) and its [`ChildRef`](crate::ChildRef); the
    /// next incarnation is made by the new factory, and the handle that came with the new child refuses messages. A new child is there but
    /// not started. One that is not named stays as it is.
    ///
    /// # Errors
    /// `Invalid`, `OtherActor` (the new factory makes another type of actor): nothing is changed. `Gone`, `Unreachable`, `Busy`.
    pub async fn change(&self, flags: SupervisorFlags, children: Vec<Child>) -> Result<(), SupervisorError> {
        check_childspecs(&flags, &children).map_err(SupervisorError::Invalid)?;
        self.accepted(move |supervisor, context| supervisor.change(context, flags, &children)).await?
    }
}

fn started(incarnation: Option<u64>) -> Started {
    incarnation.map_or(Started::Ignored, Started::Running)
}
