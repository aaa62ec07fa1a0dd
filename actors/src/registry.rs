//! Names for children, which follow their incarnations.

use std::any::Any;
use std::sync::Arc;

use actix::{Actor, Context};
use dashmap::{DashMap, Entry};

use crate::cell::Seat;
use crate::child_ref::ChildRef;
use crate::inbox::Inbox;
use crate::supervisor_ref::SupervisorRef;

/// The names of a tree. Cheap to clone, readable from any thread, without asking any actor.
///
/// A child whose specification has a name ([`ChildSpec::register`](crate::ChildSpec::register)) can be found under it from the moment an
/// incarnation has started until that incarnation ends; the next one is found under it again. While the child is restarted, backs off or
/// rests, the name stands for nothing. A handle that was found stays valid all the while, as every [`ChildRef`] does.
///
/// The name is taken before the factory runs. When a living incarnation of another child has it, the start fails and nothing of the child has
/// run; a start that fails gives the name back, whatever made it fail.
#[derive(Clone, Default)]
pub struct Registry {
    names: Arc<DashMap<Arc<str>, Entered>>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The child's way from the root.
    pub path: Arc<str>,
    /// Its incarnation that lives.
    pub incarnation: u64,
}

/// Why a name was not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name `{name}` is taken by {holder}")]
pub(crate) struct NameTaken {
    name: Arc<str>,
    /// The path of the child that has it.
    holder: Arc<str>,
}

struct Entered {
    seat: Arc<Seat>,
    /// Its inbox; of a supervisor that runs, its [`SupervisorRef`].
    handle: Arc<dyn Any + Send + Sync>,
    /// It has started.
    found: bool,
}

impl Registry {
    /// The child under a name; `None` when it doesn't live or its actor is of another type.
    #[must_use]
    pub fn whereis<A: Actor<Context = Context<A>>>(&self, name: &str) -> Option<ChildRef<A>> {
        self.handle::<Inbox<A>>(name).map(ChildRef::new)
    }

    /// The supervisor under a name.
    #[must_use]
    pub fn supervisor(&self, name: &str) -> Option<SupervisorRef> {
        self.handle::<SupervisorRef>(name).map(|found| SupervisorRef::clone(&found))
    }

    /// Which child and which incarnation a name stands for.
    #[must_use]
    pub fn binding(&self, name: &str) -> Option<Binding> {
        let entered = self.names.get(name).filter(|entered| entered.found)?;
        Some(Binding { path: Arc::clone(&entered.seat.path), incarnation: entered.seat.incarnation })
    }

    /// Every name that stands for something, in no order.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        self.names.iter().filter(|entry| entry.found).map(|entry| Arc::clone(entry.key())).collect()
    }

    fn handle<H: Any + Send + Sync>(&self, name: &str) -> Option<Arc<H>> {
        let handle = self.names.get(name).filter(|entered| entered.found).map(|entered| Arc::clone(&entered.handle))?;
        handle.downcast().ok()
    }

    /// Takes the name, if any, for an incarnation that is about to be made.
    ///
    /// # Errors
    /// When an incarnation of another child has it.
    pub(crate) fn take<A: Actor<Context = Context<A>>>(
        &self,
        seat: &Arc<Seat>,
        inbox: &Arc<Inbox<A>>,
    ) -> Result<(), NameTaken> {
        let Some(name) = &seat.spec.register else { return Ok(()) };
        match self.names.entry(Arc::clone(name)) {
            Entry::Occupied(held) => {
                Err(NameTaken { name: Arc::clone(name), holder: Arc::clone(&held.get().seat.path) })
            }
            Entry::Vacant(free) => {
                let handle: Arc<dyn Any + Send + Sync> = Arc::<Inbox<A>>::clone(inbox);
                free.insert(Entered { seat: Arc::clone(seat), handle, found: false });
                Ok(())
            }
        }
    }

    /// The incarnation is a supervisor, and runs.
    pub(crate) fn introduce(&self, seat: &Seat, supervisor: &SupervisorRef) {
        self.amend(seat, |entered| entered.handle = Arc::new(supervisor.clone()));
    }

    /// The incarnation has started.
    pub(crate) fn publish(&self, seat: &Seat) {
        self.amend(seat, |entered| entered.found = true);
    }

    fn amend(&self, seat: &Seat, change: impl FnOnce(&mut Entered)) {
        if let Some(name) = &seat.spec.register
            && let Some(mut entered) = self.names.get_mut(name)
            && std::ptr::eq(&raw const *entered.seat, seat)
        {
            change(&mut entered);
        }
    }

    /// The incarnation has ended or is fenced. What another one entered stays.
    pub(crate) fn give_back(&self, seat: &Seat) {
        if let Some(name) = &seat.spec.register {
            // The last hold on the seat must not go under the lock of the map.
            let _gone = self.names.remove_if(name, |_, entered| std::ptr::eq(&raw const *entered.seat, seat));
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("names", &self.names()).finish()
    }
}
