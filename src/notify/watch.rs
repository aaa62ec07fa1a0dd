//! Decides what is told: who something is wrong with, and what of it was said already. Pure.
//!
//! Bad news is told at once, good news when it has lasted: somebody who goes up and down all the time is told of once as bad, once as recovered,
//! and the second message says how often it relapsed in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::sighting::{Found, Sighting, Subject, Trouble};
use crate::model::{SwarmName, Topic};

/// Something that is to be told.
#[derive(Debug, Clone)]
pub(super) struct News {
    pub(super) topic: Topic,
    /// What is, or was, wrong.
    pub(super) trouble: Trouble,
    pub(super) sighting: Sighting,
    /// How often it had been over for a moment.
    pub(super) relapses: u32,
}

/// Everybody something is wrong with.
#[derive(Debug)]
pub(super) struct Watch {
    on: BTreeSet<Topic>,
    swarms: BTreeSet<SwarmName>,
    recovered_after: Duration,
    known: BTreeMap<Subject, State>,
}

#[derive(Debug)]
struct State {
    trouble: Trouble,
    /// Whether anybody was told.
    told: bool,
    /// Since when it looks as if it were over.
    good: Option<(Instant, Sighting)>,
    relapses: u32,
}

impl Watch {
    /// `told`: what an earlier daemon has told of and not taken back.
    pub(super) fn new(
        on: BTreeSet<Topic>,
        swarms: BTreeSet<SwarmName>,
        recovered_after: Duration,
        told: impl IntoIterator<Item = (Subject, Trouble)>,
    ) -> Self {
        let state = |trouble| State { trouble, told: true, good: None, relapses: 0 };
        let known = told.into_iter().map(|(subject, trouble)| (subject, state(trouble))).collect();
        Self { on, swarms, recovered_after, known }
    }

    /// Whether this notifier is told of it at all.
    fn concerns(&self, subject: &Subject) -> bool {
        self.swarms.is_empty() || subject.swarm().is_some_and(|swarm| self.swarms.contains(swarm))
    }

    /// Takes what was seen.
    #[must_use]
    pub(super) fn see(&mut self, sighting: Sighting, now: Instant) -> Option<News> {
        if !self.concerns(&sighting.subject) {
            return None;
        }
        let state = self.known.get_mut(&sighting.subject);
        match (&sighting.found, state) {
            (Found::Bad(trouble), Some(state)) if state.trouble == *trouble => {
                if state.good.take().is_some() {
                    state.relapses += 1;
                }
                None
            }
            (Found::Bad(trouble), state) => {
                let trouble = *trouble;
                let wanted = self.on.contains(&trouble.topic());
                let told = wanted || state.is_some_and(|state| state.told);
                let fresh = State { trouble, told, good: None, relapses: 0 };
                self.known.insert(sighting.subject.clone(), fresh);
                wanted.then_some(News { topic: trouble.topic(), trouble, sighting, relapses: 0 })
            }
            (Found::Good(_), Some(state)) => {
                state.good.get_or_insert((now, sighting));
                None
            }
            (Found::Unclear, Some(state)) => {
                // It did not last.
                state.good = None;
                None
            }
            (Found::Good(_) | Found::Unclear, None) => None,
        }
    }

    /// What has lasted long enough to be told.
    #[must_use]
    pub(super) fn tick(&mut self, now: Instant) -> Vec<News> {
        let due = |state: &State| state.good.as_ref().is_some_and(|(since, _)| *since + self.recovered_after <= now);
        let over: Vec<Subject> =
            self.known.iter().filter(|(_, state)| due(state)).map(|(subject, _)| subject.clone()).collect();
        let ended = over.into_iter().filter_map(|subject| self.known.remove(&subject));
        let told = ended.filter(|state| state.told && self.on.contains(&Topic::Recovered));
        let news = told.filter_map(|state| {
            let (_, sighting) = state.good?;
            Some(News { topic: Topic::Recovered, trouble: state.trouble, sighting, relapses: state.relapses })
        });
        news.collect()
    }

    /// When [`Watch::tick`] has something to do, if nothing happens before.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.known.values().filter_map(|state| state.good.as_ref().map(|(since, _)| *since));
        since.min().map(|since| since + self.recovered_after)
    }

    /// Who something is wrong with and does not look as if it were over.
    pub(super) fn in_trouble(&self) -> impl Iterator<Item = &Subject> {
        self.known.iter().filter(|(_, state)| state.good.is_none()).map(|(subject, _)| subject)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::{super::sighting::Document, *};
    use crate::model::Seq;

    const SETTLE: Duration = Duration::from_secs(30);

    fn sighting(seq: u64, subject: &str, found: Found) -> Sighting {
        Sighting {
            id: format!("1/{seq}"),
            seq: Seq(seq),
            at: SystemTime::UNIX_EPOCH,
            subject: Subject::parse(subject).unwrap(),
            found,
            document: Document::None,
        }
    }

    fn watch(on: &[Topic], swarms: &[&str]) -> Watch {
        let swarms = swarms.iter().map(|name| name.parse().unwrap()).collect();
        Watch::new(on.iter().copied().collect(), swarms, SETTLE, [])
    }

    fn bad(trouble: Trouble) -> Found {
        Found::Bad(trouble)
    }

    fn good() -> Found {
        Found::Good("running".to_owned())
    }

    fn after(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[test]
    fn bad_news_is_told_once_and_good_news_when_it_has_lasted() {
        let (mut watch, now) = (watch(&Topic::ALL, &[]), Instant::now());
        let news = watch.see(sighting(1, "s/a", bad(Trouble::Failed)), now).unwrap();
        assert_eq!((news.topic, news.sighting.seq), (Topic::Failed, Seq(1)));
        assert!(watch.see(sighting(2, "s/a", bad(Trouble::Failed)), now).is_none(), "nothing has changed");
        assert!(watch.see(sighting(3, "s/a", Found::Unclear), now).is_none());
        assert!(watch.see(sighting(4, "s/a", good()), now).is_none());
        assert_eq!(watch.due(), Some(now + SETTLE));
        assert!(watch.tick(after(now, 29)).is_empty());
        let news = watch.tick(after(now, 30));
        assert_eq!((news.len(), news[0].topic, news[0].trouble), (1, Topic::Recovered, Trouble::Failed));
        assert_eq!((news[0].sighting.seq, news[0].relapses), (Seq(4), 0));
        assert!(watch.tick(after(now, 90)).is_empty() && watch.due().is_none());
        assert!(watch.see(sighting(5, "s/a", good()), now).is_none(), "nobody was told of any trouble");
    }

    #[test]
    fn ups_and_downs_are_grouped() {
        let (mut watch, now) = (watch(&Topic::ALL, &[]), Instant::now());
        assert!(watch.see(sighting(0, "s/a", bad(Trouble::Failed)), now).is_some());
        for n in 0..20 {
            let at = after(now, n * 10);
            assert!(watch.see(sighting(n * 2 + 1, "s/a", good()), at).is_none());
            assert!(watch.tick(after(at, 9)).is_empty());
            assert!(watch.see(sighting(n * 2 + 2, "s/a", bad(Trouble::Failed)), after(at, 9)).is_none());
        }
        assert!(watch.see(sighting(99, "s/a", good()), after(now, 300)).is_none());
        // It runs, crashes within its budget and runs again: that has not lasted, and the time counts anew.
        assert!(watch.see(sighting(100, "s/a", Found::Unclear), after(now, 310)).is_none());
        assert!(watch.see(sighting(101, "s/a", good()), after(now, 311)).is_none());
        assert!(watch.tick(after(now, 335)).is_empty());
        let news = watch.tick(after(now, 341));
        assert_eq!((news[0].relapses, news[0].sighting.seq), (20, Seq(101)));
    }

    #[test]
    fn another_trouble_is_news() {
        let (mut watch, now) = (watch(&Topic::ALL, &[]), Instant::now());
        assert_eq!(watch.see(sighting(1, "s/a", bad(Trouble::Stuck)), now).unwrap().topic, Topic::Stuck);
        assert_eq!(watch.see(sighting(2, "s/a", bad(Trouble::Failed)), now).unwrap().topic, Topic::Failed);
    }

    #[test]
    fn nobody_hears_of_what_he_did_not_ask_for() {
        let now = Instant::now();
        let mut some = watch(&[Topic::Stuck, Topic::Recovered], &["review"]);
        assert!(some.see(sighting(1, "review/a", bad(Trouble::Failed)), now).is_none());
        assert!(some.see(sighting(2, "review/a", good()), now).is_none());
        assert!(some.tick(after(now, 60)).is_empty(), "what was not told is not taken back");
        assert!(some.see(sighting(3, "build/a", bad(Trouble::Stuck)), now).is_none());
        assert!(some.see(sighting(4, "", bad(Trouble::Critical)), now).is_none(), "the hive is more than one swarm");
        assert!(some.see(sighting(5, "review/a", bad(Trouble::Stuck)), now).is_some());
        // It fails then, of which nobody asked to be told; that it recovers is told all the same.
        assert!(some.see(sighting(6, "review/a", bad(Trouble::Failed)), now).is_none());
        assert!(some.see(sighting(7, "review/a", good()), now).is_none());
        assert_eq!(some.tick(after(now, 60)).len(), 1);
        let mut quiet = watch(&[Topic::Failed], &[]);
        assert!(quiet.see(sighting(1, "s/a", bad(Trouble::Failed)), now).is_some());
        assert!(quiet.see(sighting(2, "s/a", good()), now).is_none());
        assert!(quiet.tick(after(now, 60)).is_empty());
        assert!(quiet.see(sighting(3, "s/a", bad(Trouble::Failed)), now).is_some(), "it was over in between");
    }

    #[test]
    fn what_an_earlier_daemon_told_is_known() {
        let now = Instant::now();
        let told = [(Subject::parse("s/a").unwrap(), Trouble::Failed)];
        let mut watch = Watch::new(Topic::ALL.into(), BTreeSet::new(), SETTLE, told);
        assert!(watch.see(sighting(1, "s/a", bad(Trouble::Failed)), now).is_none());
        assert_eq!(watch.in_trouble().count(), 1);
        assert!(watch.see(sighting(2, "s/a", good()), now).is_none());
        assert_eq!((watch.in_trouble().count(), watch.tick(now + SETTLE).len()), (0, 1));
    }

    proptest! {
        /// Whatever happens, what is told of one subject alternates: never the same trouble twice, never a recovery of nothing.
        #[test]
        fn messages_of_a_subject_alternate(steps in prop::collection::vec((0..5_u8, 0..40_u64), 0..200)) {
            let (mut watch, mut now) = (watch(&Topic::ALL, &[]), Instant::now());
            let mut told = Vec::new();
            for (n, (what, seconds)) in steps.into_iter().enumerate() {
                now = after(now, seconds);
                told.extend(watch.tick(now));
                let found = match what {
                    0 => bad(Trouble::Failed),
                    1 => bad(Trouble::Stuck),
                    2 => Found::Unclear,
                    _ => good(),
                };
                told.extend(watch.see(sighting(n as u64, "s/a", found), now));
            }
            prop_assert!(told.first().is_none_or(|news| news.topic != Topic::Recovered));
            for pair in told.windows(2) {
                prop_assert_ne!(pair[0].topic, pair[1].topic);
            }
        }
    }
}
