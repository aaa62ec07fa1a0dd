//! Whether a history could be that of a keeper of rights who does one thing after the other.
//!
//! Tokens say in which order rights were given, so nothing has to be searched: of two rights that exclude each other the one with the smaller token must have
//! had a reason to end before the other was given. A reason counts from the earliest moment at which it could have taken effect, so a history that is
//! accused is wrong; what overlaps is given the benefit of the doubt.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
};

use super::history::{Deed, Entry, Grant, Left, Mode, Said, Time, Use};

/// What is wrong with a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Two rights have the same token.
    TokenTwice(u64),
    /// A right that was given later has the smaller token.
    TokenBackwards { earlier: u64, later: u64 },
    /// The second right was given while nothing could have ended the first.
    TwoHolders(u64, u64),
    /// A token was good when it no longer could be.
    StaleSucceeded(u64),
    /// A token was refused that nothing could have ended.
    GoodRefused(u64),
    /// A token was used that was never given.
    NeverGiven(u64),
    /// Two tokens have completed one task.
    DoneTwice(String),
    /// A task was given away behind its completion.
    GivenWhenDone(String),
    /// A completion that was answered is not there later.
    CompletionLost(String),
    /// A task is done, and nobody has done it.
    DoneByNobody(String),
    /// A task is not done at the end.
    NeverDone(String),
    /// A dead holder has something at the end.
    LeftBehind(u64),
    /// A message that was taken from its sender is nowhere.
    MessageLost(String),
    /// A message was delivered behind its acknowledgement, or was never sent.
    WronglyDelivered(String),
}

struct Right<'a> {
    grant: &'a Grant,
    who: &'a str,
    from: Time,
    to: Time,
    /// Uses in the order of their beginning.
    uses: Vec<(&'a Entry, Use, Said)>,
}

impl Right<'_> {
    /// The earliest moment at which it can have ended.
    fn may_end(&self, deaths: &HashMap<&str, (Time, Time)>) -> Time {
        let alive = self.uses.iter().filter(|(_, what, said)| *said == Said::Done && *what == Use::Renew);
        let alive = alive.map(|(entry, ..)| entry.from).max().unwrap_or(0).max(self.from);
        let own = self.uses.iter().filter(|(_, what, said)| *said != Said::Stale && !lasting(*what));
        let own = own.map(|(entry, ..)| entry.from).min();
        let limit = self.grant.limit.map(|limit| self.from + limit);
        let death = deaths.get(self.who).map(|(from, _)| *from);
        [Some(alive + self.grant.lease), own, limit, death].into_iter().flatten().min().unwrap_or(Time::MAX)
    }

    /// What it allows only, and since when at the earliest, if that is less than what was given.
    fn weakened(&self) -> Option<(Mode, Time)> {
        let mut uses = self.uses.iter().filter(|(.., said)| *said != Said::Stale);
        uses.find_map(|(entry, what, _)| match what {
            Use::Weaken(mode) => Some((*mode, entry.from)),
            _ => None,
        })
    }
}

/// Whether the right goes on behind it.
fn lasting(what: Use) -> bool {
    matches!(what, Use::Renew | Use::Weaken(_))
}

fn overlap(one: &str, other: &str) -> bool {
    let parts = |name| str::split(name, '/').filter(|part| !part.is_empty());
    parts(one).zip(parts(other)).all(|(one, other)| one == other)
}

fn exclude(one: &Right<'_>, mode: Mode, other: &Right<'_>) -> bool {
    let modes = [mode, other.grant.mode];
    let free = modes == [Mode::Read; 2] || (one.who == other.who && !modes.contains(&Mode::Exclusive));
    !free && one.grant.names.iter().any(|name| other.grant.names.iter().any(|known| overlap(name, known)))
}

/// Everything that is wrong.
pub(super) fn check(history: &[Entry], left: &Left) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let mut rights: BTreeMap<u64, Right<'_>> = BTreeMap::new();
    let mut deaths = HashMap::new();
    for entry in history {
        match &entry.deed {
            Deed::Died => drop(deaths.insert(entry.who.as_str(), (entry.from, entry.to))),
            Deed::Given(grant) => {
                let right = Right { grant, who: &entry.who, from: entry.from, to: entry.to, uses: Vec::new() };
                if rights.insert(grant.fence, right).is_some() {
                    wrong.push(Wrong::TokenTwice(grant.fence));
                }
            }
            _ => {}
        }
    }
    for entry in history {
        let Deed::Used { fence, what, said, .. } = &entry.deed else { continue };
        match rights.get_mut(fence) {
            Some(right) => right.uses.push((entry, *what, *said)),
            None if *said == Said::Done => wrong.push(Wrong::NeverGiven(*fence)),
            None => {}
        }
    }
    for right in rights.values_mut() {
        right.uses.sort_by_key(|(entry, ..)| entry.from);
    }
    order(&rights, &mut wrong);
    holders(&rights, &deaths, &mut wrong);
    for right in rights.values() {
        uses(right, &deaths, &mut wrong);
    }
    tasks(&rights, history, left, &mut wrong);
    for (who, fence) in &left.held {
        if deaths.contains_key(who.as_str()) {
            wrong.push(Wrong::LeftBehind(*fence));
        }
    }
    messages(history, left, &mut wrong);
    wrong
}

/// Tokens grow.
fn order(rights: &BTreeMap<u64, Right<'_>>, wrong: &mut Vec<Wrong>) {
    let mut by_end: Vec<_> = rights.values().collect();
    by_end.sort_by_key(|right| right.to);
    let mut by_begin = by_end.clone();
    by_begin.sort_by_key(|right| right.from);
    let (mut ended, mut greatest) = (by_end.into_iter().peekable(), 0);
    for later in by_begin {
        while let Some(earlier) = ended.next_if(|right| right.to < later.from) {
            greatest = earlier.grant.fence.max(greatest);
        }
        if greatest > later.grant.fence {
            wrong.push(Wrong::TokenBackwards { earlier: greatest, later: later.grant.fence });
        }
    }
}

/// Nobody is given what somebody else has.
fn holders(rights: &BTreeMap<u64, Right<'_>>, deaths: &HashMap<&str, (Time, Time)>, wrong: &mut Vec<Wrong>) {
    // The earliest end of a giving from here on: who may have ended by then stands in nobody's way any more.
    let mut horizon = Time::MAX;
    let horizons: Vec<Time> = rights
        .values()
        .rev()
        .map(|right| {
            horizon = horizon.min(right.to);
            horizon
        })
        .collect();
    let mut active: Vec<(&Right<'_>, Time)> = Vec::new();
    for (later, horizon) in rights.values().zip(horizons.into_iter().rev()) {
        active.retain(|(_, end)| *end > horizon);
        for (earlier, end) in &active {
            // Another token of the same lock is the lock in another mode, for which the one before has been given up.
            let same_lock = earlier.grant.thing == later.grant.thing && earlier.grant.mode != Mode::Exclusive;
            let (mode, since) = earlier.weakened().unwrap_or((earlier.grant.mode, Time::MAX));
            let at_first = later.to < since.min(*end) && exclude(earlier, earlier.grant.mode, later);
            let at_last = later.to < *end && exclude(earlier, mode, later);
            if !same_lock && (at_first || at_last) {
                wrong.push(Wrong::TwoHolders(earlier.grant.fence, later.grant.fence));
            }
        }
        active.push((later, later.may_end(deaths)));
    }
}

/// A token is good until its right ends, and never behind that.
fn uses(right: &Right<'_>, deaths: &HashMap<&str, (Time, Time)>, wrong: &mut Vec<Wrong>) {
    let death = deaths.get(right.who).map_or(Time::MAX, |(_, to)| *to);
    for (at, (entry, what, said)) in right.uses.iter().enumerate() {
        let before = &right.uses[..at];
        match said {
            Said::Done => {
                // Whoever says a thing twice is told the same twice.
                let again = before.iter().any(|(_, earlier, said)| earlier == what && *said != Said::Stale);
                if again && !lasting(*what) {
                    continue;
                }
                let over = before
                    .iter()
                    .any(|(earlier, what, said)| *said == Said::Done && !lasting(*what) && earlier.to < entry.from);
                if over || death < entry.from {
                    wrong.push(Wrong::StaleSucceeded(right.grant.fence));
                }
            }
            Said::Stale => {
                let others = right.uses.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| *other);
                let others = Right { uses: others.collect(), ..*right };
                if others.may_end(deaths) > entry.to {
                    wrong.push(Wrong::GoodRefused(right.grant.fence));
                }
            }
            Said::Unknown => {}
        }
    }
}

/// Who may have completed a task: the token, since when at the earliest, and when that was answered, if it was.
type Completion = (u64, Time, Option<Time>);

/// Each task is done once, by a token that was good, and stays so.
fn tasks(rights: &BTreeMap<u64, Right<'_>>, history: &[Entry], left: &Left, wrong: &mut Vec<Wrong>) {
    let mut done: BTreeMap<&str, Vec<Completion>> = BTreeMap::new();
    for right in rights.values() {
        for (entry, what, said) in &right.uses {
            if *what == Use::Complete && *said != Said::Stale {
                let answered = (*said == Said::Done).then_some(entry.to);
                done.entry(&right.grant.thing).or_default().push((right.grant.fence, entry.from, answered));
            }
        }
    }
    let answered = |thing: &str| {
        let all = done.get(thing).into_iter().flatten();
        all.filter_map(|(fence, _, to)| to.map(|to| (*fence, to)))
    };
    for thing in done.keys() {
        let tokens: BTreeSet<u64> = answered(thing).map(|(fence, _)| fence).collect();
        if tokens.len() > 1 {
            wrong.push(Wrong::DoneTwice((*thing).to_owned()));
        }
    }
    for right in rights.values() {
        if answered(&right.grant.thing).any(|(fence, to)| right.grant.fence > fence || right.from > to) {
            wrong.push(Wrong::GivenWhenDone(right.grant.thing.clone()));
        }
    }
    let mut look = |thing: &str, from: Time, to: Time, done_by: Option<u64>| match done_by {
        Some(by) => {
            let known = done.get(thing).into_iter().flatten().any(|(fence, begun, _)| *fence == by && *begun <= to);
            if !known {
                wrong.push(Wrong::DoneByNobody(thing.to_owned()));
            }
        }
        None => {
            if answered(thing).any(|(_, to)| to < from) {
                wrong.push(Wrong::CompletionLost(thing.to_owned()));
            }
        }
    };
    for entry in history {
        if let Deed::Shown { thing, done_by } = &entry.deed {
            look(thing, entry.from, entry.to, *done_by);
        }
    }
    for (thing, done_by) in &left.tasks {
        look(thing, Time::MAX, Time::MAX, *done_by);
    }
    for (thing, done_by) in &left.tasks {
        if done_by.is_none() {
            wrong.push(Wrong::NeverDone(thing.clone()));
        }
        if done_by.is_some() && answered(thing).any(|(fence, _)| Some(fence) != *done_by) {
            wrong.push(Wrong::CompletionLost(thing.clone()));
        }
    }
}

/// What was taken from its sender is delivered until it is acknowledged, and not behind that.
fn messages(history: &[Entry], left: &Left, wrong: &mut Vec<Wrong>) {
    let (mut sent, mut acknowledged) = (BTreeMap::new(), BTreeMap::new());
    for entry in history {
        match &entry.deed {
            Deed::Sent { message, said } => drop(sent.insert(message, (entry.from, *said))),
            Deed::Acknowledged { message, said } if *said != Said::Stale => {
                let at = if *said == Said::Done { entry.to } else { Time::MAX };
                let first = acknowledged.entry(message).or_insert(at);
                *first = at.min(*first);
            }
            _ => {}
        }
    }
    for (message, (_, said)) in &sent {
        if *said == Said::Done && !acknowledged.contains_key(message) && !left.messages.contains(*message) {
            wrong.push(Wrong::MessageLost((*message).clone()));
        }
    }
    for entry in history {
        let Deed::Received { message } = &entry.deed else { continue };
        let too_late = acknowledged.get(message).is_some_and(|at| *at < entry.from);
        if too_late || sent.get(message).is_none_or(|(at, _)| entry.to < *at) {
            wrong.push(Wrong::WronglyDelivered(message.clone()));
        }
    }
}

/// Fails with what is wrong and what is known of those it is about.
#[track_caller]
pub(super) fn insist(history: &[Entry], left: &Left) {
    let wrong = check(history, left);
    if wrong.is_empty() {
        return;
    }
    let shown = |words: &dyn Debug| format!("{words:?}");
    let named: BTreeSet<String> = wrong.iter().take(3).flat_map(|wrong| numbers(&shown(wrong))).collect();
    let mut about: Vec<_> =
        history.iter().filter(|entry| numbers(&shown(&entry.deed)).iter().any(|n| named.contains(n))).collect();
    about.sort_by_key(|entry| entry.from);
    about.truncate(60);
    let lines: Vec<String> = about.iter().map(|entry| shown(entry)).collect();
    let first: Vec<_> = wrong.iter().take(10).collect();
    panic!("{} faults, the first: {first:#?}\n{}", wrong.len(), lines.join("\n"));
}

/// Words that may be ids or tokens.
fn numbers(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned).collect()
}
