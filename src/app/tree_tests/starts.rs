//! Starts that are under way when somebody falls: who waits for them is told what became of them, and no number stands for two incarnations.

use std::sync::Arc;

use super::*;
use crate::model::{AgentHealth, AgentId};

/// Long enough for whatever a test does to a start that is under way.
const SLOW: Duration = Duration::from_secs(1);

/// Its new incarnation is launched and shown as `starting`.
async fn starting(nest: &Nest, id: &AgentId, incarnation: u64) {
    until(&format!("{id} is starting, incarnation {incarnation}"), async || {
        let is_starting = |agent: &AgentHealth| {
            agent.state == AgentState::Starting && agent.incarnation == incarnation && agent.pid.is_none()
        };
        (nest.runtime.launches(id) as u64 == incarnation && is_starting(&*nest.health.agent(id)?)).then_some(())
    })
    .await;
}

/// The one who takes it up finds the agent starting. There is no other incarnation to wait for.
#[test]
fn a_start_is_seen_to_its_end_although_the_controller_falls_over_it() {
    run(async {
        let nest = Nest::start(&[("s", &["a"])]).await;
        let a: AgentId = "s/a".parse().unwrap();
        nest.running("s/a", 1).await;
        done(&nest, stop("s/a")).await;
        nest.runtime.next(&a, Script::runs().alive_after(SLOW));
        let start = nest.office.submit(request(Command::Start, "s/a")).await.unwrap();
        starting(&nest, &a, 2).await;
        nest.refs.controller.run(|_, _| panic!("a bug in the middle")).unwrap();
        let start = ended(&nest, &start).await;
        assert_eq!(start.state, OperationState::Succeeded, "{start:?}");
        let seen = nest.running("s/a", 2).await;
        assert_eq!(start.steps[0].result, Ok(format!("running as pid {}, incarnation 2", seen.pid.unwrap())));
        nest.end().await;
    });
}

/// The one who takes it up finds the new document in force already, and only one of the agents brought to it.
#[test]
fn an_update_is_seen_to_its_end_although_the_controller_falls_over_it() {
    run(async {
        let nest = Nest::start(&[("s", &["a", "b", "c"])]).await;
        nest.running("s/c", 1).await;
        let mut spec = (*nest.office.swarm(&"s".parse().unwrap()).unwrap().spec).clone();
        for agent in &mut spec.agents {
            Arc::make_mut(agent).command.push("--new".to_owned());
        }
        let b: AgentId = "s/b".parse().unwrap();
        nest.runtime.next(&b, Script::runs().alive_after(SLOW));
        let update =
            Request { requested_by: Requester::Reload, ..request(Command::Update { spec: Arc::new(spec) }, "s") };
        let update = nest.office.submit(update).await.unwrap();
        starting(&nest, &b, 2).await;
        nest.refs.controller.run(|_, _| panic!("a bug in the middle")).unwrap();
        let update = ended(&nest, &update).await;
        assert_eq!(update.state, OperationState::Succeeded, "{update:?}");
        nest.running("s/c", 2).await;
        assert_eq!(nest.live()[0], "s/a 2", "it had been brought to the new document before");
        nest.end().await;
    });
}

/// An operator is impatient: what they start is coming back already.
#[test]
fn a_start_of_what_comes_back_by_itself_is_done_when_it_is_back() {
    run(async {
        let nest = Nest::start(&[("s", &["a"])]).await;
        let a: AgentId = "s/a".parse().unwrap();
        nest.running("s/a", 1).await;
        nest.runtime.next(&a, Script::runs().alive_after(SLOW));
        nest.runtime.strike(&a);
        starting(&nest, &a, 2).await;
        done(&nest, request(Command::Start, "s/a")).await;
        nest.running("s/a", 2).await;
        nest.end().await;
    });
}

/// A job that is done stays done when its swarm is started, which is no failure of the start.
#[test]
fn a_start_of_a_swarm_does_not_wait_for_what_has_completed() {
    run(async {
        let nest = Nest::start_with(&[("s", &["job", "b"])], |spec| {
            Arc::make_mut(&mut spec.agents[0]).restart = RestartType::Transient;
        });
        nest.runtime.script(&"s/job".parse().unwrap(), Script::runs().exits(Duration::ZERO, 0));
        let nest = nest.up().await;
        nest.state("s/job", AgentState::Completed).await;
        nest.running("s/b", 1).await;
        done(&nest, request(Command::Start, "s")).await;
        assert_eq!(nest.state("s/job", AgentState::Completed).await.incarnation, 1);
        nest.end().await;
    });
}

/// The fall of the one above ends the supervisor, which gives up whatever it was asked for. Nobody has asked for anything else.
#[test]
fn an_operation_goes_on_when_the_supervisor_above_all_swarms_falls() {
    run(async {
        let nest = Nest::start(&[("s", &["a"])]).await;
        let a: AgentId = "s/a".parse().unwrap();
        nest.running("s/a", 1).await;
        nest.runtime.next(&a, Script::runs().alive_after(Duration::from_secs(3600)));
        let restart = nest.office.submit(restart("s/a")).await.unwrap();
        starting(&nest, &a, 2).await;
        panic_in(&nest.refs.swarms, "a bug in the supervisor of swarms").await;
        let restart = ended(&nest, &restart).await;
        assert_eq!(restart.state, OperationState::Succeeded, "{restart:?}");
        nest.running("s/a", 3).await;
        nest.end().await;
    });
}

/// The journal learns of a number when the incarnation begins. One whose supervisor falls before that has been told of already.
#[test]
fn no_number_is_given_out_twice_when_a_supervisor_falls_before_the_journal_has_it() {
    run(async {
        let nest = Nest::start(&[("s", &["a", "b"])]).await;
        let a: AgentId = "s/a".parse().unwrap();
        nest.running("s/a", 1).await;
        nest.running("s/b", 1).await;
        nest.journal.fail_writes(Some(StoreError::Full));
        nest.runtime.strike(&a);
        for incarnation in 2..=4 {
            until("it waits for the journal", async || {
                let agent = nest.health.agent(&a)?;
                let waits = agent.reasons.iter().any(|reason| reason.detail.contains("no space left"));
                (agent.incarnation == incarnation && waits).then_some(())
            })
            .await;
            if incarnation < 4 {
                let supervisor = nest.office.supervisor(&"s".parse().unwrap()).unwrap();
                panic_in(&supervisor, "a bug in the supervisor of s").await;
            }
        }
        nest.journal.fail_writes(None);
        nest.running("s/a", 4).await;
        assert_eq!(nest.runtime.launches(&a), 2, "only the last of them was begun");
        assert_eq!(nest.runtime.overlaps(), 0);
        nest.end().await;
    });
}

/// The journal may not have the end of an update without its document: whoever reads it next would take the old one for the last word.
#[test]
fn a_document_that_the_journal_does_not_take_is_offered_again_before_the_end_of_its_update() {
    run(async {
        let nest = Nest::start(&[("s", &["a"])]).await;
        nest.running("s/a", 1).await;
        let mut spec = (*nest.office.swarm(&"s".parse().unwrap()).unwrap().spec).clone();
        spec.env.insert("VERSION".to_owned(), "2".to_owned().into());
        let kept = async || nest.journal.swarms().await.unwrap()[0].document.contains("VERSION");
        nest.journal.fail_documents(Some(StoreError::Full));
        let update =
            Request { requested_by: Requester::Reload, ..request(Command::Update { spec: Arc::new(spec) }, "s") };
        let update = nest.office.submit(update).await.unwrap();
        assert_eq!(ended(&nest, &update).await.state, OperationState::Succeeded);
        nest.running("s/a", 2).await;
        let journaled = async || nest.journal.operation(update.id).await.unwrap().unwrap().state;
        assert_eq!((kept().await, journaled().await), (false, OperationState::Running));
        nest.journal.fail_documents(None);
        nest.office.supervisor_fell();
        until("the end is in the journal", async || (journaled().await == OperationState::Succeeded).then_some(()))
            .await;
        assert!(kept().await);
        nest.end().await;
    });
}
