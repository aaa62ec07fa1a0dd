//! New flags and specifications for a supervisor that goes on running: OTP's `code_change`.

use std::collections::HashSet;
use std::time::Instant;

use super::{Action, Key, NewChild, Refusal, Token, Tree};
use crate::flags::{AutoShutdown, SupervisorFlags};
use crate::spec::{SeedState, SpecError};

impl<P> Tree<P> {
    /// Takes new flags and specifications, all of them or, after an error, none.
    ///
    /// As in OTP a child that is not named is kept, and a new one is not started. Unlike there, where the order of the new list counts, those
    /// that are there keep their places: the order in which children were started is the order in which they are stopped.
    pub(super) fn change(&mut self, now: Instant, token: Token, flags: SupervisorFlags, children: Vec<NewChild<P>>) {
        if let Err(error) = check(&flags, &children) {
            self.out.extend(children.into_iter().map(|child| Action::Dispose(child.payload)));
            return self.answer(token, Err(Refusal::Invalid(error)));
        }
        self.flags = flags;
        for mut child in children {
            // That of a child which is there is not read.
            let seed = child.seed.get_or_insert_with(|| Box::new(child.spec.seed.clone()));
            seed.state = SeedState::Stopped;
            if let Err((key, child)) = self.insert(now, child) {
                self.respecify(key, child);
            }
        }
        self.answer(token, Ok(()));
    }

    /// Its incarnation, its record and its state are untouched.
    fn respecify(&mut self, key: Key, child: NewChild<P>) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let NewChild { spec, role, payload, seed: _ } = child;
        self.index.leave(key, slot);
        self.backoffs.join(&spec);
        self.backoffs.leave(&slot.spec);
        (slot.spec, slot.role) = (spec, role);
        self.index.join(key, slot);
        self.out.push(Action::Adopt { key, payload });
    }
}

fn check<P>(flags: &SupervisorFlags, children: &[NewChild<P>]) -> Result<(), SpecError> {
    let mut named = HashSet::new();
    for child in children {
        child.spec.validate()?;
        if !named.insert(&child.spec.id) {
            return Err(SpecError::Duplicate { id: child.spec.id.clone() });
        }
    }
    if flags.auto_shutdown == AutoShutdown::Never {
        // What is kept may be significant all the same, as in OTP: its end leads to nothing.
        if let Some(spec) = children.iter().map(|child| &child.spec).find(|spec| spec.significant) {
            return Err(SpecError::AutoShutdown { id: spec.id.clone() });
        }
    }
    Ok(())
}
