//! Signals as a terminal, an init system and an operator send them.

use std::{fs, time::Duration};

use crate::hive::{Hive, kill, lives, until};

/// Each agent notes the signals that it gets; `deaf` has to be killed.
fn notes(grace: &str, lease: &str) -> String {
    let agent = |name: &str, then: &str| {
        format!(
            "[[swarm.agent]]\nname = \"{name}\"\nstop_grace = \"{grace}\"\nlease = \"{lease}\"\ncommand = [\"sh\", \"-c\", \
             \"trap 'echo {name} int >> ../notes' INT; trap 'echo {name} hup >> ../notes' HUP; \
             trap 'echo {name} term >> ../notes; {then}' TERM; echo {name} >> ../listens; while :; do sleep 0.02; done\"]\n"
        )
    };
    format!("[[swarm]]\nname = \"s\"\n{}{}", agent("a", "exit 0"), agent("b", "exit 0"))
}

fn deaf(grace: &str, lease: &str) -> String {
    notes(grace, lease).replace("exit 0", ":")
}

fn noted(hive: &Hive) -> String {
    fs::read_to_string(hive.data().join("work/notes")).unwrap_or_default()
}

/// A daemon that leads a process group and a session of its own, as under a shell with job control.
fn foreground(swarms: &str) -> Hive {
    let mut hive = Hive::prepare(swarms);
    hive.through = &["setsid"];
    hive.boot();
    for id in ["s/a", "s/b"] {
        hive.running(id);
    }
    // A shell that has not come to its traps dies of any signal without a note.
    let listens = hive.data().join("work/listens");
    until("both listen", || (fs::read_to_string(&listens).ok()?.lines().count() == 2).then_some(()));
    hive
}

fn group(hive: &Hive) -> i32 {
    -i32::try_from(hive.pid).unwrap()
}

#[test]
fn a_signal_to_the_foreground_group_is_an_ordered_stop() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut hive = foreground(&notes("10s", "30s"));
        kill(group(&hive), signal);
        let status = hive.wait();
        assert_eq!(status.code(), Some(0), "signal {signal}: {}", hive.log());
        assert_eq!(
            noted(&hive),
            "b term\na term\n",
            "signal {signal} reaches the daemon alone, which stops in reverse"
        );
        assert_eq!(hive.processes(), Vec::<i32>::new(), "signal {signal}");
    }
}

#[test]
fn who_ignores_the_hang_up_goes_on_when_the_terminal_goes_away() {
    let mut hive = Hive::prepare(&notes("10s", "30s"));
    // As nohup(1) does.
    hive.through = &["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"];
    hive.boot();
    let pid = hive.agent_pid("s/a");
    hive.signal_daemon(libc::SIGHUP);
    hive.command("/swarms/s/agents/b/restart");
    assert_eq!(hive.agent_pid("s/a"), pid);
    assert_eq!(hive.terminate().code(), Some(0));
    hive.nothing_left(Duration::ZERO);
}

#[test]
fn a_second_ctrl_c_leaves_at_once_and_the_lease_ends_the_rest() {
    let mut hive = foreground(&deaf("2s", "1s"));
    let pids = ["s/a", "s/b"].map(|id| hive.agent_pid(id));
    kill(group(&hive), libc::SIGINT);
    until("the stop hangs on an agent that does not listen", || noted(&hive).contains("b term").then_some(()));
    // Sooner it would be taken for the echo of the first.
    std::thread::sleep(Duration::from_millis(1100));
    assert!(lives(pids[0]));
    kill(group(&hive), libc::SIGINT);
    let status = hive.wait();
    assert_eq!(status.code(), Some(1), "what was asked for is not done: {}", hive.log());
    hive.nothing_left(Duration::from_secs(15));
    assert!(pids.iter().all(|pid| !lives(*pid)));
}
