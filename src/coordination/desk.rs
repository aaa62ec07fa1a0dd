//! What the doors hold: a call goes in, and its answer comes once what it says is written down. Behind it is the [`Clerk`].
//!
//! Signs of life cost nothing here: who has given one is noted, and looked at when a lease would end. What becomes of a holder is noted as well, and holds
//! until it has been written down, whatever the store says meanwhile.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use dashmap::{DashMap, DashSet, Entry};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    Counter, Refused,
    board::{Board, BoardChanges},
    clerk::Clerk,
    locks::{Ask, Asked, Change, LockChanges, Locks},
    mail::{Mail, MailChanges},
};
use crate::{
    model::{AgentId, AgentName, Fence, Lock, LockId, Party, SwarmName},
    store::{StoreError, WorkStore},
};

/// Calls that may wait; a caller beyond waits for a place.
const QUEUE_MAX: usize = 1024;
/// How long a caller waits for an answer, save for a lock.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// The rules refuse it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It can't be written down now, and so it was not done; with [`StoreError::Busy`] it may have been.
    #[error("coordination is not available: {0}")]
    Unavailable(StoreError),
    /// The daemon ends.
    #[error("the daemon is shutting down")]
    Closed,
}

/// What the rules work on.
#[derive(Debug)]
pub struct Cores {
    /// Tasks and claims.
    pub board: Board,
    /// Locks.
    pub locks: Locks,
    /// Messages.
    pub mail: Mail,
    /// Numbers and fencing tokens.
    pub counter: Counter,
}

/// What one batch has changed.
#[derive(Debug, Default)]
pub struct WorkChanges {
    /// Of tasks.
    pub board: BoardChanges,
    /// Of locks.
    pub locks: LockChanges,
    /// Of messages.
    pub mail: MailChanges,
}

/// Hears what has happened, once it is written down. The composition root implements it: the feed tells.
pub trait WorkWitness: Send + Sync {
    /// Takes what one batch has changed. Must not block.
    fn changed(&self, changes: &WorkChanges);

    /// Whether an incarnation that holds something is proven dead. Asked when everything is read: it may have died while nobody looked, and then nobody
    /// tells of it. Where nothing is known, it may live.
    fn has_ended(&self, _holder: &Party) -> bool {
        false
    }
}

/// What somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bell {
    /// That a task becomes ready in a swarm.
    Work(SwarmName),
    /// That a message comes for a recipient.
    Mail(SwarmName, AgentName),
}

/// What becomes of a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its incarnation is proven dead.
    Ended,
    /// It is paused.
    Paused,
    /// It goes on.
    Resumed,
}

/// What the desk is told of the house. It holds until it is written down, whatever the store says meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// Something has become of a holder.
    Of(Party, Fate),
    /// An agent is no longer part of its swarm.
    AgentGone(AgentId),
    /// A swarm is no longer part of the hive.
    SwarmGone(SwarmName),
    /// These are the swarms that there are.
    Swarms(BTreeSet<SwarmName>),
    /// Whoever waited for this lock, with the token that he had of it already, has gone.
    Left(SwarmName, LockId, Option<Fence>),
}

/// Whoever waits for a lock.
pub(super) type Waiting = oneshot::Sender<Result<Arc<Lock>, WorkError>>;

/// What both sides look at.
#[derive(Default)]
pub(super) struct Shared {
    /// Each counts up when it rings.
    pub(super) bells: DashMap<Bell, watch::Sender<u64>>,
    /// Who has given a sign of life since the clerk looked last.
    pub(super) alive: DashSet<Party>,
    /// What was told of the house, in order, and is not written down yet.
    pub(super) words: Mutex<Vec<Word>>,
    /// A word waits.
    pub(super) called: Notify,
    /// Incarnations that have taken something and are not known to have ended.
    pub(super) holders: DashSet<Party>,
    /// The last incarnation of each agent that is known to have ended: what was on its way here from one of them is taken back.
    pub(super) ended: DashMap<AgentId, u64>,
    /// Who is paused, whether or not he holds anything yet.
    pub(super) paused: DashSet<Party>,
    /// Nothing more is taken.
    closed: AtomicBool,
    /// Who waits for which lock.
    pub(super) waiting: DashMap<LockId, Waiting>,
}

impl Shared {
    pub(super) fn note(&self, word: Word) {
        self.words.lock().push(word);
        self.called.notify_one();
    }

    /// This incarnation holds something. What became of it before anybody knew that is made up for.
    pub(super) fn take_on(&self, party: &Party, has_ended: impl FnOnce() -> bool) {
        self.holders.insert(party.clone());
        // Looked at behind the insertion: whoever tells of it looks at the holders behind that.
        if self.has_ended(party) || has_ended() {
            self.note(Word::Of(party.clone(), Fate::Ended));
        } else if self.paused.contains(party) {
            self.note(Word::Of(party.clone(), Fate::Paused));
        }
    }

    /// Whether this incarnation is known to have ended.
    pub(super) fn has_ended(&self, party: &Party) -> bool {
        self.ended.get(&party.id).is_some_and(|last| party.incarnation <= Some(*last))
    }

    /// Whoever waits for a lock is told why he does not get it.
    pub(super) fn turn_away(&self, why: &WorkError) {
        let ids: Vec<_> = self.waiting.iter().map(|waiting| *waiting.key()).collect();
        for id in ids {
            if let Some((_, waiting)) = self.waiting.remove(&id) {
                let _ = waiting.send(Err(why.clone()));
            }
        }
    }

    /// Why a call that was taken has no answer: who was to give it has fallen over it or another, and it may have been done.
    fn gone(&self) -> WorkError {
        if self.closed.load(Ordering::Acquire) { WorkError::Closed } else { WorkError::Unavailable(StoreError::Busy) }
    }
}

/// What the doors hold.
#[derive(Clone)]
pub struct Desk {
    jobs: mpsc::Sender<Box<dyn Job>>,
    pub(super) shared: Arc<Shared>,
}

impl Desk {
    /// A desk and its clerk, who must be [`run`](Clerk::run); again, should he fall.
    pub fn new(store: Arc<dyn WorkStore>, witness: Arc<dyn WorkWitness>) -> (Self, Clerk) {
        let (sender, jobs) = mpsc::channel(QUEUE_MAX);
        let shared = Arc::<Shared>::default();
        let clerk = Clerk::new(store, witness, jobs, Arc::clone(&shared));
        (Self { jobs: sender, shared }, clerk)
    }

    /// Lets the rules decide; the answer comes once what it says is written down.
    ///
    /// # Errors
    /// Why it is refused, or was not done.
    pub async fn call<T, F>(&self, decide: F) -> Result<T, WorkError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Cores, SystemTime) -> Result<T, Refused> + Send + 'static,
    {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(WorkError::Closed);
        }
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Call { decide: Some(decide), outcome: None, reply });
        let round_trip = async {
            self.jobs.send(call).await.map_err(|_| WorkError::Closed)?;
            answer.await.map_err(|_| self.shared.gone())?
        };
        timeout(ANSWER_WAIT_MAX, round_trip).await.unwrap_or(Err(WorkError::Unavailable(StoreError::Busy)))
    }

    /// Asks for a lock and waits for it as long as the asking says. Who drops this has given up; what he was given meanwhile is given back.
    ///
    /// # Errors
    /// Why it is refused, or was not done.
    pub async fn lock(&self, ask: Ask) -> Result<Arc<Lock>, WorkError> {
        let (id, swarm, wait) = (ask.id, ask.holder.id.swarm.clone(), ask.wait);
        self.wait_for(id, None, swarm, wait, move |cores, now| cores.locks.ask(&mut cores.counter, ask, now)).await
    }

    /// Asks for another mode of a lock, and waits for it in the same way.
    ///
    /// # Errors
    /// Why it is refused, or was not done. The lock stays as it was.
    pub async fn change_lock(&self, swarm: SwarmName, change: Change) -> Result<Arc<Lock>, WorkError> {
        let of = swarm.clone();
        let decide = move |cores: &mut Cores, now| cores.locks.change(&mut cores.counter, &of, change, now);
        self.wait_for(change.id, Some(change.fence), swarm, change.wait, decide).await
    }

    /// `known` is the token that the caller has of this lock already.
    async fn wait_for<F>(
        &self,
        id: LockId,
        known: Option<Fence>,
        swarm: SwarmName,
        wait: Duration,
        decide: F,
    ) -> Result<Arc<Lock>, WorkError>
    where
        F: FnOnce(&mut Cores, SystemTime) -> Result<Asked, Refused> + Send + 'static,
    {
        let (sender, given) = oneshot::channel();
        match self.shared.waiting.entry(id) {
            Entry::Vacant(place) => drop(place.insert(sender)),
            Entry::Occupied(_) => {
                let (found, allowed) = ("another change of it that waits".to_owned(), "one at a time".to_owned());
                return Err(Refused::Invalid { key: "lock".to_owned(), found, allowed }.into());
            }
        }
        let has_left = Arc::<AtomicBool>::default();
        let mut waits = Waits { desk: self, id, known, swarm, over: false, has_left: Arc::clone(&has_left) };
        let decide = move |cores: &mut Cores, now| {
            // Whoever has left before his turn came is given nothing: that he has left may have been heard already.
            if has_left.load(Ordering::Acquire) { Err(Refused::UnknownLock(id)) } else { decide(cores, now) }
        };
        let asked = self.call(decide).await;
        let outcome = match asked {
            Ok(Asked::Granted(lock)) => Ok(lock),
            Ok(Asked::Waiting(_)) => {
                // The rules end the wait in time; this is for a clerk that does not come back.
                match timeout(wait + ANSWER_WAIT_MAX, given).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_)) => Err(self.shared.gone()),
                    Err(_) => Err(WorkError::Unavailable(StoreError::Busy)),
                }
            }
            Err(error) => Err(error),
        };
        // What may still wait there is taken back.
        waits.over = !matches!(outcome, Err(WorkError::Unavailable(StoreError::Busy) | WorkError::Closed));
        outcome
    }

    /// A party has given a sign of life: its leases are renewed when they would end.
    pub fn alive(&self, party: &Party) {
        if self.shared.holders.contains(party) {
            self.shared.alive.insert(party.clone());
        }
    }

    /// Something has become of an incarnation; of one that has taken nothing it is kept in mind, for what is on its way here.
    pub fn fate(&self, party: &Party, fate: Fate) {
        match (fate, party.incarnation) {
            (Fate::Paused, _) => _ = self.shared.paused.insert(party.clone()),
            (Fate::Resumed, _) => _ = self.shared.paused.remove(party),
            (Fate::Ended, None) => {}
            (Fate::Ended, Some(incarnation)) => {
                self.shared.paused.remove(party);
                let mut last = self.shared.ended.entry(party.id.clone()).or_insert(incarnation);
                *last = incarnation.max(*last);
            }
        }
        if self.shared.holders.contains(party) {
            self.shared.note(Word::Of(party.clone(), fate));
        }
    }

    /// An agent is no longer part of its swarm: what waits for it is given up, and who has sent it is told.
    pub fn forget_agent(&self, agent: &AgentId) {
        self.shared.note(Word::AgentGone(agent.clone()));
    }

    /// A swarm is no longer part of the hive: nothing is kept of its work.
    pub fn forget_swarm(&self, swarm: &SwarmName) {
        self.shared.note(Word::SwarmGone(swarm.clone()));
    }

    /// These are the swarms that there are. To be told before anybody asks for anything: one may have been removed by a daemon that died over it.
    pub fn know_swarms(&self, swarms: impl IntoIterator<Item = SwarmName>) {
        self.shared.note(Word::Swarms(swarms.into_iter().collect()));
    }

    /// The daemon ends: whoever waits is told so, and nothing more is taken. What becomes of holders is still written down.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.turn_away(&WorkError::Closed);
        for bell in &self.shared.bells {
            bell.send_modify(|count| *count += 1);
        }
    }

    /// Incarnations that have taken something and are not known to have ended: at the start of a daemon those that the last one knew.
    pub fn holders(&self) -> Vec<Party> {
        self.shared.holders.iter().map(|party| party.clone()).collect()
    }

    /// Hears when this rings.
    pub fn listen(&self, bell: Bell) -> Ear {
        let rings = self.shared.bells.entry(bell.clone()).or_default().subscribe();
        Ear { bell, rings: Some(rings), shared: Arc::clone(&self.shared) }
    }
}

/// Somebody who waits for a bell.
pub struct Ear {
    bell: Bell,
    /// Gone only while this is dropped.
    rings: Option<watch::Receiver<u64>>,
    shared: Arc<Shared>,
}

impl Ear {
    /// What rang until now is heard.
    pub fn forget(&mut self) {
        if let Some(rings) = &mut self.rings {
            rings.mark_unchanged();
        }
    }

    /// Comes when it rings, or has rung since [`forget`](Self::forget). May be dropped at any time.
    pub async fn rings(&mut self) {
        match &mut self.rings {
            // The bell is there as long as anybody listens.
            Some(rings) => _ = rings.changed().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.rings = None;
        // A bell that nobody listens to is not kept: recipients have names of the moment.
        self.shared.bells.remove_if(&self.bell, |_, ringing| ringing.receiver_count() == 0);
    }
}

/// Somebody waits for a lock.
struct Waits<'a> {
    desk: &'a Desk,
    id: LockId,
    /// The token that he has already.
    known: Option<Fence>,
    swarm: SwarmName,
    /// The answer has come.
    over: bool,
    /// Nobody waits any more.
    has_left: Arc<AtomicBool>,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.desk.shared.waiting.remove(&self.id);
        if self.over {
            return;
        }
        // Before it is told: what was asked for and not decided yet must not be given behind that.
        self.has_left.store(true, Ordering::Release);
        // No queue that may be full lies on this way: what is given to nobody would be kept by an agent's signs of life.
        self.desk.shared.note(Word::Left(self.swarm.clone(), self.id, self.known));
    }
}

/// One call on its way through the queue.
pub(super) trait Job: Send {
    fn decide(&mut self, cores: &mut Cores, now: SystemTime);
    /// Tells the caller, once the fate of what was decided is known.
    fn answer(self: Box<Self>, undone: Option<StoreError>);
}

struct Call<T, F> {
    decide: Option<F>,
    outcome: Option<Result<T, Refused>>,
    reply: oneshot::Sender<Result<T, WorkError>>,
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnOnce(&mut Cores, SystemTime) -> Result<T, Refused> + Send,
{
    fn decide(&mut self, cores: &mut Cores, now: SystemTime) {
        self.outcome = self.decide.take().map(|decide| decide(cores, now));
    }

    fn answer(self: Box<Self>, undone: Option<StoreError>) {
        let answer = match (undone, self.outcome) {
            // A refusal changes nothing, so there is nothing that was not written.
            (_, Some(Err(refused))) => Err(WorkError::Refused(refused)),
            (Some(error), _) => Err(WorkError::Unavailable(error)),
            (None, Some(Ok(answer))) => Ok(answer),
            (None, None) => Err(WorkError::Closed),
        };
        // The caller may have gone away; what was decided stands all the same.
        let _ = self.reply.send(answer);
    }
}
