//! Operators at work while the daemon's actors fall, one after the other: what was acknowledged is not lost, and who was not touched runs on.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::{model::OperationId, store::Journal};

/// Agents that operators work on. One client each, so that its last acknowledged word is what must hold.
const WORKED_ON: [&str; 2] = ["s/a", "t/x"];

/// What one client was told.
#[derive(Default)]
struct Told {
    /// Every operation that was accepted, with its command.
    accepted: Vec<(OperationId, &'static str)>,
    refused: usize,
}

/// Works on one agent over HTTP until it is told to end. What is not answered with 202 or 200 was not promised.
fn client(nest: &Nest, id: &'static str, end: Arc<AtomicBool>) -> tokio::task::JoinHandle<Told> {
    let (swarm, agent) = id.split_once('/').unwrap();
    let base = format!("http://{}/api/v1/swarms/{swarm}/agents/{agent}", nest.sockets.http_at);
    tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(nest::PATIENCE))
            .build()
            .into();
        let mut told = Told::default();
        for word in ["restart", "stop", "start"].into_iter().cycle() {
            // Ends with a start, so that every agent is to run at the end.
            if end.load(Ordering::SeqCst) && told.accepted.last().is_some_and(|(_, word)| *word == "start") {
                return told;
            }
            let answer = agent.post(format!("{base}/{word}")).header("content-type", "application/json").send("{}");
            match answer.map(|mut answer| (answer.status().as_u16(), answer.body_mut().read_to_string())) {
                Ok((200 | 202, Ok(body))) => {
                    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
                    told.accepted.push((body["id"].as_str().unwrap().parse().unwrap(), word));
                }
                _ => told.refused += 1,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        told
    })
}

/// Strikes one actor of the root's and waits until it is up again.
async fn fall(nest: &Nest, name: &str, strike: impl FnOnce() -> Result<(), TellError>) {
    let before = child(&nest.services().await, name).incarnation;
    strike().unwrap();
    until(&format!("{name} is restarted"), async || {
        let tree = nest.office.tree().await.ok()?;
        let node = child(&tree.children, name);
        (node.incarnation > before && node.state == ChildState::Running).then_some(())
    })
    .await;
}

#[test]
fn nothing_that_was_acknowledged_is_lost_while_each_actor_of_the_daemon_falls() {
    run(async {
        let nest = Nest::start_with(&[("s", &["a", "quiet"]), ("t", &["x", "still"])], |spec| {
            // Each fall of an agent's own actor is one restart.
            spec.intensity = 100;
        });
        let nest = nest.up().await;
        for id in ["s/a", "s/quiet", "t/x", "t/still"] {
            nest.running(id, 1).await;
        }
        let end = Arc::new(AtomicBool::new(false));
        let clients = WORKED_ON.map(|id| client(&nest, id, Arc::clone(&end)));
        let refs = &nest.refs;

        for round in 1..=3 {
            fall(&nest, "steward", || refs.steward.run(|_, _| panic!("a bug in steward"))).await;
            fall(&nest, "journal", || refs.journal.run(|_, _| panic!("a bug in journal"))).await;
            fall(&nest, "health", || refs.health.run(|_, _| panic!("a bug in health"))).await;
            fall(&nest, "viewers", || refs.viewers.run(|_, _| panic!("a bug in viewers"))).await;
            fall(&nest, "data-plane", || refs.data_plane.run(|_, _| panic!("a bug in data-plane"))).await;
            fall(&nest, "engine", || refs.engine.run(|_, _| panic!("a bug in engine"))).await;
            fall(&nest, "control-plane", || refs.controller.run(|_, _| panic!("a bug in control-plane"))).await;
            fall(&nest, "http", || refs.http.run(|_, _| panic!("a bug in http"))).await;
            for id in ["s/quiet", "t/still"] {
                let seen = nest.running(id, 1).await;
                assert_eq!(seen.restarts, 0, "round {round}: {id} was touched by a fall of a service: {seen:?}");
            }
        }
        nest.panic_in_agent("s/quiet");
        nest.running("s/quiet", 2).await;
        nest.running("t/still", 1).await;

        let supervisor = nest.office.supervisor(&"s".parse().unwrap()).unwrap();
        panic_in(&supervisor, "a bug in the supervisor of s").await;
        nest.running("s/quiet", 3).await;
        nest.running("t/still", 1).await;

        panic_in(&refs.swarms, "a bug in the supervisor of swarms").await;
        nest.running("s/quiet", 4).await;
        nest.running("t/still", 2).await;

        panic_in(&nest.trunk.root().supervisor(), "a bug in the first supervisor").await;
        nest.running("s/quiet", 5).await;
        nest.running("t/still", 3).await;

        end.store(true, Ordering::SeqCst);
        for (id, client) in WORKED_ON.into_iter().zip(clients) {
            let told = client.await.unwrap();
            assert!(told.accepted.len() > 30, "{id}: too little work to tell: {}", told.accepted.len());
            let mut ends: BTreeMap<String, usize> = BTreeMap::new();
            for (operation, word) in &told.accepted {
                let ended = nest.office.wait(*operation, nest::PATIENCE).await.unwrap();
                assert!(ended.state.ended(), "{id}: acknowledged and never carried out: {word} {ended:?}");
                let kept = nest.journal.operation(*operation).await.unwrap().expect("it is in the journal");
                assert_eq!(kept.state, ended.state, "{id}: {word}");
                let end = ended.error.clone().unwrap_or_else(|| "well".to_owned());
                if !matches!(end.as_str(), "well" | "overtaken by a stop") {
                    eprintln!("{id}: {word} {operation} {:?}", ended.steps);
                }
                *ends.entry(end).or_default() += 1;
            }
            eprintln!("{id}: {} accepted, {} refused, ended {ends:?}", told.accepted.len(), told.refused);
            // The client's own next word may overtake a start.
            ends.retain(|end, _| !["well", "overtaken by a stop"].contains(&end.as_str()));
            assert!(ends.is_empty(), "{id}: {ends:?}");
            until("it runs as its operator wants it to", async || {
                let agent = nest.health.agent(&id.parse().unwrap()).unwrap();
                (agent.state == AgentState::Running && agent.desired == Desired::Running).then_some(())
            })
            .await;
        }
        assert_eq!(nest.runtime.overlaps(), 0, "no agent ever lived twice");
        assert_eq!(nest.live().len(), 4, "{:?}", nest.live());
        assert_eq!(nest.get("/readyz").await.0, 200);
        nest.end().await;
    });
}

/// What takes its place leaves the agent stopped, and tells nothing of it.
#[test]
fn a_stop_under_which_the_supervisor_falls_is_carried_out_and_seen() {
    run(async {
        let nest = Nest::start_with(&[("s", &["a", "b"])], |spec| {
            for agent in &mut spec.agents {
                Arc::make_mut(agent).stop_grace = Duration::from_secs(2);
            }
        });
        nest.runtime.script(&"s/a".parse().unwrap(), Script::runs().ignores_stop());
        let nest = nest.up().await;
        nest.running("s/b", 1).await;
        let operation = nest.office.submit(stop("s/a")).await.unwrap();
        nest.state("s/a", AgentState::Stopping).await;
        let supervisor = nest.office.supervisor(&"s".parse().unwrap()).unwrap();
        panic_in(&supervisor, "a bug in the supervisor of s").await;
        let ended = ended(&nest, &operation).await;
        assert_eq!(ended.state, OperationState::Succeeded, "{ended:?}");
        let stopped = nest.state("s/a", AgentState::Stopped).await;
        assert_eq!((stopped.incarnation, stopped.pid), (1, None), "{stopped:?}");
        nest.running("s/b", 2).await;
        nest.end().await;
    });
}

/// Nobody is above the first supervisor. The tree grows anew around the same actors, and swarms come back as they were.
#[test]
fn the_tree_grows_anew_when_its_first_supervisor_falls() {
    run(async {
        let nest = with_every_kind_of_agent().await;
        for (runs, other) in [(2, 2), (3, 3)] {
            panic_in(&nest.trunk.root().supervisor(), "a bug in the first supervisor").await;
            nest.running("s/runs", runs).await;
            nest.running("t/other", other).await;
            nest.journaled(&format!("written after the fall that made {runs}")).await;
        }
        for (id, state) in
            [("s/stopped", AgentState::Stopped), ("s/job", AgentState::Completed), ("s/failed", AgentState::Failed)]
        {
            let health = nest.state(id, state).await;
            assert_eq!(health.incarnation, 1, "{id} was started again: {health:?}");
        }
        assert_eq!(nest.get("/readyz").await.0, 200);
        done(&nest, restart("s/runs")).await;
        done(&nest, request(Command::Start, "s/stopped")).await;
        nest.running("s/stopped", 2).await;
        assert_eq!(nest.runtime.overlaps(), 0);
        nest.end().await;
    });
}
