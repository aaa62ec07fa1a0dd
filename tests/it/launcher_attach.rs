//! A daemon that reaches a launcher through `agent --attach`.

use std::{
    fs,
    io::Read,
    os::{
        fd::AsRawFd,
        unix::{
            fs::symlink,
            net::{UnixListener, UnixStream},
        },
    },
    process::Command,
    time::Duration,
};

use hivekeeper::wire::channel::{Attach, ExitWhy, FromLauncher, NOBODY, ToLauncher, VERSION};

use crate::harness::{
    launcher::{EPOCH, Errand, Launcher, executable},
    processes::{signal, stat, state, wait_for},
};

/// Writes a growing number every 10 ms.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";

/// The code of a refusal, as the second frame.
#[track_caller]
fn refused(errand: &mut Errand) -> String {
    assert!(matches!(errand.channel.next(), Some(FromLauncher::Hello { version: VERSION, .. })));
    errand.channel.refused()
}

fn ask(directory: &std::path::Path, launch_id: &str) -> Errand {
    Errand::start(&["--attach", directory.to_str().unwrap(), launch_id])
}

#[test]
fn a_take_over_goes_through() {
    let mut launcher = Launcher::run(COUNTER);
    let pid = launcher.channel.started();
    assert_eq!(launcher.channel.line(), "1");
    launcher.channel.send(&ToLauncher::Ack { seq: 1 });
    launcher.abandon();
    let mut bridge = launcher.attach_outside(EPOCH + 1, 1);
    assert!(matches!(bridge.channel.next(), Some(FromLauncher::Hello { version: VERSION, .. })));
    assert_eq!(bridge.channel.state().pid, Some(pid.cast_unsigned()));
    for seq in 2..30 {
        let output = bridge.channel.output();
        assert_eq!((output.seq, output.bytes), (seq, seq.to_string().into_bytes()));
    }
    bridge.channel.send(&ToLauncher::Stop { grace_ms: 1000 });
    assert_eq!(bridge.channel.exit().why, ExitWhy::Asked);
    assert_eq!(bridge.channel.next(), None, "the launcher's end shows");
    assert_eq!(bridge.wait(), Some(0));
}

#[test]
fn an_older_daemon_is_refused_through_it() {
    let mut launcher = Launcher::run(COUNTER);
    launcher.channel.started();
    let mut bridge = launcher.attach_outside(EPOCH - 1, 0);
    assert_eq!(refused(&mut bridge), "stale_epoch");
    assert_eq!(bridge.channel.next(), None);
    assert_eq!(bridge.wait(), Some(0));
}

#[test]
fn the_death_of_the_daemon_starts_the_lease_clock() {
    let mut launcher = Launcher::run_with(COUNTER, |launch| launch.lease_ms = 400);
    launcher.channel.started();
    let mut bridge = launcher.attach_outside(EPOCH + 1, 0);
    bridge.channel.state();
    // No end of a channel is told to a launcher that has been superseded, so this is the bridge's alone.
    bridge.channel.close_writer();
    assert_eq!(launcher.record().why, ExitWhy::LeaseLost);
    assert_eq!(bridge.wait(), Some(0));
}

#[test]
fn a_bridge_that_is_killed_is_a_daemon_that_has_gone() {
    let mut launcher = Launcher::run(COUNTER);
    launcher.channel.started();
    let mut bridge = launcher.attach_outside(EPOCH + 1, 0);
    bridge.channel.state();
    signal(bridge.pid(), libc::SIGKILL);
    let mut again = launcher.attach_outside(EPOCH + 1, 0);
    let seen = again.channel.output().seq;
    assert!(again.channel.output().seq > seen);
}

#[test]
fn a_reader_that_has_gone_is_a_daemon_that_has_gone() {
    let mut launcher = Launcher::run_with("exec sleep 300", |launch| launch.lease_ms = 400);
    launcher.channel.started();
    let mut bridge = launcher.attach_outside(EPOCH + 1, 0);
    bridge.channel.until(|frame| matches!(frame, FromLauncher::Sample(_)).then_some(()));
    bridge.channel.close_reader();
    assert_eq!(bridge.wait(), Some(0));
    assert_eq!(launcher.record().why, ExitWhy::LeaseLost);
}

#[test]
fn the_last_order_of_a_daemon_that_dies_is_delivered() {
    let mut launcher = Launcher::run(COUNTER);
    launcher.channel.started();
    let mut bridge = launcher.bridge();
    bridge.channel.send(&ToLauncher::Attach(Attach { version: VERSION, epoch: EPOCH + 1, last_seq: 0 }));
    bridge.channel.send(&ToLauncher::Stop { grace_ms: 300 });
    bridge.channel.close_writer();
    bridge.channel.close_reader();
    assert_eq!(launcher.record().why, ExitWhy::Asked);
    assert_eq!(bridge.wait(), Some(0));
}

#[test]
fn the_exit_record_speaks_for_a_launcher_that_has_ended() {
    let mut launcher = Launcher::run("exit 7");
    let exit = launcher.channel.exit();
    launcher.wait();
    let mut bridge = launcher.attach_outside(EPOCH + 1, 0);
    assert!(matches!(bridge.channel.next(), Some(FromLauncher::Hello { version: VERSION, .. })));
    assert_eq!(bridge.channel.next(), Some(FromLauncher::Exit(exit)));
    assert_eq!(bridge.channel.next(), None);
    assert_eq!(bridge.wait(), Some(0));
}

#[test]
fn nobody_is_said_where_there_is_neither_launcher_nor_record() {
    let directory = tempfile::tempdir().unwrap();
    let mut bridge = ask(directory.path(), "never-there");
    assert_eq!(refused(&mut bridge), NOBODY);
    assert_eq!(bridge.channel.next(), None);
    assert_eq!(bridge.wait(), Some(3));
    let mut bridge = ask(&directory.path().join("missing"), "never-there");
    assert_eq!(refused(&mut bridge), NOBODY);
    assert_eq!(bridge.wait(), Some(3));
}

#[test]
fn the_socket_of_a_launcher_that_was_killed_is_nobodys() {
    let mut launcher = Launcher::run("exec sleep 300");
    launcher.channel.started();
    launcher.kill();
    assert!(launcher.socket().exists());
    let mut bridge = launcher.bridge();
    assert_eq!(refused(&mut bridge), NOBODY);
    assert_eq!(bridge.wait(), Some(3));
    launcher.wait_until_empty();
}

#[test]
fn what_only_looks_like_a_record_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("cut.exit"), "{\"agent\":").unwrap();
    fs::create_dir(at("directory.exit")).unwrap();
    assert!(Command::new("mkfifo").arg(at("fifo.exit")).status().unwrap().success());
    symlink("/dev/zero", at("endless.exit")).unwrap();
    for name in ["cut", "directory", "fifo", "endless"] {
        let mut bridge = ask(directory.path(), name);
        assert_eq!(refused(&mut bridge), NOBODY, "{name}");
        assert_eq!(bridge.wait(), Some(3), "{name}");
    }
}

#[test]
fn a_launcher_that_ends_before_it_has_seen_us_is_told_by_its_record() {
    let mut launcher = Launcher::run("read -r line < /dev/null; sleep 0.3; exit 4");
    launcher.channel.started();
    // Stopped, it accepts nobody; what it finds when it goes on is its agent's end and us, in this order or the other.
    signal(launcher.pid(), libc::SIGSTOP);
    let mut bridge = launcher.attach_outside(EPOCH + 1, 0);
    wait_for("the bridge to be asleep", || (state(bridge.pid()) == Some('S')).then_some(()));
    std::thread::sleep(Duration::from_millis(400));
    signal(launcher.pid(), libc::SIGCONT);
    assert_eq!(bridge.channel.exit().code, Some(4));
    assert_eq!(bridge.wait(), Some(0));
}

#[test]
fn a_listener_that_says_nothing_and_closes_is_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("mute.sock")).unwrap();
    let mut bridge = ask(directory.path(), "mute");
    drop(listener.accept().unwrap());
    assert_eq!(refused(&mut bridge), NOBODY);
    assert_eq!(bridge.wait(), Some(3));
}

#[test]
fn a_launcher_that_is_stopped_holds_it_only_as_long_as_stdin_is_open() {
    let mut launcher = Launcher::run("exec sleep 300");
    launcher.channel.started();
    signal(launcher.pid(), libc::SIGSTOP);
    let mut bridge = launcher.attach_outside(EPOCH + 1, 0);
    // More than the socket takes.
    let frame = ToLauncher::RelayData { conn: 1, bytes: vec![0; 300 * 1024] };
    let mut bytes = Vec::new();
    hivekeeper::wire::channel::encode(&frame, &mut bytes).unwrap();
    bridge.channel.send_raw(&bytes);
    assert!(bridge.lives());
    bridge.channel.close_writer();
    assert!(bridge.wait().is_some());
    signal(launcher.pid(), libc::SIGCONT);
}

#[test]
fn a_queue_that_is_full_is_said_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("busy.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // SAFETY: the descriptor is open; a second call only changes the length of the queue, to one.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let mut first = UnixStream::connect(&path).unwrap();
    let mut bridge = ask(directory.path(), "busy");
    assert_eq!(refused(&mut bridge), "unreachable");
    assert_eq!(bridge.wait(), Some(4));
    // It was the queue, not the socket.
    drop(listener.accept().unwrap());
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
    let mut bridge = ask(directory.path(), "busy");
    drop(listener.accept().unwrap());
    assert_eq!(refused(&mut bridge), NOBODY);
}

#[test]
fn a_daemon_that_does_not_read_holds_it_only_as_long_as_the_launcher_lives() {
    let mut launcher = Launcher::run_with("yes", |launch| launch.ring_bytes = 1 << 20);
    launcher.channel.started();
    let mut bridge = launcher.attach_outside(EPOCH + 1, 0);
    launcher.channel.refused();
    // The pipe is full, so the bridge waits.
    wait_for("the bridge to be asleep for good", || {
        let ticks = || stat(bridge.pid()).map(|stat| (stat[11].clone(), stat[12].clone()));
        let before = ticks();
        std::thread::sleep(Duration::from_millis(100));
        (before == ticks() && state(bridge.pid()) == Some('S')).then_some(())
    });
    launcher.kill();
    assert_eq!(bridge.wait(), Some(0));
    launcher.wait_until_empty();
}

#[test]
fn a_flood_goes_through_whole() {
    let mut launcher = Launcher::run_with("sleep 0.3; seq 1 20000", |launch| {
        launch.ring_bytes = 8 << 20;
    });
    launcher.channel.started();
    let mut bridge = launcher.attach_outside(EPOCH + 1, 0);
    let mut got = 0;
    bridge.channel.until(|frame| match frame {
        FromLauncher::Output(output) => {
            got += 1;
            assert_eq!((output.seq, output.bytes), (got, got.to_string().into_bytes()));
            None
        }
        FromLauncher::Exit(exit) => {
            assert_eq!(exit.last_seq, 20_000);
            Some(())
        }
        _ => None,
    });
    assert_eq!(got, 20_000);
    launcher.wait();
}

#[test]
fn it_is_nobodys_parent_and_waits_without_work() {
    let mut launcher = Launcher::run("exec sleep 300");
    launcher.channel.started();
    let mut bridge = launcher.attach_outside(EPOCH + 1, 0);
    bridge.channel.until(|frame| matches!(frame, FromLauncher::Sample(_)).then_some(()));
    let ticks = |pid| {
        let stat = stat(pid).unwrap();
        stat[11].parse::<u64>().unwrap() + stat[12].parse::<u64>().unwrap()
    };
    let before = ticks(bridge.pid());
    std::thread::sleep(Duration::from_millis(700));
    let spent = ticks(bridge.pid()) - before;
    assert!(spent < 20, "{spent} ticks of CPU in 0.7 s of nothing");
}

#[test]
fn a_run_directory_with_a_long_path_works() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("d".repeat(200));
    fs::create_dir(&long).unwrap();
    let mut launch = Launcher::order(directory.path(), "exec sleep 300");
    launch.run_dir = long.to_str().unwrap().into();
    let mut launcher = Launcher::send(directory, launch);
    launcher.channel.started();
    let mut bridge = ask(&long, &launcher.launch.launch_id);
    bridge.channel.send(&ToLauncher::Attach(Attach { version: VERSION, epoch: EPOCH + 1, last_seq: 0 }));
    bridge.channel.state();
}

#[test]
fn it_ends_with_a_sigterm() {
    let mut launcher = Launcher::run("exec sleep 300");
    launcher.channel.started();
    let mut command = executable();
    command.env_clear();
    let mut bridge = Errand::start_by(
        command,
        &["--attach", launcher.directory.path().to_str().unwrap(), &launcher.launch.launch_id],
    );
    bridge.channel.next();
    signal(bridge.pid(), libc::SIGTERM);
    assert_eq!(bridge.wait(), None, "a signal has ended it");
}
