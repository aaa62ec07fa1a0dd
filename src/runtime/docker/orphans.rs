//! What is in the engine and should not be: found by comparing what it lists with what is declared and led here; removed after a grace.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    core::{Core, Stay},
    engine::{Engine, Listed, OurNetwork, Owner},
    inside,
};
use crate::{
    model::{Fate, Finding, FindingKind, LaunchId, SwarmName},
    runtime::lead::{Stray, end_stray},
};

/// Since when things have been seen.
#[derive(Debug, Default)]
pub(super) struct Sightings(HashMap<(FindingKind, String), Instant>);

impl Sightings {
    /// Notes what is there now and forgets what is not. Returns how long each has still to be seen, in the order given.
    fn note(&mut self, suspects: &[Suspect], grace: Duration, now: Instant) -> Vec<Duration> {
        let there: HashSet<_> = suspects.iter().map(Suspect::key).collect();
        self.0.retain(|key, _| there.contains(key));
        let left = |suspect: &Suspect| {
            let since = *self.0.entry(suspect.key()).or_insert(now);
            grace.saturating_sub(now.saturating_duration_since(since))
        };
        suspects.iter().map(left).collect()
    }
}

/// What should not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Suspect {
    kind: FindingKind,
    id: String,
    name: String,
    swarm: Option<SwarmName>,
    why: &'static str,
    foreign: bool,
}

impl Suspect {
    fn key(&self) -> (FindingKind, String) {
        (self.kind, self.id.clone())
    }
}

/// Containers and networks that no document accounts for. `declared` tells of each swarm whether it has a bridge of its own.
fn judge(
    containers: &[Listed],
    networks: &[OurNetwork],
    declared: &HashMap<SwarmName, bool>,
    owner: &Owner,
) -> Vec<Suspect> {
    let container = |it: &Listed| {
        let (ours, named_alike) = (it.hive_id == Some(owner.hive_id), it.hive.as_ref() == Some(&owner.hive));
        let why = match &it.swarm {
            _ if !ours && named_alike => "another hive of the same name has made it",
            _ if !ours => return None,
            None => "it is no swarm's",
            Some(swarm) if !declared.contains_key(swarm) => "no document has its swarm",
            Some(_) if !it.running => "it does not run and was to be removed by the engine",
            Some(_) => return None,
        };
        let (id, name, swarm) = (it.id.clone(), it.name.clone(), it.swarm.clone());
        Some(Suspect { kind: FindingKind::Container, id, name, swarm, why, foreign: !ours })
    };
    let network = |it: &OurNetwork| {
        let why = match it.swarm.as_ref().map(|swarm| declared.get(swarm)) {
            None | Some(None) => "no document has its swarm",
            Some(Some(false)) => "its swarm asks for no bridge of its own",
            Some(Some(true)) => return None,
        };
        let (name, swarm) = (it.name.clone(), it.swarm.clone());
        Some(Suspect { kind: FindingKind::Network, id: name.clone(), name, swarm, why, foreign: false })
    };
    // Networks last: one that a container is still on can't be removed.
    containers.iter().filter_map(container).chain(networks.iter().filter_map(network)).collect()
}

/// One pass. Returns everything that should not be there and what became of it.
pub(super) async fn reconcile(core: &Arc<Core>, dry_run: bool) -> Result<Vec<Finding>, String> {
    let engine = core.engine().await.map_err(|error| error.to_string())?;
    let containers = engine.list_all_hives().await.map_err(|error| error.to_string())?;
    let networks = engine.list_our_networks().await.map_err(|error| error.to_string())?;
    let declared: HashMap<SwarmName, bool> =
        core.all_lodgings().iter().map(|lodging| (lodging.swarm().clone(), lodging.has_network())).collect();
    let mut suspects = judge(&containers, &networks, &declared, engine.owner());
    suspects.splice(0..0, launches(core, engine).await);
    let left = core.sightings.lock().note(&suspects, core.orphan_grace, Instant::now());
    let mut found = Vec::with_capacity(suspects.len());
    for (suspect, left) in suspects.into_iter().zip(left) {
        let fate = match left {
            _ if suspect.foreign => Fate::Reported,
            left if !left.is_zero() => Fate::Waits(left),
            _ if dry_run => Fate::Removable,
            _ => match remove(core, engine, &suspect).await {
                Ok(()) => Fate::Removed,
                Err(why) => Fate::Failed(why),
            },
        };
        let Suspect { kind, name, swarm, why, .. } = suspect;
        found.push(Finding { kind, name, swarm, why, fate });
    }
    Ok(found)
}

/// Launches in our swarms' containers that nobody here knows.
async fn launches(core: &Arc<Core>, engine: &Engine) -> Vec<Suspect> {
    let mut found = Vec::new();
    for lodging in core.all_lodgings() {
        let swarm = lodging.swarm().clone();
        let there = {
            let _visit = lodging.visit(engine).await;
            match lodging.find(engine).await {
                Ok(Some(door)) => inside::list(engine, &door).await.map_err(|error| error.to_string()),
                Ok(None) => Ok(Vec::new()),
                Err(error) => Err(error.to_string()),
            }
        };
        core.settle(&lodging).await;
        match there {
            Ok(there) => {
                let stray = |id: LaunchId| Suspect {
                    kind: FindingKind::Launch,
                    id: id.to_string(),
                    name: id.to_string(),
                    swarm: Some(swarm.clone()),
                    why: "nobody here has launched it",
                    foreign: false,
                };
                found.extend(
                    there
                        .into_iter()
                        .filter(|id| !core.places.contains_key(id) && !lodging.is_forgotten(*id))
                        .map(stray),
                );
            }
            Err(error) => tracing::warn!(%swarm, error, "the launches in a container could not be listed"),
        }
    }
    found
}

async fn remove(core: &Arc<Core>, engine: &Engine, suspect: &Suspect) -> Result<(), String> {
    match (suspect.kind, &suspect.swarm) {
        (FindingKind::Container, _) => engine.remove(&suspect.id).await.map_err(|error| error.to_string())?,
        (FindingKind::Network, Some(swarm)) => engine.remove_network(swarm).await.map_err(|error| error.to_string())?,
        (FindingKind::Launch, Some(swarm)) => {
            let id: LaunchId = suspect.id.parse().map_err(|_| format!("{:?} is no launch", suspect.id))?;
            let stay = Stay::new(core.lodging(swarm)?);
            let lodging = Arc::clone(&stay.lodging);
            core.places.insert(id, stay);
            let stray = end_stray(&**core, id).await;
            core.places.remove(&id);
            match stray {
                Stray::Ended => lodging.forget(id),
                Stray::Fenced => return Err("a younger daemon leads it".to_owned()),
                Stray::Left => return Err("it is not proven dead".to_owned()),
            }
        }
        (FindingKind::Network | FindingKind::Launch, None) => return Err("it does not say whose it is".to_owned()),
    }
    tracing::warn!(kind = ?suspect.kind, name = suspect.name, why = suspect.why, "an orphan was removed");
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::model::HiveId;

    fn owner() -> Owner {
        Owner { hive_id: HiveId::mint(), hive: "hive".to_owned() }
    }

    fn listed(owner: &Owner, swarm: Option<&str>, running: bool) -> Listed {
        Listed {
            id: format!("id-{swarm:?}"),
            name: "name".to_owned(),
            hive_id: Some(owner.hive_id),
            hive: Some(owner.hive.clone()),
            swarm: swarm.map(|name| name.parse().unwrap()),
            plan: None,
            running,
            paused: false,
        }
    }

    fn whys(suspects: &[Suspect]) -> Vec<&'static str> {
        suspects.iter().map(|suspect| suspect.why).collect()
    }

    #[test]
    fn only_what_no_document_accounts_for_is_suspect() {
        let owner = owner();
        let declared = HashMap::from([("a".parse().unwrap(), true), ("b".parse().unwrap(), false)]);
        let containers =
            [listed(&owner, Some("a"), true), listed(&owner, Some("b"), false), listed(&owner, Some("c"), true)];
        let found = judge(&containers, &[], &declared, &owner);
        assert_eq!(whys(&found), ["it does not run and was to be removed by the engine", "no document has its swarm"]);
        assert_eq!(whys(&judge(&[listed(&owner, None, true)], &[], &declared, &owner)), ["it is no swarm's"]);
        let network = |swarm: &str| OurNetwork { name: "n".to_owned(), swarm: Some(swarm.parse().unwrap()) };
        let found = judge(&[], &["a", "b", "c"].map(network), &declared, &owner);
        assert_eq!(whys(&found), ["its swarm asks for no bridge of its own", "no document has its swarm"]);
    }

    #[test]
    fn another_hive_of_our_name_is_reported_and_no_other_is_even_that() {
        let (ours, mut other) = (owner(), owner());
        let found = judge(&[listed(&other, Some("a"), true)], &[], &HashMap::new(), &ours);
        assert!(found[0].foreign, "{found:?}");
        other.hive = "else".to_owned();
        assert_eq!(judge(&[listed(&other, Some("a"), true)], &[], &HashMap::new(), &ours), []);
    }

    #[test]
    fn the_grace_counts_from_the_first_sight_and_starts_over_behind_a_gap() {
        let owner = owner();
        let suspects = judge(&[listed(&owner, None, true)], &[], &HashMap::new(), &owner);
        let (mut sightings, start) = (Sightings::default(), Instant::now());
        let (second, grace) = (Duration::from_secs(1), Duration::from_secs(90));
        assert_eq!(sightings.note(&suspects, grace, start), [grace]);
        assert_eq!(sightings.note(&suspects, grace, start + second), [grace - second]);
        assert_eq!(sightings.note(&suspects, grace, start + grace + second), [Duration::ZERO]);
        assert_eq!(sightings.note(&[], grace, start + grace + second), [Duration::ZERO; 0]);
        assert_eq!(sightings.note(&suspects, grace, start + grace + second), [grace]);
    }
}
