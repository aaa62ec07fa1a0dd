//! Whatever happens in whatever order: the promises hold.
//!
//! A small world plays the shell and the actors: it obeys the core's actions, lets incarnations become ready, crash, end late or ignore
//! a stop, repeats and delays notices, and lets operators interfere.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hivekeeper_actors::tree::{Action, Input, Key, NewChild, Refusal, Request, Role, Token, Tree};
use hivekeeper_actors::{
    Backoff, ChildId, ChildSpec, ChildState, ExitReason, Intensity, RestartType, Shutdown, SupervisorFlags,
};
use proptest::prelude::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const PERIOD: Duration = Duration::from_secs(10);
const MAX_RESTARTS: u32 = 3;

#[derive(Clone, Debug)]
enum Move {
    Ready(usize),
    Crash(usize),
    Finish(usize),
    Lose(usize),
    /// A notice that was said before is said again.
    Echo(usize),
    Pass(u64),
    Ask(u8, usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (0..NAMES.len()).prop_map(Move::Ready),
        4 => (0..NAMES.len()).prop_map(Move::Crash),
        2 => (0..NAMES.len()).prop_map(Move::Finish),
        2 => (0..NAMES.len()).prop_map(Move::Lose),
        1 => (0..20_usize).prop_map(Move::Echo),
        4 => (0..4000_u64).prop_map(Move::Pass),
        3 => (0..8_u8, 0..NAMES.len()).prop_map(|(what, child)| Move::Ask(what, child)),
    ];
    proptest::collection::vec(one, 0..120)
}

struct Live {
    incarnation: u64,
    stopping: bool,
}

struct World {
    tree: Tree<()>,
    now: Instant,
    live: BTreeMap<Key, Live>,
    last: HashMap<ChildId, u64>,
    /// When each child was restarted automatically.
    restarts: HashMap<ChildId, Vec<Instant>>,
    said: VecDeque<(Key, u64, Option<ExitReason>)>,
    open: Vec<Token>,
    asked: u64,
    finished: bool,
}

impl World {
    fn new() -> Self {
        let tree = Tree::new("root".into(), SupervisorFlags::unlimited(hivekeeper_actors::Strategy::OneForOne));
        let mut world = Self {
            tree,
            now: Instant::now(),
            live: BTreeMap::new(),
            last: HashMap::new(),
            restarts: HashMap::new(),
            said: VecDeque::new(),
            open: Vec::new(),
            asked: 0,
            finished: false,
        };
        let children = NAMES.iter().map(|name| child(name)).collect();
        world.step(Input::Init(children));
        world
    }

    fn step(&mut self, input: Input<()>) {
        // A retry or a first start that the operator did not ask for is seen by the count that the core keeps.
        let before: HashMap<ChildId, u64> =
            self.tree.nodes(self.now).map(|(_, node)| (node.id, node.restarts)).collect();
        let actions = self.tree.step(self.now, 0.5, input);
        for (_, node) in self.tree.nodes(self.now) {
            let more = node.restarts - before.get(&node.id).copied().unwrap_or(0).min(node.restarts);
            assert!(more <= 1, "one step, one restart");
            if more == 1 {
                self.restarts.entry(node.id).or_default().push(self.now);
            }
        }
        for action in actions {
            self.obey(action);
        }
    }

    fn obey(&mut self, action: Action<()>) {
        match action {
            Action::Launch { key, incarnation, .. } => {
                let id = self.tree.child(key).unwrap().1.id.clone();
                assert!(incarnation > 0);
                let last = self.last.insert(id.clone(), incarnation).unwrap_or(0);
                assert!(incarnation > last || incarnation == 1, "{id}: {incarnation} after {last}");
                let old = self.live.insert(key, Live { incarnation, stopping: false });
                assert!(old.is_none(), "{id}: two incarnations live");
                assert!(!self.finished);
            }
            Action::Stop(key) => self.live.get_mut(&key).expect("only the living are stopped").stopping = true,
            Action::Kill(key) => self.end(key, ExitReason::Killed),
            Action::Close(key) => assert!(!self.live.contains_key(&key), "closed while it lives"),
            Action::Dispose(()) | Action::Adopt { .. } => {}
            Action::Answer(token, _) => {
                let at = self.open.iter().position(|open| *open == token).expect("one answer to each request");
                self.open.swap_remove(at);
            }
            Action::Ready | Action::Emit(_) => {}
            Action::Finished(_) => {
                assert!(self.live.is_empty(), "finished while somebody lives");
                self.finished = true;
            }
        }
    }

    fn say(&mut self, key: Key, incarnation: u64, reason: Option<ExitReason>) {
        self.said.push_front((key, incarnation, reason.clone()));
        self.said.truncate(20);
        self.step(match reason {
            Some(reason) => Input::Down { key, incarnation, reason },
            None => Input::Started { key, incarnation },
        });
    }

    fn end(&mut self, key: Key, reason: ExitReason) {
        if let Some(live) = self.live.remove(&key) {
            self.say(key, live.incarnation, Some(reason));
        }
    }

    fn nth_live(&self, n: usize) -> Option<(Key, u64, bool)> {
        let live: Vec<_> = self.live.iter().collect();
        (!live.is_empty()).then(|| live[n % live.len()]).map(|(key, live)| (*key, live.incarnation, live.stopping))
    }

    fn play(&mut self, step: &Move) {
        match step {
            Move::Ready(n) => {
                if let Some((key, incarnation, _)) = self.nth_live(*n) {
                    self.say(key, incarnation, None);
                }
            }
            Move::Crash(n) => {
                if let Some((key, ..)) = self.nth_live(*n) {
                    self.end(key, ExitReason::Error("crash".into()));
                }
            }
            Move::Finish(n) => {
                if let Some((key, _, stopping)) = self.nth_live(*n) {
                    self.end(key, if stopping { ExitReason::Shutdown } else { ExitReason::Normal });
                }
            }
            Move::Lose(n) => {
                if let Some((key, ..)) = self.nth_live(*n) {
                    self.end(key, ExitReason::Lost("gone".into()));
                }
            }
            Move::Echo(n) => {
                let Some((key, incarnation, reason)) = self.said.get(*n).cloned() else { return };
                // What was said of an incarnation that lives may be new to the core only if it is of the past.
                if self.live.get(&key).is_none_or(|live| live.incarnation != incarnation) {
                    self.step(match reason {
                        Some(reason) => Input::Down { key, incarnation, reason },
                        None => Input::Started { key, incarnation },
                    });
                }
            }
            Move::Pass(ms) => self.pass(Duration::from_millis(*ms)),
            Move::Ask(what, n) => self.ask(*what, NAMES[*n]),
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.tree.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(Input::Tick);
        }
        self.now = end;
    }

    fn ask(&mut self, what: u8, name: &str) {
        let id: ChildId = name.into();
        let request = match what {
            0 => Request::Add(child(name)),
            1 => Request::StartExisting(id),
            2 => Request::Terminate(id),
            3 => Request::ForceRestart(id),
            4 => Request::Remove(id),
            5 => Request::StartAll,
            6 => Request::StopAll,
            _ => Request::RestartAll,
        };
        self.asked += 1;
        self.open.push(Token(self.asked));
        self.step(Input::Asked(Token(self.asked), request));
    }

    /// Lets everything that is stopping end, for as long as the core asks for it.
    fn settle(&mut self) {
        while let Some(key) = self.live.iter().find(|(_, live)| live.stopping).map(|(key, _)| *key) {
            self.end(key, ExitReason::Shutdown);
        }
    }
}

fn child(name: &str) -> NewChild<()> {
    let restart = match name {
        "a" | "b" => RestartType::Permanent,
        "c" => RestartType::Transient,
        _ => RestartType::Temporary,
    };
    let spec = ChildSpec {
        restart,
        shutdown: if name == "b" { Shutdown::Brutal } else { Shutdown::Deadline(Duration::from_secs(2)) },
        intensity: Some(Intensity { max_restarts: MAX_RESTARTS, period: PERIOD }),
        backoff: Backoff { jitter: 0.0, ..Backoff::default() },
        start_timeout: Some(Duration::from_secs(3)),
        ..ChildSpec::new(name)
    };
    NewChild { seed: spec.seed.clone(), spec: Arc::new(spec), role: Role::Worker, payload: () }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// `obey` holds the other promises: one incarnation at a time, numbers that grow, one answer each, nobody closed while it lives.
    #[test]
    fn after_shutdown_nothing_lives(moves in moves()) {
        let mut world = World::new();
        for step in &moves {
            world.play(step);
        }
        world.step(Input::Shutdown);
        world.settle();
        prop_assert!(world.live.is_empty());
        prop_assert!(world.finished);
        prop_assert!(world.open.is_empty(), "unanswered: {:?}", world.open);
        world.pass(Duration::from_secs(1000));
        prop_assert!(world.live.is_empty(), "nothing comes back");
    }

    #[test]
    fn after_stop_all_nothing_lives(moves in moves()) {
        let mut world = World::new();
        for step in &moves {
            world.play(step);
        }
        world.ask(6, "a");
        world.settle();
        world.pass(Duration::from_secs(1000));
        prop_assert!(world.live.is_empty());
        prop_assert!(world.open.is_empty());
        for (_, node) in world.tree.nodes(world.now) {
            prop_assert!(matches!(node.state, ChildState::Stopped | ChildState::Completed), "{:?}", node);
        }
    }

    /// Without operators, who clear the window, no stretch of `PERIOD` holds more launched restarts than allowed. A delayed restart
    /// is counted when it is decided, so its launch may come later by its delay (at most 4 s with three restarts).
    #[test]
    fn restarts_stay_within_intensity(moves in moves()) {
        let mut world = World::new();
        for step in moves.iter().filter(|step| !matches!(step, Move::Ask(..))) {
            world.play(step);
            for (_, node) in world.tree.nodes(world.now) {
                prop_assert!(node.restarts_in_window <= MAX_RESTARTS);
            }
        }
        let delay_max = Duration::from_secs(4);
        for times in world.restarts.values() {
            for (n, from) in times.iter().enumerate() {
                let within = times[n..].iter().filter(|at| **at - *from <= PERIOD - delay_max).count();
                prop_assert!(within <= MAX_RESTARTS as usize, "{within} in a window");
            }
        }
    }

    /// However often what they live on goes, nobody is counted, delayed or given up for it.
    #[test]
    fn losses_debit_nobody(moves in moves()) {
        let mut world = World::new();
        let harmless = |step: &&Move| matches!(step, Move::Ready(_) | Move::Lose(_) | Move::Echo(_));
        for step in moves.iter().filter(harmless) {
            world.play(step);
            world.pass(Duration::ZERO);
            for (_, node) in world.tree.nodes(world.now) {
                prop_assert_eq!((node.restarts, node.restarts_in_window), (0, 0));
                let temporary = node.restart == RestartType::Temporary;
                prop_assert!(temporary || !matches!(node.state, ChildState::Failed | ChildState::BackingOff), "{:?}", node);
            }
        }
    }

    /// The last order about one child decides in which state it ends, whatever it crashed into before.
    #[test]
    fn the_last_order_decides(moves in moves(), stop in any::<bool>()) {
        let mut world = World::new();
        for step in moves.iter().filter(|step| !matches!(step, Move::Ask(4..=7, _))) {
            world.play(step);
        }
        world.ask(if stop { 2 } else { 3 }, "a");
        let (key, _) = world.tree.nodes(world.now).find(|(_, node)| node.id.as_str() == "a").unwrap();
        if world.live.get(&key).is_some_and(|live| live.stopping) {
            world.end(key, ExitReason::Error("crash on the way".into()));
        }
        let state = world.tree.node(world.now, key).unwrap().state;
        prop_assert_eq!(state, if stop { ChildState::Stopped } else { ChildState::Starting });
    }
}

#[test]
fn refusals_name_what_is_wrong() {
    let mut world = World::new();
    world.asked += 1;
    world.open.push(Token(1));
    let actions = world.tree.step(world.now, 0.5, Input::Asked(Token(1), Request::StartExisting("nobody".into())));
    assert_eq!(actions, [Action::Answer(Token(1), Err(Refusal::NotFound))]);
}
