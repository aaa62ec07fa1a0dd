//! Agents in containers that somebody else has made: the contract there, the ways of the launcher into them, and that nothing of ours is left.

use std::{process::Command, time::Duration};

use hivekeeper::{
    model::{ContainerSpec, ExitCause, ExitRecord},
    runtime::{
        AgentEvent, LaunchError, LaunchOrder, Launched, Recovered,
        docker::engine::LauncherVolume,
        suite::{Bench, Program},
    },
};

use super::docker::DockerBench;
use crate::docker::{
    beside::{Beside, cli},
    harness::{DEBIAN, Hive, SCRATCH, hive, within},
};

/// Runs a case of the contract, where there is an engine, as a user who may write next to nothing in there.
pub(super) async fn bench(case: impl AsyncFnOnce(&dyn Bench)) {
    let Some(hive) = hive().await else { return };
    let beside = Beside::debian(&["--user", "10001:10001", "--workdir", "/tmp"]);
    let started_at = beside.started_at();
    let bench = DockerBench::of(hive, beside.spec());
    case(&bench).await;
    done(bench).await;
    beside.is_untouched(&started_at);
}

async fn done(bench: DockerBench) {
    bench.leave().await;
    bench.finish().await;
}

/// A launch and what it has shown.
struct Agent {
    order: LaunchOrder,
    launched: Launched,
    lines: Vec<String>,
}

impl Agent {
    async fn launch(bench: &DockerBench, order: LaunchOrder) -> Self {
        let launched = within("a launch", bench.runtime().launch(order.clone())).await.unwrap();
        Self { order, launched, lines: Vec::new() }
    }

    /// One that has said that it is ready.
    async fn ready(bench: &DockerBench) -> Self {
        let mut agent = Self::launch(bench, bench.order(Program::Runs)).await;
        agent.says("ready").await;
        agent
    }

    async fn says(&mut self, line: &str) {
        while !self.lines.iter().any(|said| said == line) {
            if let Some(record) = self.next().await {
                panic!("ended instead of saying {line:?}: {record:?}, having said {:?}", self.lines);
            }
        }
    }

    async fn ended(&mut self) -> ExitRecord {
        loop {
            if let Some(record) = self.next().await {
                return record;
            }
        }
    }

    async fn killed(mut self, bench: &DockerBench) {
        self.launched.control.kill();
        assert_eq!(self.ended().await.cause, ExitCause::Stopped);
        self.forgotten(bench).await;
    }

    /// Its place has gone, and it with it.
    async fn lost(mut self, bench: &DockerBench) {
        let cause = self.ended().await.cause;
        assert!(matches!(cause, ExitCause::ContainerLost { .. }), "{cause:?}");
        self.forgotten(bench).await;
    }

    async fn forgotten(mut self, bench: &DockerBench) {
        assert_eq!(within("the last event", self.launched.events.recv()).await, None);
        bench.runtime().forget(self.order.launch_id).await;
    }

    async fn next(&mut self) -> Option<ExitRecord> {
        match within("an event", self.launched.events.recv()).await {
            Some(AgentEvent::Output(lines)) => self.lines.extend(lines.into_iter().map(|line| line.text)),
            Some(AgentEvent::Exited(record)) => return Some(record),
            Some(_) => {}
            None => panic!("no end"),
        }
        None
    }
}

async fn refusal(bench: &DockerBench) -> LaunchError {
    within("a refusal", bench.runtime().launch(bench.order(Program::Runs))).await.err().expect("it is refused")
}

#[tokio::test]
async fn a_shell_puts_the_launcher_where_the_root_is_read_only() {
    let Some(hive) = hive().await else { return };
    let beside = Beside::debian(&["--read-only", "--tmpfs", "/run", "--tmpfs", "/tmp:exec", "--user", "10001:10001"]);
    let started_at = beside.started_at();
    let bench = DockerBench::of(hive, beside.spec());
    let agent = Agent::ready(&bench).await;
    assert!(beside.says("ls -d /run/*; ls /tmp").starts_with("hivekeeper-"), "not where it can be executed");
    // The second finds the launcher of the first.
    Agent::ready(&bench).await.killed(&bench).await;
    agent.killed(&bench).await;
    done(bench).await;
    assert_eq!(beside.says("ls -A /run /tmp /var/tmp /dev/shm"), "/dev/shm:\n\n/run:\n\n/tmp:\n\n/var/tmp:");
    beside.is_untouched(&started_at);
}

#[tokio::test]
async fn a_container_with_nothing_in_it_will_do() {
    let Some(hive) = hive().await else { return };
    let beside = Beside::made(&[], SCRATCH, &["/probe", "sleep"]);
    let started_at = beside.started_at();
    let bench = DockerBench::of(hive, beside.spec());
    let mut agent = Agent::launch(&bench, bench.command(&["/probe", "pwd"])).await;
    assert_eq!(agent.ended().await.code, Some(0));
    // The working directory is the container's own.
    assert_eq!(agent.lines, ["/work"]);
    Agent::launch(&bench, bench.command(&["/probe", "sleep"])).await.killed(&bench).await;
    done(bench).await;
    beside.is_untouched(&started_at);
}

#[tokio::test]
async fn a_launcher_that_is_mounted_is_used() {
    let Some(hive) = hive().await else { return };
    let volume = mounted(&hive).await;
    let mount = format!("{}:/.hivekeeper:ro", volume.name());
    let beside = Beside::made(&["--read-only", "-v", &mount], SCRATCH, &["/probe", "sleep"]);
    let started_at = beside.started_at();
    let bench = DockerBench::of(hive, beside.spec());
    let agent = Agent::launch(&bench, bench.command(&["/probe", "sleep"])).await;
    assert!(cli(&["top", &beside.name, "-eo", "pid,args"]).contains("/.hivekeeper/hivekeeper agent --stdio"));
    agent.killed(&bench).await;
    done(bench).await;
    beside.is_untouched(&started_at);
}

/// The volume with the launcher. It stays: every hive on this engine shares it.
async fn mounted(hive: &Hive) -> LauncherVolume {
    let path = env!("CARGO_BIN_EXE_hivekeeper");
    let digest = Command::new("sha256sum").arg(path).output().unwrap().stdout;
    let digest = String::from_utf8(digest[..64].to_vec()).unwrap();
    let exe = std::sync::Arc::new(std::fs::File::open(path).unwrap());
    hive.engine.ensure_launcher_volume(SCRATCH, &exe, &digest).await.unwrap()
}

#[tokio::test]
async fn where_no_way_works_each_is_told() {
    let Some(hive) = hive().await else { return };
    let beside = Beside::debian(&["--read-only", "--tmpfs", "/tmp", "--user", "10001:10001"]);
    let started_at = beside.started_at();
    let bench = DockerBench::of(hive, beside.spec());
    let LaunchError::Refused(why) = refusal(&bench).await else { panic!("it can't be met") };
    for told in [
        beside.name.as_str(),
        "/.hivekeeper/hivekeeper is not there",
        "/ cannot be written: container rootfs is marked read-only",
        "/run cannot be written",
        "/tmp is noexec",
        "/var/tmp cannot be written",
        "/dev/shm is noexec",
        "mount the volume hivekeeper-launcher-",
    ] {
        assert!(why.contains(told), "{told:?} is not in {why:?}");
    }
    done(bench).await;
    beside.is_untouched(&started_at);
    assert_eq!(beside.says("ls -A /tmp /dev/shm"), "/dev/shm:\n\n/tmp:");
}

#[tokio::test]
async fn a_container_that_is_away_is_waited_for() {
    let Some(hive) = hive().await else { return };
    let beside = Beside::unmade();
    let bench = DockerBench::of(hive, beside.spec());
    let away = async |how: &str| {
        let LaunchError::NotYet(why) = refusal(&bench).await else { panic!("it may come") };
        assert_eq!(why, format!("container {} {how}", beside.name));
    };
    away("is not there").await;
    beside.make(&[], DEBIAN, &["sleep", "infinity"]);
    beside.does(&["pause"]);
    away("is paused").await;
    assert_eq!(beside.inspect("{{.State.Paused}}"), "true", "it was unpaused by us");
    beside.does(&["unpause"]);
    beside.does(&["stop", "-t", "0"]);
    away("does not run").await;
    beside.does(&["start"]);
    Agent::ready(&bench).await.killed(&bench).await;
    let started_at = beside.started_at();
    done(bench).await;
    beside.is_untouched(&started_at);
}

#[tokio::test]
async fn agents_come_back_in_a_container_that_was_started_again() {
    let Some(hive) = hive().await else { return };
    let beside = Beside::debian(&[]);
    let bench = DockerBench::of(hive, beside.spec());
    let agent = Agent::ready(&bench).await;
    let stale = agent.order.clone();
    beside.does(&["restart", "-t", "0"]);
    agent.lost(&bench).await;
    let LaunchOrder { launch_id, agent, incarnation, .. } = stale;
    let found = within("the truth", bench.successor().recover(launch_id, agent, incarnation, 0)).await;
    assert!(matches!(found, Ok(Recovered::Lost)), "the socket of an earlier start lies in the writable root");
    let again = Agent::ready(&bench).await;
    assert_eq!(
        beside.says("ls /.hivekeeper-*").matches("run-").count(),
        1,
        "the run directory of an earlier start stays"
    );
    again.killed(&bench).await;
    let started_at = beside.started_at();
    done(bench).await;
    beside.is_untouched(&started_at);
}

#[tokio::test]
async fn agents_come_back_in_the_container_that_has_taken_the_name() {
    let Some(hive) = hive().await else { return };
    let beside = Beside::debian(&[]);
    let bench = DockerBench::of(hive, beside.spec());
    let agent = Agent::ready(&bench).await;
    beside.does(&["rm", "-f"]);
    agent.lost(&bench).await;
    beside.make(&["--user", "10001:10001"], DEBIAN, &["sleep", "infinity"]);
    let mut again = Agent::launch(&bench, bench.shell("id -u; exec sleep 600")).await;
    again.says("10001").await;
    again.killed(&bench).await;
    let started_at = beside.started_at();
    done(bench).await;
    beside.is_untouched(&started_at);
}

#[tokio::test]
async fn hives_in_one_container_leave_each_other_alone() {
    let (Some(one), Some(other)) = (hive().await, hive().await) else { return };
    let beside = Beside::debian(&[]);
    let started_at = beside.started_at();
    let one = DockerBench::of(one, beside.spec());
    let other = DockerBench::of(other, ContainerSpec { user: Some("10001".to_owned()), ..beside.spec() });
    let (stays, goes) = (Agent::ready(&one).await, Agent::ready(&other).await);
    assert_eq!(within("orphans", one.runtime().orphans(vec![stays.order.launch_id], true)).await, []);
    assert_eq!(within("orphans", other.runtime().orphans(vec![goes.order.launch_id], true)).await, []);
    goes.killed(&other).await;
    done(other).await;
    assert_eq!(beside.says("ls -d /.hivekeeper-*").lines().count(), 1);
    assert_eq!(one.left(&stays.order).await, 2, "the launcher and its agent");
    stays.killed(&one).await;
    done(one).await;
    beside.is_untouched(&started_at);
}

#[tokio::test]
async fn what_its_owner_cleans_up_is_put_there_again() {
    let Some(hive) = hive().await else { return };
    let beside = Beside::debian(&[]);
    let started_at = beside.started_at();
    let bench = DockerBench::of(hive, beside.spec());
    Agent::ready(&bench).await.killed(&bench).await;
    beside.says("rm -rf /.hivekeeper-*");
    Agent::ready(&bench).await.killed(&bench).await;
    done(bench).await;
    beside.is_untouched(&started_at);
}

#[tokio::test]
async fn user_and_directory_are_the_containers_own_unless_the_document_says() {
    let Some(hive) = hive().await else { return };
    let beside = Beside::debian(&["--user", "10002", "--workdir", "/srv", "--cap-drop", "ALL"]);
    let started_at = beside.started_at();
    let bench = DockerBench::of(hive, beside.spec());
    let who = "echo $(id -u):$(id -g) $(pwd)";
    let mut own = Agent::launch(&bench, bench.shell(who)).await;
    own.ended().await;
    assert_eq!(own.lines, ["10002:0 /srv"]);
    let named = ContainerSpec { user: Some("10003:10004".to_owned()), workdir: Some("/opt".into()), ..beside.spec() };
    let swarm = own.order.agent.swarm.clone();
    bench.docker().declare(&swarm, std::sync::Arc::new(named), Duration::from_secs(30));
    let mut other = Agent::launch(&bench, bench.shell(who)).await;
    other.ended().await;
    assert_eq!(other.lines, ["10003:10004 /opt"]);
    done(bench).await;
    beside.is_untouched(&started_at);
}

#[tokio::test]
async fn a_container_of_ours_is_nobodys_sidecar() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("other", SCRATCH).await;
    let bench = DockerBench::of(hive, ContainerSpec::sidecar(id.clone()));
    let LaunchError::Refused(why) = refusal(&bench).await else { panic!("it can't be met") };
    assert!(why.contains("a swarm's own"), "{why}");
    assert!(bench.hive().engine.inspect(&id).await.unwrap().running);
    bench.finish().await;
}
