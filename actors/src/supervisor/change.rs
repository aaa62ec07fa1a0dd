//! New flags and specifications for a supervisor that goes on running; what follows from them is the core's to decide.

use std::sync::Arc;

use actix::Context;
use tokio::sync::oneshot;

use super::{Answer, Bench, Mind, Supervisor, mind};
use crate::cell::Spot;
use crate::child::{Blueprint, Child};
use crate::flags::SupervisorFlags;
use crate::spec::ChildId;
use crate::supervisor_ref::SupervisorError;
use crate::tree::{Key, Request};

impl Supervisor {
    /// Takes everything or, after an error, nothing.
    pub(crate) fn change(
        &mut self,
        context: &mut Context<Self>,
        flags: SupervisorFlags,
        children: &[Child],
    ) -> Result<(), SupervisorError> {
        let flags = SupervisorFlags { recent: Vec::new(), ..flags };
        let mut answer = self.mind().change(flags.clone(), children)?;
        self.attend(context);
        // The core answers at once.
        answer.try_recv().map_err(|_| SupervisorError::Gone)??;
        if let Some(plan) = &self.plan {
            *plan.lock() = (flags, self.mind().kept(children));
        }
        Ok(())
    }
}

impl Mind {
    fn change(
        &mut self,
        flags: SupervisorFlags,
        children: &[Child],
    ) -> Result<oneshot::Receiver<Answer>, SupervisorError> {
        for child in children {
            if self.known(child.id()).is_some_and(|bench| bench.blueprint.heir(&child.blueprint).is_none()) {
                return Err(SupervisorError::OtherActor { id: child.id().clone() });
            }
            self.given_again.extend(self.same(child.id(), &*child.blueprint));
        }
        let children = children.iter().cloned().map(Bench::admit).collect();
        self.ask((mind::now(), Spot::Turn), Request::Change { flags, children })
    }

    /// The children that were given, as they are now.
    fn kept(&self, children: &[Child]) -> Vec<Child> {
        let kept = |child: &Child| {
            let bench = self.known(child.id())?;
            Some(Child { blueprint: Arc::clone(&bench.blueprint), ..child.clone() })
        };
        children.iter().filter_map(kept).collect()
    }

    /// A child has a new specification: what it has keeps its inbox and gets the factory of `new`.
    pub(super) fn adopt(&mut self, key: Key, new: &Arc<dyn Blueprint>) {
        let Some(bench) = self.tree.payload_mut(key) else { return };
        if new.inbox() != bench.blueprint.inbox() {
            new.close();
        }
        if let Some(heir) = bench.blueprint.heir(new) {
            bench.blueprint = heir;
        }
    }

    /// The inbox of the child of that name, if `given` has the same: it is the same child.
    pub(super) fn same(&self, id: &ChildId, given: &dyn Blueprint) -> Option<usize> {
        Some(self.known(id)?.blueprint.inbox()).filter(|inbox| *inbox == given.inbox())
    }

    fn known(&self, id: &ChildId) -> Option<&Bench> {
        self.tree.payload(self.tree.key_of(id)?)
    }
}
