//! The launcher and its daemons: lease, epoch, take-over.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use hivekeeper::wire::channel::{Attach, ExitWhy, FromLauncher, Launch, ToLauncher, VERSION};

use crate::harness::{
    launcher::{EPOCH, Launcher},
    processes::{signal, stat, wait_for},
};

/// Writes a growing number every 10 ms.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";

/// The shortest lease that a loaded machine can hold without stumbling.
fn short(launch: &mut Launch) {
    launch.lease_ms = 400;
}

#[test]
fn the_lease_runs_out_after_the_daemon_has_gone() {
    let mut launcher = Launcher::run_with(COUNTER, short);
    launcher.channel.started();
    launcher.abandon();
    let record = launcher.record();
    assert_eq!(record.why, ExitWhy::LeaseLost);
    assert_eq!(launcher.tree(), [] as [i32; 0]);
    assert_eq!(launcher.wait().code(), Some(0));
    assert!(!launcher.socket().exists());
}

#[test]
fn the_lease_runs_out_under_a_daemon_that_hangs() {
    let mut launcher = Launcher::run_with(COUNTER, short);
    assert_eq!(launcher.channel.exit().why, ExitWhy::LeaseLost);
}

#[test]
fn a_lost_lease_is_a_sigterm_first() {
    let script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done";
    let mut launcher = Launcher::run_with(script, short);
    let exit = launcher.channel.exit();
    assert_eq!((exit.code, exit.why), (Some(5), ExitWhy::LeaseLost));
}

#[test]
fn renewals_keep_an_agent_alive() {
    let mut launcher = Launcher::run_with(COUNTER, |launch| launch.lease_ms = 1500);
    // Three leases.
    for _ in 0..45 {
        launcher.channel.renew();
        assert_eq!(launcher.channel.next_within(Duration::ZERO).ok().flatten().and_then(exited), None);
        std::thread::sleep(Duration::from_millis(100));
    }
    launcher.channel.send(&ToLauncher::Stop { grace_ms: 1000 });
    assert_eq!(launcher.channel.exit().why, ExitWhy::Asked);
}

fn exited(frame: FromLauncher) -> Option<ExitWhy> {
    match frame {
        FromLauncher::Exit(exit) => Some(exit.why),
        _ => None,
    }
}

#[test]
fn a_new_daemon_gets_every_line_that_the_old_one_had_not_noted() {
    let mut launcher = Launcher::run(COUNTER);
    let pid = launcher.channel.started();
    let mut last = 0;
    while last < 20 {
        let output = launcher.channel.output();
        assert_eq!((output.seq, output.bytes), (last + 1, (last + 1).to_string().into_bytes()));
        last = output.seq;
    }
    launcher.channel.send(&ToLauncher::Ack { seq: 10 });
    launcher.abandon();

    let mut channel = launcher.attach(EPOCH + 1, 15);
    assert!(matches!(channel.next(), Some(FromLauncher::Hello { version: VERSION, .. })));
    let state = channel.state();
    assert_eq!(state.pid, Some(pid.cast_unsigned()));
    assert_eq!((state.agent.as_str(), state.incarnation, state.paused), ("swarm/agent-1", 3, false));
    assert_eq!(state.ring_first_seq, 16);
    for seq in 16..60 {
        let output = channel.output();
        assert_eq!((output.seq, output.bytes), (seq, seq.to_string().into_bytes()));
    }
    channel.send(&ToLauncher::Stop { grace_ms: 1000 });
    assert_eq!(channel.exit().why, ExitWhy::Asked);
}

#[test]
fn what_the_ring_lost_between_two_daemons_is_counted() {
    let mut launcher = Launcher::run_with("seq 1 100000; echo end; sleep 300", |launch| launch.ring_bytes = 65_536);
    launcher.channel.started();
    launcher.abandon();
    // The last line is written when all the others have been.
    let mut known = 0;
    let mut channel = launcher.attach(EPOCH + 1, 0);
    loop {
        match channel.next().expect("the channel ended") {
            FromLauncher::Lost { lines, next_seq, .. } => {
                known += lines;
                assert_eq!(next_seq, known + 1);
            }
            FromLauncher::Output(output) => {
                known += 1;
                assert_eq!(output.seq, known);
                if output.bytes == b"end" {
                    break;
                }
                assert_eq!(output.bytes, known.to_string().into_bytes());
            }
            _ => {}
        }
    }
    assert_eq!(known, 100_001);
}

#[test]
fn an_older_daemon_is_refused_and_the_leader_goes_on() {
    let mut launcher = Launcher::run(COUNTER);
    launcher.channel.started();
    let mut old = launcher.attach(EPOCH - 1, 0);
    assert_eq!(old.refused(), "stale_epoch");
    assert_eq!(old.next(), None);
    let seen = launcher.channel.output().seq;
    assert!(launcher.channel.output().seq > seen);
}

#[test]
fn a_renewal_with_an_older_epoch_is_refused() {
    let mut launcher = Launcher::run_with(COUNTER, |launch| launch.lease_ms = 1000);
    launcher.channel.started();
    launcher.channel.send(&ToLauncher::Renew { epoch: EPOCH - 1 });
    assert_eq!(launcher.channel.refused(), "stale_epoch");
    assert_eq!(launcher.channel.next(), None);
    assert_eq!(launcher.record().why, ExitWhy::LeaseLost);
}

#[test]
fn a_superseded_daemon_is_told_and_can_do_nothing_more() {
    let mut launcher = Launcher::run(COUNTER);
    let pid = launcher.channel.started();
    let mut first = launcher.attach(EPOCH + 1, 0);
    first.state();
    assert_eq!(launcher.channel.refused(), "stale_epoch");
    assert_eq!(launcher.channel.next(), None);
    let mut second = launcher.attach(EPOCH + 1, 0);
    assert_eq!(second.state().pid, Some(pid.cast_unsigned()));
    assert_eq!(first.refused(), "stale_epoch");
    assert_eq!(first.next(), None);
    let seen = second.output().seq;
    assert!(second.output().seq > seen);
}

#[test]
fn a_take_over_keeps_a_pause() {
    let mut launcher = Launcher::run(COUNTER);
    launcher.channel.started();
    launcher.channel.send(&ToLauncher::Pause);
    assert!(launcher.channel.paused());
    launcher.abandon();
    let mut channel = launcher.attach(EPOCH + 1, 0);
    assert!(channel.state().paused);
    channel.send(&ToLauncher::Resume);
    assert!(!channel.paused());
}

#[test]
fn a_first_frame_of_an_unknown_version_is_refused() {
    let mut launcher = Launcher::run_with(COUNTER, |launch| launch.version = VERSION + 1);
    assert_eq!(launcher.channel.refused(), "unsupported_version");
    assert_eq!(launcher.wait().code(), Some(2));
    assert_eq!(fs::read_dir(launcher.directory.path()).unwrap().count(), 0);

    let mut launcher = Launcher::run(COUNTER);
    launcher.channel.started();
    let mut channel = launcher.connect();
    channel.send(&ToLauncher::Attach(Attach { version: VERSION + 1, epoch: EPOCH + 1, last_seq: 0 }));
    assert_eq!(channel.refused(), "unsupported_version");
}

#[test]
fn a_launch_id_that_leaves_its_directory_is_refused() {
    let mut launcher = Launcher::run_with(COUNTER, |launch| launch.launch_id = "../elsewhere".into());
    assert_eq!(launcher.channel.refused(), "bad_frame");
    assert_eq!(launcher.wait().code(), Some(2));
}

#[test]
fn commands_before_the_attach_are_refused() {
    let mut launcher = Launcher::run(COUNTER);
    launcher.channel.started();
    for frame in [ToLauncher::Kill, ToLauncher::Renew { epoch: EPOCH + 1 }] {
        let mut stranger = launcher.connect();
        stranger.send(&frame);
        assert_eq!(stranger.refused(), "bad_frame");
    }
    let seen = launcher.channel.output().seq;
    assert!(launcher.channel.output().seq > seen);
}

#[test]
fn garbage_costs_the_channel_and_starts_the_lease_clock() {
    let mut launcher = Launcher::run_with(COUNTER, |launch| launch.lease_ms = 1500);
    let pid = launcher.channel.started();
    launcher.channel.send_raw(&[0xff; 8]);
    assert_eq!(launcher.channel.refused(), "bad_frame");
    let mut channel = launcher.attach(EPOCH, 0);
    assert_eq!(channel.state().pid, Some(pid.cast_unsigned()));
    drop(channel);
    assert_eq!(launcher.record().why, ExitWhy::LeaseLost);
}

#[test]
fn a_channel_whose_reader_has_gone_is_closed() {
    // The agent writes nothing and the next reading is a minute away, so the launcher has nothing to write that could fail.
    let mut launcher = Launcher::run("exec sleep 300");
    let pid = launcher.channel.started();
    launcher.channel.until(|frame| matches!(frame, FromLauncher::Sample(_)).then_some(()));
    launcher.channel.close_reader();
    wait_for("the other end to close", || {
        let sent = launcher.channel.try_send(&ToLauncher::Renew { epoch: EPOCH });
        sent.is_err().then_some(())
    });
    assert_eq!(launcher.attach(EPOCH, 0).state().pid, Some(pid.cast_unsigned()));
}

/// User and system time of a process, clock ticks.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = stat(pid).unwrap();
    stat[11].parse::<u64>().unwrap() + stat[12].parse::<u64>().unwrap()
}

#[test]
fn a_launcher_with_nothing_to_do_does_nothing() {
    let mut launcher = Launcher::run("exec sleep 300 >&- 2>&-");
    launcher.channel.started();
    launcher.channel.close_reader();
    let mut channel = launcher.attach(EPOCH + 1, 0);
    channel.state();
    let idle = launcher.connect();
    let before = cpu_ticks(launcher.pid());
    std::thread::sleep(Duration::from_millis(700));
    let spent = cpu_ticks(launcher.pid()) - before;
    assert!(spent < 20, "{spent} ticks of CPU in 0.7 s of nothing");
    drop(idle);
}

#[test]
fn silent_strangers_do_not_keep_a_daemon_out() {
    let mut launcher = Launcher::run(COUNTER);
    launcher.channel.started();
    let strangers: Vec<_> = (0..8).map(|_| launcher.connect()).collect();
    let mut channel = launcher.attach(EPOCH + 1, 0);
    // The first four take every place until they have been silent for too long.
    channel.state();
    drop(strangers);
}

#[test]
fn the_socket_is_the_owners_alone() {
    let mut launcher = Launcher::run(COUNTER);
    launcher.channel.started();
    assert_eq!(fs::metadata(launcher.socket()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_launcher_that_was_stopped_reads_the_waiting_renewals_before_it_judges() {
    let mut launcher = Launcher::run_with(COUNTER, |launch| launch.lease_ms = 700);
    launcher.channel.started();
    signal(launcher.pid(), libc::SIGSTOP);
    launcher.channel.renew();
    // Past the lease, short of what counts as a gap: only the renewal can save the agent.
    std::thread::sleep(Duration::from_millis(1100));
    signal(launcher.pid(), libc::SIGCONT);
    let seen = drained(&mut launcher);
    launcher.channel.renew();
    wait_for("a later line", || (launcher.channel.output().seq > seen + 20).then_some(()));
    launcher.channel.send(&ToLauncher::Kill);
    assert_eq!(launcher.channel.exit().why, ExitWhy::Asked);
}

#[test]
fn a_launcher_that_was_stopped_for_long_grants_one_lease() {
    let mut launcher = Launcher::run_with(COUNTER, |launch| launch.lease_ms = 1000);
    launcher.channel.started();
    signal(launcher.pid(), libc::SIGSTOP);
    std::thread::sleep(Duration::from_millis(2600));
    signal(launcher.pid(), libc::SIGCONT);
    let seen = drained(&mut launcher);
    launcher.channel.renew();
    wait_for("a later line", || (launcher.channel.output().seq > seen + 10).then_some(()));
    // Nobody renews any more.
    assert_eq!(launcher.channel.exit().why, ExitWhy::LeaseLost);
}

/// The number of the last line that is there now.
fn drained(launcher: &mut Launcher) -> u64 {
    let mut seen = 0;
    while let Ok(Some(frame)) = launcher.channel.next_within(Duration::from_millis(1)) {
        if let FromLauncher::Output(output) = frame {
            seen = output.seq;
        }
    }
    seen
}
