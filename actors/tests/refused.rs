//! Alone in its process, because it takes the process's memory for new threads away.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/plain.rs"]
mod plain;

use std::io::{BufRead, BufReader, Lines};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use actix::System;
use hivekeeper_actors::{
    Child, ChildSpec, ExitReason, Placement, RestartType, Root, Strategy, SupervisorError, SupervisorFlags,
};

use plain::{Deaf, Plain};

/// Holds down the address space of this process. A process of its own lifts it again, because this one can't make any meanwhile.
struct Limit {
    lifter: std::process::Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Limit {
    fn set(bytes: u64) -> Self {
        let me = std::process::id();
        let script = format!(
            "prlimit --pid={me} --as={bytes}: && echo set && read _; prlimit --pid={me} --as=unlimited: && echo lifted"
        );
        let mut lifter =
            Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(lifter.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "set");
        Self { lifter, said }
    }

    fn lift(mut self) {
        drop(self.lifter.stdin.take());
        assert_eq!(self.said.next().unwrap().unwrap(), "lifted");
        assert!(self.lifter.wait().unwrap().success());
    }
}

#[test]
fn a_machine_that_refuses_a_thread_is_a_failed_start() {
    System::new().block_on(async {
        let root = Root::start(SupervisorFlags::unlimited(Strategy::OneForOne), vec![], Arc::new(Deaf)).unwrap();
        root.started().await.unwrap();
        let spec = ChildSpec {
            placement: Placement::Dedicated,
            restart: RestartType::Temporary,
            retain: true,
            ..ChildSpec::new("a")
        };
        let (child, child_ref) = Child::actor(spec, |_| Ok(Plain));
        let pages: u64 =
            std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
        // Room for what the test does and not for the stack of a thread, which takes two megabytes.
        let limit = Limit::set(pages * 4096 + (1 << 20));
        let refused = root.supervisor().add_child(child).await;
        limit.lift();
        let Err(SupervisorError::StartFailed { reason: ExitReason::StartFailed(reason) }) = refused else {
            panic!("{refused:?}")
        };
        assert!(reason.starts_with("no thread of its own: "), "{reason}");
        assert_eq!(root.stats().dedicated, 0);
        root.supervisor().start_existing(&"a".into()).await.unwrap();
        assert_eq!((root.stats().dedicated, child_ref.incarnation()), (1, 2));
        tokio::time::timeout(Duration::from_secs(60), root.shutdown()).await.unwrap().unwrap();
    });
}
