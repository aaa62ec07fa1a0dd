//! Circles of parties that wait for each other.
//!
//! The search goes over parties, not over attempts: whoever waits is taken to give nothing back meanwhile. It is asked for at the few moments at which a circle can
//! close: when somebody begins to wait, when somebody has lost what let him go first, and when a change has put more in the way of others. A grant to
//! one who waited closes none, because those behind him waited for him before.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use super::hall::{Hall, InTheWay, Own, Want};
use crate::model::Party;

/// Parties that wait for each other.
#[derive(Debug)]
pub(super) struct Circle {
    /// Each waits for the next, the last for the first.
    pub(super) parties: Vec<Party>,
    /// The youngest attempt or change that is a part of it, as one that waits or as one that is waited for.
    pub(super) youngest: u64,
}

/// How a party was found: who waits for it, and the youngest of the attempts by which he does.
struct Step<'a> {
    from: &'a Party,
    youngest: u64,
}

/// A party that has no more than this is looked at before a search is begun: mostly nobody waits for it.
const LOOKED_AT_MAX: usize = 64;

impl Hall {
    /// The shortest circle through this party; where only one of its attempts can have closed one, through `newest`.
    pub(super) fn circle(&self, start: &Party, newest: Option<u64>) -> Option<Circle> {
        let (start, own) = self.parties.get_key_value(start)?;
        if own.held.len() + own.waits.len() <= LOOKED_AT_MAX && !self.somebody_waits_for(start, own) {
            return None;
        }
        let mut found: HashMap<&Party, Step<'_>> = HashMap::new();
        // Attempts of parties that are found: in a long queue nearly everything that is come upon.
        let mut known: HashSet<u64> = HashSet::new();
        let mut next = VecDeque::from([(start, newest.map_or_else(|| own.waits.clone(), |one| BTreeSet::from([one])))]);
        while let Some((from, waits)) = next.pop_front() {
            for wait in waits {
                let Some(want) = self.want(wait) else { continue };
                let others: Vec<InTheWay> = self.in_the_way_beside(want, |number| known.contains(&number)).collect();
                for in_the_way in others {
                    let (entry, youngest) = match in_the_way {
                        InTheWay::Held(number) => (number, wait),
                        InTheWay::Waits(number) => {
                            (self.waits.get(&number).map_or(number, |other| other.entry), number.max(wait))
                        }
                    };
                    let Some(to) = self.entries.get(&entry).map(|entry| &entry.lock.holder) else { continue };
                    if to == from || found.contains_key(to) {
                        continue;
                    }
                    found.insert(to, Step { from, youngest });
                    if to == start {
                        return Some(back(&found, start));
                    }
                    if let Some(own) = self.parties.get(to).filter(|own| !own.waits.is_empty()) {
                        known.extend(&own.waits);
                        next.push_back((to, own.waits.clone()));
                    }
                }
            }
        }
        None
    }

    /// Whether a circle could go through this party at all.
    fn somebody_waits_for(&self, party: &Party, own: &Own) -> bool {
        let waiting = |keys: &[Arc<str>], mode, behind: &dyn Fn(Want<'_>) -> bool| {
            let others = keys.iter().flat_map(|key| self.waiting.overlapping(key, mode));
            others.filter_map(|number| self.want(number)).any(|other| other.party != party && behind(other))
        };
        let mut held = own.held.iter().filter_map(|number| self.entries.get(number));
        let mut waits = own.waits.iter().filter_map(|number| self.want(*number));
        held.any(|entry| waiting(&entry.keys, entry.lock.mode, &|_| true))
            || waits.any(|want| {
                waiting(want.keys, want.mode, &|other| {
                    !other.is_change() && (want.is_change() || other.number > want.number)
                })
            })
    }
}

fn back(found: &HashMap<&Party, Step<'_>>, start: &Party) -> Circle {
    let mut circle = Circle { parties: Vec::new(), youngest: 0 };
    let mut at = start;
    while let Some(step) = found.get(at) {
        circle.youngest = circle.youngest.max(step.youngest);
        at = step.from;
        circle.parties.push(at.clone());
        if at == start {
            break;
        }
    }
    circle.parties.reverse();
    circle
}
