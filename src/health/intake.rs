//! Where reports wait for the health actor. Never blocks, and what agents send can't make it grow beyond a bound.
//!
//! - What the daemon's own rooms tell (supervision, runtime, commands) waits in order and is never dropped. No number bounds it, only what they do: a
//!   few reports for each start and end of an agent, which back-off and intensity limit, and for each loss of a runtime.
//! - What agents send is summed up: one [`Burst`] an incarnation, whatever its rate. Heartbeats, readings and sessions lose nothing by it, since
//!   only the latest counts; log records and metrics count only as signs here, their contents go to the log book.
//! - Agents' own events are kept whole, at most [`SAID_MAX`]; beyond that the oldest goes and is counted on its agent. Each goes into the
//!   journal and pushes an older event out of it and out of the feed, so an agent that says more than its [`Share`] is cut short before.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{BuildHasherDefault, DefaultHasher},
    time::Instant,
};

use super::{burst::Burst, report::Report};
use crate::model::{AgentId, Lost, Observation, SourceName, SourceReport, Telemetry};

/// Agents' own events that may wait: some seconds of a thousand chatty agents, at most 16 MiB.
pub(super) const SAID_MAX: usize = 4096;
/// Events of one agent at once: what it saved up while it was cut off.
const SHARE_BURST: f64 = 500.0;
/// Events of one agent a second in the long run. People read none faster, and a journal of 100,000 holds hours of it.
const SHARE_PER_SECOND: f64 = 10.0;

/// One thing to fold.
#[derive(Debug)]
pub(super) enum Item {
    Report(Report),
    Burst(AgentId, Burst),
    Said(Telemetry),
    Refused(i64, u64),
}

/// The latest word on something that is used often: whether it works now, and what went wrong on the way.
#[derive(Debug, Default)]
struct Uses {
    ok: bool,
    failed: Option<Option<String>>,
    any: bool,
}

impl Uses {
    fn note(&mut self, ok: bool, error: Option<String>) {
        (self.any, self.ok) = (true, ok);
        if !ok {
            self.failed = Some(error);
        }
    }

    fn drain(&mut self, items: &mut VecDeque<Item>, report: fn(bool, Option<String>) -> Report) {
        let uses = std::mem::take(self);
        if let Some(error) = uses.failed {
            items.push_back(Item::Report(report(false, error)));
        }
        if uses.any && uses.ok {
            items.push_back(Item::Report(report(true, None)));
        }
    }
}

/// What one agent may still say. It outlives sessions and incarnations, which a flood could otherwise use to begin anew.
#[derive(Debug)]
struct Share {
    left: f64,
    at: Instant,
}

impl Share {
    fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }

    /// A full one is as good as none.
    fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.left >= SHARE_BURST
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.left = (self.left + passed.as_secs_f64() * SHARE_PER_SECOND).min(SHARE_BURST);
    }
}

#[derive(Debug, Default)]
pub(super) struct Intake {
    urgent: VecDeque<Item>,
    /// Hashed alike in every run, so that a simulation's seed replays; the names are the operator's, who floods nobody's buckets.
    bursts: HashMap<AgentId, Burst, BuildHasherDefault<DefaultHasher>>,
    said: VecDeque<Telemetry>,
    shares: HashMap<AgentId, Share>,
    refused: BTreeMap<i64, u64>,
    /// The latest of each: a report of a source stands for all before it.
    sources: BTreeMap<SourceName, SourceReport>,
    data_plane: Option<Report>,
    disk_used: Option<Report>,
    runtime: Uses,
    engine: Uses,
    journal: Uses,
    history: Uses,
    notify: Uses,
    disk: Uses,
}

impl Intake {
    pub(super) fn put(&mut self, report: Report, now: Instant) {
        match report {
            Report::Telemetry(batch) => {
                Burst::sum_up(batch, |one| self.hear(one, now));
            }
            Report::Runtime { agent, incarnation, event } => match Burst::of_runtime(incarnation, &event) {
                Some(burst) => self.burst(agent, burst),
                None => {
                    // What was heard before it is out of reach does not bring it back.
                    if matches!(event, Observation::Unreachable)
                        && let Some(burst) = self.bursts.remove(&agent)
                    {
                        self.urgent.extend(burst.one_by_one().map(|burst| Item::Burst(agent.clone(), burst)));
                    }
                    self.urgent.push_back(Item::Report(Report::Runtime { agent, incarnation, event }));
                }
            },
            Report::Dropped { agent, incarnation, lost } => self.burst(agent, Burst::of_dropped(incarnation, lost)),
            Report::Refused { code, messages } => self.refuse(code, messages),
            Report::Source(report) => _ = self.sources.insert(report.spec.name.clone(), report),
            Report::DataPlane { .. } => self.data_plane = Some(report),
            Report::DiskUsed { .. } => self.disk_used = Some(report),
            Report::ControlPlane { ok, error } => self.runtime.note(ok, error),
            Report::Engine { ok, error } => self.engine.note(ok, error),
            Report::Journal { ok, error } => self.journal.note(ok, error),
            Report::History { ok, error } => self.history.note(ok, error),
            Report::Notify { ok, error } => self.notify.note(ok, error),
            Report::Disk { ok, error } => self.disk.note(ok, error),
            Report::Removed(name) => {
                // With them go the full ones of agents that its last document left out, or that were heard behind its end.
                self.shares.retain(|agent, share| agent.swarm != name && !share.is_full(now));
                self.urgent.push_back(Item::Report(Report::Removed(name)));
            }
            Report::Declared { .. }
            | Report::Desired { .. }
            | Report::Adjusted { .. }
            | Report::Supervision { .. }
            | Report::Settled { .. }
            | Report::Reconciled => self.urgent.push_back(Item::Report(report)),
        }
    }

    /// Takes what some messages of an agent amount to, or one of its own events.
    pub(super) fn hear(&mut self, said: Result<(AgentId, Burst), Telemetry>, now: Instant) {
        match said {
            Ok((agent, burst)) => self.burst(agent, burst),
            Err(event) => self.say(event, now),
        }
    }

    /// Hands everything over, behind what is there already.
    pub(super) fn drain(&mut self, items: &mut VecDeque<Item>) {
        items.extend(self.urgent.drain(..));
        for (agent, burst) in self.bursts.drain() {
            // What an incarnation said last comes before its successor's first words: totals count in this order only.
            items.extend(burst.one_by_one().map(|burst| Item::Burst(agent.clone(), burst)));
        }
        items.extend(self.said.drain(..).map(Item::Said));
        items
            .extend(std::mem::take(&mut self.sources).into_values().map(|source| Item::Report(Report::Source(source))));
        items.extend(self.data_plane.take().map(Item::Report));
        items.extend(self.disk_used.take().map(Item::Report));
        self.runtime.drain(items, |ok, error| Report::ControlPlane { ok, error });
        self.engine.drain(items, |ok, error| Report::Engine { ok, error });
        self.journal.drain(items, |ok, error| Report::Journal { ok, error });
        self.history.drain(items, |ok, error| Report::History { ok, error });
        self.notify.drain(items, |ok, error| Report::Notify { ok, error });
        self.disk.drain(items, |ok, error| Report::Disk { ok, error });
        items.extend(
            std::mem::take(&mut self.refused).into_iter().map(|(code, messages)| Item::Refused(code, messages)),
        );
    }

    fn burst(&mut self, agent: AgentId, burst: Burst) {
        match self.bursts.get_mut(&agent) {
            Some(known) => known.line_up(burst),
            None => _ = self.bursts.insert(agent, burst),
        }
    }

    fn refuse(&mut self, code: i64, messages: u64) {
        if messages > 0 {
            *self.refused.entry(code).or_default() += messages;
        }
    }

    fn say(&mut self, telemetry: Telemetry, now: Instant) {
        let share = self.shares.entry(telemetry.agent.clone()).or_insert(Share { left: SHARE_BURST, at: now });
        if !share.take(now) {
            return self.lose(telemetry);
        }
        self.said.push_back(telemetry);
        if self.said.len() > SAID_MAX
            && let Some(oldest) = self.said.pop_front()
        {
            self.lose(oldest);
        }
    }

    fn lose(&mut self, said: Telemetry) {
        let lost = Lost { events: 1, ..Lost::default() };
        self.burst(said.agent, Burst::of_dropped(said.incarnation, lost));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use std::{
        sync::{Arc, LazyLock},
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::model::{TelemetryKind, Usage, UsageReport};

    const AT: SystemTime = SystemTime::UNIX_EPOCH;

    fn agent() -> AgentId {
        "review/coder".parse().unwrap()
    }

    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

    fn put(intake: &mut Intake, report: Report) {
        intake.put(report, *BEGAN);
    }

    fn telemetry(incarnation: u64, kind: TelemetryKind) -> Report {
        Report::Telemetry(vec![Telemetry { agent: agent(), incarnation, at: AT, kind }])
    }

    fn note(agent: AgentId, n: usize) -> Report {
        let kind = TelemetryKind::Event { kind: Arc::from("note"), data: Arc::from(n.to_string()) };
        Report::Telemetry(vec![Telemetry { agent, incarnation: 1, at: AT, kind }])
    }

    fn log() -> TelemetryKind {
        TelemetryKind::Logged(1)
    }

    fn drained(intake: &mut Intake) -> Vec<Item> {
        let mut items = VecDeque::new();
        intake.drain(&mut items);
        items.into()
    }

    #[test]
    fn a_flood_of_telemetry_is_one_burst() {
        let mut intake = Intake::default();
        put(&mut intake, telemetry(1, TelemetryKind::SessionOpened));
        for _ in 0..100_000 {
            put(&mut intake, telemetry(1, log()));
        }
        put(&mut intake, telemetry(1, TelemetryKind::Heartbeat { progress: Some(Arc::from("7")), busy: None }));
        let items = drained(&mut intake);
        assert_eq!(items.len(), 1);
        let Item::Burst(_, burst) = &items[0] else { panic!("{items:?}") };
        assert_eq!((burst.messages, burst.wrote, burst.session), (100_001, true, Some(true)));
        assert_eq!(burst.lost, Lost::default());
        assert_eq!(burst.heartbeat, Some(AT));
        assert!(drained(&mut intake).is_empty());
    }

    #[test]
    fn a_flood_of_events_drops_the_oldest_and_counts_it() {
        let mut intake = Intake::default();
        for n in 0..SAID_MAX + 5 {
            put(&mut intake, note(format!("review/coder-{}", n % 100).parse().unwrap(), n));
        }
        let items = drained(&mut intake);
        let dropped: u64 =
            items.iter().map(|item| if let Item::Burst(_, burst) = item { burst.lost.events } else { 0 }).sum();
        let said: Vec<_> = items.iter().filter(|item| matches!(item, Item::Said(_))).collect();
        assert_eq!((dropped, said.len()), (5, SAID_MAX));
        let Item::Said(first) = said[0] else { unreachable!() };
        assert!(matches!(&first.kind, TelemetryKind::Event { data, .. } if &**data == "5"));
    }

    #[test]
    fn an_agent_that_floods_events_gets_its_share_and_the_others_theirs() {
        let mut intake = Intake::default();
        let other: AgentId = "review/quiet".parse().unwrap();
        for n in 0..10_000 {
            put(&mut intake, note(agent(), n));
        }
        put(&mut intake, note(other.clone(), 0));
        for n in 0..100 {
            put(&mut intake, note(agent(), n));
        }
        for n in 0..100 {
            intake.put(note(agent(), n), *BEGAN + Duration::from_secs(2));
        }
        let items = drained(&mut intake);
        let said = |who: &AgentId| items.iter().filter(|item| matches!(item, Item::Said(t) if t.agent == *who)).count();
        let dropped = items.iter().find_map(|item| match item {
            Item::Burst(_, burst) => Some((burst.lost.events, burst.messages)),
            _ => None,
        });
        assert_eq!((said(&agent()), said(&other)), (520, 1));
        assert_eq!(dropped, Some((10_200 - 520, 10_200 - 520)));
    }

    #[test]
    fn of_a_swarm_that_is_gone_nothing_stays() {
        let mut intake = Intake::default();
        let (other, idle): (AgentId, AgentId) = ("build/coder".parse().unwrap(), "build/idle".parse().unwrap());
        put(&mut intake, note(idle, 0));
        for agent in [agent(), other.clone()] {
            (0..SAID_MAX).for_each(|n| put(&mut intake, note(agent.clone(), n)));
        }
        intake.put(Report::Removed("review".parse().unwrap()), *BEGAN + Duration::from_secs(1));
        assert_eq!(intake.shares.keys().collect::<Vec<_>>(), [&other], "the idle one's is full again");
        assert!(matches!(drained(&mut intake)[..], [Item::Report(Report::Removed(_)), ..]));
    }

    #[test]
    fn an_agent_that_was_quiet_for_long_saves_up_no_more_than_its_burst() {
        let mut intake = Intake::default();
        put(&mut intake, note(agent(), 0));
        for n in 0..2_000 {
            intake.put(note(agent(), n), *BEGAN + Duration::from_secs(3_600));
        }
        let said = drained(&mut intake).iter().filter(|item| matches!(item, Item::Said(_))).count();
        assert_eq!(said, 501);
    }

    #[test]
    fn ends_and_starts_keep_their_order_and_are_never_dropped() {
        let mut intake = Intake::default();
        for incarnation in 1..=20_000 {
            let event = Observation::Alive { pid: 1, at: AT };
            put(&mut intake, Report::Runtime { agent: agent(), incarnation, event });
        }
        let seen: Vec<u64> = drained(&mut intake)
            .iter()
            .map(|item| match item {
                Item::Report(Report::Runtime { incarnation, .. }) => *incarnation,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(seen, (1..=20_000).collect::<Vec<_>>());
    }

    /// Its last lines come before the loss of its runtime; told after it, they would show it within reach again, for good.
    #[test]
    fn what_was_heard_before_a_loss_comes_before_it() {
        let mut intake = Intake::default();
        let told = |event| Report::Runtime { agent: agent(), incarnation: 1, event };
        put(&mut intake, telemetry(1, log()));
        put(&mut intake, told(Observation::Unreachable));
        let items = drained(&mut intake);
        assert!(
            matches!(&*items, [Item::Burst(_, burst), Item::Report(Report::Runtime { .. })] if burst.wrote),
            "{items:?}"
        );
        put(&mut intake, told(Observation::Unreachable));
        put(&mut intake, telemetry(1, log()));
        assert!(
            matches!(&*drained(&mut intake), [Item::Report(_), Item::Burst(..)]),
            "what is heard after it brings it back"
        );
    }

    fn used(tokens: u64) -> TelemetryKind {
        let totals = Usage { input_tokens: Some(tokens), ..Usage::default() };
        TelemetryKind::Usage(Box::new(UsageReport { totals, model: None }))
    }

    /// Two connections are read in any order: the last words of an incarnation may come behind the first ones of its successor.
    #[test]
    fn the_last_words_of_an_incarnation_come_before_the_first_of_its_successors() {
        let mut intake = Intake::default();
        put(&mut intake, telemetry(2, TelemetryKind::SessionOpened));
        put(&mut intake, telemetry(4, log()));
        put(&mut intake, telemetry(1, log()));
        put(&mut intake, telemetry(2, used(5)));
        put(&mut intake, telemetry(1, used(7)));
        let lost = Lost { logs: 3, metrics: 2, events: 1 };
        put(&mut intake, Report::Dropped { agent: agent(), incarnation: 3, lost });
        let items = drained(&mut intake);
        let seen: Vec<_> = items
            .iter()
            .map(|item| {
                let Item::Burst(_, burst) = item else { panic!("{items:?}") };
                (burst.incarnation, burst.messages, burst.usage.is_some(), burst.wrote, burst.lost.total())
            })
            .collect();
        let all = [(1, 2, true, true, 0), (2, 1, true, false, 0), (3, 6, false, false, 6), (4, 1, false, true, 0)];
        assert_eq!(seen, all);
        assert!(drained(&mut intake).is_empty());
    }

    /// However long its predecessor goes on, it is one burst.
    #[test]
    fn what_two_incarnations_say_in_turns_is_two_bursts() {
        let mut intake = Intake::default();
        for n in 0..10_000 {
            put(&mut intake, telemetry(1 + n % 2, log()));
        }
        let items = drained(&mut intake);
        let [Item::Burst(_, older), Item::Burst(_, younger)] = &items[..] else { panic!("{items:?}") };
        assert_eq!((older.incarnation, older.messages), (1, 5_000));
        assert_eq!((younger.incarnation, younger.messages), (2, 5_000));
    }

    #[test]
    fn a_failure_in_between_is_not_lost() {
        let mut intake = Intake::default();
        put(&mut intake, Report::Journal { ok: true, error: None });
        put(&mut intake, Report::Journal { ok: false, error: Some("disk full".to_owned()) });
        for _ in 0..10_000 {
            put(&mut intake, Report::Journal { ok: true, error: None });
        }
        let items = drained(&mut intake);
        assert_eq!(items.len(), 2, "{items:?}");
        assert!(matches!(&items[0], Item::Report(Report::Journal { ok: false, error: Some(e) }) if e == "disk full"));
        assert!(matches!(&items[1], Item::Report(Report::Journal { ok: true, .. })));
    }
}
