//! What agents send: sums of usage, lateness, counters, rates.

use std::collections::VecDeque;

use super::*;
use crate::{
    health::{
        fold::SAMPLES_AGENTS_MAX,
        intake::{Intake, Item},
    },
    model::{AgentState as S, Lost, Measured, Source, Usage, UsageReport, health::Absent},
};

fn coder() -> AgentId {
    id("review/coder")
}

fn one() -> Bench {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    bench.says(&coder(), 1, TelemetryKind::SessionOpened);
    bench
}

fn used(input: u64, output: u64) -> TelemetryKind {
    let totals = Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() };
    TelemetryKind::Usage(Box::new(UsageReport { totals, model: Some(Arc::from("small-1")) }))
}

fn log() -> TelemetryKind {
    TelemetryKind::Logged(1)
}

fn tokens(bench: &Bench) -> Option<(Option<u64>, Option<u64>)> {
    bench.agent(&coder()).usage.value().map(|usage| (usage.input_tokens, usage.output_tokens))
}

fn restart(bench: &mut Bench, to: u64) {
    bench.crash(&coder(), to - 1, 1);
    bench.start(&coder(), to);
    bench.says(&coder(), to, TelemetryKind::SessionOpened);
}

#[test]
fn usage_is_what_the_agent_said_and_restarts_count_nothing_twice() {
    let mut bench = one();
    let doc = bench.agent(&coder());
    assert_eq!(
        (&doc.usage, &doc.model),
        (&Measured::Absent(Absent::NeverObserved), &Measured::Absent(Absent::NeverObserved))
    );
    bench.says(&coder(), 1, used(100, 10));
    bench.says(&coder(), 1, used(150, 15));
    let doc = bench.agent(&coder());
    let Measured::Value { value, observed_at, source } = doc.usage else { panic!("{doc:?}") };
    assert_eq!((value.input_tokens, value.output_tokens, value.cost_usd), (Some(150), Some(15), None));
    assert_eq!((observed_at, source), (bench.now.wall, Source::Agent));
    assert_eq!(doc.model.value().map(|model| &**model), Some("small-1"));
    restart(&mut bench, 2);
    assert_eq!(tokens(&bench), Some((Some(150), Some(15))), "what was used stays used");
    bench.says(&coder(), 2, used(20, 2));
    bench.says(&coder(), 2, used(5, 1));
    assert_eq!(tokens(&bench), Some((Some(175), Some(18))), "its program started over inside the incarnation");
    restart(&mut bench, 3);
    bench.says(&coder(), 3, used(175, 18));
    assert_eq!(tokens(&bench), Some((Some(350), Some(36))), "the same numbers from another incarnation are others");
    // A new daemon's tree begins the same incarnation again when it adopts it.
    bench.start(&coder(), 3);
    bench.says(&coder(), 3, used(176, 18));
    assert_eq!(tokens(&bench), Some((Some(351), Some(36))));
}

#[test]
fn the_last_word_on_usage_counts_even_behind_the_end() {
    let mut bench = one();
    bench.says(&coder(), 1, used(100, 10));
    bench.crash(&coder(), 1, 0);
    bench.says(&coder(), 1, used(130, 13));
    assert_eq!(tokens(&bench), Some((Some(130), Some(13))));
    bench.start(&coder(), 2);
    bench.says(&coder(), 1, used(131, 13));
    assert_eq!(
        tokens(&bench),
        Some((Some(131), Some(13))),
        "and behind the next start, while that one has said nothing"
    );
    bench.says(&coder(), 2, used(1, 1));
    bench.says(&coder(), 1, used(999, 99));
    assert_eq!(tokens(&bench), Some((Some(132), Some(14))));
}

/// Two connections are read in any order, also within one turn.
#[test]
fn last_totals_that_come_behind_the_first_of_the_next_incarnation_count() {
    let mut bench = one();
    bench.says(&coder(), 1, used(100, 10));
    bench.crash(&coder(), 1, 0);
    bench.start(&coder(), 2);
    let mut intake = Intake::default();
    for (incarnation, kind) in [(2, used(20, 2)), (1, used(130, 13)), (2, used(25, 2))] {
        let said = Telemetry { agent: coder(), incarnation, at: bench.now.wall, kind };
        intake.put(Report::Telemetry(vec![said]), bench.now.mono);
    }
    let mut items = VecDeque::new();
    intake.drain(&mut items);
    for item in items {
        let Item::Burst(agent, burst) = item else { panic!("{item:?}") };
        bench.fold.burst(bench.now, &agent, &burst);
    }
    assert_eq!(tokens(&bench), Some((Some(155), Some(15))));
}

/// The next daemon knows what the journal knew, shows it at once, and goes on from there: be it with the incarnation that lives or with the next.
#[test]
fn usage_goes_on_under_the_next_daemon() {
    let mut bench = one();
    bench.says(&coder(), 1, used(100, 10));
    restart(&mut bench, 2);
    bench.says(&coder(), 2, used(20, 2));
    let journaled = bench.fold.unsaved.list(false);
    let told = bench.agent(&coder()).clone();
    // The last daemon heard this, and was killed before it was written.
    bench.says(&coder(), 2, used(25, 3));
    for lives in [true, false] {
        let mut next = Bench::new();
        let spent = Some(journaled[0].1.clone());
        next.declare_seeded(agent_spec("coder"), AgentSeed { incarnation: 2, lives, spent, ..AgentSeed::default() });
        let shown = next.agent(&coder());
        assert_eq!((&shown.usage, &shown.model), (&told.usage, &told.model));
        assert!(next.fold.unsaved.list(false).is_empty(), "the journal has it");
        if lives {
            next.start(&coder(), 2);
            next.says(&coder(), 2, used(30, 3));
            assert_eq!(tokens(&next), Some((Some(130), Some(13))));
            restart(&mut next, 3);
            next.says(&coder(), 3, used(1, 1));
            assert_eq!(tokens(&next), Some((Some(131), Some(14))));
        } else {
            next.start(&coder(), 3);
            next.says(&coder(), 3, used(30, 3));
            assert_eq!(tokens(&next), Some((Some(150), Some(15))));
        }
    }
}

#[test]
fn the_last_words_on_usage_are_urgent() {
    let mut bench = one();
    let due = |bench: &mut Bench| (bench.fold.unsaved.has_news(), bench.fold.unsaved.list(true).len());
    bench.says(&coder(), 1, used(100, 10));
    assert_eq!(due(&mut bench), (false, 0), "its next report says it all again");
    bench.crash(&coder(), 1, 1);
    assert_eq!(due(&mut bench), (true, 1));
    let written = bench.fold.unsaved.list(true);
    bench.fold.unsaved.saved(&written);
    bench.says(&coder(), 1, used(101, 10));
    assert_eq!(due(&mut bench), (true, 1), "nobody repeats what comes behind the end");
    bench.fold.unsaved.saved(&written);
    assert_eq!(due(&mut bench), (false, 1), "what was written is older");
    let written = bench.fold.unsaved.list(true);
    bench.fold.unsaved.saved(&written);
    bench.start(&coder(), 2);
    bench.says(&coder(), 1, used(102, 10));
    assert_eq!(due(&mut bench), (true, 1), "nor what comes behind the next start");
    let known = bench.agent(&coder()).usage.clone();
    bench.apply(Report::Removed("review".parse().unwrap()));
    bench.declare_seeded(agent_spec("coder"), AgentSeed { incarnation: 1, ..AgentSeed::default() });
    assert_eq!(bench.agent(&coder()).usage, known, "made again before the journal knew");
}

#[test]
fn lateness_is_measured_from_the_heartbeat_before() {
    let mut bench = one();
    let late = |bench: &Bench| bench.agent(&coder()).heartbeat_latency_ms.clone();
    let interval = HEARTBEAT / 3;
    assert_eq!(late(&bench), Measured::Absent(Absent::NeverObserved));
    bench.beat(&coder(), 1, None);
    assert_eq!(late(&bench), Measured::Absent(Absent::NeverObserved), "one heartbeat is no distance");
    for (after, expected) in [(interval, 0), (interval / 2, 0), (interval + Duration::from_millis(250), 250)] {
        bench.pass(after);
        bench.beat(&coder(), 1, None);
        let measured = Measured::Value { value: expected, observed_at: bench.now.wall, source: Source::Daemon };
        assert_eq!(late(&bench), measured, "{after:?}");
    }
    bench.pass(HEARTBEAT);
    assert_eq!(late(&bench), Measured::Absent(Absent::Stale), "the next one is overdue");
    bench.beat(&coder(), 1, None);
    assert_eq!(late(&bench).value(), Some(&10_000));
    // A clock that is set is nobody's lateness.
    bench.pass(interval);
    bench.now.wall += Duration::from_secs(3600);
    bench.beat(&coder(), 1, None);
    assert_eq!(late(&bench).value(), Some(&0));
}

#[test]
fn two_heartbeats_of_one_turn_are_measured_from_each_other() {
    let mut bench = one();
    bench.beat(&coder(), 1, None);
    bench.pass(Duration::from_secs(9));
    let beat = |at| {
        let kind = TelemetryKind::Heartbeat { progress: None, busy: None };
        Telemetry { agent: coder(), incarnation: 1, at, kind }
    };
    let at = bench.now.wall;
    bench.apply(Report::Telemetry(vec![beat(at - Duration::from_secs(1)), beat(at)]));
    assert_eq!(
        bench.agent(&coder()).heartbeat_latency_ms.value(),
        Some(&0),
        "the one before was 4 s ago, and late itself"
    );
}

#[test]
fn nobody_is_late_over_a_pause_or_a_new_session() {
    for what in ["pause", "session"] {
        let mut bench = one();
        bench.beat(&coder(), 1, None);
        bench.pass(Duration::from_secs(5));
        bench.beat(&coder(), 1, None);
        if what == "pause" {
            bench.saw(&coder(), 1, Observation::Paused(true));
            bench.pass(Duration::from_secs(60));
            bench.saw(&coder(), 1, Observation::Paused(false));
        } else {
            bench.says(&coder(), 1, TelemetryKind::SessionClosed);
            bench.pass(Duration::from_secs(10));
            bench.says(&coder(), 1, TelemetryKind::SessionOpened);
        }
        bench.beat(&coder(), 1, None);
        let late = bench.agent(&coder()).heartbeat_latency_ms.clone();
        assert!(late.value().is_none_or(|late| *late == 0), "{what}: {late:?}");
    }
}

#[test]
fn messages_and_their_waiting_are_counted() {
    let mut bench = one();
    let read_at = bench.now.wall;
    bench.pass(Duration::from_millis(40));
    let say = |at, kind| Telemetry { agent: coder(), incarnation: 1, at, kind };
    let event = TelemetryKind::Event { kind: Arc::from("x"), data: Arc::from("{}") };
    let now = bench.now.wall;
    bench.apply(Report::Telemetry(vec![say(read_at, log()), say(now, log())]));
    let doc = bench.agent(&coder());
    let latency = Measured::Value { value: 40.0, observed_at: now, source: Source::Daemon };
    assert_eq!((doc.telemetry.received, &doc.telemetry.latency_ms), (2, &latency), "the session's opening is none");
    bench.apply(Report::Telemetry(vec![say(now, event)]));
    assert_eq!(bench.agent(&coder()).telemetry.latency_ms.value(), Some(&0.0));
    assert_eq!(bench.agent(&coder()).telemetry.received, 3);

    let lost = Lost { logs: 5, metrics: 3, events: 1 };
    bench.apply(Report::Dropped { agent: coder(), incarnation: 1, lost });
    bench.saw(&coder(), 1, Observation::Lost { lines: 2, bytes: 9 });
    let doc = bench.agent(&coder());
    assert_eq!(doc.telemetry.received, 12, "what was read and dropped was received; a line that never came was not");
    assert_eq!((doc.telemetry.dropped, doc.dropped), (Lost { logs: 7, metrics: 3, events: 1 }, 11));
    let plane = bench.fold.hive().data_plane;
    assert_eq!((plane.dropped_by_class, plane.dropped), (doc.telemetry.dropped, 11));
    restart(&mut bench, 2);
    assert_eq!(bench.agent(&coder()).telemetry.received, 12, "over all incarnations");
}

#[test]
fn refusals_are_told_by_code() {
    let mut bench = one();
    for (code, messages) in [(-32602, 1), (1005, 2)] {
        bench.apply(Report::Refused { code, messages });
    }
    bench.says(&id("review/nobody"), 1, log());
    let plane = bench.fold.hive().data_plane;
    assert_eq!(plane.refused_by_code.into_iter().collect::<Vec<_>>(), [(-32602, 1), (1003, 1), (1005, 2)]);
    assert_eq!(plane.refused, 4);
    assert_eq!(i64::from(1003), crate::wire::rpc::Code::StaleIncarnation.number());
}

/// Each message is counted once: nobody refused it, so it was received, and what was dropped of it is counted among that.
#[test]
fn what_is_heard_behind_the_end_was_received_and_is_not_refused() {
    let mut bench = one();
    let event = || TelemetryKind::Event { kind: Arc::from("x"), data: Arc::from("{}") };
    let counts = |bench: &Bench| {
        let (doc, plane) = (bench.agent(&coder()), bench.fold.hive().data_plane);
        assert_eq!(plane.dropped_by_class, doc.telemetry.dropped);
        (doc.telemetry.received, doc.telemetry.dropped, plane.refused)
    };
    bench.says(&coder(), 1, used(100, 10));
    bench.crash(&coder(), 1, 0);
    let shown = bench.agent(&coder());
    for kind in [log(), used(130, 13), event(), TelemetryKind::Heartbeat { progress: Some(Arc::from("9")), busy: None }]
    {
        bench.says(&coder(), 1, kind);
    }
    // The book had no room for it.
    bench.saw(&coder(), 1, Observation::Lost { lines: 1, bytes: 9 });
    let fallen = Lost { logs: 1, ..Lost::default() };
    assert_eq!(counts(&bench), (5, fallen, 0));
    let doc = bench.agent(&coder());
    assert_eq!((doc.state, &doc.progress), (shown.state, &shown.progress));
    assert_eq!(doc.last_heartbeat, shown.last_heartbeat);
    restart(&mut bench, 2);
    bench.says(&coder(), 1, used(131, 13));
    bench.says(&coder(), 1, log());
    assert_eq!(counts(&bench), (7, fallen, 0));
    bench.says(&coder(), 1, event());
    assert_eq!(counts(&bench), (8, Lost { events: 1, ..fallen }, 0), "it is told of nobody any more");
    bench.says(&coder(), 2, used(1, 1));
    let two = [used(132, 13), used(133, 13)];
    let said = |kind| Telemetry { agent: coder(), incarnation: 1, at: bench.now.wall, kind };
    let late = Report::Telemetry(two.map(said).into());
    bench.apply(late);
    assert_eq!(
        counts(&bench),
        (11, Lost { metrics: 2, events: 1, ..fallen }, 0),
        "its successor's were counted already"
    );
}

/// Of an agent that is gone nobody shows a document.
#[test]
fn what_was_dropped_of_an_agent_that_is_gone_is_not_refused_as_well() {
    let mut bench = one();
    let lost = Lost { logs: 5, metrics: 3, events: 1 };
    bench.apply(Report::Dropped { agent: id("review/nobody"), incarnation: 1, lost });
    bench.says(&id("review/nobody"), 1, log());
    bench.says(&id("review/nobody"), 1, TelemetryKind::Event { kind: Arc::from("x"), data: Arc::from("{}") });
    let plane = bench.fold.hive().data_plane;
    let refused: Vec<_> = plane.refused_by_code.into_iter().collect();
    assert_eq!((refused, plane.dropped), (vec![(1003, 2)], 9));
}

#[test]
fn the_samples_of_many_agents_are_told_in_pieces() {
    let many = 2 * SAMPLES_AGENTS_MAX + 3;
    let names: Vec<String> = (0..many).map(|n| format!("a-{n:04}")).collect();
    let mut bench = Bench::running(names.iter().map(|name| agent_spec(name)).collect());
    bench.pass(Duration::from_secs(2));
    for name in &names {
        bench.sample(&id(&format!("review/{name}")), 1);
    }
    let told: Vec<_> = bench
        .pass(Duration::from_secs(1))
        .into_iter()
        .filter_map(|change| if let Change::Samples(agents) = change { Some(agents) } else { None })
        .collect();
    let lengths: Vec<usize> = told.iter().map(Vec::len).collect();
    assert_eq!(lengths, [SAMPLES_AGENTS_MAX, SAMPLES_AGENTS_MAX, 3]);
    let told: Vec<String> = told.iter().flatten().map(|agent| agent.id.name.as_str().to_owned()).collect();
    assert_eq!(told, names);
}

#[test]
fn rates_are_measured_over_their_windows_and_not_before() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    let rates = |bench: &Bench| {
        let plane = bench.fold.hive().data_plane;
        [plane.events_per_second, plane.events_per_second_1m, plane.events_per_second_5m]
            .map(|rate| rate.value().copied())
    };
    bench.pass(Duration::from_secs(2));
    for _ in 0..600 {
        bench.beat(&coder(), 1, None);
    }
    bench.pass(Duration::from_secs(1));
    assert_eq!(rates(&bench), [Some(600.0), None, None]);
    bench.pass(Duration::from_secs(57));
    assert_eq!(rates(&bench)[..2], [Some(0.0), Some(10.0)]);
    bench.pass(Duration::from_secs(240));
    assert_eq!(rates(&bench)[1..], [Some(0.0), Some(2.0)]);
}

#[test]
fn the_third_silence_in_five_minutes_is_flapping_until_a_minute_was_in_time() {
    let mut bench = one();
    let shown = |bench: &Bench| (bench.agent(&coder()).state, codes(&bench.agent(&coder()).reasons));
    for silence in 1..=3 {
        bench.beat(&coder(), 1, None);
        assert_eq!(bench.agent(&coder()).state, S::Running, "before silence {silence}");
        bench.pass(Duration::from_secs(20));
    }
    assert_eq!(shown(&bench), (S::Degraded, vec!["heartbeat_overdue", "flapping"]));
    bench.beat(&coder(), 1, None);
    let since = bench.agent(&coder()).since;
    for _ in 0..12 {
        assert_eq!(shown(&bench), (S::Degraded, vec!["flapping"]));
        bench.tick();
        assert_eq!(codes(&bench.swarm().reasons), ["agents_degraded"]);
        bench.pass(Duration::from_secs(5));
        bench.beat(&coder(), 1, None);
        bench.tick();
    }
    assert_eq!(shown(&bench), (S::Running, vec![]));
    assert!(bench.agent(&coder()).since > since);
}

#[test]
fn another_incarnation_begins_without_the_word_of_the_last() {
    let mut bench = one();
    for _ in 0..3 {
        bench.pass(Duration::from_secs(20));
        bench.beat(&coder(), 1, None);
    }
    assert_eq!(codes(&bench.agent(&coder()).reasons), ["flapping"]);
    restart(&mut bench, 2);
    assert_eq!(bench.agent(&coder()).state, S::Running);
}

/// Whoever only looks at what is told sees counters move once a second, and no state flicker.
#[test]
fn a_flood_is_told_once_a_second() {
    let mut bench = one();
    bench.pass(Duration::from_secs(2));
    let mut told = Vec::new();
    for _ in 0..300 {
        for _ in 0..20 {
            told.extend(bench.says(&coder(), 1, log()));
        }
        bench.beat(&coder(), 1, None);
        told.extend(bench.pass(Duration::from_millis(10)));
    }
    assert!(told.iter().all(|change| matches!(change, Change::Samples(agents) if agents.len() == 1)), "{told:?}");
    assert!((2..=4).contains(&told.len()), "{}", told.len());
    let Some(Change::Samples(agents)) = told.last() else { unreachable!() };
    assert!(agents[0].telemetry.received > 4000, "{}", agents[0].telemetry.received);
}
