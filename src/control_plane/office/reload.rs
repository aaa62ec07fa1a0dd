//! The desk's side of a reload: judged whole, then accepted swarm by swarm.

use std::{collections::BTreeSet, sync::Arc};

use super::Office;
use crate::{
    control_plane::{
        desk::Request,
        plan::{self, Scaled},
        reload::{self, ReloadError, SwarmChange},
    },
    model::{Command, Requester, SwarmName, SwarmSpec, Target},
};

impl Office {
    /// Lets the hive follow the file: an operation for each swarm that it changes, in the journal when this returns. A dry run only tells.
    ///
    /// # Errors
    /// Why nothing was changed; a journal that fails between two swarms leaves the rest to the next reload.
    pub async fn reload(&self, file: &[SwarmSpec], dry_run: bool) -> Result<Vec<SwarmChange>, ReloadError> {
        // Until all of it is in the journal: nobody else's document comes between.
        let _judging = self.judging.lock().await;
        let mut all = reload::plan(file, &self.intended_by_all())?;
        let request = |one: &SwarmChange| {
            let target = Target::Swarm(one.swarm.clone());
            let requested_by = Requester::Reload;
            let command = one.change.command()?;
            Some(Request { command, target, requested_by, idempotency_key: None, if_match: None })
        };
        all.iter().filter_map(request).try_for_each(|request| self.judge(&request))?;
        let tree = self.open_tree()?;
        for one in all.iter_mut().filter(|_| !dry_run) {
            if let Some(request) = request(one) {
                one.operation = Some(self.enter(&tree, request, None).await?.id);
            }
        }
        Ok(all)
    }

    /// Every swarm as it is once everything that was accepted is done, with the operator's numbers in it.
    fn intended_by_all(&self) -> Vec<(Arc<SwarmSpec>, Scaled)> {
        let mut names: BTreeSet<SwarmName> = self.entries.iter().map(|entry| entry.key().clone()).collect();
        names.extend(self.expected().into_iter().map(|spec| spec.name.clone()));
        names.iter().filter_map(|name| self.intended_with_numbers(name)).collect()
    }

    fn intended_with_numbers(&self, name: &SwarmName) -> Option<(Arc<SwarmSpec>, Scaled)> {
        let present = self.plan(name);
        let mut scaled = present.as_ref().map(|present| present.scaled.clone()).unwrap_or_default();
        let mut spec = present.map(|present| present.spec);
        for operation in self.of_documents(name) {
            if let (Command::Scale { agent, replicas }, Some(now)) = (&operation.command, &spec) {
                plan::note_scale(&mut scaled, now, agent, *replicas);
            }
            spec = operation.command.leaves(spec);
        }
        spec.map(|spec| (spec, scaled))
    }
}
