#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const LEASE: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(5);
const STDIO: LinkId = 0;
const ENDED: Ended = Ended { code: Some(0), signal: None };

struct Bench {
    core: Core,
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        let launch = Launch {
            version: VERSION,
            epoch: 7,
            launch_id: "id".into(),
            agent: "s/a".into(),
            incarnation: 1,
            argv: Vec::new(),
            env: Vec::new(),
            cwd: "/".into(),
            token: String::new(),
            lease_ms: 30_000,
            grace_ms: 5_000,
            sample_interval_ms: 600_000,
            run_dir: "/".into(),
            ring_bytes: 0,
            forget: Vec::new(),
            in_container: false,
        };
        let start = Instant::now();
        let mut core = Core::new(start, &launch, STDIO);
        // Out of the way of what these tests look at.
        core.sample_at = start + Duration::from_secs(3600);
        Self { core, start }
    }

    fn at(&mut self, after: Duration, event: Event) -> Vec<Action> {
        self.core.step(self.start + after, event)
    }

    fn frame(&mut self, after: Duration, link: LinkId, frame: ToLauncher) -> Vec<Action> {
        self.at(after, Event::Frame { link, frame })
    }

    fn tick(&mut self, after: Duration) -> Vec<Action> {
        self.at(after, Event::Tick)
    }

    fn end(&mut self) -> End {
        match self.at(LEASE * 100, Event::AgentEnded { ended: ENDED, alone: true, starved: None }).pop().unwrap() {
            Action::Finish(end) => end,
            other => panic!("{other:?}"),
        }
    }

    fn why(&mut self) -> ExitWhy {
        match self.end() {
            End::Exited { why, .. } => why,
            End::StartFailed { message } => panic!("{message}"),
        }
    }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn attach(epoch: u64) -> ToLauncher {
    ToLauncher::Attach(Attach { version: VERSION, epoch, last_seq: 4 })
}

fn codes(actions: &[Action]) -> Vec<(LinkId, &'static str)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Refuse { link, code, .. } => Some((*link, *code)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_lease_that_nobody_renews_ends_gently_then_hard() {
    let mut bench = Bench::new();
    assert_eq!(bench.tick(LEASE - s(1)), []);
    assert_eq!(bench.tick(LEASE), [Action::Term]);
    assert_eq!(bench.core.next_wake(), bench.start + LEASE + GRACE);
    assert_eq!(bench.tick(LEASE + GRACE), [Action::Kill]);
    assert_eq!(bench.why(), ExitWhy::LeaseLost);
}

#[test]
fn a_renewal_gives_a_whole_lease() {
    let mut bench = Bench::new();
    assert_eq!(bench.frame(s(20), STDIO, ToLauncher::Renew { epoch: 7 }), []);
    assert_eq!(bench.tick(s(49)), []);
    assert_eq!(bench.tick(s(50)), [Action::Term]);
}

#[test]
fn a_channel_that_closes_starts_the_clock_and_nothing_else() {
    let mut bench = Bench::new();
    assert_eq!(bench.at(s(20), Event::Closed { link: STDIO }), [Action::DropRelays]);
    assert_eq!(bench.tick(s(49)), []);
    assert_eq!(bench.tick(s(50)), [Action::Term]);
}

#[test]
fn an_old_channel_that_closes_does_not_prolong_the_lease() {
    let mut bench = Bench::new();
    bench.frame(s(1), 1, attach(8));
    assert_eq!(bench.tick(s(1)), [Action::Sample]);
    assert_eq!(bench.at(s(20), Event::Closed { link: STDIO }), []);
    assert_eq!(bench.tick(s(31)), [Action::Term]);
}

#[test]
fn an_older_daemon_can_neither_renew_nor_attach() {
    let mut bench = Bench::new();
    let actions = bench.frame(s(10), STDIO, ToLauncher::Renew { epoch: 6 });
    assert_eq!(codes(&actions), [(STDIO, "stale_epoch")]);
    assert_eq!(codes(&bench.frame(s(10), 1, attach(6))), [(1, "stale_epoch")]);
    assert_eq!(bench.tick(LEASE), [Action::Term], "the lease was not prolonged");
}

#[test]
fn a_younger_daemon_takes_over_and_the_old_one_is_told() {
    let mut bench = Bench::new();
    let actions = bench.frame(s(10), 1, attach(8));
    assert_eq!(actions[0], Action::DropRelays);
    assert_eq!(codes(&actions), [(STDIO, "stale_epoch")]);
    assert_eq!(actions[2], Action::Lead { link: 1, last_seq: 4 });
    assert_eq!(bench.tick(s(10)), [Action::Sample]);
    assert_eq!(codes(&bench.frame(s(11), STDIO, ToLauncher::Kill)), [(STDIO, "bad_frame")], "no command any more");
    assert_eq!(bench.tick(s(39)), []);
    assert_eq!(bench.tick(s(40)), [Action::Term]);
}

#[test]
fn the_same_daemon_may_attach_again() {
    let mut bench = Bench::new();
    bench.at(s(1), Event::Closed { link: STDIO });
    assert_eq!(bench.frame(s(2), 1, attach(7)), [Action::DropRelays, Action::Lead { link: 1, last_seq: 4 }]);
}

#[test]
fn a_version_that_is_not_spoken_here_is_refused() {
    let mut bench = Bench::new();
    for version in [VERSION_MIN - 1, VERSION + 1] {
        let frame = ToLauncher::Attach(Attach { version, epoch: 9, last_seq: 0 });
        assert_eq!(codes(&bench.frame(s(1), 1, frame)), [(1, "unsupported_version")]);
    }
}

#[test]
fn bytes_that_are_no_frame_cost_the_channel_and_start_the_clock() {
    let mut bench = Bench::new();
    let actions = bench.at(s(20), Event::BadFrame { link: STDIO, message: "x".into() });
    assert_eq!(codes(&actions), [(STDIO, "bad_frame")]);
    assert_eq!(bench.tick(s(49)), []);
    assert_eq!(bench.tick(s(50)), [Action::Term]);
    assert_eq!(codes(&bench.frame(s(51), 3, ToLauncher::Kill)), [(3, "bad_frame")], "a command before the attach");
}

#[test]
fn a_gap_is_forgiven_once_until_somebody_renews() {
    let mut bench = Bench::new();
    bench.at(s(100), Event::Woke);
    assert_eq!(bench.tick(s(100)), []);
    bench.at(s(110), Event::Woke);
    assert_eq!(bench.tick(s(130)), [Action::Term], "the second gap gave nothing");

    let mut bench = Bench::new();
    bench.at(s(100), Event::Woke);
    bench.frame(s(101), STDIO, ToLauncher::Renew { epoch: 7 });
    bench.at(s(200), Event::Woke);
    assert_eq!(bench.tick(s(229)), []);
}

#[test]
fn a_gap_never_shortens_a_lease() {
    let mut bench = Bench::new();
    bench.frame(s(100), STDIO, ToLauncher::Renew { epoch: 7 });
    bench.at(s(90), Event::Woke);
    assert_eq!(bench.tick(s(129)), []);
}

#[test]
fn a_stop_is_one_sigterm_and_the_shorter_grace_wins() {
    let mut bench = Bench::new();
    assert_eq!(bench.frame(s(0), STDIO, ToLauncher::Stop { grace_ms: 20_000 }), [Action::Term]);
    assert_eq!(bench.frame(s(1), STDIO, ToLauncher::Stop { grace_ms: 3_000 }), []);
    assert_eq!(bench.frame(s(1), STDIO, ToLauncher::Stop { grace_ms: 60_000 }), []);
    assert_eq!(bench.tick(s(3)), []);
    assert_eq!(bench.tick(s(4)), [Action::Kill]);
    assert_eq!(bench.why(), ExitWhy::Asked);
}

#[test]
fn a_lease_that_ends_within_a_long_grace_shortens_it() {
    let mut bench = Bench::new();
    bench.frame(s(0), STDIO, ToLauncher::Stop { grace_ms: 600_000 });
    assert_eq!(bench.tick(LEASE), []);
    assert_eq!(bench.tick(LEASE + GRACE), [Action::Kill]);
    assert_eq!(bench.why(), ExitWhy::Asked, "the first reason stays");
}

#[test]
fn a_kill_overtakes_a_grace() {
    let mut bench = Bench::new();
    bench.frame(s(0), STDIO, ToLauncher::Stop { grace_ms: 600_000 });
    assert_eq!(bench.frame(s(1), STDIO, ToLauncher::Kill), [Action::Kill]);
    assert_eq!(bench.frame(s(1), STDIO, ToLauncher::Kill), []);
    assert_eq!(bench.tick(s(2)), [Action::Kill], "again, for what was forked meanwhile");
}

#[test]
fn a_signal_to_the_launcher_is_a_stop() {
    let mut bench = Bench::new();
    assert_eq!(bench.at(s(0), Event::AskedToEnd), [Action::Term]);
    assert_eq!(bench.tick(GRACE), [Action::Kill]);
    assert_eq!(bench.why(), ExitWhy::Asked);
}

#[test]
fn an_end_of_its_own_is_its_own() {
    assert_eq!(Bench::new().why(), ExitWhy::Own);
}

#[test]
fn descendants_are_swept_before_the_end() {
    let mut bench = Bench::new();
    assert_eq!(bench.at(s(1), Event::AgentEnded { ended: ENDED, alone: false, starved: None }), [Action::Kill]);
    assert_eq!(bench.at(s(1), Event::NoDescendants).len(), 1);

    let mut bench = Bench::new();
    bench.at(s(1), Event::AgentEnded { ended: ENDED, alone: false, starved: None });
    assert_eq!(bench.tick(s(2)), [Action::Kill]);
    let end = End::Exited { ended: ENDED, why: ExitWhy::Own, oom: None, unswept: true };
    assert_eq!(bench.tick(s(1) + SWEEP_MAX), [Action::Finish(end)]);
}

#[test]
fn children_that_end_while_the_agent_lives_end_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.at(s(1), Event::NoDescendants), []);
    assert_eq!(bench.frame(s(2), STDIO, ToLauncher::Pause), [Action::Freeze]);
}

#[test]
fn a_program_that_was_never_run_has_not_exited() {
    let mut bench = Bench::new();
    bench.at(s(0), Event::ExecFailed("no such file".into()));
    assert_eq!(bench.end(), End::StartFailed { message: "no such file".into() });
}

#[test]
fn a_pause_is_told_when_the_tree_stands_still() {
    let mut bench = Bench::new();
    assert_eq!(bench.frame(s(0), STDIO, ToLauncher::Pause), [Action::Freeze]);
    assert_eq!(bench.at(s(0), Event::Froze { stable: false }), []);
    assert!(!bench.core.paused());
    assert_eq!(bench.tick(s(1)), [Action::Freeze]);
    let told = FromLauncher::Paused { paused: true };
    assert_eq!(bench.at(s(1), Event::Froze { stable: true }), [Action::Send(told)]);
    assert!(bench.core.paused());
    assert_eq!(bench.tick(s(2)), []);
    let told = FromLauncher::Paused { paused: false };
    assert_eq!(bench.frame(s(3), STDIO, ToLauncher::Resume), [Action::Thaw, Action::Send(told)]);
    assert_eq!(bench.tick(s(4)), []);
}

#[test]
fn a_stop_wakes_a_frozen_tree_behind_its_sigterm() {
    let mut bench = Bench::new();
    bench.frame(s(0), STDIO, ToLauncher::Pause);
    bench.at(s(0), Event::Froze { stable: true });
    let actions = bench.frame(s(1), STDIO, ToLauncher::Stop { grace_ms: 1 });
    assert_eq!(actions[..2], [Action::Term, Action::Thaw]);
}

#[test]
fn readings_go_to_a_leader_and_begin_early() {
    let mut bench = Bench::new();
    bench.core.sample_at = bench.start + FIRST_SAMPLE;
    assert_eq!(bench.tick(FIRST_SAMPLE), [Action::Sample]);
    assert_eq!(bench.tick(FIRST_SAMPLE), []);
    bench.at(s(1), Event::Closed { link: STDIO });
    bench.core.sample_at = bench.start;
    assert_eq!(bench.tick(s(2)), []);
    bench.frame(s(3), 1, attach(8));
    assert_eq!(bench.tick(s(3)), [Action::Sample], "a new daemon gets one at once");
}

#[test]
fn there_is_always_a_next_wake_and_it_moves() {
    let mut bench = Bench::new();
    for second in 0..200 {
        bench.tick(s(second));
        assert!(bench.core.next_wake() > bench.start + s(second), "the loop would spin at second {second}");
    }
}

#[test]
fn limits_as_long_as_time_itself_do_not_overflow() {
    let mut bench = Bench::new();
    bench.frame(s(0), STDIO, ToLauncher::Stop { grace_ms: u64::MAX });
    assert!(bench.core.next_wake() > bench.start);
}

#[test]
fn memory_that_ran_out_is_told_unless_we_killed_it_ourselves() {
    let killed = Ended { code: None, signal: Some(libc::SIGKILL) };
    let end = |bench: &mut Bench, alone| {
        bench.at(s(2), Event::AgentEnded { ended: killed, alone, starved: Some(true) });
        bench.at(s(3), Event::NoDescendants)
    };
    let told = |actions: &[Action]| match actions {
        [Action::Finish(End::Exited { oom, .. })] => *oom,
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&end(&mut Bench::new(), false)), Some(true), "kept over the sweep");

    let mut stopping = Bench::new();
    stopping.frame(s(1), STDIO, ToLauncher::Stop { grace_ms: 5000 });
    assert_eq!(told(&end(&mut stopping, false)), Some(true), "it was asked to end and had not been killed");

    let mut killing = Bench::new();
    killing.frame(s(1), STDIO, ToLauncher::Kill);
    assert_eq!(told(&end(&mut killing, false)), Some(false));

    let alone = Bench::new().at(s(1), Event::AgentEnded { ended: killed, alone: true, starved: None });
    assert_eq!(told(&alone), None);
}
