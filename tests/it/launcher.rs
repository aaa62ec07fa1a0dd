//! The launcher and the process tree: start, stop, kill, pause, sweep.

use std::{
    fs,
    io::Write,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
};

use hivekeeper::wire::channel::{Exit, ExitWhy, FromLauncher, Sample, ToLauncher};

use crate::harness::{
    launcher::{Launcher, executable},
    processes::{allocated_kib, marked, signal, stat, state, wait_for},
};

/// Prints its process id and then works until it is ended.
const WORKER: &str = "echo $$; while :; do sleep 0.02; done";

#[test]
fn an_exit_code_comes_as_the_last_frame_and_as_a_record() {
    let mut launcher = Launcher::run("exit 7");
    let pid = launcher.channel.started();
    assert!(pid > 1);
    let exit = launcher.channel.exit();
    assert_eq!((exit.code, exit.signal, exit.why), (Some(7), None, ExitWhy::Own));
    assert_eq!((exit.agent.as_str(), exit.incarnation), ("swarm/agent-1", 3));
    assert_eq!(launcher.record(), exit);
    assert_eq!(launcher.channel.next(), None);
    assert_eq!(launcher.wait().code(), Some(0));
    let left: Vec<_> = fs::read_dir(launcher.directory.path()).unwrap().map(|it| it.unwrap().path()).collect();
    assert_eq!(left, [launcher.record_path()], "no socket and no unfinished file is left");
}

#[test]
fn a_death_by_a_signal_names_it() {
    // 35 is a real-time signal, which has no name.
    for number in [9, 11, 35] {
        let mut launcher = Launcher::run(&format!("kill -{number} $$; sleep 60"));
        let exit = launcher.channel.exit();
        assert_eq!((exit.code, exit.signal, exit.why), (None, Some(number), ExitWhy::Own));
    }
}

#[test]
fn a_program_that_can_not_be_started_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("not-executable"), "#!/bin/sh\n").unwrap();
    fs::write(at("no-interpreter"), "#!/no/such/interpreter\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(at("no-interpreter"), mode).unwrap();
    fs::write(at("no-format"), "just text").unwrap();
    fs::set_permissions(at("no-format"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

    let cases = [
        (at("missing"), vec![at("missing"), "No such file".into()]),
        ("no-such-program-here".into(), vec!["cannot find no-such-program-here in PATH".into()]),
        (at("not-executable"), vec![at("not-executable"), "Permission denied".into()]),
        (at("no-interpreter"), vec![at("no-interpreter"), "interpreter".into()]),
        (at("no-format"), vec![at("no-format"), "Exec format error".into()]),
    ];
    for (program, wanted) in cases {
        let own = tempfile::tempdir().unwrap();
        let launch = Launcher::order_of(own.path(), &[&program]);
        let mut launcher = Launcher::send(own, launch);
        let message = launcher.channel.start_failure();
        for part in wanted {
            assert!(message.contains(&part), "{message:?} lacks {part:?}");
        }
        assert_eq!(launcher.channel.next(), None);
        assert_eq!(launcher.wait().code(), Some(0));
        assert!(!launcher.socket().exists());
        assert!(!launcher.record_path().exists());
    }
}

#[test]
fn a_working_directory_that_is_not_there_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let mut launch = Launcher::order(directory.path(), "pwd");
    launch.cwd = directory.path().join("made/when/missing").to_str().unwrap().to_owned();
    let cwd = launch.cwd.clone();
    let mut launcher = Launcher::send(directory, launch);
    assert_eq!(launcher.channel.line(), cwd);
}

#[test]
fn a_working_directory_that_can_not_be_made_is_a_failed_start() {
    let mut launcher = Launcher::run_with("exit 0", |launch| launch.cwd = "/dev/null/sub".into());
    let message = launcher.channel.start_failure();
    let wanted = "the working directory /dev/null/sub is not there and cannot be made: Not a directory";
    assert!(message.starts_with(wanted), "{message}");
    assert!(!launcher.socket().exists());
}

#[test]
fn a_run_directory_that_is_not_there_is_a_failed_start() {
    let mut launcher = Launcher::run_with("exit 0", |launch| launch.run_dir = "/no/such/directory".into());
    assert!(launcher.channel.start_failure().contains("/no/such/directory"));
}

#[test]
fn a_run_directory_with_a_long_path_works() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("d".repeat(200));
    fs::create_dir(&long).unwrap();
    let mut launch = Launcher::order(directory.path(), "exit 0");
    launch.run_dir = long.to_str().unwrap().into();
    let mut launcher = Launcher::send(directory, launch);
    assert_eq!(launcher.channel.exit().code, Some(0));
    let record = long.join(format!("{}.exit", launcher.launch.launch_id));
    wait_for("the exit record", || record.exists().then_some(()));
}

#[test]
fn a_stop_is_a_sigterm() {
    let mut launcher = Launcher::run("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    assert_eq!(launcher.channel.line(), "ready");
    launcher.channel.send(&ToLauncher::Stop { grace_ms: 60_000 });
    let exit = launcher.channel.exit();
    assert_eq!((exit.code, exit.why), (Some(5), ExitWhy::Asked));
}

#[test]
fn a_stop_that_is_ignored_becomes_a_kill_after_the_grace() {
    let mut launcher = Launcher::run("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    assert_eq!(launcher.channel.line(), "ready");
    launcher.channel.send(&ToLauncher::Stop { grace_ms: 200 });
    let exit = launcher.channel.exit();
    assert_eq!((exit.signal, exit.why), (Some(libc::SIGKILL), ExitWhy::Asked));
}

#[test]
fn a_kill_takes_the_whole_tree() {
    let mut launcher = Launcher::run("trap '' TERM; setsid sleep 300 & sleep 300 & echo ready; wait");
    assert_eq!(launcher.channel.line(), "ready");
    wait_for("three processes", || (launcher.tree().len() == 3).then_some(()));
    launcher.channel.send(&ToLauncher::Kill);
    let exit = launcher.channel.exit();
    assert_eq!((exit.signal, exit.why), (Some(libc::SIGKILL), ExitWhy::Asked));
    assert_eq!(launcher.tree(), [] as [i32; 0]);
}

#[test]
fn a_sigterm_to_the_launcher_ends_its_agent() {
    let mut launcher = Launcher::run("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    assert_eq!(launcher.channel.line(), "ready");
    signal(launcher.pid(), libc::SIGTERM);
    let exit = launcher.channel.exit();
    assert_eq!((exit.code, exit.why), (Some(5), ExitWhy::Asked));
}

#[test]
fn descendants_in_sessions_of_their_own_are_swept() {
    let mut launcher = Launcher::run("setsid sleep 300 & sleep 300 & sleep 0.2; exit 4");
    let exit = launcher.channel.exit();
    assert_eq!((exit.code, exit.swept, exit.unswept), (Some(4), 2, 0));
    assert_eq!(launcher.tree(), [] as [i32; 0], "all of them are gone before the record says so");
}

#[test]
fn a_daemon_that_forks_twice_is_swept() {
    let script =
        "(setsid sh -c 'trap \"\" TERM HUP; sleep 300 & echo $!; wait' &) ; read -r line < /dev/null; sleep 0.3";
    let mut launcher = Launcher::run(script);
    let daemon: i32 = launcher.channel.line().parse().unwrap();
    let exit = launcher.channel.exit();
    assert_eq!((exit.code, exit.swept), (Some(0), 2));
    assert_eq!(state(daemon), None);
}

#[test]
fn chains_of_forks_are_swept() {
    // Eight chains: each link starts the next one in a session of its own and ends, so that every id is gone soon after it was seen.
    let link = "setsid sh -c \"$0\" \"$0\" & exit 0";
    let chains = format!("for i in 1 2 3 4 5 6 7 8; do sh -c '{link}' '{link}'; done");
    let mut launcher = Launcher::run(&format!("{chains}; sleep 0.3; exit 0"));
    let exit = launcher.channel.exit();
    assert_eq!(exit.unswept, 0);
    assert_eq!(launcher.tree(), [] as [i32; 0]);
}

#[test]
fn a_launcher_that_is_killed_takes_the_agent_with_it() {
    let mut launcher = Launcher::run("exec sleep 300");
    launcher.channel.started();
    signal(launcher.pid(), libc::SIGKILL);
    launcher.wait_until_empty();
}

#[test]
fn a_pause_freezes_the_whole_tree_and_a_resume_thaws_it() {
    let mut launcher = Launcher::run(&format!("setsid sh -c 'while :; do echo tick; sleep 0.01; done' & {WORKER}"));
    launcher.channel.started();
    wait_for("four processes", || (launcher.tree().len() >= 3).then_some(()));
    launcher.channel.send(&ToLauncher::Pause);
    assert!(launcher.channel.paused());
    let tree = launcher.tree();
    assert!(tree.len() >= 2, "{tree:?}");
    for pid in tree {
        // A shell in vfork(2) waits for its frozen child, and is stopped when that goes on.
        assert!(matches!(state(pid), Some('T' | 'D')), "{pid}");
    }
    launcher.channel.send(&ToLauncher::Pause);
    assert!(launcher.channel.paused(), "asked twice, told twice");
    launcher.channel.send(&ToLauncher::Resume);
    assert!(!launcher.channel.paused());
    let before = launcher.channel.output().seq;
    assert!(launcher.channel.output().seq > before);
}

#[test]
fn a_frozen_tree_can_be_killed() {
    let mut launcher = Launcher::run(WORKER);
    launcher.channel.line();
    launcher.channel.send(&ToLauncher::Pause);
    assert!(launcher.channel.paused());
    launcher.channel.send(&ToLauncher::Kill);
    assert_eq!(launcher.channel.exit().signal, Some(libc::SIGKILL));
}

#[test]
fn a_frozen_tree_that_is_stopped_gets_its_sigterm() {
    let mut launcher = Launcher::run("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    launcher.channel.line();
    launcher.channel.send(&ToLauncher::Pause);
    assert!(launcher.channel.paused());
    launcher.channel.send(&ToLauncher::Stop { grace_ms: 60_000 });
    assert_eq!(launcher.channel.exit().code, Some(5));
}

/// Every line of output to the end.
fn lines(launcher: &mut Launcher) -> Vec<String> {
    let mut lines = Vec::new();
    launcher.channel.until(|frame| match frame {
        FromLauncher::Output(output) => {
            lines.push(String::from_utf8(output.bytes).unwrap());
            None
        }
        FromLauncher::Exit(_) => Some(()),
        _ => None,
    });
    lines
}

#[test]
fn the_agent_starts_with_a_clean_slate() {
    let directory = tempfile::tempdir().unwrap();
    let script = "ls /proc/self/fd; readlink /proc/self/fd/0; cat /proc/self/oom_score_adj; pwd; \
                  echo \"$GREETING\"";
    let launch = Launcher::order(directory.path(), script);
    let mut command = executable();
    // A descriptor that the parent forgot to close.
    // SAFETY: only an async-signal-safe call.
    unsafe {
        command.pre_exec(|| {
            libc::dup2(2, 77);
            Ok(())
        });
    }
    let cwd = directory.path().to_str().unwrap().to_owned();
    let mut launcher = Launcher::send_by(command, directory, launch);
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let oom = (own + 500).min(1000).to_string();
    // 3 is the listing itself.
    assert_eq!(lines(&mut launcher), ["0", "1", "2", "3", "/dev/null", &oom, &cwd, "hello"]);
}

#[test]
fn the_agent_inherits_what_the_launcher_finds_save_what_is_ours() {
    let directory = tempfile::tempdir().unwrap();
    let script = "echo \"$FROM_THE_IMAGE $GREETING ${HIVEKEEPER_X-unset}\"; command -v tool";
    let mut launch = Launcher::order(directory.path(), script);
    launch.argv[0] = "/bin/sh".into();
    launch.env.retain(|(name, _)| name != "PATH");
    let tool = directory.path().join("tool");
    fs::write(&tool, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = executable();
    command.env_clear().envs([("FROM_THE_IMAGE", "image"), ("GREETING", "overlaid"), ("HIVEKEEPER_X", "ours")]);
    command.env("PATH", directory.path()).env("HIVEKEEPER_LAUNCH", &launch.launch_id);
    let mut launcher = Launcher::send_by(command, directory, launch);
    assert_eq!(lines(&mut launcher), ["image hello unset", tool.to_str().unwrap()]);
}

#[test]
fn files_of_launches_that_are_to_be_forgotten_are_removed_before_the_start() {
    let directory = tempfile::tempdir().unwrap();
    for file in ["old.exit", "old.sock", ".old.exit.tmp", "kept.exit", "kept.sock"] {
        fs::write(directory.path().join(file), "").unwrap();
    }
    let mut launch = Launcher::order(directory.path(), "ls -A | grep -E 'old|kept'");
    launch.forget = vec!["old".into(), "never-there".into()];
    let mut launcher = Launcher::send(directory, launch);
    assert_eq!(lines(&mut launcher), ["kept.exit", "kept.sock"]);
}

#[test]
fn nothing_outside_of_the_run_directory_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("run")).unwrap();
    fs::write(directory.path().join("outside.exit"), "").unwrap();
    let mut launch = Launcher::order(directory.path(), "exit 0");
    launch.run_dir = directory.path().join("run").to_str().unwrap().into();
    launch.forget = vec!["../outside".into()];
    let mut launcher = Launcher::send(directory, launch);
    assert_eq!(launcher.channel.refused(), "bad_frame");
    assert_eq!(launcher.wait().code(), Some(2));
    assert!(launcher.directory.path().join("outside.exit").exists());
}

#[test]
fn the_agent_neither_blocks_nor_ignores_signals() {
    let directory = tempfile::tempdir().unwrap();
    // Without a shell, which would put its own mask in order.
    let launch = Launcher::order_of(directory.path(), &["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]);
    let mut command = executable();
    // SAFETY: only async-signal-safe calls.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut set, libc::SIGUSR1);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            Ok(())
        });
    }
    let mut launcher = Launcher::send_by(command, directory, launch);
    assert_eq!(lines(&mut launcher), ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"]);
}

#[test]
fn the_agent_finds_its_variables() {
    let mut launcher = Launcher::run("env | grep ^HIVEKEEPER_ | sort");
    let lines: Vec<String> = (0..5).map(|_| launcher.channel.line()).collect();
    assert!(lines[0].starts_with("HIVEKEEPER_ADDR=127.0.0.1:"), "{lines:?}");
    let rest = [
        "HIVEKEEPER_AGENT=swarm/agent-1".to_owned(),
        "HIVEKEEPER_INCARNATION=3".to_owned(),
        format!("HIVEKEEPER_LAUNCH={}", launcher.launch.launch_id),
        "HIVEKEEPER_TOKEN=a-token".to_owned(),
    ];
    assert_eq!(lines[1..], rest);
    launcher.channel.exit();
}

#[test]
fn launcher_and_agent_have_sessions_of_their_own() {
    let mut launcher = Launcher::run(WORKER);
    let agent = launcher.channel.started();
    let session = |pid: i32| stat(pid).unwrap()[3].parse::<i32>().unwrap();
    assert_eq!(session(agent), agent);
    assert_eq!(session(launcher.pid()), launcher.pid());
}

#[test]
fn nothing_secret_is_on_the_command_line_or_in_the_environment_of_the_launcher() {
    let mut launcher = Launcher::run(WORKER);
    launcher.channel.started();
    let command = fs::read(format!("/proc/{}/cmdline", launcher.pid())).unwrap();
    assert!(command.ends_with(b"agent\0--stdio\0"));
    let environ = fs::read_to_string(format!("/proc/{}/environ", launcher.pid())).unwrap();
    assert!(!environ.contains("a-token") && !environ.contains("GREETING"));
}

#[test]
fn a_reading_counts_the_whole_tree() {
    let script = "setsid sh -c 'while :; do :; done' & sleep 300 & wait";
    let mut launcher = Launcher::run_with(script, |launch| launch.sample_interval_ms = 100);
    let mut sample = |wanted: fn(&Sample) -> bool| {
        launcher.channel.until(|frame| match frame {
            FromLauncher::Sample(sample) if wanted(&sample) => Some(sample),
            _ => None,
        })
    };
    let first = sample(|sample| sample.processes == 3 && sample.cpu_ms > 0);
    assert!(first.rss_bytes > 100_000, "{first:?}");
    let later = sample(|sample| sample.cpu_interval_ms > 0);
    assert!(later.cpu_ms > first.cpu_ms && later.interval_ms > 0, "{later:?}");
    assert!(later.at_ms >= first.at_ms);
}

#[test]
fn cpu_time_of_children_that_have_ended_is_counted() {
    let script = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; echo done; sleep 300";
    let mut launcher = Launcher::run_with(script, |launch| launch.sample_interval_ms = 100);
    assert_eq!(launcher.channel.line(), "done");
    launcher.channel.until(|frame| match frame {
        FromLauncher::Sample(sample) => (sample.processes == 2 && sample.cpu_ms >= 20).then_some(()),
        _ => None,
    });
}

#[test]
fn a_record_that_can_not_be_written_does_not_keep_the_frame_from_going_out() {
    let mut launcher = Launcher::run(WORKER);
    launcher.channel.started();
    // A directory stands where the record belongs.
    fs::create_dir(launcher.record_path()).unwrap();
    fs::write(launcher.record_path().join("x"), "").unwrap();
    launcher.channel.send(&ToLauncher::Kill);
    assert_eq!(launcher.channel.exit().why, ExitWhy::Asked);
}

#[test]
fn a_daemon_that_dies_before_the_start_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launcher::order(directory.path(), "echo started > started");
    let mut bytes = Vec::new();
    hivekeeper::wire::channel::encode(&ToLauncher::Launch(Box::new(launch.clone())), &mut bytes).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&bytes).unwrap();
    drop(writer);
    let output = executable().args(["agent", "--stdio"]).stdin(reader).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let record = fs::read(directory.path().join(format!("{}.exit", launch.launch_id))).unwrap();
    let record: Exit = serde_json::from_slice(&record).unwrap();
    assert_eq!((record.code, record.signal, record.why), (None, None, ExitWhy::LeaseLost));
    assert!(!directory.path().join("started").exists());
    assert_eq!(marked(&launch.launch_id), [] as [i32; 0]);
}

#[test]
fn an_order_that_comes_together_with_the_launch_is_obeyed_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut launch = Launcher::order(directory.path(), "exec sleep 300");
    launch.lease_ms = 3_000;
    let mut bytes = Vec::new();
    for frame in [ToLauncher::Launch(Box::new(launch.clone())), ToLauncher::Kill] {
        hivekeeper::wire::channel::encode(&frame, &mut bytes).unwrap();
    }
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&bytes).unwrap();
    let output = executable().args(["agent", "--stdio"]).stdin(reader).output().unwrap();
    drop(writer);
    assert_eq!(output.status.code(), Some(0));
    let record = fs::read(directory.path().join(format!("{}.exit", launch.launch_id))).unwrap();
    let record: Exit = serde_json::from_slice(&record).unwrap();
    assert_eq!((record.signal, record.why), (Some(libc::SIGKILL), ExitWhy::Asked), "not before the lease was over");
    assert_eq!(marked(&launch.launch_id), [] as [i32; 0]);
}

#[test]
fn without_an_order_it_points_to_the_right_command() {
    for garbage in [&b""[..], b"hello\n", &[0xff; 100], &[1, 0, 0, 0, 6]] {
        let mut child = executable()
            .args(["agent", "--stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(garbage).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("no launch on stdin"), "{message}");
        assert!(message.contains("hivekeeper run"), "{message}");
    }
}

#[test]
fn typed_by_hand_it_points_to_the_right_command() {
    let (mut terminal, mut other) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: two live ints; the other pointers may be null.
    assert_eq!(unsafe { libc::openpty(&raw mut terminal, &raw mut other, null, null.cast(), null.cast()) }, 0);
    // SAFETY: both descriptors are new and nobody else's.
    let (terminal, other) = unsafe { (OwnedFd::from_raw_fd(terminal), OwnedFd::from_raw_fd(other)) };
    assert!(terminal.as_raw_fd() > 2);
    for arguments in [&["agent"][..], &["agent", "--stdio"], &["agent", "--stdio", "--more"]] {
        let output = executable().args(arguments).stdin(other.try_clone().unwrap()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains("hivekeeper run"));
        assert_eq!(output.stdout, b"", "no binary on a terminal");
    }
}

/// What a launcher may allocate, KiB, whatever it has been through with a ring of the default size: 576 measured with a full one, 112 without.
const ALLOCATED_KIB_MAX: u64 = 1024;

#[track_caller]
fn assert_small(launcher: &mut Launcher) {
    // Until it has gone through everything that it does again and again.
    for _ in 0..3 {
        launcher.channel.until(|frame| matches!(frame, FromLauncher::Sample(_)).then_some(()));
    }
    let allocated = allocated_kib(launcher.pid());
    println!("{allocated} KiB");
    assert!(allocated <= ALLOCATED_KIB_MAX, "{allocated} KiB");
}

#[test]
fn a_launcher_is_small() {
    let mut launcher = Launcher::run_with("sleep 300", |launch| launch.sample_interval_ms = 100);
    launcher.channel.started();
    assert_small(&mut launcher);
}

#[test]
fn a_launcher_is_small_after_a_large_order_and_with_a_full_ring() {
    // Nothing is acknowledged, so the ring stays full.
    let script = "i=0; while [ $i -lt 9000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done; echo end; sleep 300";
    let mut launcher = Launcher::run_with(script, |launch| {
        launch.sample_interval_ms = 100;
        // Linux takes 128 KiB for one variable and 2 MiB for all.
        launch.env.extend((0..18).map(|number| (format!("LARGE_{number}"), "x".repeat(100 * 1024))));
    });
    launcher.channel.started();
    while launcher.channel.line() != "end" {}
    assert_small(&mut launcher);
}

#[test]
fn a_launcher_is_called_hivekeeper() {
    // As the daemon does it: by a descriptor, after which the kernel would name it.
    let file = fs::File::open(executable().get_program()).unwrap();
    let descriptor = file.as_raw_fd();
    let directory = tempfile::tempdir().unwrap();
    let launch = Launcher::order(directory.path(), "exec sleep 300");
    let command = Command::new(format!("/proc/self/fd/{descriptor}"));
    let mut launcher = Launcher::send_by(command, directory, launch);
    launcher.channel.started();
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", launcher.pid())).unwrap(), "hivekeeper\n");
}
