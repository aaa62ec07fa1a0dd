//! Which container a swarm is in, what became of it, and when another one may be made. Pure.

use std::time::{Duration, Instant};

/// A container that lived this long was well: one that is made in its place is made at once.
const WELL: Duration = Duration::from_secs(10);
/// The first wait after one that ended sooner.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// The longest: the default `backoff.max` of agents.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Where a swarm is.
#[derive(Debug, Default)]
pub(super) struct Presence {
    here: Option<Here>,
    /// The last container that ended, and how.
    last_end: Option<(String, String)>,
    /// Containers in a row that ended soon.
    short_lived: u32,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Here {
    container: String,
    since: Instant,
    oom: bool,
}

impl Presence {
    /// The swarm is in this container; returns whether that is news.
    pub(super) fn entered(&mut self, container: &str, now: Instant) -> bool {
        if self.is_in(container) {
            return false;
        }
        // One of others may be started again.
        self.last_end.take_if(|(ended, _)| ended == container);
        self.here = Some(Here { container: container.to_owned(), since: now, oom: false });
        true
    }

    /// The swarm has been in this container for longer than we know it.
    pub(super) fn found(&mut self, container: &str, now: Instant) {
        self.entered(container, now.checked_sub(WELL).unwrap_or(now));
    }

    /// How this container ended, if that is known.
    pub(super) fn end_of(&self, container: &str) -> Option<&str> {
        self.last_end.as_ref().filter(|(ended, _)| ended == container).map(|(_, how)| how.as_str())
    }

    /// Whether the swarm is in this one.
    pub(super) fn is_in(&self, container: &str) -> bool {
        self.here.as_ref().is_some_and(|here| here.container == container)
    }

    /// The container that it is in.
    pub(super) fn container(&self) -> Option<&str> {
        self.here.as_ref().map(|here| here.container.as_str())
    }

    /// We end it ourselves, which is no news.
    pub(super) fn left(&mut self) {
        self.here = None;
    }

    /// Memory ran out in it.
    pub(super) fn out_of_memory(&mut self, container: &str) {
        if let Some(here) = self.here.as_mut().filter(|here| here.container == container) {
            here.oom = true;
        }
    }

    /// It has ended. Returns how, for people, unless that is known already or it was none of ours.
    pub(super) fn ended(&mut self, container: &str, code: Option<i64>, now: Instant) -> Option<String> {
        let here = self.here.take_if(|here| here.container == container)?;
        // A container in which nobody has been led for a while ends by itself, and well.
        if code == Some(0) || now.saturating_duration_since(here.since) >= WELL {
            self.short_lived = 0;
            self.not_before = None;
        } else {
            let wait = WAIT_FIRST.saturating_mul(1 << self.short_lived.min(16)).min(WAIT_MAX);
            self.short_lived = self.short_lived.saturating_add(1);
            self.not_before = Some(now + wait);
        }
        let mut how = code.map_or_else(|| "it is gone".to_owned(), |code| format!("exit code {code}"));
        if here.oom {
            how.push_str(", after memory had run out in it");
        }
        self.last_end = Some((here.container, how.clone()));
        Some(how)
    }

    /// Why no container may be made now.
    pub(super) fn waits(&self, now: Instant) -> Option<String> {
        let left = self.not_before?.saturating_duration_since(now);
        if left.is_zero() {
            return None;
        }
        let times = if self.short_lived == 1 {
            "the last container".to_owned()
        } else {
            format!("{} containers in a row", self.short_lived)
        };
        Some(format!("{times} ended within {} s; the next is made in {} s", WELL.as_secs(), left.as_secs() + 1))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn at(seconds: u64, start: Instant) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn an_end_is_told_once_and_only_of_where_it_is() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        assert_eq!(presence.ended("a", Some(1), start), None);
        assert!(presence.entered("a", start));
        assert!(!presence.entered("a", start));
        assert_eq!(presence.ended("b", Some(1), start), None, "another's");
        assert_eq!(presence.ended("a", Some(137), at(60, start)).unwrap(), "exit code 137");
        assert_eq!(presence.ended("a", Some(137), at(60, start)), None);
        assert_eq!((presence.end_of("a"), presence.end_of("b")), (Some("exit code 137"), None));
        assert!(presence.entered("a", start), "one of others may come back");
        assert_eq!(presence.end_of("a"), None);
        presence.left();
        assert_eq!(presence.ended("a", Some(137), start), None, "we did it");
    }

    #[test]
    fn memory_that_ran_out_is_told_with_the_end() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        presence.entered("a", start);
        presence.out_of_memory("b");
        presence.out_of_memory("a");
        assert_eq!(presence.ended("a", None, at(60, start)).unwrap(), "it is gone, after memory had run out in it");
    }

    #[test]
    fn containers_that_end_soon_are_made_more_and_more_slowly() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        presence.entered("a", start);
        presence.ended("a", None, at(10, start));
        assert_eq!(presence.waits(at(10, start)), None, "it was well");
        presence.found("a", at(10, start));
        presence.ended("a", None, at(10, start));
        assert_eq!(presence.waits(at(10, start)), None, "it had lived before it was found");
        let mut now = at(10, start);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            presence.entered("b", now);
            presence.ended("b", Some(127), now);
            assert!(presence.waits(now).is_some());
            assert!(presence.waits(now + Duration::from_secs(wait) - Duration::from_millis(1)).is_some());
            now += Duration::from_secs(wait);
            assert_eq!(presence.waits(now), None);
        }
        presence.entered("c", now);
        presence.ended("c", Some(0), now);
        assert_eq!(presence.waits(now), None, "it ended by itself");
        presence.entered("c", now);
        presence.ended("c", None, now + WELL);
        presence.entered("d", now + WELL);
        presence.ended("d", None, now + WELL);
        assert!(presence.waits(now + WELL).unwrap().starts_with("the last container"), "counted anew");
    }
}
