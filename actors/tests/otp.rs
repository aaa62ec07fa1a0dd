//! The core, one test per behaviour: those of OTP's supervisor_SUITE under their names, then ours (back-off, retry, operators).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use hivekeeper_actors::tree::{Action, Input, KILL_WAIT, Key, NewChild, Refusal, Request, Role, Token, Tree};
use hivekeeper_actors::{
    Backoff, ChildId, ChildSpec, ChildState, EventKind, ExitReason, Intensity, OnExceeded, RestartType, Seed,
    SeedState, Shutdown, Strategy, TreeNode,
};

const S: Duration = Duration::from_secs(1);

fn crash() -> ExitReason {
    ExitReason::Panic { text: "boom".into(), location: "here".into() }
}

/// A core with a clock that the test moves.
struct Sim {
    tree: Tree<&'static str>,
    now: Instant,
    log: Vec<String>,
    answers: Vec<(u64, Result<(), Refusal>)>,
    kinds: Vec<(String, EventKind)>,
}

impl Sim {
    fn new(specs: Vec<ChildSpec>) -> Self {
        let tree = Tree::new("root".into(), Strategy::OneForOne);
        let mut sim = Self { tree, now: Instant::now(), log: vec![], answers: vec![], kinds: vec![] };
        let children = specs.into_iter().map(new_child).collect();
        sim.step(Input::Init(children));
        sim
    }

    /// One running child.
    fn running(spec: ChildSpec) -> Self {
        let id = spec.id.clone();
        let mut sim = Self::new(vec![spec]);
        sim.started(id.as_str());
        sim
    }

    fn step(&mut self, input: Input<&'static str>) {
        for action in self.tree.step(self.now, 0.5, input) {
            let name = |key: Key| self.tree.child(key).map(|(_, spec)| spec.id.to_string()).unwrap_or_default();
            match action {
                Action::Launch { key, incarnation, adopted } => {
                    let adopted = if adopted { " adopted" } else { "" };
                    self.log.push(format!("launch {} {incarnation}{adopted}", name(key)));
                }
                Action::Stop(key) => self.log.push(format!("stop {}", name(key))),
                Action::Kill(key) => self.log.push(format!("kill {}", name(key))),
                Action::Close(key) => self.log.push(format!("close {}", name(key))),
                Action::Dispose(payload) => self.log.push(format!("dispose {payload}")),
                Action::Ready => self.log.push("ready".into()),
                Action::Finished => self.log.push("finished".into()),
                Action::Answer(Token(token), result) => self.answers.push((token, result)),
                Action::Emit(event) => self.kinds.push((event.id.to_string(), event.kind)),
            }
        }
    }

    fn after(&mut self, wait: Duration) {
        self.now += wait;
        self.step(Input::Tick);
    }

    fn key_node(&self, id: &str) -> (Key, TreeNode) {
        self.tree.nodes(self.now).find(|(_, node)| node.id.as_str() == id).expect("a child of that name")
    }

    fn node(&self, id: &str) -> TreeNode {
        self.key_node(id).1
    }

    fn state(&self, id: &str) -> ChildState {
        self.node(id).state
    }

    fn started(&mut self, id: &str) {
        let (key, node) = self.key_node(id);
        self.step(Input::Started { key, incarnation: node.incarnation });
    }

    fn down(&mut self, id: &str, reason: ExitReason) {
        let (key, node) = self.key_node(id);
        self.step(Input::Down { key, incarnation: node.incarnation, reason });
    }

    /// Crashes it and lets its zero delay pass.
    fn crash_and_retry(&mut self, id: &str) {
        self.down(id, crash());
        self.after(Duration::ZERO);
        if self.state(id) == ChildState::Starting {
            self.started(id);
        }
    }

    fn ask(&mut self, token: u64, request: Request<&'static str>) {
        self.step(Input::Asked(Token(token), request));
    }

    fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    fn answers(&mut self) -> Vec<(u64, Result<(), Refusal>)> {
        std::mem::take(&mut self.answers)
    }
}

fn new_child(spec: ChildSpec) -> NewChild<&'static str> {
    NewChild { seed: spec.seed.clone(), spec: Arc::new(spec), role: Role::Worker, payload: "payload" }
}

fn id(name: &str) -> ChildId {
    name.into()
}

/// A child without delay between restarts.
fn eager(name: &str) -> ChildSpec {
    let backoff = Backoff { then: Duration::ZERO, jitter: 0.0, ..Backoff::default() };
    ChildSpec { backoff, ..ChildSpec::new(name) }
}

fn of_type(restart: RestartType) -> ChildSpec {
    ChildSpec { restart, ..eager("a") }
}

fn exit_of(restart: RestartType, reason: ExitReason) -> Sim {
    let mut sim = Sim::running(of_type(restart));
    sim.down("a", reason);
    sim.after(Duration::ZERO);
    sim
}

// The table of restart types and reasons.

#[test]
fn permanent_normal() {
    assert_eq!(exit_of(RestartType::Permanent, ExitReason::Normal).log(), ["launch a 1", "ready", "launch a 2"]);
}

#[test]
fn permanent_shutdown() {
    assert_eq!(exit_of(RestartType::Permanent, ExitReason::Shutdown).state("a"), ChildState::Starting);
}

#[test]
fn permanent_abnormal() {
    let sim = exit_of(RestartType::Permanent, crash());
    let node = sim.node("a");
    assert_eq!((node.state, node.incarnation, node.restarts, node.restarts_in_window), (ChildState::Starting, 2, 1, 1));
    let exit = node.last_exit.unwrap();
    assert_eq!((exit.reason, exit.incarnation), (crash(), 1));
}

#[test]
fn transient_normal() {
    let mut sim = exit_of(RestartType::Transient, ExitReason::Normal);
    assert_eq!(sim.state("a"), ChildState::Completed);
    assert_eq!(sim.log(), ["launch a 1", "ready", "close a"]);
}

#[test]
fn transient_shutdown() {
    assert_eq!(exit_of(RestartType::Transient, ExitReason::Shutdown).state("a"), ChildState::Completed);
}

#[test]
fn transient_abnormal() {
    for reason in [crash(), ExitReason::Error("e".into()), ExitReason::Killed, ExitReason::ArbiterGone] {
        assert_eq!(exit_of(RestartType::Transient, reason).state("a"), ChildState::Starting);
    }
}

#[test]
fn temporary_normal() {
    assert_eq!(exit_of(RestartType::Temporary, ExitReason::Normal).state("a"), ChildState::Completed);
}

#[test]
fn temporary_abnormal() {
    let mut sim = exit_of(RestartType::Temporary, crash());
    assert_eq!(sim.state("a"), ChildState::Failed);
    assert_eq!(sim.node("a").retry_in, None);
    sim.after(S * 3600);
    assert_eq!(sim.state("a"), ChildState::Failed, "never restarted");
}

// Intensity.

#[test]
fn one_for_one() {
    let mut sim = Sim::new(vec![eager("a"), eager("b")]);
    sim.started("a");
    sim.started("b");
    sim.log();
    sim.crash_and_retry("a");
    assert_eq!(sim.log(), ["launch a 2"]);
    assert_eq!((sim.node("b").incarnation, sim.state("b")), (1, ChildState::Running));
}

#[test]
fn intensity_exceeded_fails_the_child_alone() {
    let spec = ChildSpec { intensity: Intensity { max_restarts: 2, period: S * 10 }, ..eager("a") };
    let mut sim = Sim::new(vec![spec, eager("b")]);
    sim.started("a");
    sim.started("b");
    for _ in 0..3 {
        sim.crash_and_retry("a");
    }
    let node = sim.node("a");
    assert_eq!((node.state, node.incarnation, node.restarts, node.restarts_in_window), (ChildState::Failed, 3, 2, 2));
    assert_eq!(sim.state("b"), ChildState::Running);
    assert_eq!(sim.kinds.last().unwrap(), &("a".into(), EventKind::Failed { reason: crash(), retry_in: None }));
    sim.after(S * 3600);
    assert_eq!(sim.state("a"), ChildState::Failed);
}

#[test]
fn multiple_restarts() {
    let spec = ChildSpec { intensity: Intensity { max_restarts: 1, period: S }, ..eager("a") };
    let mut sim = Sim::running(spec);
    for _ in 0..4 {
        sim.crash_and_retry("a");
        assert_eq!(sim.state("a"), ChildState::Running);
        sim.now += S + Duration::from_millis(1);
    }
    assert_eq!(sim.node("a").restarts, 4);
}

#[test]
fn failed_starts_count() {
    let spec = ChildSpec { intensity: Intensity { max_restarts: 2, period: S }, ..eager("a") };
    let mut sim = Sim::new(vec![spec]);
    for _ in 0..3 {
        sim.down("a", ExitReason::StartFailed("no".into()));
        sim.after(Duration::ZERO);
    }
    assert_eq!((sim.state("a"), sim.node("a").incarnation), (ChildState::Failed, 3));
}

#[test]
fn retry_after_comes_with_a_fresh_window() {
    let intensity = Intensity { max_restarts: 1, period: S * 60 };
    let mut sim = Sim::running(ChildSpec { intensity, on_exceeded: OnExceeded::RetryAfter(S * 20), ..eager("a") });
    sim.crash_and_retry("a");
    sim.crash_and_retry("a");
    assert_eq!((sim.state("a"), sim.node("a").retry_in), (ChildState::Failed, Some(S * 20)));
    sim.after(S * 19);
    assert_eq!(sim.state("a"), ChildState::Failed);
    sim.after(S);
    let node = sim.node("a");
    assert_eq!((node.state, node.restarts_in_window, node.restarts), (ChildState::Starting, 0, 2));
    sim.started("a");
    sim.crash_and_retry("a");
    assert_eq!(sim.state("a"), ChildState::Running, "one more is allowed again");
}

#[test]
fn retry_after_is_for_permanent_children() {
    let intensity = Intensity { max_restarts: 0, period: S };
    let on_exceeded = OnExceeded::RetryAfter(S);
    let mut sim = Sim::running(ChildSpec { intensity, on_exceeded, ..of_type(RestartType::Transient) });
    sim.down("a", crash());
    assert_eq!((sim.state("a"), sim.node("a").retry_in), (ChildState::Failed, None));
}

// Back-off. The first two are bugs that delayed restarts had elsewhere (rabbitmq-common 201, supervisor3 2).

#[test]
fn backoff_child_is_marked_and_its_next_failure_counts() {
    let mut sim = Sim::running(ChildSpec { backoff: Backoff { initial: S, ..Backoff::default() }, ..eager("a") });
    sim.down("a", crash());
    assert_eq!((sim.state("a"), sim.node("a").retry_in), (ChildState::BackingOff, Some(S)));
    sim.after(S);
    sim.down("a", crash());
    let node = sim.node("a");
    assert_eq!((node.state, node.restarts, node.restarts_in_window), (ChildState::BackingOff, 1, 2));
}

#[test]
fn backoff_restart_is_counted_once() {
    let mut sim = Sim::running(ChildSpec { backoff: Backoff { initial: S, ..Backoff::default() }, ..eager("a") });
    sim.down("a", crash());
    assert_eq!((sim.node("a").restarts, sim.node("a").restarts_in_window), (0, 1), "decided, not launched");
    sim.after(S);
    assert_eq!((sim.node("a").restarts, sim.node("a").restarts_in_window), (1, 1));
    sim.started("a");
    assert_eq!((sim.node("a").restarts, sim.node("a").restarts_in_window), (1, 1));
}

#[test]
fn backoff_grows_and_resets() {
    let backoff = Backoff { jitter: 0.0, reset_after: S * 100, ..Backoff::default() };
    let intensity = Intensity { max_restarts: 100, period: S };
    let mut sim = Sim::running(ChildSpec { backoff, intensity, ..ChildSpec::new("a") });
    let mut fail = |ran: Duration| {
        sim.now += ran;
        sim.down("a", crash());
        let delay = sim.node("a").retry_in.unwrap();
        sim.after(delay);
        sim.started("a");
        delay.as_secs()
    };
    assert_eq!([fail(S), fail(S), fail(S), fail(S * 99), fail(S * 100), fail(S)], [0, 1, 2, 4, 0, 1]);
}

// Order.

#[test]
fn order_of_children() {
    let mut sim = Sim::new(vec![eager("a"), eager("b"), eager("c")]);
    assert_eq!(sim.log(), ["launch a 1"]);
    assert_eq!(sim.state("b"), ChildState::Pending);
    sim.started("a");
    assert_eq!(sim.log(), ["launch b 1"]);
    sim.started("b");
    sim.started("c");
    assert_eq!(sim.log(), ["launch c 1", "ready"]);
    sim.step(Input::Shutdown);
    assert_eq!(sim.log(), ["stop c"]);
    sim.down("c", ExitReason::Shutdown);
    assert_eq!(sim.log(), ["close c", "stop b"]);
    sim.down("b", ExitReason::Shutdown);
    sim.down("a", ExitReason::Shutdown);
    assert_eq!(sim.log(), ["close b", "stop a", "close a", "finished"]);
}

#[test]
fn order_goes_on_after_a_failed_start() {
    let spec = ChildSpec { backoff: Backoff { initial: S, ..Backoff::default() }, ..eager("a") };
    let mut sim = Sim::new(vec![spec, eager("b")]);
    sim.down("a", ExitReason::StartFailed("no".into()));
    assert_eq!(sim.state("a"), ChildState::BackingOff);
    sim.started("b");
    assert_eq!(sim.log(), ["launch a 1", "launch b 1", "ready"]);
}

#[test]
fn order_goes_on_past_seeds_that_start_nothing() {
    let seeded =
        |name: &str, state| ChildSpec { seed: Seed { incarnation: 4, state, ..Seed::default() }, ..eager(name) };
    let mut sim = Sim::new(vec![
        seeded("failed", SeedState::Failed),
        seeded("completed", SeedState::Completed),
        seeded("stopped", SeedState::Stopped),
        seeded("delayed", SeedState::Delayed { retry_in: S }),
        seeded("fresh", SeedState::Fresh),
        seeded("running", SeedState::Running),
    ]);
    assert_eq!(sim.log(), ["close failed", "close completed", "close stopped", "launch fresh 5"]);
    sim.started("fresh");
    assert_eq!(sim.log(), ["launch running 4 adopted"]);
    sim.started("running");
    sim.after(S);
    assert_eq!(sim.log(), ["ready", "launch delayed 5"]);
    assert_eq!(sim.node("delayed").restarts, 1);
    sim.down("running", crash());
    sim.after(Duration::ZERO);
    assert_eq!(sim.log(), ["launch running 5"], "an adopted child is adopted once");
}

#[test]
fn sup_stop_race() {
    let types = [RestartType::Permanent, RestartType::Transient, RestartType::Temporary];
    let reasons = [ExitReason::Normal, ExitReason::Shutdown, crash(), ExitReason::Error("e".into())];
    for (restart, reason) in types.iter().flat_map(|t| reasons.iter().map(move |r| (*t, r.clone()))) {
        let mut sim = Sim::new(vec![of_type(restart), eager("b")]);
        sim.started("a");
        sim.started("b");
        sim.step(Input::Shutdown);
        sim.log();
        sim.down("a", reason);
        sim.after(S);
        assert_eq!(sim.log(), ["close a"], "not restarted");
        sim.down("b", ExitReason::Shutdown);
        assert_eq!(sim.log().last().unwrap(), "finished");
    }
}

#[test]
fn sup_stop_timeout() {
    let mut sim = Sim::running(ChildSpec { shutdown: Shutdown::Deadline(S * 2), ..eager("a") });
    sim.step(Input::Shutdown);
    sim.after(S);
    assert_eq!(sim.log(), ["launch a 1", "ready", "stop a"]);
    sim.after(S);
    assert_eq!(sim.log(), ["kill a"]);
    sim.down("a", ExitReason::Killed);
    assert_eq!(sim.node("a").last_exit.unwrap().reason, ExitReason::DeadlineExceeded);
    assert_eq!(sim.log(), ["close a", "finished"]);
}

#[test]
fn sup_stop_infinity() {
    let mut sim = Sim::running(ChildSpec { shutdown: Shutdown::Infinity, ..eager("a") });
    sim.step(Input::Shutdown);
    sim.log();
    sim.after(S * 100_000);
    assert!(sim.log().is_empty());
    assert_eq!(sim.state("a"), ChildState::Stopping);
}

#[test]
fn sup_stop_brutal_kill() {
    let mut sim = Sim::running(ChildSpec { shutdown: Shutdown::Brutal, ..eager("a") });
    sim.step(Input::Shutdown);
    sim.down("a", ExitReason::Killed);
    assert_eq!(sim.log(), ["launch a 1", "ready", "kill a", "close a", "finished"]);
    assert_eq!(sim.node("a").last_exit.unwrap().reason, ExitReason::Killed);
}

#[test]
fn child_that_never_ends_cannot_hang_the_supervisor() {
    let mut sim = Sim::new(vec![eager("a"), ChildSpec { shutdown: Shutdown::Deadline(S), ..eager("b") }]);
    sim.started("a");
    sim.started("b");
    sim.ask(1, Request::StopAll);
    sim.after(S);
    sim.after(KILL_WAIT);
    assert_eq!(sim.log(), ["launch a 1", "launch b 1", "ready", "stop b", "kill b", "stop a"]);
    sim.down("a", ExitReason::Shutdown);
    assert_eq!(sim.answers(), [(1, Err(Refusal::Unresponsive))]);
    assert_eq!(sim.state("b"), ChildState::Stopping, "the truth: it lives");
    sim.ask(2, Request::Restart(id("b")));
    assert_eq!(sim.answers(), [(2, Err(Refusal::Unresponsive))]);
    sim.down("b", ExitReason::Killed);
    assert_eq!(sim.state("b"), ChildState::Stopped);
}

// Notices that come late.

#[test]
fn stale_down_is_ignored() {
    let mut sim = Sim::running(eager("a"));
    let (key, _) = sim.key_node("a");
    sim.crash_and_retry("a");
    sim.step(Input::Down { key, incarnation: 1, reason: crash() });
    sim.step(Input::Started { key, incarnation: 1 });
    let node = sim.node("a");
    assert_eq!((node.state, node.incarnation, node.restarts), (ChildState::Running, 2, 1));
    sim.down("a", crash());
    sim.down("a", crash());
    assert_eq!(sim.node("a").restarts_in_window, 2, "the second report of one exit is not a second exit");
}

#[test]
fn start_timeout_counts_as_an_exit() {
    let spec = ChildSpec { start_timeout: Some(S), restart: RestartType::Temporary, ..eager("a") };
    let mut sim = Sim::new(vec![spec, eager("b")]);
    sim.after(S);
    assert_eq!(sim.log(), ["launch a 1", "stop a"]);
    sim.started("a");
    assert_eq!(sim.state("a"), ChildState::Stopping, "too late is too late");
    sim.down("a", ExitReason::Shutdown);
    assert_eq!(sim.state("a"), ChildState::Failed);
    assert_eq!(sim.node("a").last_exit.unwrap().reason, ExitReason::StartTimeout);
    assert_eq!(sim.log(), ["close a", "launch b 1"]);
}

// Operators.

#[test]
fn child_adm() {
    let mut sim = Sim::running(eager("a"));
    sim.log();
    sim.ask(1, Request::Start(id("a")));
    sim.ask(2, Request::Stop(id("nobody")));
    sim.ask(3, Request::Add(new_child(eager("a"))));
    assert_eq!(
        sim.answers(),
        [(1, Err(Refusal::Running)), (2, Err(Refusal::NotFound)), (3, Err(Refusal::AlreadyPresent))]
    );
    assert_eq!(sim.log(), ["dispose payload"]);
    sim.ask(4, Request::Stop(id("a")));
    sim.ask(5, Request::Stop(id("a")));
    assert!(sim.answers().is_empty(), "not before it has ended");
    sim.down("a", ExitReason::Shutdown);
    sim.ask(6, Request::Stop(id("a")));
    assert_eq!(sim.answers(), [(4, Ok(())), (5, Ok(())), (6, Ok(()))]);
    sim.ask(7, Request::Start(id("a")));
    sim.started("a");
    sim.ask(8, Request::Delete(id("a")));
    sim.down("a", ExitReason::Shutdown);
    sim.ask(9, Request::Start(id("a")));
    assert_eq!(sim.answers(), [(7, Ok(())), (8, Ok(())), (9, Err(Refusal::NotFound))]);
    assert_eq!(sim.log(), ["stop a", "close a", "launch a 2", "stop a", "dispose payload"]);
    assert_eq!(sim.tree.next_deadline(), None);
}

#[test]
fn start_child_runs_beside_and_answers_when_started() {
    let mut sim = Sim::new(vec![eager("a")]);
    sim.ask(1, Request::Add(new_child(eager("b"))));
    assert_eq!(sim.log(), ["launch a 1", "launch b 1"]);
    sim.started("b");
    sim.ask(2, Request::Add(new_child(eager("c"))));
    sim.down("c", ExitReason::StartFailed("no".into()));
    assert_eq!(sim.answers(), [(1, Ok(())), (2, Err(Refusal::StartFailed(ExitReason::StartFailed("no".into()))))]);
    assert_eq!(sim.state("c"), ChildState::BackingOff, "kept and tried again");
}

#[test]
fn stop_overtakes_retry() {
    let mut sim = Sim::running(ChildSpec { backoff: Backoff { initial: S, ..Backoff::default() }, ..eager("a") });
    sim.down("a", crash());
    sim.ask(1, Request::Stop(id("a")));
    assert_eq!(sim.answers(), [(1, Ok(()))]);
    sim.log();
    sim.after(S * 10);
    assert!(sim.log().is_empty());
    assert_eq!(sim.state("a"), ChildState::Stopped);
}

#[test]
fn restart_while_backing_off() {
    let mut sim = Sim::running(ChildSpec { backoff: Backoff { initial: S, ..Backoff::default() }, ..eager("a") });
    sim.down("a", crash());
    sim.ask(1, Request::Restart(id("a")));
    sim.started("a");
    assert_eq!(sim.answers(), [(1, Ok(()))]);
    sim.log();
    sim.after(S * 10);
    assert!(sim.log().is_empty(), "the delayed restart is gone");
    let node = sim.node("a");
    assert_eq!((node.incarnation, node.restarts, node.restarts_in_window), (2, 0, 0));
}

#[test]
fn restart_by_an_operator_spends_nothing() {
    let mut sim = Sim::running(ChildSpec { intensity: Intensity { max_restarts: 1, period: S * 60 }, ..eager("a") });
    for token in 0..5 {
        sim.ask(token, Request::Restart(id("a")));
        assert!(sim.answers().is_empty());
        sim.down("a", ExitReason::Shutdown);
        assert!(sim.answers().is_empty(), "resolves when started");
        sim.started("a");
        assert_eq!(sim.answers(), [(token, Ok(()))]);
    }
    assert_eq!((sim.node("a").restarts, sim.node("a").incarnation), (0, 6));
}

#[test]
fn restart_revives_whatever_rests() {
    let intensity = Intensity { max_restarts: 0, period: S };
    let mut sim = Sim::running(ChildSpec { intensity, restart: RestartType::Transient, ..eager("a") });
    for reason in [crash(), ExitReason::Normal] {
        sim.down("a", reason);
        sim.ask(1, Request::Restart(id("a")));
        assert_eq!(sim.state("a"), ChildState::Starting);
        sim.started("a");
    }
    sim.ask(2, Request::Stop(id("a")));
    sim.down("a", ExitReason::Shutdown);
    sim.ask(3, Request::Restart(id("a")));
    assert_eq!(sim.state("a"), ChildState::Starting);
}

#[test]
fn orders_that_race_with_a_crash_end_in_the_asked_state() {
    let mut sim = Sim::running(eager("a"));
    sim.ask(1, Request::Stop(id("a")));
    sim.down("a", crash());
    assert_eq!((sim.state("a"), sim.answers()), (ChildState::Stopped, vec![(1, Ok(()))]));

    let mut sim = Sim::running(eager("a"));
    sim.ask(1, Request::Restart(id("a")));
    sim.down("a", crash());
    sim.started("a");
    assert_eq!((sim.state("a"), sim.answers()), (ChildState::Running, vec![(1, Ok(()))]));
    assert_eq!(sim.node("a").restarts_in_window, 0);

    let mut sim = Sim::running(eager("a"));
    sim.down("a", crash());
    sim.ask(1, Request::Stop(id("a")));
    sim.after(Duration::ZERO);
    assert_eq!(sim.state("a"), ChildState::Stopped);
}

#[test]
fn the_last_order_wins() {
    let mut sim = Sim::running(eager("a"));
    sim.ask(1, Request::Restart(id("a")));
    sim.ask(2, Request::Stop(id("a")));
    assert_eq!(sim.answers(), [(1, Err(Refusal::Superseded))]);
    sim.ask(3, Request::Restart(id("a")));
    sim.down("a", ExitReason::Shutdown);
    assert_eq!(sim.answers(), [(2, Ok(()))], "it did end");
    sim.started("a");
    assert_eq!(sim.answers(), [(3, Ok(()))]);
    sim.ask(4, Request::Delete(id("a")));
    sim.ask(5, Request::Start(id("a")));
    assert_eq!(sim.answers(), [(5, Err(Refusal::Superseded))]);
    sim.down("a", crash());
    assert_eq!(sim.answers(), [(4, Ok(()))]);
}

#[test]
fn start_all_after_stop_all_leaves_the_completed_alone() {
    let mut sim =
        Sim::new(vec![eager("a"), ChildSpec { id: id("job"), ..of_type(RestartType::Transient) }, eager("c")]);
    for name in ["a", "job", "c"] {
        sim.started(name);
    }
    sim.down("job", ExitReason::Normal);
    sim.ask(1, Request::StopAll);
    sim.down("c", ExitReason::Shutdown);
    sim.down("a", ExitReason::Shutdown);
    assert_eq!(sim.answers(), [(1, Ok(()))]);
    sim.log();
    sim.ask(2, Request::StartAll);
    sim.started("a");
    sim.started("c");
    assert_eq!((sim.log(), sim.answers()), (vec!["launch a 2".into(), "launch c 2".into()], vec![(2, Ok(()))]));
    assert_eq!(sim.state("job"), ChildState::Completed);
}

#[test]
fn restart_all_stops_in_reverse_then_starts_in_order() {
    let mut sim = Sim::new(vec![eager("a"), eager("b")]);
    sim.started("a");
    sim.started("b");
    sim.log();
    sim.ask(1, Request::RestartAll);
    sim.down("a", crash());
    sim.down("b", ExitReason::Shutdown);
    sim.started("a");
    sim.started("b");
    assert_eq!(sim.log(), ["stop b", "close a", "close b", "launch a 2", "launch b 2"]);
    assert_eq!(sim.answers(), [(1, Ok(()))]);
}

#[test]
fn stop_all_during_an_ordered_start_ends_it() {
    let mut sim = Sim::new(vec![eager("a"), eager("b")]);
    sim.ask(1, Request::StopAll);
    sim.down("a", ExitReason::Shutdown);
    assert_eq!(sim.log(), ["launch a 1", "close b", "stop a", "close a", "ready"]);
    assert_eq!((sim.answers(), sim.state("b")), (vec![(1, Ok(()))], ChildState::Stopped));
}

#[test]
fn start_all_during_an_ordered_start_keeps_the_order() {
    let mut sim = Sim::new(vec![eager("a"), eager("b")]);
    sim.ask(1, Request::StartAll);
    assert_eq!(sim.log(), ["launch a 1"], "b waits for a");
    sim.started("a");
    sim.started("b");
    assert_eq!((sim.log(), sim.answers()), (vec!["launch b 1".into(), "ready".into()], vec![(1, Ok(()))]));
}

#[test]
fn requests_after_shutdown_are_refused() {
    let mut sim = Sim::running(eager("a"));
    sim.step(Input::Shutdown);
    sim.ask(1, Request::Restart(id("a")));
    sim.ask(2, Request::Add(new_child(eager("b"))));
    assert_eq!(sim.answers(), [(1, Err(Refusal::Closing)), (2, Err(Refusal::Closing))]);
}

#[test]
fn events_tell_the_whole_life() {
    let mut sim = Sim::running(ChildSpec { backoff: Backoff { initial: S, ..Backoff::default() }, ..eager("a") });
    sim.down("a", crash());
    sim.after(S);
    sim.after(S / 2);
    sim.started("a");
    sim.ask(1, Request::Delete(id("a")));
    sim.down("a", ExitReason::Shutdown);
    let kinds: Vec<EventKind> = sim.kinds.drain(..).map(|(_, kind)| kind).collect();
    assert_eq!(
        kinds,
        [
            EventKind::Starting { attempt: 0 },
            EventKind::Started { took: Duration::ZERO },
            EventKind::Exited { reason: crash() },
            EventKind::BackingOff { attempt: 1, delay: S },
            EventKind::Starting { attempt: 1 },
            EventKind::Started { took: S / 2 },
            EventKind::Stopping,
            EventKind::Exited { reason: ExitReason::Shutdown },
            EventKind::Removed,
        ]
    );
}
