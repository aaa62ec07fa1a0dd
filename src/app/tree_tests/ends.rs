//! Ends that are no fault of the agents: a container that dies takes them along, and nothing is debited to them.

use std::time::{Duration, SystemTime};

use super::*;
use crate::model::ExitCause;

const PERIOD: Duration = Duration::from_secs(60);

#[test]
fn an_agent_without_intensity_outlives_its_container_but_not_its_own_exit() {
    run(async {
        let nest = Nest::start_with(&[("s", &["a", "b"]), ("t", &["c"])], |spec| spec.intensity = 0).up().await;
        for id in ["s/a", "s/b", "t/c"] {
            nest.running(id, 1).await;
        }
        for incarnation in 2..=3 {
            nest.runtime.strike_container(&"s".parse().unwrap(), "exit code 137");
            for id in ["s/a", "s/b"] {
                let back = nest.running(id, incarnation).await;
                assert_eq!((back.restarts, back.restarts_in_window), (0, 0), "{back:?}");
                let exit = back.last_exit.as_ref().unwrap();
                assert_eq!(exit.cause, ExitCause::ContainerLost { message: "exit code 137".to_owned() });
                assert_eq!(
                    (exit.incarnation, exit.describe().as_str()),
                    (incarnation - 1, "its container ended: exit code 137")
                );
            }
        }
        nest.running("t/c", 1).await;
        let a = "s/a".parse().unwrap();
        let ledger = nest.journal.ledger(&a, SystemTime::now(), PERIOD).await.unwrap();
        assert_eq!((ledger.incarnation, ledger.restarts, ledger.recent, ledger.attempt), (3, 0, vec![], 0));

        nest.runtime.strike(&a);
        let failed = nest.state("s/a", AgentState::Failed).await;
        assert_eq!(failed.last_exit.as_ref().unwrap().cause, ExitCause::Signalled);
        nest.running("s/b", 3).await;
        nest.end().await;
    });
}

#[test]
fn a_loss_leaves_the_window_of_an_agent_as_it_was() {
    run(async {
        let nest = Nest::start_with(&[("s", &["a"])], |spec| spec.intensity = 1).up().await;
        let a = "s/a".parse().unwrap();
        nest.running("s/a", 1).await;
        nest.runtime.next(&a, Script::runs().loses_container(Duration::ZERO, "removed"));
        nest.runtime.strike(&a);
        let back = nest.running("s/a", 3).await;
        assert_eq!((back.restarts, back.restarts_in_window), (1, 1), "{back:?}");
        let ledger = nest.journal.ledger(&a, SystemTime::now(), PERIOD).await.unwrap();
        assert_eq!((ledger.restarts, ledger.recent.len()), (1, 1));
        nest.runtime.strike(&a);
        nest.state("s/a", AgentState::Failed).await;
        nest.end().await;
    });
}

/// A stop that a dying container overtakes is a stop all the same.
#[test]
fn a_container_that_dies_under_a_stop_brings_nobody_back() {
    run(async {
        let nest = Nest::start(&[("s", &["a"])]).await;
        let a = "s/a".parse().unwrap();
        nest.runtime.next(&a, Script::runs().ignores_stop());
        done(&nest, restart("s/a")).await;
        let stop = nest.office.submit(Request { command: stop_in(60), ..stop("s/a") }).await.unwrap();
        nest.state("s/a", AgentState::Stopping).await;
        nest.runtime.strike_container(&"s".parse().unwrap(), "removed");
        let operation = ended(&nest, &stop).await;
        assert_eq!(operation.state, OperationState::Succeeded, "{operation:?}");
        let stopped = nest.state("s/a", AgentState::Stopped).await;
        assert_eq!(stopped.last_exit.as_ref().unwrap().cause, ExitCause::Stopped);
        assert_eq!(nest.live(), Vec::<String>::new());
        nest.end().await;
    });
}

/// A grace that only another end can cut short.
fn stop_in(secs: u64) -> Command {
    Command::Stop { grace: Some(Duration::from_secs(secs)), reason: None }
}
