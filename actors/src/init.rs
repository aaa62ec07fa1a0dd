//! A supervisor as a child: what it starts with, each time it starts.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::child::{BoxError, Child, ChildCtx, Made};
use crate::child_ref::ChildRef;
use crate::flags::{AutoShutdown, Strategy, SupervisorFlags};
use crate::inbox::Inbox;
use crate::spec::{ChildId, ChildSpec, OnRestart, Overflow, Placement, Ready, Shutdown, SpecError};
use crate::supervisor::Supervisor;
use crate::supervisor_ref::SupervisorRef;
use crate::tree::Role;

/// What a supervisor starts with; a [change](SupervisorRef::change) replaces it.
pub(crate) type Plan = Mutex<(SupervisorFlags, Vec<Child>)>;

impl Child {
    /// A supervisor with the children that it starts with, each time it starts.
    ///
    /// It counts as started when each of them has started or failed to. It stops when they have stopped, each within its own
    /// deadline. The `ready`, `shutdown`, `start_timeout`, `placement`, `overflow` and `on_restart` of `spec` therefore don't apply: they are
    /// `Signalled`, `Infinity`, none, `WithSupervisor` (but see [`Child::apart`]), `Block` and `Keep`. Children that were added later are not
    /// started again when the supervisor is restarted. What has been
    /// [changed](SupervisorRef::change) stays changed.
    ///
    /// Flags and children are checked as by [`check_childspecs`]; what is wrong is refused by whoever is given the child.
    #[must_use]
    pub fn supervisor(spec: ChildSpec, flags: SupervisorFlags, children: Vec<Self>) -> (Self, SupervisorRef) {
        let problem = check_childspecs(&flags, &children).err();
        let strategy = flags.strategy;
        let plan = Arc::new(Mutex::new((flags, children)));
        let (mut child, supervisor_ref) = supervisor(spec, Some(strategy), move |context| {
            let mut kept = plan.lock();
            let (flags, children) = kept.clone();
            // Restarts of an earlier life count for the first incarnation; a later one starts with a clean record.
            kept.0.recent.clear();
            Ok(Supervisor::new(context.into_parts(), flags, children, Some(Arc::clone(&plan))))
        });
        child.problem = child.problem.or(problem);
        (child, supervisor_ref)
    }

    /// A supervisor that makes up its mind each time it starts (OTP `init/1`): `init` returns what it is told about itself and the children
    /// that it starts with. `spec` and the rest are as for [`Child::supervisor`].
    ///
    /// An error of `init`, or a specification that is not valid, is [`ExitReason::StartFailed`](crate::ExitReason::StartFailed);
    /// [`Ignore`](crate::Ignore) is [`ExitReason::Ignored`](crate::ExitReason::Ignored). A child that `init` makes anew is a new child:
    /// whoever is to keep a handle on it across restarts of the supervisor makes it once and lets `init` clone it. A
    /// [change](SupervisorRef::change) lasts until the supervisor is restarted: then `init` says what is so.
    #[must_use]
    pub fn supervisor_with<F>(spec: ChildSpec, init: F) -> (Self, SupervisorRef)
    where
        F: Fn(&SupervisorCtx) -> Result<(SupervisorFlags, Vec<Self>), BoxError> + Send + Sync + 'static,
    {
        supervisor(spec, None, move |context| {
            let (flags, children) = init(&context)?;
            check_childspecs(&flags, &children)?;
            Ok(Supervisor::new(context.into_parts(), flags, children, None))
        })
    }
}

fn supervisor(
    mut spec: ChildSpec,
    strategy: Option<Strategy>,
    make: impl Fn(SupervisorCtx) -> Result<Supervisor, BoxError> + Send + Sync + 'static,
) -> (Child, SupervisorRef) {
    spec.ready = Ready::Signalled;
    spec.shutdown = Shutdown::Infinity;
    spec.start_timeout = None;
    spec.placement = Placement::WithSupervisor;
    // What is asked of a supervisor is never dropped, and no flood of it ends one.
    (spec.overflow, spec.on_restart) = (Overflow::Block, OnRestart::Keep);
    let problem = spec.validate().err();
    let inbox = Arc::new(Inbox::new(&spec));
    let supervisor_ref = SupervisorRef::new(ChildRef::new(Arc::clone(&inbox)));
    let me = supervisor_ref.clone();
    let factory = move |child| make(SupervisorCtx { child, me: me.clone() });
    let made = Made { inbox, nested: Some(supervisor_ref.clone()), factory };
    let role = Role::Supervisor(strategy);
    (Child { spec: spec.into(), role, blueprint: Arc::new(made), problem }, supervisor_ref)
}

/// What a starting supervisor knows of itself.
pub struct SupervisorCtx {
    child: ChildCtx<Supervisor>,
    me: SupervisorRef,
}

impl SupervisorCtx {
    fn into_parts(self) -> (ChildCtx<Supervisor>, SupervisorRef) {
        (self.child, self.me)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &ChildId {
        self.child.id()
    }

    /// The way from the root.
    #[must_use]
    pub fn path(&self) -> &Arc<str> {
        self.child.path()
    }

    /// Which start of the supervisor this is, counted from 1.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.child.incarnation()
    }

    /// The handle that everyone else has, too: for children that ask for siblings.
    #[must_use]
    pub fn self_ref(&self) -> SupervisorRef {
        self.me.clone()
    }
}

impl fmt::Debug for SupervisorCtx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.child.fmt(f)
    }
}

/// Checks what a supervisor is told about itself and the children it is to start with (OTP `check_childspecs`); for children that are
/// supervisors, all below them, too.
///
/// # Errors
/// The first thing that is wrong: a limit that is no window, a faulty field, a name used twice, a significant child under a supervisor whose
/// `auto_shutdown` is `never`, any child at all under `simple_one_for_one`.
pub fn check_childspecs(flags: &SupervisorFlags, children: &[Child]) -> Result<(), SpecError> {
    if let Some(intensity) = flags.intensity.filter(|intensity| !intensity.is_window()) {
        return Err(SpecError::Limit { intensity });
    }
    let mut ids = HashSet::new();
    for child in children {
        child.validate()?;
        significance(flags, &child.spec)?;
        if flags.strategy == Strategy::SimpleOneForOne {
            return Err(SpecError::Static { id: child.id().clone() });
        }
        if !ids.insert(child.id()) {
            return Err(SpecError::Duplicate { id: child.id().clone() });
        }
    }
    Ok(())
}

/// Whether a child may be as significant as it is.
pub(crate) fn significance(flags: &SupervisorFlags, spec: &ChildSpec) -> Result<(), SpecError> {
    if spec.significant && flags.auto_shutdown == AutoShutdown::Never {
        return Err(SpecError::AutoShutdown { id: spec.id.clone() });
    }
    Ok(())
}
