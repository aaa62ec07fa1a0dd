//! `agent --hold`: alive as long as launchers are, and a while longer.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::harness::{
    launcher::{Errand, Launcher, executable},
    processes::{allocated_kib, signal, stat, wait_for},
};

const IDLE: Duration = Duration::from_millis(1200);

fn hold(run_dir: &Path, idle: Duration) -> Errand {
    Errand::start(&["--hold", run_dir.to_str().unwrap(), &idle.as_millis().to_string()])
}

fn launcher() -> Launcher {
    let mut launcher = Launcher::run("exec sleep 300");
    launcher.channel.started();
    launcher
}

/// Well past the time at which it would end without a launcher.
#[track_caller]
fn assert_stays(holder: &mut Errand) {
    let until = Instant::now() + 2 * IDLE + Duration::from_secs(1);
    while Instant::now() < until {
        assert!(holder.lives(), "it has ended early");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_ends_when_no_launcher_comes() {
    let directory = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let mut holder = hold(directory.path(), IDLE);
    assert_eq!(holder.wait(), Some(0));
    assert!(start.elapsed() >= IDLE, "{:?}", start.elapsed());
}

#[test]
fn it_lasts_as_long_as_a_launcher_whatever_becomes_of_the_files() {
    let mut launcher = launcher();
    let mut holder = hold(launcher.directory.path(), IDLE);
    fs::remove_file(launcher.socket()).unwrap();
    assert_stays(&mut holder);
    launcher.kill();
    launcher.wait_until_empty();
    assert_eq!(holder.wait(), Some(0));
}

#[test]
fn the_socket_of_a_launcher_that_was_killed_keeps_nothing_alive() {
    let mut launcher = launcher();
    launcher.kill();
    launcher.wait_until_empty();
    assert!(launcher.socket().exists());
    assert_eq!(hold(launcher.directory.path(), IDLE).wait(), Some(0));
}

#[test]
fn a_launcher_that_is_stopped_is_alive() {
    let launcher = launcher();
    signal(launcher.pid(), libc::SIGSTOP);
    assert_stays(&mut hold(launcher.directory.path(), IDLE));
    signal(launcher.pid(), libc::SIGCONT);
}

#[test]
fn a_launcher_without_an_order_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut spare = Errand::start(&["--stdio"]);
    assert!(spare.channel.next().is_some(), "it has introduced itself");
    assert_eq!(hold(directory.path(), IDLE).wait(), Some(0));
    assert!(spare.lives());
}

#[test]
fn launchers_of_another_run_directory_are_none_of_its() {
    let _launcher = launcher();
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(hold(directory.path(), IDLE).wait(), Some(0));
}

#[test]
fn a_gap_grants_a_full_period() {
    let directory = tempfile::tempdir().unwrap();
    // Long enough that the gap ends behind the period, and that a second one is felt.
    let idle = Duration::from_secs(2);
    let mut holder = hold(directory.path(), idle);
    wait_for("its first look", || (stat(holder.pid())?[0] == "S").then_some(()));
    signal(holder.pid(), libc::SIGSTOP);
    std::thread::sleep(idle + Duration::from_millis(1500));
    let start = Instant::now();
    signal(holder.pid(), libc::SIGCONT);
    assert_eq!(holder.wait(), Some(0));
    assert!(start.elapsed() >= idle, "{:?}", start.elapsed());
}

#[test]
fn a_sigterm_ends_it_at_once() {
    let launcher = launcher();
    let mut holder = hold(launcher.directory.path(), Duration::from_secs(3600));
    wait_for("its signals to be watched", || {
        let status = fs::read_to_string(format!("/proc/{}/status", holder.pid())).ok()?;
        (!status.contains("SigBlk:\t0000000000000000")).then_some(())
    });
    signal(holder.pid(), libc::SIGTERM);
    assert_eq!(holder.wait(), Some(143));
}

#[test]
fn it_costs_next_to_nothing() {
    let launcher = launcher();
    let holder = hold(launcher.directory.path(), Duration::from_secs(3600));
    std::thread::sleep(Duration::from_millis(2500));
    let stat = stat(holder.pid()).unwrap();
    let ticks = stat[11].parse::<u64>().unwrap() + stat[12].parse::<u64>().unwrap();
    println!("{ticks} ticks, {} KiB", allocated_kib(holder.pid()));
    assert!(ticks < 20, "{ticks} ticks of CPU in 2.5 s");
    assert!(allocated_kib(holder.pid()) <= 512, "{} KiB", allocated_kib(holder.pid()));
}

#[test]
fn a_directory_that_it_can_not_watch_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("d".repeat(200));
    fs::create_dir(&long).unwrap();
    let cases = [("/no/such/directory", "is not there"), (long.to_str().unwrap(), "is too long")];
    for (path, wanted) in cases {
        let output = executable().args(["agent", "--hold", path, "1000"]).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(path) && said.contains(wanted), "{said}");
    }
}
