//! One notifier: what it knows, and how messages leave. It lies outside its actor, so that a crash there loses nothing.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    task::spawn_blocking,
    time::timeout,
};

use super::{
    board::Board,
    command,
    courier::Courier,
    message::{Message, Speaker},
    notes::Notes,
    outbox::{Failure, Next, Outbox},
    sighting::{self, Sighting, Subject, Trouble},
    watch::Watch,
    webhook,
};
use crate::{
    events::Feed,
    health,
    model::{HiveId, NotifierName, NotifierStatus, NotifySpec, Receiver, Seq},
    store::{DataDir, Journal},
};

/// Events taken in one turn.
const TURN_EVENTS: usize = 256;
/// Attempts in a row that must fail before the hive's health shows it: one is a hiccup.
const FAILURES_SHOWN: u32 = 2;
/// Beyond the time that an attempt has by itself: a thread that gets no processor is no reason to wait for ever.
const ATTEMPT_MARGIN: Duration = Duration::from_secs(10);

/// What notifiers need.
pub struct NotifyOptions {
    /// The hive's name.
    pub hive: String,
    /// Where each keeps its notes.
    pub data: Arc<DataDir>,
    /// What happened while nobody told it.
    pub journal: Arc<dyn Journal>,
    /// What happens.
    pub feed: Feed,
    /// The last number that an earlier daemon may have used.
    pub before: Seq,
    /// How everybody is after a gap, and where our own troubles are told.
    pub health: health::Handle,
}

/// All notifiers of the hive; clones are the same.
#[derive(Clone, Default)]
pub struct Notifiers {
    all: Arc<[Notifier]>,
}

impl Notifiers {
    /// Reads each one's notes. One without goes on from here: what was before is not told. Blocks.
    pub fn open(specs: &[NotifySpec], options: &NotifyOptions) -> Self {
        let board = Board::new(options.health.clone());
        let open = |spec: &NotifySpec| Notifier::open(spec.clone(), options, board.clone());
        Self { all: specs.iter().map(open).collect() }
    }

    /// Each of them, in the order of the configuration.
    pub fn all(&self) -> &[Notifier] {
        &self.all
    }

    /// How telling goes with each.
    pub fn status(&self) -> Vec<NotifierStatus> {
        self.all.iter().map(Notifier::status).collect()
    }
}

/// A handle on one notifier; clones are the same.
#[derive(Clone)]
pub struct Notifier {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    spec: Arc<NotifySpec>,
    speaker: Speaker,
    data: Arc<DataDir>,
    journal: Arc<dyn Journal>,
    pub(super) feed: Feed,
    before: Seq,
    health: health::Handle,
    board: Board,
    state: Mutex<State>,
    /// One attempt at a time, whatever becomes of who waits for it.
    lane: Arc<Semaphore>,
    /// There may be something to send.
    pub(super) offered: Notify,
    /// There is something to be noted down.
    pub(super) noted: Notify,
}

struct State {
    watch: Watch,
    outbox: Outbox,
    /// The last event that was looked at.
    processed: Seq,
    /// What receivers know.
    told: BTreeMap<Subject, Trouble>,
    trouble: Option<String>,
    failures_in_row: u32,
    /// Whether an event has said something since the notes were written.
    stale: bool,
}

impl Notifier {
    fn open(spec: NotifySpec, options: &NotifyOptions, board: Board) -> Self {
        let notes = match options.data.read_note(&spec.name) {
            Ok(text) => text.and_then(|text| {
                let notes = Notes::read(&text);
                if notes.is_none() {
                    tracing::warn!(notifier = %spec.name, "what it has told before can't be read; it begins anew");
                }
                notes
            }),
            Err(error) => {
                tracing::warn!(notifier = %spec.name, %error, "failed to read what it has told before; it begins anew");
                None
            }
        };
        // Notes that are ahead come from another journal.
        let notes = notes.filter(|notes| notes.after <= options.before);
        let Notes { after, told } = notes.unwrap_or(Notes { after: options.before, told: BTreeMap::new() });
        let known = told.iter().map(|(subject, trouble)| (subject.clone(), *trouble));
        let watch = Watch::new(spec.on.clone(), spec.swarms.clone(), spec.recovered_after, known);
        let state = State {
            watch,
            outbox: Outbox::new(spec.per_minute, spec.retry_for, Instant::now()),
            processed: after,
            told,
            trouble: None,
            failures_in_row: 0,
            // The first notes say from where the next daemon goes on.
            stale: true,
        };
        let hive: HiveId = options.data.hive_id();
        let shared = Shared {
            spec: Arc::new(spec),
            speaker: Speaker { hive, name: options.hive.clone() },
            data: Arc::clone(&options.data),
            journal: Arc::clone(&options.journal),
            feed: options.feed.clone(),
            before: options.before,
            health: options.health.clone(),
            board,
            state: Mutex::new(state),
            lane: Arc::new(Semaphore::new(1)),
            offered: Notify::new(),
            noted: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Its name.
    pub fn name(&self) -> &NotifierName {
        &self.shared.spec.name
    }

    /// The actor that follows the feed and sends, for the factory of a supervised child.
    pub fn courier(&self) -> Courier {
        Courier::new(self.clone())
    }

    /// How telling goes.
    pub fn status(&self) -> NotifierStatus {
        let (spec, state) = (&self.shared.spec, self.shared.state.lock());
        let counts = state.outbox.counts;
        NotifierStatus {
            name: spec.name.clone(),
            kind: match spec.to {
                Receiver::Webhook(_) => "webhook",
                Receiver::Command(_) => "command",
            },
            on: spec.on.clone(),
            swarms: spec.swarms.clone(),
            delivered: counts.delivered,
            summed_up: counts.summed_up,
            lost: counts.lost,
            failed_attempts: counts.failed_attempts,
            waiting: state.outbox.waiting(),
            trouble: state.trouble.clone(),
        }
    }

    /// Sends a message that says nothing, once, at once and beside the rate.
    ///
    /// # Errors
    /// Why it did not arrive.
    pub async fn test(&self) -> Result<(), String> {
        let at = SystemTime::now();
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let id = format!("{}/test/{}", self.shared.feed.epoch(), since.as_millis());
        let message = Arc::new(self.shared.speaker.test(&id, at));
        self.attempt(message).await.map_err(|failure| failure.why)
    }

    /// The last event that was looked at.
    pub(super) fn processed(&self) -> Seq {
        self.shared.state.lock().processed
    }

    /// Looks at what the journal has and no daemon has told; then how everybody is, where that can't be read.
    pub(super) async fn replay(&self) {
        let shared = &*self.shared;
        loop {
            let after = self.processed();
            if after >= shared.before {
                return;
            }
            match shared.journal.events(after, TURN_EVENTS).await {
                Ok(events) => {
                    let state = &mut *shared.state.lock();
                    // What is younger is in the feed, too, and read there.
                    let older: Vec<_> = events.iter().filter(|event| event.seq <= shared.before).collect();
                    let last = older.len() < TURN_EVENTS;
                    for event in older {
                        self.see(state, sighting::of_stored(event));
                        state.processed = event.seq;
                    }
                    if last {
                        state.processed = shared.before;
                    }
                }
                Err(error) => {
                    tracing::warn!(notifier = %self.name(), %error, "failed to read what happened before; only what holds now is told");
                    shared.state.lock().processed = shared.before;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Looks at what is new in the feed, at most a turn's worth; whether there may be more.
    pub(super) fn take(&self) -> bool {
        let shared = &*self.shared;
        let after = self.processed();
        match shared.feed.read(after, TURN_EVENTS) {
            Ok(events) => {
                let state = &mut *shared.state.lock();
                for event in &events {
                    self.see(state, sighting::of_event(event));
                    state.processed = event.seq;
                }
                events.len() == TURN_EVENTS
            }
            Err(gap) => {
                tracing::warn!(notifier = %self.name(), after = %gap.after, first_kept = %gap.first_kept,
                    "events left the ring before they were looked at; what holds now is told");
                let (hive, epoch, now) = (shared.health.hive(), shared.feed.epoch(), SystemTime::now());
                let state = &mut *shared.state.lock();
                for sighting in sighting::of_hive(&hive, epoch, gap.head, now) {
                    self.see(state, Some(sighting));
                }
                state.processed = gap.head;
                true
            }
        }
    }

    /// What time alone brings about; when it is to be called again, if nothing happens before.
    pub(super) fn tick(&self) -> Option<Instant> {
        let (now, state) = (Instant::now(), &mut *self.shared.state.lock());
        for news in state.watch.tick(now) {
            let message = self.shared.speaker.tell(&news);
            self.offer(state, message, now);
        }
        state.watch.due()
    }

    /// Finds out who is no longer part of the hive: a swarm's end is no event.
    pub(super) fn miss(&self) {
        let (shared, now) = (&*self.shared, SystemTime::now());
        let head = shared.feed.head();
        let is_gone = |subject: &&Subject| match subject {
            Subject::Hive => false,
            Subject::Swarm(name) => shared.health.swarm(name).is_none(),
            Subject::Agent(id) => shared.health.agent(id).is_none(),
        };
        let known: Vec<Subject> = shared.state.lock().watch.in_trouble().cloned().collect();
        let gone: Vec<Subject> = known.iter().filter(is_gone).cloned().collect();
        let state = &mut *shared.state.lock();
        for subject in gone {
            self.see(state, Some(sighting::of_gone(subject, shared.feed.epoch(), head, now)));
        }
        if state.stale {
            shared.noted.notify_one();
        }
    }

    fn see(&self, state: &mut State, sighting: Option<Sighting>) {
        let Some(sighting) = sighting else { return };
        state.stale = true;
        let now = Instant::now();
        if let Some(news) = state.watch.see(sighting, now) {
            let message = self.shared.speaker.tell(&news);
            self.offer(state, message, now);
        }
    }

    fn offer(&self, state: &mut State, message: Message, now: Instant) {
        tracing::info!(notifier = %self.name(), id = message.id, kind = message.kind, subject = message.subject, "to be told");
        state.outbox.offer(message, now);
        self.shared.offered.notify_one();
    }

    /// What is to be sent now.
    pub(super) fn next(&self) -> Next {
        self.shared.state.lock().outbox.next(Instant::now(), &self.shared.speaker)
    }

    /// One attempt, on a thread of its own.
    pub(super) async fn attempt(&self, message: Arc<Message>) -> Result<(), Failure> {
        let shared = &*self.shared;
        let patience = shared.spec.timeout + ATTEMPT_MARGIN;
        let Ok(Ok(permit)) = timeout(patience, Arc::clone(&shared.lane).acquire_owned()).await else {
            return Err(Failure::of("an earlier attempt has not ended"));
        };
        let (answer, answered) = oneshot::channel();
        let spec = Arc::clone(&shared.spec);
        let work = move || {
            let result = match &spec.to {
                Receiver::Webhook(webhook) => webhook::post(webhook, spec.timeout, &message),
                Receiver::Command(argv) => command::run(argv, spec.timeout, &message),
            };
            drop(permit);
            // Who asked may be gone; the message waits on then.
            let _ = answer.send(result);
        };
        if let Err(error) = std::thread::Builder::new().name("notify".to_owned()).spawn(work) {
            return Err(Failure::of(format!("failed to start a thread: {error}")));
        }
        match timeout(patience, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Failure::of("the attempt broke off")),
            Err(_) => Err(Failure::of("the attempt does not end")),
        }
    }

    /// How it went with the message that [`Notifier::next`] gave out.
    pub(super) fn note(&self, result: Result<(), Failure>) {
        let (name, now, state) = (self.name(), Instant::now(), &mut *self.shared.state.lock());
        let settled = match &result {
            Ok(()) => {
                if state.trouble.take().is_some() {
                    tracing::info!(notifier = %name, "messages arrive again");
                }
                state.failures_in_row = 0;
                self.shared.board.note(name, None);
                state.outbox.delivered()
            }
            Err(failure) => {
                state.failures_in_row += 1;
                if state.trouble.is_none() {
                    tracing::warn!(notifier = %name, why = failure.why, refused = failure.refused, "failed to tell");
                }
                if failure.refused || state.failures_in_row >= FAILURES_SHOWN {
                    self.shared.board.note(name, Some(&failure.why));
                }
                state.trouble = Some(failure.why.clone());
                state.outbox.failed(failure, now, chance())
            }
        };
        if !settled.is_empty() {
            for (subject, trouble) in settled {
                match trouble {
                    Some(trouble) => _ = state.told.insert(subject, trouble),
                    None => _ = state.told.remove(&subject),
                }
            }
            state.stale = true;
            self.shared.noted.notify_one();
        }
    }

    /// Writes the notes.
    ///
    /// # Errors
    /// Why they can't be written.
    pub(super) async fn write(&self) -> Result<(), String> {
        let text = {
            let state = &mut *self.shared.state.lock();
            state.stale = false;
            Notes { after: state.outbox.told_upto(state.processed), told: state.told.clone() }.write()
        };
        let (data, name) = (Arc::clone(&self.shared.data), self.name().clone());
        // A disk that hangs holds a thread of its own, and no actor.
        let written = spawn_blocking(move || data.write_note(&name, &text)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A number in 0..1; the middle where the system has no chance to give.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |chance| f64::from(chance) / f64::from(u32::MAX))
}
