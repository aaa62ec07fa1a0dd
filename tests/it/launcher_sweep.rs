//! What a dead launcher leaves, and `agent --sweep`.

use std::process::Command;

use hivekeeper::wire::channel::FromLauncher;

use crate::harness::{
    launcher::{Errand, Launcher, executable},
    processes::{signal, state, wait_for},
};

/// The answer: killed and left.
#[track_caller]
fn swept(arguments: &[&str]) -> (u32, u32) {
    let mut errand = Errand::start(&[&["--sweep"], arguments].concat());
    let answer = errand.channel.until(|frame| match frame {
        FromLauncher::Swept { killed, left } => Some((killed, left)),
        _ => None,
    });
    assert_eq!(errand.channel.next(), None);
    assert_eq!(errand.wait(), Some(i32::from(answer.1 > 0)));
    answer
}

/// Whether a process is there and has not ended.
fn lives(pid: i32) -> bool {
    !matches!(state(pid), None | Some('Z'))
}

/// Ends what a test has let loose, whatever becomes of the test.
struct Loose(i32);

impl Drop for Loose {
    fn drop(&mut self) {
        // SAFETY: kill takes no pointers; the process is the test's, and gone at the most.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

#[test]
fn grandchildren_of_a_launcher_that_was_killed_are_ended() {
    let mut launcher =
        Launcher::run("trap '' TERM HUP; setsid sleep 300 & sleep 300 & (sleep 300 &); echo ready; wait");
    let agent = launcher.channel.started();
    assert_eq!(launcher.channel.line(), "ready");
    wait_for("four processes", || (launcher.tree().len() == 4).then_some(()));
    launcher.kill();
    wait_for("the agent's end", || (!lives(agent)).then_some(()));
    assert_eq!(launcher.tree().len(), 3, "they outlive launcher and agent");
    assert_eq!(swept(&[&launcher.launch.launch_id]), (3, 0));
    assert_eq!(launcher.tree(), [] as [i32; 0]);
    assert_eq!(swept(&[&launcher.launch.launch_id]), (0, 0), "nothing there is proven, too");
}

#[test]
fn a_launcher_that_hangs_is_ended_with_its_tree() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launcher::order(directory.path(), "setsid sleep 300 & exec sleep 300");
    let id = launch.launch_id.clone();
    let mut command = executable();
    command.env_clear().env("HIVEKEEPER_LAUNCH", &id);
    let mut launcher = Launcher::send_by(command, directory, launch);
    launcher.channel.started();
    wait_for("three processes", || (launcher.tree().len() == 3).then_some(()));
    signal(launcher.pid(), libc::SIGSTOP);
    let (killed, left) = swept(&[&id]);
    assert!((2..=3).contains(&killed) && left == 0, "{killed}, {left}: the agent may die of its launcher's death");
    assert_eq!(launcher.tree(), [] as [i32; 0]);
    launcher.wait();
}

#[test]
fn other_launches_stay() {
    let (mut one, mut other) = (Launcher::run("exec sleep 300"), Launcher::run("exec sleep 300"));
    let (_, stays) = (one.channel.started(), other.channel.started());
    assert_eq!(swept(&[&one.launch.launch_id]), (1, 0));
    assert_eq!(one.channel.exit().signal, Some(libc::SIGKILL));
    assert!(lives(stays));
}

#[test]
fn descendants_without_the_marker_are_ended_with_those_that_have_it() {
    let mut launcher = Launcher::run("env -i setsid sh -c 'echo $$; sleep 300 & wait' & wait");
    let bare: i32 = launcher.channel.line().parse().unwrap();
    let _loose = Loose(bare);
    assert!(!launcher.tree().contains(&bare), "it carries no marker");
    wait_for("its child", || (swept_soon(bare)).then_some(()));
    let (killed, left) = swept(&[&launcher.launch.launch_id]);
    assert!(killed >= 3 && left == 0, "{killed}, {left}");
    assert!(!lives(bare));
    launcher.channel.exit();
}

/// Whether a shell has come to its `wait`.
fn swept_soon(shell: i32) -> bool {
    let path = format!("/proc/{shell}/task/{shell}/children");
    std::fs::read_to_string(path).is_ok_and(|children| !children.trim().is_empty())
}

#[test]
fn the_session_of_a_dead_agent_is_ended_though_it_has_no_marker() {
    let mut launcher = Launcher::run("(env -i sh -c 'echo $$; exec sleep 300' &); echo ready; sleep 300");
    let agent = launcher.channel.started();
    let lines = [launcher.channel.line(), launcher.channel.line()];
    let bare: i32 = lines.iter().find_map(|line| line.parse().ok()).unwrap();
    let _loose = Loose(bare);
    launcher.kill();
    wait_for("the agent's end", || (!lives(agent)).then_some(()));
    assert!(lives(bare));
    swept(&[&launcher.launch.launch_id]);
    assert!(lives(bare), "only the agent's id tells whose it is");
    assert_eq!(swept(&[&launcher.launch.launch_id, &agent.to_string()]), (1, 0));
    assert!(!lives(bare));
}

#[test]
fn stopped_processes_are_ended() {
    let mut launcher = Launcher::run("setsid sleep 300 & echo $!; wait");
    let agent = launcher.channel.started();
    let sleeper: i32 = launcher.channel.line().parse().unwrap();
    wait_for("the sleeper", || (launcher.tree().len() == 2).then_some(()));
    signal(sleeper, libc::SIGSTOP);
    launcher.kill();
    wait_for("the agent's end", || (!lives(agent)).then_some(()));
    assert_eq!(swept(&[&launcher.launch.launch_id]), (1, 0));
}

#[test]
fn chains_of_forks_are_ended() {
    let link = "setsid sh -c \"$0\" \"$0\" & exit 0";
    let chains = format!("for i in 1 2 3 4; do sh -c '{link}' '{link}'; done");
    let mut launcher = Launcher::run(&format!("{chains}; echo ready; sleep 300"));
    assert_eq!(launcher.channel.line(), "ready");
    launcher.kill();
    // On a busy machine they may outrun one sweep, which then says so.
    wait_for("a sweep that ends them", || (swept(&[&launcher.launch.launch_id]).1 == 0).then_some(()));
    assert_eq!(launcher.tree(), [] as [i32; 0]);
}

#[test]
fn it_does_not_end_itself() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launcher::order(directory.path(), "");
    let mut command = executable();
    command.env("HIVEKEEPER_LAUNCH", &launch.launch_id);
    let mut errand = Errand::start_by(command, &["--sweep", &launch.launch_id]);
    let answer = errand.channel.until(|frame| match frame {
        FromLauncher::Swept { killed, left } => Some((killed, left)),
        _ => None,
    });
    assert_eq!((answer, errand.wait()), ((0, 0), Some(0)));
}

#[test]
fn process_1_stays_whatever_it_carries() {
    // A process id namespace of its own, where the sweep is a child of a marked process 1.
    let script = "\"$0\" agent --sweep in-a-namespace < /dev/null | tail -c 22; echo; echo alive";
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "sh", "-c", script]);
    let output = command.arg(env!("CARGO_BIN_EXE_hivekeeper")).env("HIVEKEEPER_LAUNCH", "in-a-namespace").output();
    let output = output.unwrap();
    if !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("Operation not permitted") {
        // Only where namespaces may be made; the rule itself is a unit test.
        return;
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.ends_with("alive\n"), "{said}");
}
