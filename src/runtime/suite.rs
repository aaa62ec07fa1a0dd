//! What every runtime must hold, run on each of them. A case that needs a capability is skipped where it is not declared.
//!
//! A case panics when the contract is broken: it is a test, which lives here because the runtimes to come are tested by it, too.
#![expect(clippy::expect_used, clippy::panic, reason = "a case is a test")]

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use super::contract::{
    AgentEvent, BoxFuture, LaunchError, LaunchOrder, Launched, OutputLine, RecoverError, Recovered, Runtime,
};
use crate::{
    model::{AgentId, ExitCause, ExitRecord},
    wire::channel::Stream,
};

/// No step of a case takes longer on a machine that is merely slow.
const PATIENCE: Duration = Duration::from_secs(20);
/// The grace of those that are to run out: long enough to see that the runtime does wait.
const GRACE: Duration = Duration::from_millis(300);

/// What the programs of the suite do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Prints `ready` and runs until it is ended.
    Runs,
    /// Prints `ready`, then ignores SIGTERM.
    Stubborn,
    /// Runs with a process of its own below it that has a session of its own. Prints `ready` when it is there.
    Family,
    /// Exits with a code.
    Exits(i32),
    /// Sends itself a signal.
    DiesOf(i32),
    /// Prints `line 1` to `line N` and exits with 0.
    Prints(u32),
    /// Is not there.
    Missing,
}

/// A runtime on a bench: with programs, and with somebody who breaks things.
pub trait Bench: Send + Sync {
    /// The runtime under test.
    fn runtime(&self) -> Arc<dyn Runtime>;
    /// The runtime of the next daemon, at the same place.
    fn successor(&self) -> Arc<dyn Runtime>;
    /// An order for a program of its own agent.
    fn order(&self, program: Program) -> LaunchOrder;
    /// SIGKILL from outside to the agent itself.
    fn strike(&self, agent: &AgentId, pid: u32);
    /// SIGKILL to its launcher.
    fn strike_launcher(&self, agent: &AgentId, pid: u32);
    /// How many processes of a launch there are, launcher included.
    fn left(&self, order: &LaunchOrder) -> BoxFuture<'_, usize>;
}

/// A launch that a case follows.
struct Case<'a> {
    bench: &'a dyn Bench,
    order: LaunchOrder,
    launched: Launched,
    pid: u32,
    lines: Vec<OutputLine>,
    stopping: bool,
}

impl<'a> Case<'a> {
    async fn launch(bench: &'a dyn Bench, program: Program) -> Self {
        let order = bench.order(program);
        let launched = bench.runtime().launch(order.clone()).await.expect("launched");
        Self::alive(bench, order, launched).await
    }

    async fn alive(bench: &'a dyn Bench, order: LaunchOrder, mut launched: Launched) -> Self {
        match within(launched.events.recv()).await {
            Some(AgentEvent::Alive { pid, .. }) => {
                Case { bench, order, launched, pid, lines: Vec::new(), stopping: false }
            }
            other => panic!("first event of a program that runs: {other:?}"),
        }
    }

    /// The next event that ends or freezes; output is kept, readings pass.
    async fn next(&mut self) -> Option<AgentEvent> {
        let until = Instant::now() + PATIENCE;
        loop {
            match timeout_at(until, self.launched.events.recv()).await.expect("an event in time") {
                Some(AgentEvent::Output(lines)) => self.lines.extend(lines),
                Some(AgentEvent::Sample { .. }) => {}
                // A frozen tree that is stopped is unfrozen, to be able to obey.
                Some(AgentEvent::Paused(false)) if self.stopping => {}
                other => return other,
            }
        }
    }

    async fn ready(&mut self) {
        while !self.lines.iter().any(|line| line.text == "ready") {
            match within(self.launched.events.recv()).await {
                Some(AgentEvent::Output(lines)) => self.lines.extend(lines),
                Some(AgentEvent::Sample { .. }) => {}
                other => panic!("instead of `ready`: {other:?}"),
            }
        }
    }

    async fn paused(&mut self, wanted: bool) {
        assert_eq!(self.next().await, Some(AgentEvent::Paused(wanted)));
    }

    async fn exit(&mut self) -> ExitRecord {
        match self.next().await {
            Some(AgentEvent::Exited(record)) => record,
            other => panic!("instead of the end: {other:?}"),
        }
    }

    /// The end, with nothing behind it and nothing left.
    async fn ends(&mut self) -> ExitRecord {
        let record = self.exit().await;
        assert_eq!(record.incarnation, self.order.incarnation);
        assert_eq!(within(self.launched.events.recv()).await, None, "the end is the last event");
        gone(self.bench, &self.order).await;
        self.bench.runtime().forget(self.order.launch_id).await;
        record
    }

    async fn recovered(bench: &'a dyn Bench, order: &LaunchOrder, last_seq: u64) -> Recovered {
        let runtime = bench.successor();
        within(runtime.recover(order.launch_id, order.agent.clone(), order.incarnation, last_seq))
            .await
            .expect("an answer")
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("an answer in time")
}

/// Launchers end a moment after their last word.
async fn gone(bench: &dyn Bench, order: &LaunchOrder) {
    let until = Instant::now() + PATIENCE;
    while bench.left(order).await > 0 {
        assert!(Instant::now() < until, "processes were left behind");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A program that exits is seen to, with its code.
pub async fn exit_codes(bench: &dyn Bench) {
    for code in [0, 1, 255] {
        let record = Case::launch(bench, Program::Exits(code)).await.ends().await;
        assert_eq!((record.cause, record.code, record.signal), (ExitCause::Exited, Some(code), None));
    }
}

/// A program that a signal ends is seen to, with the signal.
pub async fn signals(bench: &dyn Bench) {
    let record = Case::launch(bench, Program::DiesOf(libc::SIGSEGV)).await.ends().await;
    assert_eq!((record.cause, record.code, record.signal), (ExitCause::Signalled, None, Some(libc::SIGSEGV)));
    let mut case = Case::launch(bench, Program::Runs).await;
    case.ready().await;
    bench.strike(&case.order.agent, case.pid);
    let record = case.ends().await;
    assert_eq!((record.cause, record.signal), (ExitCause::Signalled, Some(libc::SIGKILL)));
}

/// A program that is not there is told by its first and only event.
pub async fn start_failure(bench: &dyn Bench) {
    let order = bench.order(Program::Missing);
    let mut launched = bench.runtime().launch(order.clone()).await.expect("launched");
    let Some(AgentEvent::Exited(ExitRecord { cause: ExitCause::StartFailed { message }, .. })) =
        within(launched.events.recv()).await
    else {
        panic!("not a failed start")
    };
    assert!(!message.is_empty());
    assert_eq!(within(launched.events.recv()).await, None);
    gone(bench, &order).await;
}

/// An order that can't work launches nothing.
pub async fn refused_order(bench: &dyn Bench) {
    let order = LaunchOrder { argv: Vec::new(), ..bench.order(Program::Missing) };
    let refused = bench.runtime().launch(order.clone()).await;
    assert!(matches!(refused, Err(LaunchError::Refused(_))));
    assert_eq!(bench.left(&order).await, 0);
}

/// Output comes in order, numbered from 1, and all of it before the end.
pub async fn output_is_numbered(bench: &dyn Bench) {
    const LINES: u32 = 500;
    let mut case = Case::launch(bench, Program::Prints(LINES)).await;
    assert_eq!(case.ends().await.code, Some(0));
    let found: Vec<_> = case.lines.iter().map(|line| (line.seq, line.stream, line.text.clone())).collect();
    let wanted: Vec<_> = (1..=u64::from(LINES)).map(|n| (n, Stream::Stdout, format!("line {n}"))).collect();
    assert_eq!(found, wanted);
}

/// A program that obeys SIGTERM ends well before the grace does.
pub async fn stop_obeyed(bench: &dyn Bench) {
    let mut case = Case::launch(bench, Program::Family).await;
    case.ready().await;
    case.launched.control.stop(Duration::from_secs(600));
    let record = case.ends().await;
    assert_eq!((record.cause, record.signal), (ExitCause::Stopped, Some(libc::SIGTERM)));
}

/// One that ignores it is killed when the grace is over, not before; asking twice changes nothing, a shorter grace wins.
pub async fn stop_grace(bench: &dyn Bench) {
    let mut case = Case::launch(bench, Program::Stubborn).await;
    case.ready().await;
    let asked = Instant::now();
    case.launched.control.stop(Duration::from_secs(600));
    case.launched.control.stop(GRACE);
    case.launched.control.stop(Duration::from_secs(600));
    let record = case.ends().await;
    assert!(asked.elapsed() >= GRACE, "killed before the grace was over");
    assert_eq!((record.cause, record.signal), (ExitCause::Stopped, Some(libc::SIGKILL)));
}

/// A kill ends the whole tree, also what has left the session.
pub async fn kill(bench: &dyn Bench) {
    let mut case = Case::launch(bench, Program::Family).await;
    case.ready().await;
    case.launched.control.kill();
    case.launched.control.kill();
    let record = case.ends().await;
    assert_eq!((record.cause, record.signal), (ExitCause::Stopped, Some(libc::SIGKILL)));
    case.launched.control.kill();
    case.launched.control.stop(GRACE);
}

/// Reins that are dropped kill, also when nobody takes the events.
pub async fn dropped_reins_kill(bench: &dyn Bench) {
    let mut case = Case::launch(bench, Program::Family).await;
    case.ready().await;
    drop(case.launched);
    gone(bench, &case.order).await;
}

/// A frozen tree answers, stays, and can be unfrozen, stopped and killed.
pub async fn pause_and_resume(bench: &dyn Bench) {
    if !bench.runtime().capabilities().pause {
        return;
    }
    let mut case = Case::launch(bench, Program::Family).await;
    case.ready().await;
    case.launched.control.pause();
    case.paused(true).await;
    case.launched.control.resume();
    case.paused(false).await;
    case.launched.control.pause();
    case.paused(true).await;
    case.launched.control.kill();
    assert_eq!(case.ends().await.cause, ExitCause::Stopped);

    let mut case = Case::launch(bench, Program::Runs).await;
    case.ready().await;
    case.launched.control.pause();
    case.paused(true).await;
    case.stopping = true;
    case.launched.control.stop(Duration::from_secs(600));
    assert_eq!(case.ends().await.cause, ExitCause::Stopped);
}

/// A detached agent lives on, and the next daemon has the same process, what it wrote since, and the reins.
pub async fn recover_running(bench: &dyn Bench) {
    if !bench.runtime().capabilities().recover {
        return;
    }
    let mut case = Case::launch(bench, Program::Runs).await;
    case.ready().await;
    let seen = case.lines.len() as u64;
    case.launched.control.ack(seen);
    case.launched.control.detach();
    assert_eq!(case.next().await, None, "a detached launch shows nothing more");
    for (last_seq, lines) in [(seen, 0), (0, 0)] {
        let Recovered::Running(launched) = Case::recovered(bench, &case.order, last_seq).await else {
            panic!("it runs")
        };
        let again = Case::alive(bench, case.order.clone(), launched).await;
        assert_eq!(again.pid, case.pid);
        assert_eq!(again.lines.len(), lines);
        again.launched.control.detach();
    }
    let Recovered::Running(launched) = Case::recovered(bench, &case.order, seen).await else { panic!("it runs") };
    let mut again = Case::alive(bench, case.order.clone(), launched).await;
    again.launched.control.kill();
    assert_eq!(again.ends().await.cause, ExitCause::Stopped);
}

/// Output that was not acknowledged is shown again to the next daemon, under the same numbers.
pub async fn recover_output(bench: &dyn Bench) {
    if !bench.runtime().capabilities().recover {
        return;
    }
    let mut case = Case::launch(bench, Program::Runs).await;
    case.ready().await;
    case.launched.control.detach();
    let Recovered::Running(launched) = Case::recovered(bench, &case.order, 0).await else { panic!("it runs") };
    let mut again = Case::alive(bench, case.order.clone(), launched).await;
    again.ready().await;
    assert_eq!(again.lines, case.lines);
    again.launched.control.kill();
    again.ends().await;
}

/// What ended while no daemon was there is known from its record, until it is forgotten.
pub async fn recover_exited(bench: &dyn Bench) {
    if !bench.runtime().capabilities().recover {
        return;
    }
    let mut case = Case::launch(bench, Program::Runs).await;
    case.ready().await;
    case.launched.control.detach();
    assert_eq!(case.next().await, None);
    bench.strike(&case.order.agent, case.pid);
    gone(bench, &case.order).await;
    for _ in 0..2 {
        let Recovered::Exited { record, .. } = Case::recovered(bench, &case.order, 0).await else { panic!("it ended") };
        assert_eq!((record.cause, record.signal), (ExitCause::Signalled, Some(libc::SIGKILL)));
        assert_eq!(record.incarnation, case.order.incarnation);
    }
    bench.successor().forget(case.order.launch_id).await;
    assert!(matches!(Case::recovered(bench, &case.order, 0).await, Recovered::Lost));
}

/// A launcher that dies is noticed; the end is reported when nothing of its tree is left, and not before.
pub async fn launcher_lost(bench: &dyn Bench) {
    let mut case = Case::launch(bench, Program::Family).await;
    case.ready().await;
    bench.strike_launcher(&case.order.agent, case.pid);
    let record = case.exit().await;
    assert_eq!((record.cause, record.code, record.signal), (ExitCause::LauncherLost, None, None));
    assert_eq!(bench.left(&case.order).await, 0, "reported before it was proven");
    assert_eq!(within(case.launched.events.recv()).await, None);
    bench.runtime().forget(case.order.launch_id).await;
}

/// The same, when no daemon was there to notice.
pub async fn recover_lost(bench: &dyn Bench) {
    if !bench.runtime().capabilities().recover {
        return;
    }
    let mut case = Case::launch(bench, Program::Family).await;
    case.ready().await;
    case.launched.control.detach();
    assert_eq!(case.next().await, None);
    bench.strike_launcher(&case.order.agent, case.pid);
    let until = Instant::now() + PATIENCE;
    let found = loop {
        // Until the launcher is dead, it is right to say that it runs.
        match Case::recovered(bench, &case.order, 0).await {
            Recovered::Running(launched) => launched.control.detach(),
            other => break other,
        }
        assert!(Instant::now() < until, "the launcher's death went unnoticed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert!(matches!(found, Recovered::Lost));
    assert_eq!(bench.left(&case.order).await, 0, "reported before it was proven");
}

/// What nobody knows is found, what is led or known is not, and only with `remove` it is ended.
pub async fn orphans(bench: &dyn Bench) {
    if !bench.runtime().capabilities().recover {
        return;
    }
    let runtime = bench.runtime();
    let mut led = Case::launch(bench, Program::Runs).await;
    let mut stray = Case::launch(bench, Program::Family).await;
    let mut known = Case::launch(bench, Program::Runs).await;
    for case in [&mut led, &mut stray, &mut known] {
        case.ready().await;
    }
    for case in [&mut stray, &mut known] {
        case.launched.control.detach();
        assert_eq!(case.next().await, None);
    }
    let others = vec![known.order.launch_id];
    assert_eq!(within(runtime.orphans(others.clone(), false)).await, [stray.order.launch_id]);
    assert!(bench.left(&stray.order).await > 0, "a dry run ended it");
    assert_eq!(within(runtime.orphans(others.clone(), true)).await, [stray.order.launch_id]);
    gone(bench, &stray.order).await;
    assert_eq!(within(runtime.orphans(others, true)).await, []);
    assert!(bench.left(&known.order).await > 0 && bench.left(&led.order).await > 0);
    led.launched.control.kill();
    led.ends().await;
    let Recovered::Running(launched) = Case::recovered(bench, &known.order, 0).await else { panic!("it runs") };
    drop(launched);
    gone(bench, &known.order).await;
}

/// A daemon that a younger one has overtaken is fenced: it is told, may not lead again, and the agent lives on under the younger.
pub async fn fencing(bench: &dyn Bench) {
    if !bench.runtime().capabilities().recover {
        return;
    }
    let mut case = Case::launch(bench, Program::Runs).await;
    case.ready().await;
    let Recovered::Running(launched) = Case::recovered(bench, &case.order, 0).await else { panic!("it runs") };
    let mut young = Case::alive(bench, case.order.clone(), launched).await;
    assert_eq!(case.next().await, Some(AgentEvent::Fenced));
    assert_eq!(within(case.launched.events.recv()).await, None);
    let LaunchOrder { launch_id, agent, incarnation, .. } = case.order.clone();
    let again = within(bench.runtime().recover(launch_id, agent, incarnation, 0)).await;
    assert!(matches!(again, Err(RecoverError::Fenced)));
    assert_eq!(within(bench.runtime().orphans(Vec::new(), true)).await, []);
    drop(case.launched);
    young.ready().await;
    assert!(bench.left(&case.order).await > 0);
    young.launched.control.kill();
    young.ends().await;
}

/// Each id is handed out once; it is no launch before it is launched, and one that comes to nothing leaves nothing.
pub async fn reservations(bench: &dyn Bench) {
    let runtime = bench.runtime();
    let mut first = Case::launch(bench, Program::Runs).await;
    let swarm = &first.order.agent.swarm;
    let ids = [runtime.reserve(swarm), runtime.reserve(swarm), runtime.reserve(swarm)];
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    let known = vec![first.order.launch_id];
    assert_eq!(within(runtime.orphans(known, true)).await, []);
    let order = LaunchOrder { launch_id: ids[0], ..bench.order(Program::Runs) };
    let launched = runtime.launch(order.clone()).await.expect("launched");
    let mut used = Case::alive(bench, order, launched).await;
    for launch_id in [ids[1], ids[2], ids[2]] {
        within(runtime.forget(launch_id)).await;
        let withdrawn = LaunchOrder { launch_id, ..bench.order(Program::Missing) };
        assert_eq!(bench.left(&withdrawn).await, 0);
    }
    for case in [&mut used, &mut first] {
        case.ready().await;
        case.launched.control.kill();
        case.ends().await;
    }
}
