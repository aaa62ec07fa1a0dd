//! Buckets against a model that keeps every document and counts at the end.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use proptest::prelude::*;

use super::super::{
    bucket::{Buckets, Closed, Reading, Seen},
    point::Tokens,
    tally::{COUNT_MAX, Tally},
};
use crate::model::{AgentId, Target};

const AGENTS: [&str; 4] = ["a/x", "a/y", "b/x", "b/y"];

#[derive(Debug, Clone)]
enum Step {
    /// The clock goes by so many seconds, back or forth.
    Pass(i64),
    /// Documents are published together.
    Publish(Vec<(usize, Seen)>),
    Remove(usize),
    /// Documents were missed; these are how it stands.
    Resume(Vec<(usize, Seen)>),
    Expire,
}

fn instant(n: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(n)
}

prop_compose! {
    fn seen()(
        incarnation in 0..4u64,
        // Few moments, so that a reading is often shown twice.
        cpu in prop::option::of((0..5u32, 0..6u64)),
        memory in prop::option::of((0..1_000u64, 0..6u64)),
        latency in prop::option::of((0..1_000u64, 0..6u64)),
        input in prop::option::of(0..50u64),
        output in prop::option::of(0..50u64),
        restarts in 0..6u64,
    ) -> Seen {
        Seen {
            incarnation,
            cpu: cpu.map(|(value, at)| Reading { value: f64::from(value) / 4.0, at: instant(at) }),
            memory: memory.map(|(value, at)| Reading { value, at: instant(at) }),
            latency_ms: latency.map(|(value, at)| Reading { value, at: instant(at) }),
            tokens: Tokens { input, output },
            tokens_at: None,
            restarts,
        }
    }
}

fn documents() -> impl Strategy<Value = Vec<(usize, Seen)>> {
    prop::collection::btree_map(0..AGENTS.len(), seen(), 0..4).prop_map(|docs| docs.into_iter().collect())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (-15..40i64).prop_map(Step::Pass),
        8 => documents().prop_map(Step::Publish),
        1 => (0..AGENTS.len()).prop_map(Step::Remove),
        1 => documents().prop_map(Step::Resume),
        1 => Just(Step::Expire),
    ]
}

/// Every value that was counted, by series and start.
#[derive(Debug, Default, PartialEq)]
struct Counted {
    cpu: Vec<f64>,
    memory: Vec<f64>,
    latency: Vec<u64>,
    tokens: [Option<u64>; 2],
    restarts: u64,
}

/// Keeps all documents of each agent since it was made or missed.
#[derive(Default)]
struct Model {
    told: BTreeMap<usize, Vec<Seen>>,
    /// Agents whose first document came from a snapshot.
    missed: BTreeSet<usize>,
    counted: HashMap<(Target, u64), Counted>,
}

fn id(agent: usize) -> AgentId {
    AGENTS[agent].parse().unwrap()
}

impl Model {
    fn publish(&mut self, start_s: u64, docs: &[(usize, Seen)]) {
        let mut swarm_sums = Vec::new();
        for (agent, now) in docs {
            let told = self.told.entry(*agent).or_default();
            let last = told.last().copied();
            // A reading is one that the document before did not show.
            let cpu = now.cpu.filter(|cpu| last.and_then(|last| last.cpu).map(|last| last.at) != Some(cpu.at));
            let memory = now.memory.filter(|new| last.and_then(|last| last.memory).map(|last| last.at) != Some(new.at));
            let late = now.latency_ms.filter(|new| last.and_then(|l| l.latency_ms).map(|l| l.at) != Some(new.at));
            let restarts = last.map_or(0, |last| now.restarts.saturating_sub(last.restarts));
            told.push(*now);
            let told = &self.told[agent];
            // Against the last total that was shown; against nothing when its first start was seen before any.
            let fresh = told[0].incarnation == 0 && !self.missed.contains(agent)
                || told.windows(2).any(|pair| pair[1].incarnation > pair[0].incarnation);
            let used = [|seen: &Seen| seen.tokens.input, |seen: &Seen| seen.tokens.output].map(|total| {
                let earlier = told[..told.len() - 1].iter().rev().find_map(total);
                Some(total(now)?.saturating_sub(earlier.or(fresh.then_some(0))?))
            });
            for target in [Target::Agent(id(*agent)), Target::Swarm(id(*agent).swarm)] {
                let whole = matches!(target, Target::Agent(_));
                let counted = self.counted.entry((target, start_s)).or_default();
                if whole {
                    counted.cpu.extend(cpu.map(|cpu| cpu.value));
                    counted.memory.extend(memory.map(|memory| memory.value as f64));
                }
                counted.latency.extend(late.map(|late| late.value));
                for (so_far, used) in counted.tokens.iter_mut().zip(used) {
                    *so_far = used.map(|used| so_far.unwrap_or(0) + used).or(*so_far);
                }
                counted.restarts += restarts;
            }
            swarm_sums.extend(cpu.map(|_| (id(*agent).swarm, true)));
            swarm_sums.extend(memory.map(|_| (id(*agent).swarm, false)));
        }
        swarm_sums.sort();
        swarm_sums.dedup();
        for (swarm, cpu) in swarm_sums {
            let shown = self.told.iter().filter(|(agent, _)| id(**agent).swarm == swarm);
            let shown = shown.filter_map(|(_, told)| told.last());
            let counted = self.counted.entry((Target::Swarm(swarm.clone()), start_s)).or_default();
            if cpu {
                counted.cpu.push(shown.filter_map(|seen| seen.cpu).map(|cpu| cpu.value).sum());
            } else {
                counted.memory.push(shown.filter_map(|seen| seen.memory).map(|memory| memory.value as f64).sum());
            }
        }
    }
}

fn merged(closed: &[Closed]) -> HashMap<(Target, u64), Tally> {
    let mut all: HashMap<(Target, u64), Tally> = HashMap::new();
    for Closed { of, start_s, tally } in closed {
        all.entry((of.clone(), *start_s)).or_default().merge(tally);
    }
    all
}

fn same(tally: &Tally, counted: &Counted) -> Result<(), TestCaseError> {
    let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
    for (gauge, values) in [(tally.cpu, &counted.cpu), (tally.memory, &counted.memory)] {
        prop_assert_eq!(gauge.count, values.len() as u64);
        prop_assert!(close(gauge.sum, values.iter().sum()));
        if !values.is_empty() {
            prop_assert!(close(gauge.max, values.iter().copied().fold(f64::MIN, f64::max)));
        }
    }
    prop_assert_eq!(tally.latency_ms_max, counted.latency.iter().copied().max());
    prop_assert_eq!([tally.tokens.input, tally.tokens.output], counted.tokens);
    prop_assert_eq!(tally.restarts, Some(counted.restarts));
    Ok(())
}

proptest! {
    #[test]
    fn buckets_count_what_the_model_counts(steps in prop::collection::vec(step(), 1..60)) {
        let (mut buckets, mut model) = (Buckets::default(), Model::default());
        let mut closed = Vec::new();
        let mut now_s: i64 = 1_000_000;
        for step in steps {
            let start_s = now_s as u64 / 10 * 10;
            match step {
                Step::Pass(seconds) => now_s += seconds,
                Step::Publish(docs) => {
                    let ids: Vec<(AgentId, Seen)> = docs.iter().map(|(agent, seen)| (id(*agent), *seen)).collect();
                    buckets.take(start_s, ids.iter().map(|(id, seen)| (id, *seen)), &mut closed);
                    model.publish(start_s, &docs);
                }
                Step::Remove(agent) => {
                    buckets.remove(&id(agent), &mut closed);
                    model.told.remove(&agent);
                    model.missed.remove(&agent);
                }
                Step::Resume(docs) => {
                    let ids: Vec<(AgentId, Seen)> = docs.iter().map(|(agent, seen)| (id(*agent), *seen)).collect();
                    buckets.resume_with(ids.iter().map(|(id, seen)| (id, *seen)), &mut closed);
                    model.told = docs.iter().map(|(agent, seen)| (*agent, vec![*seen])).collect();
                    model.missed = docs.iter().map(|(agent, _)| *agent).collect();
                }
                Step::Expire => {
                    buckets.expire(instant(now_s as u64), &mut closed);
                    for agent in AGENTS {
                        let open = buckets.open(&Target::Agent(agent.parse().unwrap()));
                        prop_assert!(open.is_none_or(|(open, _)| open == start_s), "time has left it");
                    }
                }
            }
        }
        buckets.close(&mut closed);
        let merged = merged(&closed);
        prop_assert_eq!(merged.len(), model.counted.len());
        for (key, counted) in &model.counted {
            same(&merged[key], counted)?;
        }
    }

    #[test]
    fn tallies_become_one_in_any_order(mut docs in prop::collection::vec(seen(), 1..8), at in any::<prop::sample::Index>()) {
        let one = |docs: &[Seen]| {
            let (mut buckets, mut closed) = (Buckets::default(), Vec::new());
            let agent = id(0);
            for seen in docs {
                buckets.take(0, [(&agent, *seen)], &mut closed);
                // Each on its own: no document follows another.
                buckets.close(&mut closed);
            }
            merged(&closed).remove(&(Target::Agent(agent), 0)).unwrap()
        };
        docs.iter_mut().enumerate().for_each(|(n, seen)| {
            (seen.restarts, seen.tokens) = (0, Tokens::default());
            seen.cpu = seen.cpu.map(|cpu| Reading { at: instant(n as u64), ..cpu });
            seen.latency_ms = seen.latency_ms.map(|late| Reading { at: instant(n as u64), ..late });
            seen.memory = seen.memory.map(|memory| Reading { at: instant(n as u64), ..memory });
        });
        let forth = one(&docs);
        let turn = at.index(docs.len());
        docs.rotate_left(turn);
        prop_assert_eq!(forth, one(&docs));
    }
}

/// A daemon that was killed had counted more than it came to journal, so what its successor knows is no mark to measure from.
#[test]
fn what_an_earlier_daemon_had_counted_is_not_counted_again() {
    let seen = |incarnation, input, told_at| Seen {
        incarnation,
        cpu: None,
        memory: None,
        latency_ms: None,
        tokens: Tokens { input: Some(input), output: None },
        tokens_at: Some(instant(told_at)),
        restarts: 0,
    };
    let counted = |docs: &[Seen]| {
        let (mut buckets, mut closed) = (Buckets::default(), Vec::new());
        docs.iter().for_each(|doc| buckets.take(0, [(&id(0), *doc)], &mut closed));
        buckets.close(&mut closed);
        merged(&closed)[&(Target::Agent(id(0)), 0)].tokens
    };
    let tokens = |input| Tokens { input, output: None };
    assert_eq!(counted(&[seen(3, 100, 1), seen(3, 100, 1), seen(3, 140, 2)]), tokens(None), "nobody knows when");
    assert_eq!(counted(&[seen(3, 100, 1), seen(3, 140, 2), seen(3, 145, 3)]), tokens(Some(5)));
    assert_eq!(
        counted(&[seen(3, 100, 1), seen(4, 100, 1), seen(4, 107, 2)]).input,
        Some(7),
        "all of it is the next one's"
    );
}

#[test]
fn counters_stop_before_they_overflow() {
    let mut tally = Tally::default();
    for _ in 0..3 {
        tally.add_restarts(u64::MAX);
        tally.add_tokens(Tokens { input: Some(u64::MAX), output: None });
    }
    assert_eq!(tally.restarts, Some(COUNT_MAX));
    assert_eq!(tally.tokens, Tokens { input: Some(COUNT_MAX), output: None });
}

#[test]
fn nothing_measured_is_null_and_a_hole_hides_counts_alone() {
    let mut tally = Tally::default();
    let point = tally.point(instant(0), true);
    assert!(
        point.cpu.is_none() && point.memory.is_none() && point.tokens == Tokens::default() && point.restarts.is_none()
    );
    tally.cpu.add(0.0);
    tally.add_restarts(0);
    assert_eq!(tally.point(instant(0), true).cpu.unwrap().mean, 0.0, "a zero that was measured is one");
    assert_eq!(tally.point(instant(0), true).restarts, Some(0));
    let holed = tally.point(instant(0), false);
    assert!(holed.cpu.is_some() && holed.restarts.is_none());
}
