//! Children that come and go: one template, any number of them (OTP `simple_one_for_one`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Actor, Context};

use crate::admin::ChildInfo;
use crate::child::{BoxError, Child, ChildCtx};
use crate::child_ref::ChildRef;
use crate::flags::{Strategy, SupervisorFlags};
use crate::snapshot::Counts;
use crate::spec::{ChildId, ChildSpec, Named};
use crate::supervisor_ref::{SupervisorError, SupervisorRef};

/// Makes an incarnation from what its child was started with.
type Make<A, Args> = dyn Fn(ChildCtx<A>, Args) -> Result<A, BoxError> + Send + Sync;

/// What the children of a dynamic supervisor have in common.
pub struct Template<A: Actor<Context = Context<A>>, Args> {
    spec: Arc<ChildSpec>,
    make: Arc<Make<A, Args>>,
}

impl<A: Actor<Context = Context<A>>, Args> Template<A, Args> {
    /// A specification, whose id is the first part of each child's name, and a factory that is given the arguments of its child.
    pub fn new<F>(spec: ChildSpec, make: F) -> Self
    where
        F: Fn(ChildCtx<A>, Args) -> Result<A, BoxError> + Send + Sync + 'static,
    {
        Self { spec: Arc::new(spec), make: Arc::new(make) }
    }
}

impl Child {
    /// A supervisor whose children are made from a template, and the handle that starts them. Its strategy is
    /// [`SimpleOneForOne`](Strategy::SimpleOneForOne), whatever `flags` says; the rest is as for [`Child::supervisor`]. It starts without
    /// children, each time it starts.
    #[must_use]
    pub fn dynamic<A, Args>(
        spec: ChildSpec,
        flags: SupervisorFlags,
        template: Template<A, Args>,
    ) -> (Self, DynamicRef<A, Args>)
    where
        A: Actor<Context = Context<A>>,
        Args: Clone + Send + Sync + 'static,
    {
        let flags = SupervisorFlags { strategy: Strategy::SimpleOneForOne, ..flags };
        let problem = template.spec.validate().and_then(|()| crate::init::significance(&flags, &template.spec)).err();
        let (mut child, supervisor) = Self::supervisor(spec, flags, Vec::new());
        child.problem = child.problem.or(problem);
        (child, DynamicRef { supervisor, shared: Arc::new(Shared { template, minted: AtomicU64::new(0) }) })
    }
}

/// A handle on a dynamic supervisor, valid across its restarts. Cheap to clone.
pub struct DynamicRef<A: Actor<Context = Context<A>>, Args> {
    supervisor: SupervisorRef,
    shared: Arc<Shared<A, Args>>,
}

struct Shared<A: Actor<Context = Context<A>>, Args> {
    template: Template<A, Args>,
    /// Names that were given out.
    minted: AtomicU64,
}

impl<A, Args> DynamicRef<A, Args>
where
    A: Actor<Context = Context<A>>,
    Args: Clone + Send + Sync + 'static,
{
    /// Starts a child under a new name, `{template id}-{n}`. The arguments are kept for its restarts and forgotten with it. Any number of
    /// starts may be under way at once. Resolves when the child has started.
    ///
    /// # Errors
    /// `StartFailed` and `Ignored` (the child is forgotten), `Superseded`, `Gone`, `Busy`, `Unreachable`.
    pub async fn start(&self, args: Args) -> Result<(ChildId, ChildRef<A>), SupervisorError> {
        let Shared { template, minted } = &*self.shared;
        let id = self.name(minted.fetch_add(1, Ordering::Relaxed) + 1);
        // A template that is not valid was refused with its supervisor.
        let spec = Named::new(id.clone(), Arc::clone(&template.spec));
        let make = Arc::clone(&template.make);
        let (child, child_ref) = Child::named(spec, move |context| make(context, args.clone()));
        match self.supervisor.start_child(child).await?.incarnation() {
            Some(_) => Ok((id, child_ref)),
            None => Err(SupervisorError::Ignored),
        }
    }

    /// Stops a child and forgets it. Resolves when its incarnation has ended; at once for a child that has ended before.
    ///
    /// # Errors
    /// `NotFound` (the name was never given out), `Unresponsive`, `Superseded`, `Gone`, `Busy`, `Unreachable`.
    pub async fn terminate(&self, id: &ChildId) -> Result<(), SupervisorError> {
        match self.supervisor.terminate_child(id).await {
            Err(SupervisorError::NotFound) if self.was_minted(id) => Ok(()),
            result => result,
        }
    }

    /// Every child in start order.
    ///
    /// # Errors
    /// As [`SupervisorRef::which_children`].
    pub async fn which_children(&self) -> Result<Vec<ChildInfo>, SupervisorError> {
        self.supervisor.which_children().await
    }

    /// How many children there are; they share one specification.
    ///
    /// # Errors
    /// As [`SupervisorRef::count_children`].
    pub async fn count_children(&self) -> Result<Counts, SupervisorError> {
        Ok(Counts { specs: 1, ..self.supervisor.count_children().await? })
    }

    /// The supervisor, for everything else.
    #[must_use]
    pub fn supervisor(&self) -> &SupervisorRef {
        &self.supervisor
    }

    fn was_minted(&self, id: &ChildId) -> bool {
        let number = id.as_str().rsplit('-').next().and_then(|number| number.parse().ok());
        number.is_some_and(|n| (1..=self.shared.minted.load(Ordering::Relaxed)).contains(&n) && *id == self.name(n))
    }

    fn name(&self, number: u64) -> ChildId {
        ChildId::numbered(&self.shared.template.spec.id, number)
    }
}

impl<A: Actor<Context = Context<A>>, Args> Clone for DynamicRef<A, Args> {
    fn clone(&self) -> Self {
        Self { supervisor: self.supervisor.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<A: Actor<Context = Context<A>>, Args> fmt::Debug for DynamicRef<A, Args> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamicRef").field("supervisor", &self.supervisor).finish_non_exhaustive()
    }
}

impl<A: Actor<Context = Context<A>>, Args> fmt::Debug for Template<A, Args> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("spec", &self.spec).finish_non_exhaustive()
    }
}
