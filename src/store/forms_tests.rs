#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::{model::OperationId, store::suite};

#[test]
fn every_exit_cause_comes_back() {
    let causes = [
        ExitCause::Exited,
        ExitCause::Signalled,
        ExitCause::Stopped,
        ExitCause::LeaseLost,
        ExitCause::StartFailed { message: "no such file".to_owned() },
        ExitCause::StartTimeout,
        ExitCause::Stuck,
        ExitCause::LauncherLost,
        ExitCause::ContainerLost { message: "exit code 137".to_owned() },
        ExitCause::NeverStarted,
    ];
    for (n, cause) in causes.into_iter().enumerate() {
        let exit = ExitRecord {
            incarnation: n as u64 + 1,
            code: (n % 2 == 0).then_some(3),
            signal: (n % 2 == 1).then_some(9),
            oom: [None, Some(false), Some(true)][n % 3],
            at: time(1_700_000_000_123),
            cause,
            last_lines: vec!["a \"quoted\" line".to_owned(), "zwei\u{1F41D}".to_owned()],
        };
        let text = to_json(&ExitForm::from(&exit)).unwrap();
        assert_eq!(ExitRecord::from(from_json::<ExitForm>(&text).unwrap()), exit);
    }
}

#[test]
fn every_command_and_state_comes_back() {
    let reason = Some("because".to_owned());
    let commands = [
        Command::Restart {
            mode: crate::model::RestartMode::All,
            grace: Some(Duration::from_millis(1500)),
            reason: reason.clone(),
        },
        Command::Restart { mode: crate::model::RestartMode::All, grace: None, reason: None },
        Command::Stop { grace: Some(Duration::ZERO), reason },
        Command::Start,
        Command::Pause,
        Command::Resume,
    ];
    let states = [
        OperationState::Accepted,
        OperationState::Running,
        OperationState::Succeeded,
        OperationState::Failed,
        OperationState::Cancelled,
    ];
    for (n, command) in commands.into_iter().enumerate() {
        let mut operation = suite::operation("review", 1_700_000_000_000);
        operation.id = OperationId::mint();
        operation.command = command;
        operation.state = states[n % states.len()];
        if n % 2 == 0 {
            operation.target = Target::Agent("review/coder-1".parse().unwrap());
            operation.requested_by = if n == 0 {
                Requester::Daemon
            } else {
                Requester::Token { name: "ci".parse().unwrap(), peer: "[::1]:4711".to_owned() }
            };
            operation.ended_at = Some(time(1_700_000_001_000));
            operation.error = Some("one agent did not end".to_owned());
            let agent: AgentId = "review/coder-1".parse().unwrap();
            operation.steps = vec![
                Step { at: time(5), agent: agent.clone(), result: Ok("running as pid 4711".to_owned()) },
                Step { at: time(6), agent, result: Err("did not end".to_owned()) },
            ];
        }
        assert_eq!(OperationColumns::of(&operation).unwrap().operation().unwrap(), operation);
    }
}

#[test]
fn a_damaged_text_is_called_damaged() {
    assert!(matches!(from_json::<ExitForm>("{\"code\":"), Err(StoreError::Corrupt(_))));
    assert!(matches!(state_of("asleep"), Err(StoreError::Corrupt(_))));
}

/// A document of a later version, say. All else of the operation is read, and what is not stays as it is.
#[test]
fn a_command_that_cannot_be_read_is_kept_as_it_is() {
    let kept = suite::operation("review", 1_700_000_000_000);
    let mut columns = OperationColumns::of(&kept).unwrap();
    let raw = r#"{"update":{"api":true,"document":{"name":"review","colour":"red"}}}"#;
    let mut body: serde_json::Value = from_json(&columns.body).unwrap();
    body["command"] = from_json(raw).unwrap();
    columns.body = to_json(&body).unwrap();
    let read = columns.operation().unwrap();
    let Command::Unreadable { raw: found, why } = &read.command else { panic!("{read:?}") };
    assert!(why.contains("colour"), "{why}");
    let same = |text: &str| from_json::<serde_json::Value>(text).unwrap();
    assert_eq!(same(found), same(raw));
    assert_eq!(Operation { command: kept.command.clone(), ..read.clone() }, kept);
    assert_eq!(same(&OperationColumns::of(&read).unwrap().body), body);
    columns.body = "{}".to_owned();
    assert!(matches!(columns.operation(), Err(StoreError::Corrupt(_))));
}
