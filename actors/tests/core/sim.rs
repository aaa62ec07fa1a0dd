//! A core with a clock and a log.

use std::time::{Duration, Instant};

use hivekeeper_actors::tree::{Action, Cause, Input, Key, NewChild, Refusal, Request, Role, Token, Tree};
use hivekeeper_actors::{
    Backoff, ChildId, ChildSpec, ChildState, EventKind, ExitReason, Intensity, RestartType, Strategy, SupervisorFlags,
    TreeNode,
};

pub(crate) const S: Duration = Duration::from_secs(1);

pub(crate) fn crash() -> ExitReason {
    ExitReason::Panic { text: "boom".into(), location: "here".into() }
}

/// A core with a clock that the test moves.
pub(crate) struct Sim {
    pub(crate) tree: Tree<&'static str>,
    pub(crate) now: Instant,
    pub(crate) log: Vec<String>,
    pub(crate) answers: Vec<(u64, Result<(), Refusal>)>,
    pub(crate) kinds: Vec<(String, EventKind)>,
}

impl Sim {
    pub(crate) fn new(specs: Vec<ChildSpec>) -> Self {
        Self::under(SupervisorFlags::unlimited(Strategy::OneForOne), specs)
    }

    pub(crate) fn under(flags: SupervisorFlags, specs: Vec<ChildSpec>) -> Self {
        let tree = Tree::new("root", flags);
        let mut sim = Self { tree, now: Instant::now(), log: vec![], answers: vec![], kinds: vec![] };
        let children = specs.into_iter().map(new_child).collect();
        sim.step(Input::Init(children));
        sim
    }

    /// One running child.
    pub(crate) fn running(spec: ChildSpec) -> Self {
        let id = spec.id.clone();
        let mut sim = Self::new(vec![spec]);
        sim.started(id.as_str());
        sim
    }

    /// Children without a delay or a limit of their own, all running.
    pub(crate) fn up(flags: SupervisorFlags, names: &[&str]) -> Self {
        Self::up_with(flags, names.iter().map(|name| free(name)).collect())
    }

    pub(crate) fn up_with(flags: SupervisorFlags, specs: Vec<ChildSpec>) -> Self {
        let names: Vec<ChildId> = specs.iter().map(|spec| spec.id.clone()).collect();
        let mut sim = Self::under(flags, specs);
        for name in names {
            sim.started(name.as_str());
        }
        sim.log();
        sim.kinds.clear();
        sim
    }

    pub(crate) fn step(&mut self, input: Input<&'static str>) {
        for action in self.tree.step(self.now, 0.5, input) {
            let name = |key: Key| self.tree.child(key).map(|(_, spec)| spec.id.to_string()).unwrap_or_default();
            match action {
                Action::Launch { key, incarnation, cause } => {
                    let cause = match cause {
                        Cause::Asked => "",
                        Cause::Automatic => " by itself",
                        Cause::Replacement => " again",
                        Cause::Adopted => " adopted",
                    };
                    self.log.push(format!("launch {} {incarnation}{cause}", name(key)));
                }
                Action::Stop(key) => self.log.push(format!("stop {}", name(key))),
                Action::Kill(key) => self.log.push(format!("kill {}", name(key))),
                Action::Close(key) => self.log.push(format!("close {}", name(key))),
                Action::Adopt { key, payload } => self.log.push(format!("adopt {} {payload}", name(key))),
                Action::Dispose(payload) => self.log.push(format!("dispose {payload}")),
                Action::Ready => self.log.push("ready".into()),
                Action::Finished(ExitReason::Shutdown) => self.log.push("finished".into()),
                Action::Finished(reason) => self.log.push(format!("finished: {reason}")),
                Action::Answer { token: Token(token), result, .. } => self.answers.push((token, result)),
                Action::Emit(event) => self.kinds.push((event.id.to_string(), event.kind)),
            }
        }
    }

    pub(crate) fn after(&mut self, wait: Duration) {
        self.now += wait;
        self.step(Input::Tick);
    }

    pub(crate) fn key_node(&self, id: &str) -> (Key, TreeNode) {
        self.tree.nodes(self.now).find(|(_, node)| node.id.as_str() == id).expect("a child of that name")
    }

    pub(crate) fn node(&self, id: &str) -> TreeNode {
        self.key_node(id).1
    }

    pub(crate) fn state(&self, id: &str) -> ChildState {
        self.node(id).state
    }

    pub(crate) fn is_there(&self, id: &str) -> bool {
        self.tree.nodes(self.now).any(|(_, node)| node.id.as_str() == id)
    }

    /// State and incarnation of each child, in start order.
    pub(crate) fn all(&self) -> Vec<(ChildState, u64)> {
        self.tree.nodes(self.now).map(|(_, node)| (node.state, node.incarnation)).collect()
    }

    /// Ends what is stopping, and says that what is starting is ready, for as long as that leads to more.
    pub(crate) fn calm(&mut self) {
        loop {
            let moving = |state| matches!(state, ChildState::Stopping | ChildState::Starting);
            let Some((_, node)) = self.tree.nodes(self.now).find(|(_, node)| moving(node.state)) else { return };
            if node.state == ChildState::Starting {
                self.started(node.id.as_str());
            } else {
                self.down(node.id.as_str(), ExitReason::Shutdown);
            }
        }
    }

    pub(crate) fn started(&mut self, id: &str) {
        let (key, node) = self.key_node(id);
        self.step(Input::Started { key, incarnation: node.incarnation });
    }

    pub(crate) fn down(&mut self, id: &str, reason: ExitReason) {
        let (key, node) = self.key_node(id);
        self.step(Input::Down { key, incarnation: node.incarnation, reason });
    }

    /// Crashes it and lets its zero delay pass.
    pub(crate) fn crash_and_retry(&mut self, id: &str) {
        self.down(id, crash());
        self.after(Duration::ZERO);
        if self.state(id) == ChildState::Starting {
            self.started(id);
        }
    }

    pub(crate) fn ask(&mut self, token: u64, request: Request<&'static str>) {
        self.step(Input::Asked(Token(token), request));
    }

    pub(crate) fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    pub(crate) fn answers(&mut self) -> Vec<(u64, Result<(), Refusal>)> {
        std::mem::take(&mut self.answers)
    }
}

pub(crate) fn new_child(spec: ChildSpec) -> NewChild<&'static str> {
    NewChild { seed: None, spec: spec.into(), role: Role::Worker, payload: "payload" }
}

pub(crate) fn id(name: &str) -> ChildId {
    name.into()
}

/// A child without delay between restarts.
pub(crate) fn eager(name: &str) -> ChildSpec {
    let backoff = Backoff { then: Duration::ZERO, jitter: 0.0, ..Backoff::default() };
    ChildSpec { backoff, intensity: Some(Intensity::default()), ..ChildSpec::new(name) }
}

/// A child of this restart type that is kept when it has ended.
pub(crate) fn of_type(restart: RestartType) -> ChildSpec {
    ChildSpec { restart, retain: true, ..eager("a") }
}

pub(crate) fn exit_of(restart: RestartType, reason: ExitReason) -> Sim {
    let mut sim = Sim::running(of_type(restart));
    sim.down("a", reason);
    sim.after(Duration::ZERO);
    sim
}

/// A child without delay between restarts and without a limit of its own.
pub(crate) fn free(name: &str) -> ChildSpec {
    ChildSpec { intensity: None, ..eager(name) }
}

/// So many restarts in a minute.
pub(crate) fn at_most(max_restarts: u32) -> Option<Intensity> {
    Some(Intensity { max_restarts, period: S * 60 })
}
