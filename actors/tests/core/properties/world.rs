//! The shell and the actors of one history, and the promises that the core has to keep.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use hivekeeper_actors::tree::{Action, Cause, Input, KILL_WAIT, Key, NewChild, Refusal, Request, Role, Token, Tree};
use hivekeeper_actors::{
    ChildId, ChildKind, ChildSpec, ChildState, Counts, EventKind, ExitReason, Intensity, LimitFollows, RestartType,
    Shutdown, Strategy,
};

use super::fates::{Fates, Living};
use super::history::{Ask, Dice, History, Move, NAMES, child, flags};

struct Live {
    incarnation: u64,
    ready: bool,
    stopping: bool,
    /// It lived before the supervisor did.
    adopted: bool,
    /// It was killed and did not end.
    stuck: bool,
}

pub(crate) struct World {
    tree: Tree<()>,
    dice: Dice,
    now: Instant,
    live: BTreeMap<Key, Live>,
    /// Killed in the step before.
    dying: VecDeque<Key>,
    incarnations: HashMap<ChildId, u64>,
    launches: HashMap<ChildId, u64>,
    /// When each child was debited a restart, and when the supervisor was, since their record was last cleared.
    own_debits: HashMap<ChildId, Vec<Instant>>,
    debits: Vec<Instant>,
    contained: bool,
    said: VecDeque<(Key, u64, Option<ExitReason>)>,
    open: HashMap<Token, Ask>,
    answers: HashMap<Token, Result<(), Refusal>>,
    fates: Fates,
    asked: u64,
    changed: bool,
    ready: bool,
    finished: bool,
    first_start: Option<Key>,
    log: Vec<Action<()>>,
    aloud: bool,
}

impl World {
    pub(crate) fn new(history: &History, aloud: bool) -> Self {
        Self {
            tree: Tree::new("root", history.flags.clone()),
            dice: Dice(history.number ^ 0xD1CE),
            now: Instant::now(),
            live: BTreeMap::new(),
            dying: VecDeque::new(),
            incarnations: HashMap::new(),
            launches: HashMap::new(),
            own_debits: HashMap::new(),
            debits: Vec::new(),
            contained: false,
            said: VecDeque::new(),
            open: HashMap::new(),
            answers: HashMap::new(),
            fates: Fates::default(),
            asked: 0,
            changed: false,
            ready: false,
            finished: false,
            first_start: None,
            log: Vec::new(),
            aloud,
        }
    }

    /// All actions but the times in them, which are those of this world.
    pub(crate) fn actions(&self) -> &[Action<()>] {
        &self.log
    }

    pub(crate) fn live_through(&mut self, history: &History) {
        self.step(Input::Init(history.children.iter().cloned().map(new_child).collect()));
        for step in &history.moves {
            self.play(step);
        }
        let last = self.last_order(history.number);
        self.calm();
        self.check_legal(history);
        if let Some((token, stop, name)) = last {
            self.check_last_order(token, stop, name);
        }
        self.check_end();
    }

    fn step(&mut self, input: Input<()>) {
        self.feed(input);
        while let Some(key) = self.dying.pop_front() {
            // One in eight blocks its thread and does not end.
            if self.dice.one_in(8) {
                if let Some(live) = self.live.get_mut(&key) {
                    live.stuck = true;
                }
            } else if let Some(live) = self.live.remove(&key) {
                self.said.push_front((key, live.incarnation, Some(ExitReason::Killed)));
                self.feed(Input::Down { key, incarnation: live.incarnation, reason: ExitReason::Killed });
            }
        }
        self.said.truncate(20);
    }

    fn feed(&mut self, input: Input<()>) {
        if self.aloud {
            println!("{input:?}");
        }
        let down = match &input {
            Input::Down { key, reason, .. } => {
                Some((*key, reason.clone(), self.tree.node(self.now, *key).map(|node| node.restarts_in_window)))
            }
            _ => None,
        };
        let timeouts: HashSet<Key> = match &input {
            Input::Tick => self.live.iter().filter(|(_, live)| !live.ready).map(|(key, _)| *key).collect(),
            Input::Asked(_, request) => named(request).and_then(|id| self.tree.key_of(id)).into_iter().collect(),
            _ => HashSet::new(),
        };
        let forgiven = self.is_starting_all();
        let shared = self.tree.shared_restarts(self.now);
        if let Input::Asked(_, request) = &input {
            self.fates.asked(request);
        }
        let chance = self.dice.below(100) as f64 / 100.0;
        let actions = self.tree.step(self.now, chance, input);
        if self.aloud {
            println!("    {actions:?}");
        }
        if forgiven || self.is_starting_all() {
            self.own_debits.clear();
            self.debits.clear();
        }
        if let Some((key, _, before)) = &down
            && self.fates.is_bystander(*key)
        {
            let after = (
                self.tree.node(self.now, *key).map(|node| node.restarts_in_window),
                self.tree.shared_restarts(self.now),
            );
            assert!(after.0 <= *before && after.1 <= shared, "{key:?} was debited for what another did");
        }
        self.check_debits(&actions, down);
        for action in &actions {
            self.obey(action, &timeouts);
        }
        self.log.extend(actions);
    }

    fn living(&self) -> impl Iterator<Item = Living> {
        let alive = self.live.iter().filter(|(_, live)| !live.stuck);
        alive.filter_map(|(key, live)| {
            let spec = self.tree.child(*key)?.1;
            let temporary = spec.restart == RestartType::Temporary;
            Some(Living { key: *key, id: spec.id.clone(), stopping: live.stopping, temporary })
        })
    }

    /// Somebody waits for a start of everything, which clears every record.
    fn is_starting_all(&self) -> bool {
        self.open.values().any(|ask| matches!(ask, Ask::StartAll | Ask::RestartAll))
    }

    /// One failure is one debit, a loss is none, and nobody is debited more than a limit allows in any window.
    fn check_debits(&mut self, actions: &[Action<()>], down: Option<(Key, ExitReason, Option<u32>)>) {
        let mut failures = actions.iter().filter_map(|action| match action {
            Action::Emit(event) if matches!(event.kind, EventKind::BackingOff { .. }) => Some(&event.id),
            _ => None,
        });
        let failed = failures.next();
        assert!(failures.next().is_none(), "two failures in one step");
        let Some((key, _, before)) = down else { return assert!(failed.is_none(), "nobody ended") };
        let Some(id) = failed else { return };
        let Some(node) = self.tree.node(self.now, key) else {
            return assert!(self.asked > 0, "a stop of everything had forgotten it");
        };
        assert_eq!(&node.id, id, "it is the one that ended");
        let spec = self.tree.child(key).unwrap().1.clone();
        if matches!(node.last_exit.unwrap().reason, ExitReason::Lost(_)) {
            assert_eq!(Some(node.restarts_in_window), before, "a loss debits nobody");
            let stopped = node.state == ChildState::Stopped && self.changed;
            assert!(stopped || node.retry_in == Some(Duration::ZERO), "and is replaced at once");
            return;
        }
        let strategy = self.tree.flags().strategy;
        if strategy.is_group() {
            let living: Vec<Living> = self.living().collect();
            self.fates.failed(strategy, key, living.into_iter());
        }
        if let Some(intensity) = spec.intensity {
            let debits = self.own_debits.entry(id.clone()).or_default();
            debits.push(self.now);
            check_window(debits, self.now, intensity);
        }
        if let Some(intensity) = self.tree.flags().intensity {
            self.debits.push(self.now);
            check_window(&self.debits, self.now, intensity);
        }
    }

    fn obey(&mut self, action: &Action<()>, single: &HashSet<Key>) {
        match action {
            Action::Launch { key, incarnation, cause } => self.launched(*key, *incarnation, *cause),
            Action::Stop(key) | Action::Kill(key) => {
                if !self.live.get(key).expect("only the living are stopped").stopping && !single.contains(key) {
                    self.check_stop_order(*key);
                }
                let live = self.live.get_mut(key).expect("it lives");
                live.stopping = true;
                if matches!(action, Action::Kill(_)) {
                    self.dying.push_back(*key);
                }
            }
            Action::Close(key) => assert!(!self.live.contains_key(key), "closed while it lives"),
            Action::Dispose(()) | Action::Adopt { .. } => {}
            Action::Answer { token, result, .. } => {
                let ask = self.open.remove(token).expect("one answer to each request");
                if ask == Ask::StopAll && matches!(result, Ok(()) | Err(Refusal::Unresponsive)) {
                    let living: Vec<Living> = self.living().collect();
                    self.fates.stopped_all(living.into_iter());
                }
                self.answers.insert(*token, result.clone());
            }
            Action::Ready => assert!(!std::mem::replace(&mut self.ready, true), "ready twice"),
            Action::Emit(event) => match &event.kind {
                EventKind::LimitReached { follows: LimitFollows::AllFail, .. } => self.contained = true,
                EventKind::Starting { attempt: 0 } => {
                    self.own_debits.remove(&event.id);
                }
                EventKind::Removed => {
                    self.fates.removed(&event.id);
                    self.own_debits.remove(&event.id);
                    self.launches.remove(&event.id);
                    self.incarnations.remove(&event.id);
                }
                _ => {}
            },
            Action::Finished(_) => {
                assert!(self.live.values().all(|live| live.stuck), "finished while somebody lives");
                assert!(!std::mem::replace(&mut self.finished, true), "finished twice");
            }
        }
    }

    /// No child has two incarnations, their numbers grow, and children of a group start one by one and in order.
    fn launched(&mut self, key: Key, incarnation: u64, cause: Cause) {
        assert!(!self.finished, "a launch after the end");
        let id = self.tree.child(key).unwrap().1.id.clone();
        self.fates.launched(key, &id);
        let last = self.incarnations.insert(id.clone(), incarnation).unwrap_or(0);
        assert!(incarnation > last, "{id}: {incarnation} after {last}");
        if std::mem::take(&mut self.contained) {
            self.debits.clear();
        }
        if cause == Cause::Automatic {
            *self.launches.entry(id.clone()).or_default() += 1;
        }
        let counted = self.tree.node(self.now, key).unwrap().restarts;
        assert_eq!(counted, self.launches.get(&id).copied().unwrap_or(0), "{id}: automatic restarts");
        let strategy = self.tree.flags().strategy;
        if strategy.is_group() && !self.changed {
            // What lived before is taken over at once; only those that come after it wait for it.
            let busy = |(other, live): &(&Key, &Live)| !live.ready && !live.stuck && (!live.adopted || **other < key);
            let starting = self.live.iter().find(busy);
            assert!(
                starting.is_none() || cause == Cause::Adopted,
                "{id} starts while {:?} does",
                starting.map(|(key, _)| key)
            );
            let waiting = self.tree.nodes(self.now).find(|(_, node)| node.state == ChildState::Pending);
            let in_order = waiting.is_none_or(|(first, _)| first > key);
            assert!(in_order || cause == Cause::Adopted, "{id} starts before its turn");
        }
        if strategy == Strategy::OneForOne && self.asked == 0 && cause == Cause::Asked {
            assert!(self.first_start.replace(key).is_none_or(|last| last < key), "{id} starts out of order");
        }
        let adopted = cause == Cause::Adopted;
        let live = Live { incarnation, ready: false, stopping: false, adopted, stuck: false };
        assert!(self.live.insert(key, live).is_none(), "{id}: two incarnations live");
    }

    /// What stops in order stops after everything that was started after it has ended.
    fn check_stop_order(&self, key: Key) {
        let beside = match self.tree.flags().strategy {
            Strategy::SimpleOneForOne => return,
            // An operator may start a child while all are stopped.
            Strategy::OneForOne => self.asked > 0,
            Strategy::OneForAll | Strategy::RestForOne => self.changed,
        };
        let mut later = self.live.range(key..).skip(1).filter(|(_, live)| !live.stuck);
        assert!(beside || later.next().is_none(), "stopped before those that came after it");
    }

    fn play(&mut self, step: &Move) {
        if self.aloud {
            println!("{step:?}");
        }
        match step {
            Move::Ready(n) => {
                if let Some(key) = self.nth(*n, |_| true) {
                    self.make_ready(key);
                }
            }
            Move::FailStart(n) => self.end_nth(*n, |live| !live.ready, ExitReason::StartFailed("no".into())),
            Move::Ignore(n) => self.end_nth(*n, |live| !live.ready, ExitReason::Ignored),
            Move::Crash(n) => self.end_nth(*n, |_| true, ExitReason::Error("crash".into())),
            Move::Lose(n) => self.end_nth(*n, |_| true, ExitReason::Lost("gone".into())),
            Move::Finish(n) => {
                let stopping = self.nth(*n, |live| live.stopping);
                match stopping {
                    Some(key) => self.end(key, ExitReason::Shutdown),
                    None => self.end_nth(*n, |_| true, ExitReason::Normal),
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
            Move::Ask(ask, n) => {
                self.ask(*ask, NAMES[*n]);
            }
            Move::Change(number) => self.change(&mut Dice(*number)),
        }
    }

    fn nth(&self, n: usize, which: impl Fn(&Live) -> bool) -> Option<Key> {
        let keys: Vec<Key> = self.live.iter().filter(|(_, live)| which(live)).map(|(key, _)| *key).collect();
        (!keys.is_empty()).then(|| keys[n % keys.len()])
    }

    fn make_ready(&mut self, key: Key) {
        let Some(live) = self.live.get_mut(&key) else { return };
        live.ready = true;
        let incarnation = live.incarnation;
        self.said.push_front((key, incarnation, None));
        self.step(Input::Started { key, incarnation });
    }

    fn end_nth(&mut self, n: usize, which: impl Fn(&Live) -> bool, reason: ExitReason) {
        if let Some(key) = self.nth(n, which) {
            self.end(key, reason);
        }
    }

    fn end(&mut self, key: Key, reason: ExitReason) {
        if let Some(live) = self.live.remove(&key) {
            self.said.push_front((key, live.incarnation, Some(reason.clone())));
            self.step(Input::Down { key, incarnation: live.incarnation, reason });
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

    fn ask(&mut self, ask: Ask, name: &str) -> Token {
        let id: ChildId = name.into();
        let flags = self.tree.flags().clone();
        let mut fresh =
            || new_child(ChildSpec { seed: hivekeeper_actors::Seed::default(), ..child(&mut self.dice, name, &flags) });
        let request = match ask {
            Ask::Start => Request::Start(fresh()),
            Ask::Add => Request::Add(fresh()),
            Ask::Restart => Request::Restart(id),
            Ask::StartExisting => Request::StartExisting(id),
            Ask::Terminate => Request::Terminate(id),
            Ask::ForceRestart => Request::ForceRestart(id),
            Ask::Delete => Request::Delete(id),
            Ask::Remove => Request::Remove(id),
            Ask::StartAll => Request::StartAll,
            Ask::StopAll => Request::StopAll,
            Ask::RestartAll => Request::RestartAll,
        };
        self.request(ask, request)
    }

    fn request(&mut self, ask: Ask, request: Request<()>) -> Token {
        self.asked += 1;
        let token = Token(self.asked);
        self.open.insert(token, ask);
        self.step(Input::Asked(token, request));
        token
    }

    fn change(&mut self, dice: &mut Dice) {
        let strategies = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne, Strategy::SimpleOneForOne];
        let strategy = if dice.one_in(2) { self.tree.flags().strategy } else { strategies[dice.below(4)] };
        let flags = flags(dice, strategy);
        let names: Vec<&str> = NAMES.into_iter().filter(|_| dice.one_in(2)).collect();
        let children = names.into_iter().map(|name| new_child(child(dice, name, &flags))).collect();
        let before: Vec<_> = self.tree.nodes(self.now).map(|(key, node)| (key, node.state, node.incarnation)).collect();
        self.changed = true;
        let token = self.request(Ask::Add, Request::Change { flags, children });
        let after = self.tree.nodes(self.now).map(|(key, node)| (key, node.state, node.incarnation));
        if self.answers[&token].is_err() {
            assert!(after.eq(before), "a change that was refused changed something");
        }
    }

    /// An operator's last word on one child.
    fn last_order(&mut self, number: u64) -> Option<(Token, bool, &'static str)> {
        let all_asked = self.open.values().any(|ask| matches!(ask, Ask::StartAll | Ask::StopAll | Ask::RestartAll));
        if !number.is_multiple_of(3) || self.finished || all_asked {
            return None;
        }
        let (stop, name) = (number.is_multiple_of(2), NAMES[(number / 8) as usize % 3]);
        let token = self.ask(if stop { Ask::Terminate } else { Ask::ForceRestart }, name);
        Some((token, stop, name))
    }

    fn check_last_order(&self, token: Token, stop: bool, name: &str) {
        if self.answers.get(&token) != Some(&Ok(())) || self.finished {
            return;
        }
        let state = self.tree.nodes(self.now).find(|(_, node)| node.id.as_str() == name).map(|(_, node)| node.state);
        let obeyed =
            if stop { matches!(state, None | Some(ChildState::Stopped)) } else { state == Some(ChildState::Running) };
        assert!(obeyed, "{name} is {state:?} after the last order");
    }

    /// From now on everything ends when it is asked to, and every start is a success.
    fn calm(&mut self) {
        for _ in 0..500 {
            if let Some(key) = self.nth(0, |live| live.stopping) {
                self.end(key, ExitReason::Shutdown);
            } else if let Some(key) = self.nth(0, |live| !live.ready) {
                self.make_ready(key);
            } else if let Some(at) = self.tree.next_deadline() {
                self.now = self.now.max(at);
                self.step(Input::Tick);
            } else {
                return;
            }
        }
        panic!("it never calms down");
    }

    /// Every child runs or rests, everyone was answered, and the counts are right.
    fn check_legal(&self, history: &History) {
        assert!(self.open.is_empty(), "unanswered: {:?}", self.open);
        assert!(self.ready || self.finished, "neither up nor down");
        let mut counts = Counts::default();
        let strategy = self.tree.flags().strategy;
        for (key, node) in self.tree.nodes(self.now) {
            let runs = node.state == ChildState::Running;
            let rests = matches!(node.state, ChildState::Stopped | ChildState::Completed | ChildState::Failed);
            assert!(runs || (rests && node.retry_in.is_none()), "{node:?}");
            assert_eq!(runs, self.live.contains_key(&key), "{node:?}");
            assert!(!(self.finished && runs), "{node:?} outlives its supervisor");
            let spec = self.tree.child(key).unwrap().1;
            let mortal = spec.restart == RestartType::Temporary || strategy == Strategy::SimpleOneForOne;
            assert!(self.changed || !rests || spec.retain || !mortal, "{node:?} was not forgotten");
            counts.specs += 1;
            counts.active += usize::from(runs);
            counts.supervisors += usize::from(node.kind == ChildKind::Supervisor);
            counts.workers += usize::from(node.kind == ChildKind::Worker);
        }
        assert_eq!(self.tree.counts(), counts, "{}", history.number);
    }

    /// The stop of everything ends within the sum of the deadlines, though nobody ends by itself; then nothing comes back.
    fn check_end(&mut self) {
        let patience = |spec: &ChildSpec| match spec.shutdown {
            Shutdown::Deadline(limit) => limit + KILL_WAIT,
            Shutdown::Brutal | Shutdown::Infinity => KILL_WAIT,
        };
        let waits: Vec<Duration> = self.live.keys().map(|key| patience(self.tree.child(*key).unwrap().1)).collect();
        let together = self.tree.flags().strategy == Strategy::SimpleOneForOne;
        let limit = if together { waits.iter().max().copied().unwrap_or_default() } else { waits.iter().sum() };
        self.step(Input::Shutdown);
        self.pass(limit);
        assert!(self.finished, "not stopped within {limit:?}");
        self.calm();
        self.pass(Duration::from_secs(1000));
        assert!(self.live.is_empty(), "something came back");
        assert_eq!(self.tree.next_deadline(), None);
    }
}

fn new_child(spec: ChildSpec) -> NewChild<()> {
    NewChild { seed: None, spec: spec.into(), role: Role::Worker, payload: () }
}

/// The child that a request is about.
fn named(request: &Request<()>) -> Option<&ChildId> {
    match request {
        Request::Restart(id)
        | Request::StartExisting(id)
        | Request::Terminate(id)
        | Request::ForceRestart(id)
        | Request::Delete(id)
        | Request::Remove(id) => Some(id),
        _ => None,
    }
}

fn check_window(debits: &[Instant], now: Instant, intensity: Intensity) {
    let within = debits.iter().filter(|at| now - **at <= intensity.period).count();
    assert!(within <= intensity.max_restarts as usize, "{within} restarts in a window of {}", intensity.max_restarts);
}
