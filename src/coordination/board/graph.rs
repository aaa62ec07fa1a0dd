//! What waits for what: circles, and how much a task holds up.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
};

/// A circle in a graph, as the nodes on it in the order of its edges; `None` when there is none that can be reached from these nodes.
pub(super) fn circle<N: Copy + Eq + Hash>(from: &[N], edges: impl Fn(N) -> Vec<N>) -> Option<Vec<N>> {
    // Whether the search is still below a node, or has left it behind.
    let mut below: HashMap<N, bool> = HashMap::new();
    for start in from {
        let mut path = vec![(*start, edges(*start))];
        if below.insert(*start, true).is_some() {
            below.insert(*start, false);
            continue;
        }
        while let Some((node, ahead)) = path.last_mut() {
            let node = *node;
            let Some(next) = ahead.pop() else {
                below.insert(node, false);
                path.pop();
                continue;
            };
            match below.get(&next) {
                Some(true) => {
                    let begins = path.iter().position(|(node, _)| *node == next).unwrap_or(0);
                    return Some(path[begins..].iter().map(|(node, _)| *node).collect());
                }
                Some(false) => {}
                None => {
                    below.insert(next, true);
                    path.push((next, edges(next)));
                }
            }
        }
    }
    None
}

/// How many nodes can be reached from one, itself not counted, at most `max`.
pub(in crate::coordination) fn reach<N: Copy + Eq + Hash>(from: N, max: u32, edges: impl Fn(N) -> Vec<N>) -> u32 {
    let mut seen = HashSet::from([from]);
    let mut ahead = VecDeque::from([from]);
    let mut count = 0;
    while let Some(node) = ahead.pop_front() {
        for next in edges(node) {
            if seen.insert(next) {
                count += 1;
                if count == max {
                    return count;
                }
                ahead.push_back(next);
            }
        }
    }
    count
}

/// Every node that can be reached from these, these included.
pub(super) fn closure<N: Copy + Eq + Hash>(from: &[N], edges: impl Fn(N) -> Vec<N>) -> Vec<N> {
    let mut seen: HashSet<N> = from.iter().copied().collect();
    let mut found: Vec<N> = seen.iter().copied().collect();
    let mut at = 0;
    while let Some(node) = found.get(at).copied() {
        at += 1;
        found.extend(edges(node).into_iter().filter(|next| seen.insert(*next)));
    }
    found
}
