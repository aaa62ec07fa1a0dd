//! Sources: claims stay claims, age, and degrade at most.

use super::*;
use crate::model::{
    BreakerState, Level, Measured, Source, SourceAgent, SourceReport, SourceSpec, ToolReport, ToolSpec, health::Absent,
};

struct Bench {
    fold: Fold,
    start: Now,
}

impl Bench {
    fn new() -> Self {
        let start = Now::read();
        let mut bench = Self { fold: Fold::new(identity(), start), start };
        bench.fold.apply(start, Report::Reconciled);
        bench.fold.apply(start, Report::DataPlane { listening: true, sessions: 0, connections: 0, turned_away: 0 });
        bench.fold.tick(start);
        bench
    }

    fn at(&self, seconds: u64) -> Now {
        let passed = Duration::from_secs(seconds);
        Now { wall: self.start.wall + passed, mono: self.start.mono + passed }
    }

    fn tell(&mut self, seconds: u64, change: impl FnOnce(&mut SourceReport)) -> Vec<Change> {
        let now = self.at(seconds);
        let mut report = report(self.start);
        change(&mut report);
        let mut changes = self.fold.apply(now, Report::Source(report));
        changes.extend(self.tick(seconds));
        changes
    }

    fn tick(&mut self, seconds: u64) -> Vec<Change> {
        self.fold.tick(self.at(seconds))
    }

    fn codes(&self) -> Vec<&'static str> {
        self.fold.hive().sources[0].reasons.iter().map(|reason| reason.code).collect()
    }
}

/// Interval 10 s, timeout 5 s: stale after 35 s.
fn report(now: Now) -> SourceReport {
    let tool = ToolSpec { name: Arc::from("agent_list"), arguments: Arc::from("{}") };
    SourceReport {
        spec: Arc::new(SourceSpec {
            name: "flow".parse().unwrap(),
            address: Arc::from("127.0.0.1:9600"),
            tools: vec![tool],
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            connections: 2,
        }),
        breaker: BreakerState::Closed,
        since: now.wall,
        retry_at: None,
        protocol: None,
        last_success: None,
        last_error: None,
        polls: 0,
        failures: 0,
        failures_in_a_row: 0,
        cut: 0,
        tools: vec![ToolReport {
            name: Arc::from("agent_list"),
            error: None,
            latency_ms: Measured::Absent(Absent::NeverObserved),
            answer: Measured::Absent(Absent::NeverObserved),
            answered: None,
        }],
        agents: Arc::from([]),
        agents_listed: None,
        agents_left_out: 0,
    }
}

fn claimed(name: &str, now: Now) -> SourceAgent {
    let absent = Absent::NeverObserved;
    SourceAgent {
        name: Arc::from(name),
        id: None,
        state: Measured::Value { value: Arc::from("failed"), observed_at: now.wall, source: Source::Mcp },
        kind: Measured::Absent(absent),
        task: Measured::Absent(absent),
        cpu: Measured::Absent(Absent::Unsupported),
        memory: Measured::Absent(absent),
        last_heartbeat: Measured::Absent(absent),
        progress: Measured::Absent(absent),
    }
}

fn listing(report: &mut SourceReport, names: &[&str], now: Now) {
    report.last_success = Some((now.wall, now.mono));
    report.agents_listed = report.last_success;
    report.agents = names.iter().map(|name| claimed(name, now)).collect();
    report.tools[0].answered = Some(now.mono);
    report.tools[0].answer = Measured::Value { value: Arc::from("{}"), observed_at: now.wall, source: Source::Mcp };
}

#[test]
fn claims_touch_no_agent_no_count_and_no_level() {
    let mut bench = Bench::new();
    assert_eq!(bench.fold.hive().level, Level::Healthy);
    let now = bench.at(1);
    bench.tell(1, |report| listing(report, &["a", "b"], now));
    let hive = bench.fold.hive();
    assert_eq!((hive.level, hive.agents.len(), hive.swarms.len()), (Level::Healthy, 0, 0));
    assert_eq!((hive.data_plane.sessions, hive.sources[0].report.agents.len()), (0, 2));
    assert!(hive.sources[0].reasons.is_empty(), "what a server says of its agents is no reason");
}

#[test]
fn a_source_that_is_down_degrades_and_no_more() {
    let mut bench = Bench::new();
    bench.tell(1, |_| {});
    assert_eq!((bench.codes(), bench.fold.hive().level), (vec!["not_polled"], Level::Healthy));
    let failed = |breaker| {
        move |report: &mut SourceReport| {
            (report.breaker, report.failures, report.failures_in_a_row) = (breaker, 3, 3);
            report.last_error = Some((report.since, Arc::from("can't connect")));
        }
    };
    bench.tell(2, failed(BreakerState::Closed));
    assert_eq!((bench.codes(), bench.fold.hive().level), (vec!["poll_failed"], Level::Healthy), "one more may do");
    for breaker in [BreakerState::Open, BreakerState::HalfOpen] {
        bench.tell(3, failed(breaker));
        let hive = bench.fold.hive();
        assert_eq!((bench.codes(), hive.level), (vec!["source_down"], Level::Degraded));
        assert_eq!((hive.reasons[0].code, &*hive.reasons[0].detail), ("source_down", "flow"));
        assert!(hive.sources[0].reasons[0].detail.contains("can't connect"));
    }
    let now = bench.at(4);
    let changes = bench.tell(4, |report| listing(report, &[], now));
    assert_eq!((bench.codes(), bench.fold.hive().level), (vec![], Level::Healthy));
    assert!(changes.iter().any(|change| matches!(change, Change::Hive { to: Level::Healthy, .. })), "{changes:?}");
}

#[test]
fn what_is_old_is_stale_and_says_its_age() {
    let mut bench = Bench::new();
    let now = bench.at(1);
    bench.tell(1, |report| listing(report, &["a"], now));
    bench.tick(36);
    let shown = Arc::clone(&bench.fold.hive().sources[0]);
    assert_eq!((shown.age, shown.reasons.len()), (Some(Duration::from_secs(35)), 0));
    assert!(shown.report.agents[0].state.value().is_some());
    bench.tick(37);
    let shown = Arc::clone(&bench.fold.hive().sources[0]);
    assert_eq!((bench.codes(), shown.age), (vec!["source_stale"], Some(Duration::from_secs(36))));
    let agent = &shown.report.agents[0];
    assert_eq!((&*agent.name, &agent.state), ("a", &Measured::Absent(Absent::Stale)));
    assert_eq!(agent.cpu, Measured::Absent(Absent::Unsupported), "what was never there is not stale");
    assert_eq!(shown.report.tools[0].answer, Measured::Absent(Absent::Stale));
    let now = bench.at(38);
    bench.tell(38, |report| listing(report, &["a"], now));
    assert!(bench.fold.hive().sources[0].report.agents[0].state.value().is_some());
}

#[test]
fn changes_tell_the_breaker_and_the_list_and_nothing_else() {
    let mut bench = Bench::new();
    let told = |changes: Vec<Change>| {
        let mut sources = changes.into_iter().filter_map(|change| match change {
            Change::Source { from, to, agents, appeared, gone, .. } => Some((from, to, agents, appeared, gone)),
            _ => None,
        });
        let first = sources.next();
        assert!(sources.next().is_none());
        first
    };
    let words = |words: &[&str]| words.iter().map(|word| Arc::from(*word)).collect::<Vec<Arc<str>>>();
    use BreakerState::{Closed, HalfOpen, Open};
    assert_eq!(told(bench.tell(0, |_| {})), Some((None, Closed, 0, words(&[]), words(&[]))));
    assert_eq!(told(bench.tell(1, |report| report.polls = 1)), None);
    let now = bench.at(2);
    let changes = bench.tell(2, |report| listing(report, &["a", "b"], now));
    assert_eq!(told(changes), Some((Some(Closed), Closed, 2, words(&["a", "b"]), words(&[]))));
    let changes = bench.tell(3, |report| listing(report, &["b", "c"], now));
    assert_eq!(told(changes), Some((Some(Closed), Closed, 2, words(&["c"]), words(&["a"]))));
    let changes = bench.tell(4, |report| {
        listing(report, &["b", "c"], now);
        report.breaker = Open;
    });
    assert_eq!(told(changes), Some((Some(Closed), Open, 2, words(&[]), words(&[]))));
    for trial in 0..3 {
        for breaker in [HalfOpen, Open] {
            let changes = bench.tell(4, |report| {
                listing(report, &["b", "c"], now);
                (report.breaker, report.failures) = (breaker, 3 + trial);
            });
            assert_eq!(told(changes), None, "a trial that fails is no news");
            assert_eq!(bench.fold.hive().sources[0].report.breaker, breaker, "and is shown");
        }
    }
    let half = bench.tell(4, |report| {
        listing(report, &["b", "c"], now);
        report.breaker = HalfOpen;
    });
    assert_eq!(told(half), None);
    let changes = bench.tell(5, |report| listing(report, &["b", "c"], now));
    assert_eq!(told(changes), Some((Some(Open), Closed, 2, words(&[]), words(&[]))), "from what was told last");
    let names: Vec<String> = (0..1000).map(|n| format!("n-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let changes = bench.tell(6, |report| listing(report, &names, now));
    let (_, _, agents, appeared, gone) = told(changes).unwrap();
    assert_eq!((agents, appeared.len(), gone.len()), (1000, 20, 2), "an event names some and counts all");
}
