#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::{
    model::{ContainerSpec, Home, LaunchId, OnExceeded, OnStuck, Origin, Ready, RestartType, Step, Strategy},
    store::Incarnation,
};

pub(in crate::control_plane) const NOW: SystemTime = UNIX_EPOCH;

pub(in crate::control_plane) fn now() -> SystemTime {
    NOW + Duration::from_secs(1_000_000)
}

pub(in crate::control_plane) fn agent_spec(name: &str) -> Arc<AgentSpec> {
    Arc::new(AgentSpec {
        name: name.parse().unwrap(),
        replicas: None,
        command: vec!["sleep".to_owned(), "1".to_owned()],
        env: BTreeMap::new(),
        restart: RestartType::Permanent,
        ready: Ready::Process,
        start_timeout: Duration::from_secs(30),
        heartbeat_timeout: Duration::from_secs(15),
        progress_timeout: Duration::ZERO,
        on_stuck: OnStuck::Report,
        stop_grace: Duration::from_secs(10),
        lease: Duration::from_secs(30),
    })
}

pub(in crate::control_plane) fn swarm(name: &str, agents: &[&str]) -> SwarmSpec {
    SwarmSpec {
        name: name.parse().unwrap(),
        origin: Origin::Config,
        home: Home::Process { workdir: None },
        strategy: Strategy::OneForOne,
        intensity: 5,
        period: Duration::from_secs(60),
        on_exceeded: OnExceeded::Fail,
        backoff: crate::model::Backoff::default(),
        env: BTreeMap::new(),
        agents: agents.iter().map(|name| agent_spec(name)).collect(),
    }
}

fn open(agent: &str, incarnation: u64) -> IncarnationRow {
    IncarnationRow {
        begun: Incarnation {
            launch_id: LaunchId::mint(),
            agent: agent.parse().unwrap(),
            incarnation,
            token_hash: [0; 32],
            begun_at: NOW,
            automatic: false,
            runs: None,
        },
        pid: Some(1),
        alive_at: Some(NOW),
        exit: None,
    }
}

fn known(spec: SwarmSpec, desired: Desired) -> FoundSwarm {
    let (name, origin) = (spec.name.clone(), spec.origin);
    FoundSwarm { name, origin, spec: Some(spec), scaled: Scaled::new(), desired, since: NOW }
}

#[test]
fn a_living_agent_is_taken_over() {
    let spec = swarm("s", &["a", "b"]);
    let found =
        Found { swarms: vec![known(spec.clone(), Desired::Running)], open: vec![open("s/a", 3)], ..Found::default() };
    let plan = boot(&[spec], &found, now()).unwrap();
    assert_eq!(plan.adopt, found.open);
    assert_eq!((plan.end.len(), plan.removed.len()), (0, 0));
    let adopt: Vec<_> = plan.swarms[0].agents.iter().map(|agent| agent.adopt).collect();
    assert_eq!(adopt, [Some(3), None]);
    assert_eq!(plan.swarms[0].since, NOW, "what the operator wanted is as old as it was");
}

#[test]
fn what_runs_something_else_is_ended_and_what_has_other_rules_is_not() {
    let before = swarm("s", &["a", "b"]);
    let mut after = before.clone();
    after.agents[0] = Arc::new(AgentSpec { command: vec!["other".to_owned()], ..(*before.agents[0]).clone() });
    after.agents[1] = Arc::new(AgentSpec { stop_grace: Duration::ZERO, ..(*before.agents[1]).clone() });
    let found = Found {
        swarms: vec![known(before, Desired::Running)],
        open: vec![open("s/a", 1), open("s/b", 1)],
        ..Found::default()
    };
    let plan = boot(&[after], &found, now()).unwrap();
    assert_eq!(plan.end, found.open[..1]);
    assert_eq!(plan.adopt, found.open[1..]);
    assert_eq!(plan.renewed, ["s/a".parse().unwrap()], "what it did before says nothing of what it runs now");
}

#[test]
fn whatever_runs_elsewhere_is_started_anew() {
    let workdir = Home::Process { workdir: Some("/srv".into()) };
    let in_container = Home::Docker(Arc::new(ContainerSpec::sidecar("dev".to_owned())));
    let as_other = ContainerSpec { user: Some("1000".to_owned()), ..ContainerSpec::sidecar("dev".to_owned()) };
    let homes = [Home::Process { workdir: None }, workdir, in_container, Home::Docker(Arc::new(as_other))];
    for (i, before) in homes.iter().enumerate() {
        for (k, after) in homes.iter().enumerate() {
            let spec = |home: &Home| SwarmSpec { home: home.clone(), ..swarm("s", &["a"]) };
            let found = Found {
                swarms: vec![known(spec(before), Desired::Running)],
                open: vec![open("s/a", 2)],
                ..Found::default()
            };
            let plan = boot(&[spec(after)], &found, now()).unwrap();
            assert_eq!(
                (plan.end.len(), plan.adopt.len()),
                if i == k { (0, 1) } else { (1, 0) },
                "{before:?} {after:?}"
            );
        }
    }
}

#[test]
fn an_operators_stop_outlives_the_daemon() {
    let spec = swarm("s", &["a", "b"]);
    let found = Found {
        swarms: vec![known(spec.clone(), Desired::Running)],
        desires: [("s/a".parse().unwrap(), Desired::Stopped)].into(),
        open: vec![open("s/a", 1)],
        ..Found::default()
    };
    let plan = boot(&[spec], &found, now()).unwrap();
    assert_eq!(plan.end.len(), 1, "it was being stopped when the daemon died");
    let desired: Vec<_> = plan.swarms[0].agents.iter().map(|agent| agent.desired).collect();
    assert_eq!(desired, [Desired::Stopped, Desired::Running]);
}

#[test]
fn what_the_file_no_longer_has_is_ended_and_removed() {
    let (kept, gone) = (swarm("s", &["a"]), swarm("t", &["c"]));
    let found = Found {
        swarms: vec![known(kept.clone(), Desired::Running), known(gone, Desired::Running)],
        open: vec![open("t/c", 1), open("s/old", 2)],
        ..Found::default()
    };
    let plan = boot(&[kept], &found, now()).unwrap();
    assert_eq!(plan.end.len(), 2);
    assert_eq!(plan.removed, ["t".parse().unwrap()]);
    let fewer = swarm("s", &["b"]);
    let found = Found { swarms: vec![known(swarm("s", &["a", "b"]), Desired::Running)], ..Found::default() };
    let plan = boot(&[fewer], &found, now()).unwrap();
    assert_eq!(plan.dropped, ["s/a".parse().unwrap()]);
}

#[test]
fn a_document_that_cannot_be_read_takes_over_as_it_is() {
    let spec = swarm("s", &["a"]);
    let row = FoundSwarm { spec: None, ..known(spec.clone(), Desired::Paused) };
    let found = Found { swarms: vec![row], open: vec![open("s/a", 1)], ..Found::default() };
    let plan = boot(&[spec], &found, now()).unwrap();
    assert_eq!((plan.adopt.len(), plan.swarms[0].desired), (1, Desired::Paused));
}

#[test]
fn commands_fit_or_say_why_not() {
    let able = Capabilities { pause: true, limits: false, isolation: false, oom: false, recover: true };
    let unable = Capabilities { pause: false, ..able };
    let (swarm, agent) = (Target::Swarm("s".parse().unwrap()), Target::Agent("s/a".parse().unwrap()));
    let restart = Command::Restart { mode: crate::model::RestartMode::All, grace: None, reason: None };
    let stop = Command::Stop { grace: None, reason: None };
    let fine = [
        (&restart, &agent, Desired::Running),
        (&restart, &swarm, Desired::Stopped),
        (&stop, &swarm, Desired::Paused),
        (&Command::Start, &agent, Desired::Running),
        (&Command::Pause, &swarm, Desired::Paused),
        (&Command::Resume, &swarm, Desired::Paused),
    ];
    for (command, target, desired) in fine {
        assert_eq!(fits(command, target, desired, able), Ok(()), "{command:?} {target} {desired:?}");
    }
    let conflicts = [
        (&restart, &swarm, Desired::Paused),
        (&Command::Start, &swarm, Desired::Paused),
        (&Command::Pause, &swarm, Desired::Stopped),
        (&Command::Resume, &swarm, Desired::Stopped),
        (&Command::Resume, &swarm, Desired::Running),
    ];
    for (command, target, desired) in conflicts {
        let answer = fits(command, target, desired, able);
        assert!(matches!(answer, Err(ControlError::Conflict { .. })), "{command:?} {desired:?}: {answer:?}");
    }
    for (target, capabilities) in [(&agent, able), (&swarm, unable)] {
        let answer = fits(&Command::Pause, target, Desired::Running, capabilities);
        assert!(matches!(answer, Err(ControlError::Unsupported { .. })), "{target}: {answer:?}");
    }
}

#[test]
fn another_document_touches_whom_it_changes() {
    let numbered = |n| {
        let coder = AgentSpec { replicas: Some(n), ..(*agent_spec("coder")).clone() };
        SwarmSpec { agents: vec![agent_spec("a"), Arc::new(coder)], ..swarm("s", &[]) }
    };
    let told = |old: Option<&SwarmSpec>, new: &SwarmSpec| {
        changes(old, new).into_iter().map(|(id, change)| (id.name.to_string(), change)).collect::<Vec<_>>()
    };
    let said =
        |all: &[(&str, Change)]| all.iter().map(|(name, change)| ((*name).to_owned(), *change)).collect::<Vec<_>>();
    let (one, three) = (numbered(1), numbered(3));
    assert_eq!(told(None, &one), said(&[("a", Change::Start), ("coder-1", Change::Start)]));
    assert_eq!(told(Some(&one), &one), said(&[("a", Change::Keep), ("coder-1", Change::Keep)]));
    let up = [("a", Change::Keep), ("coder-1", Change::Keep), ("coder-2", Change::Start), ("coder-3", Change::Start)];
    assert_eq!(told(Some(&one), &three), said(&up));
    let down = [("a", Change::Keep), ("coder-1", Change::Keep), ("coder-3", Change::Stop), ("coder-2", Change::Stop)];
    assert_eq!(told(Some(&three), &one), said(&down), "the last one first");
    let mut other = one.clone();
    Arc::make_mut(&mut other.agents[0]).command = vec!["true".to_owned()];
    assert_eq!(told(Some(&one), &other), said(&[("a", Change::Replace), ("coder-1", Change::Keep)]));
    let mut told_else = one.clone();
    let variable = || ("KEY".to_owned(), crate::model::EnvValue::Plain("else".to_owned()));
    Arc::make_mut(&mut told_else.agents[0]).env.extend([variable()]);
    assert_eq!(told(Some(&one), &told_else), said(&[("a", Change::Replace), ("coder-1", Change::Keep)]));
    let all_told = SwarmSpec { env: [variable()].into(), ..one.clone() };
    assert_eq!(told(Some(&one), &all_told), said(&[("a", Change::Replace), ("coder-1", Change::Replace)]));
    Arc::make_mut(&mut other.agents[1]).stop_grace = Duration::from_secs(1);
    assert_eq!(told(Some(&one), &other), said(&[("a", Change::Replace), ("coder-1", Change::Adjust)]));
    let rules = SwarmSpec { intensity: 9, ..one.clone() };
    assert_eq!(told(Some(&one), &rules), said(&[("a", Change::Adjust), ("coder-1", Change::Adjust)]));
    let moved = SwarmSpec { home: Home::Process { workdir: Some("/tmp".into()) }, ..one.clone() };
    assert_eq!(told(Some(&one), &moved), said(&[("a", Change::Replace), ("coder-1", Change::Replace)]));
}

#[test]
fn a_number_of_the_operators_holds_until_the_file_says_another() {
    let file = |n| {
        let coder = AgentSpec { replicas: Some(n), ..(*agent_spec("coder")).clone() };
        SwarmSpec { agents: vec![Arc::new(coder)], ..swarm("s", &[]) }
    };
    let coder: AgentName = "coder".parse().unwrap();
    let mut scaled = Scaled::new();
    note_scale(&mut scaled, &file(3), &coder, 5);
    assert_eq!(effective(&file(3), &scaled), (file(5), scaled.clone()));
    assert_eq!(effective(&file(4), &scaled), (file(4), Scaled::new()));
    note_scale(&mut scaled, &file(5), &coder, 2);
    assert_eq!(effective(&file(3), &scaled).0, file(2), "it is still the file's 3 that it holds against");
    note_scale(&mut scaled, &file(2), &coder, 3);
    assert_eq!(scaled, Scaled::new());
}

/// Under way when the last daemon ended.
fn begun(command: Command, name: &str) -> Operation {
    Operation {
        id: crate::model::OperationId::mint(),
        command,
        target: Target::Swarm(name.parse().unwrap()),
        state: OperationState::Running,
        requested_by: Requester::Daemon,
        requested_at: NOW,
        ended_at: None,
        steps: Vec::new(),
        error: None,
    }
}

#[test]
fn what_an_update_had_replaced_is_not_replaced_again() {
    let api = |env: &str| {
        let mut spec = SwarmSpec { origin: Origin::Api, ..swarm("s", &["a", "b", "c"]) };
        spec.env.insert("VERSION".to_owned(), env.to_owned().into());
        spec
    };
    let step = |agent: &str, result| Step { at: NOW, agent: agent.parse().unwrap(), result };
    let update = |env: &str| Operation {
        steps: vec![step("s/a", Ok("running".to_owned())), step("s/b", Err("failed".to_owned()))],
        ..begun(Command::Update { spec: Arc::new(api(env)) }, "s")
    };
    let found = |update: Operation| Found {
        swarms: vec![known(api("1"), Desired::Running)],
        open: vec![open("s/a", 2), open("s/b", 2), open("s/c", 1)],
        unfinished: vec![update],
        ..Found::default()
    };
    let agents = |rows: &[IncarnationRow]| -> Vec<_> { rows.iter().map(|row| row.begun.agent.to_string()).collect() };
    let plan = boot(&[], &found(update("2")), now()).unwrap();
    assert_eq!(
        (agents(&plan.adopt), agents(&plan.end)),
        (vec!["s/a".to_owned()], vec!["s/b".to_owned(), "s/c".to_owned()])
    );
    assert_eq!(plan.renewed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["s/b", "s/c"]);
    // Of what came behind the last step that was noted, each start tells what it runs.
    let mut late = found(update("2"));
    let new = api("2");
    late.open[2].begun.runs = Some(runs(&new.agents[2].command, &new.environment(&new.agents[2])));
    assert_eq!(agents(&boot(&[], &late, now()).unwrap().end), ["s/b"]);
    late.open[2].begun.runs = Some(runs(&new.agents[2].command, &api("1").environment(&new.agents[2])));
    assert_eq!(agents(&boot(&[], &late, now()).unwrap().end), ["s/b", "s/c"]);
    // One that has not begun has replaced nothing.
    let waiting = Operation { state: OperationState::Accepted, ..update("2") };
    assert_eq!(boot(&[], &found(waiting), now()).unwrap().adopt.len(), 3);
    // Where it does not lead, nothing counts that it did.
    let file = SwarmSpec { origin: Origin::Config, ..api("3") };
    let other = Found {
        swarms: vec![known(SwarmSpec { origin: Origin::Config, ..api("1") }, Desired::Running)],
        ..found(update("2"))
    };
    assert_eq!(boot(&[file], &other, now()).unwrap().adopt.len(), 0);
}

#[test]
fn swarms_of_the_api_come_from_the_journal_and_a_command_that_was_begun_is_done() {
    let api = |name: &str, agents: &[&str]| SwarmSpec { origin: Origin::Api, ..swarm(name, agents) };
    let found = Found {
        swarms: vec![known(api("kept", &["a"]), Desired::Stopped), known(api("gone", &["a"]), Desired::Running)],
        open: vec![open("gone/a", 1)],
        unfinished: vec![
            begun(Command::Delete, "gone"),
            begun(Command::Launch { spec: Arc::new(api("new", &["b"])) }, "new"),
        ],
        ..Found::default()
    };
    let plan = boot(&[swarm("file", &["a"])], &found, now()).unwrap();
    let names: Vec<_> = plan.swarms.iter().map(|swarm| (swarm.spec.name.as_str(), swarm.desired)).collect();
    assert_eq!(names, [("file", Desired::Running), ("kept", Desired::Stopped), ("new", Desired::Running)]);
    assert_eq!((plan.end.len(), plan.removed), (1, vec!["gone".parse().unwrap()]));
    let twice = boot(&[swarm("kept", &["a"])], &found, now()).unwrap_err();
    assert_eq!(twice, Unbootable::Twice("kept".parse().unwrap()));
    let unreadable = FoundSwarm { spec: None, ..known(api("x", &["a"]), Desired::Running) };
    let found = Found { swarms: vec![unreadable], ..Found::default() };
    assert_eq!(boot(&[], &found, now()).unwrap_err(), Unbootable::Unreadable("x".parse().unwrap()));
}
