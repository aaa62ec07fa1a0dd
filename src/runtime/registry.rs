//! What is known of each agent across its incarnations: who may open a session, who holds the reins, what is not proven dead.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::{sync::watch, task::JoinSet};

use super::{
    contract::{AgentControl, Recovered},
    veil::Veil,
};
use crate::model::{Admission, AgentId, ExitRecord, LaunchId, Refusal, RuntimeKind, spec::HEARTBEATS_WITHIN_TIMEOUT};

/// How long tidying up waits: longer than a restart takes that is due at once and wants the processor for itself.
const TIDY_PAUSE: Duration = Duration::from_millis(20);

/// A launch that the journal has begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenLaunch {
    /// Its id.
    pub launch_id: LaunchId,
    /// Which start.
    pub incarnation: u64,
    /// Where it was made: there alone its end can be proven, wherever its swarm lives by now.
    pub runtime: RuntimeKind,
}

/// 256 random bits, hexadecimal.
pub(super) fn new_token() -> Result<String, getrandom::Error> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The hash of a token, as the journal keeps it.
pub fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[derive(Default)]
struct State {
    ticket: Option<Ticket>,
    control: Option<Arc<dyn AgentControl>>,
    unproven: Option<OpenLaunch>,
    unwritten_end: Option<(LaunchId, ExitRecord)>,
    recovered: Option<Recovered>,
    paused: bool,
    grace: Option<Duration>,
    heartbeat_timeout: Option<Duration>,
    veil: Option<Arc<Veil>>,
}

struct Ticket {
    incarnation: u64,
    hash: [u8; 32],
    opened: watch::Sender<bool>,
}

/// One agent's place. Outlives its actor, so that a crash of the actor loses no knowledge of what it launched.
#[derive(Default)]
pub struct Slot {
    state: Mutex<State>,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The highest number that an incarnation of it was given.
    number: AtomicU64,
    loses_output: AtomicBool,
    /// The last incarnation that has told something of itself.
    spoke: AtomicU64,
    tidying: Mutex<JoinSet<()>>,
}

impl Slot {
    /// One actor at a time leads the agent, from before its launch to after its end: one whose supervisor has crashed may still wind down
    /// when its successor comes.
    pub(super) fn turn(&self) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.turn)
    }

    /// Takes note that an incarnation has this number, and returns the highest that one was given. Supervisors tell of a number before the journal
    /// has it: the successor of one that falls in between must not give it to another incarnation.
    pub fn note_number(&self, incarnation: u64) -> u64 {
        self.number.fetch_max(incarnation, Ordering::AcqRel).max(incarnation)
    }

    /// The highest number that an incarnation of it was given; 0 before the first.
    pub fn last_number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Whether its output can be kept; returns whether that is news.
    pub(super) fn set_keeps_output(&self, kept: bool) -> bool {
        self.loses_output.swap(!kept, Ordering::Relaxed) == kept
    }

    /// Whether the last of its output could be kept.
    pub(super) fn keeps_output(&self) -> bool {
        !self.loses_output.load(Ordering::Relaxed)
    }

    /// Admits this token for this incarnation from now on. The receiver turns true at the first session.
    pub fn issue(&self, incarnation: u64, hash: [u8; 32]) -> watch::Receiver<bool> {
        let (opened, seen) = watch::channel(false);
        self.state.lock().ticket = Some(Ticket { incarnation, hash, opened });
        seen
    }

    /// Turns true at the first session of the incarnation that the ticket is for; never without a ticket.
    pub fn opened(&self) -> watch::Receiver<bool> {
        match &self.state.lock().ticket {
            Some(ticket) => ticket.opened.subscribe(),
            None => watch::channel(false).1,
        }
    }

    /// No token is valid any more.
    pub fn revoke(&self) {
        self.state.lock().ticket = None;
    }

    /// What is hidden of what the incarnation says.
    pub fn set_veil(&self, veil: Veil) {
        self.state.lock().veil = Some(Arc::new(veil));
    }

    /// See [`Slot::set_veil`]; that of the last one until the next has its own.
    pub fn veil(&self) -> Option<Arc<Veil>> {
        self.state.lock().veil.clone()
    }

    /// Who holds the reins of the living incarnation.
    pub fn set_control(&self, control: Option<Arc<dyn AgentControl>>) {
        self.state.lock().control = control;
    }

    /// The reins, while there is a living incarnation.
    pub fn control(&self) -> Option<Arc<dyn AgentControl>> {
        self.state.lock().control.clone()
    }

    /// Remembers a launch until its end is proven.
    pub fn set_unproven(&self, launch: Option<OpenLaunch>) {
        self.state.lock().unproven = launch;
    }

    /// The launch whose end is not proven.
    pub fn unproven(&self) -> Option<OpenLaunch> {
        self.state.lock().unproven
    }

    /// Keeps an end that the journal could not take; it is written before the next incarnation begins.
    pub fn keep_end(&self, launch_id: LaunchId, record: ExitRecord) {
        self.state.lock().unwritten_end = Some((launch_id, record));
    }

    /// Takes it back out.
    pub fn take_end(&self) -> Option<(LaunchId, ExitRecord)> {
        self.state.lock().unwritten_end.take()
    }

    /// Tidies up a little later, when a restart that is due at once is over. The place owns this work; what is cut off is tidied up at the next boot.
    pub(super) fn tidy(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tidying = self.tidying.lock();
        while tidying.try_join_next().is_some() {}
        tidying.spawn(async move {
            tokio::time::sleep(TIDY_PAUSE).await;
            work.await;
        });
    }

    /// Leaves what boot has recovered for the actor that will lead it. Its lease is renewed meanwhile.
    pub fn set_recovered(&self, recovered: Recovered) {
        self.state.lock().recovered = Some(recovered);
    }

    /// Takes it.
    pub fn take_recovered(&self) -> Option<Recovered> {
        self.state.lock().recovered.take()
    }

    /// Whether the operator wants it frozen; a new incarnation is frozen at its first sign of life.
    pub fn set_paused(&self, paused: bool) {
        self.state.lock().paused = paused;
    }

    /// See [`Slot::set_paused`].
    pub fn paused(&self) -> bool {
        self.state.lock().paused
    }

    /// Overrides the document's grace for the next stop.
    pub fn set_grace(&self, grace: Option<Duration>) {
        self.state.lock().grace = grace;
    }

    /// Takes the override.
    pub fn take_grace(&self) -> Option<Duration> {
        self.state.lock().grace.take()
    }

    /// The silence after which its document calls it `degraded`.
    pub fn set_heartbeat_timeout(&self, timeout: Duration) {
        self.state.lock().heartbeat_timeout = Some(timeout);
    }
}

/// All places.
#[derive(Clone, Default)]
pub struct Registry {
    slots: Arc<DashMap<AgentId, Arc<Slot>>>,
}

impl Registry {
    /// The place of an agent, made when it is new.
    pub fn slot(&self, agent: &AgentId) -> Arc<Slot> {
        if let Some(slot) = self.slots.get(agent) {
            return Arc::clone(&slot);
        }
        Arc::clone(&self.slots.entry(agent.clone()).or_default())
    }

    /// Forgets an agent that is no longer part of the hive.
    pub fn remove(&self, agent: &AgentId) {
        self.slots.remove(agent);
    }
}

impl Registry {
    /// Whether this incarnation may live: it does, or its end is not proven.
    pub fn may_live(&self, agent: &AgentId, incarnation: u64) -> bool {
        let Some(slot) = self.slots.get(agent) else { return false };
        let state = slot.state.lock();
        state.ticket.as_ref().is_some_and(|ticket| ticket.incarnation == incarnation)
            || state.unproven.is_some_and(|open| open.incarnation == incarnation)
    }

    /// This incarnation has told something of itself: its silence means something from now on.
    pub fn note_spoke(&self, agent: &AgentId, incarnation: u64) {
        if let Some(slot) = self.slots.get(agent) {
            slot.spoke.fetch_max(incarnation, Ordering::AcqRel);
        }
    }

    /// Whether this incarnation has told something of itself since this daemon began.
    pub fn speaks(&self, agent: &AgentId, incarnation: u64) -> bool {
        self.slots.get(agent).is_some_and(|slot| slot.spoke.load(Ordering::Acquire) == incarnation)
    }

    /// What is hidden of what an agent says; nothing of one that nobody has launched.
    pub fn veil(&self, agent: &AgentId) -> Option<Arc<Veil>> {
        self.slots.get(agent).and_then(|slot| slot.veil())
    }
}

impl Admission for Registry {
    fn admit(&self, agent: &AgentId, incarnation: u64, token: &str) -> Result<(), Refusal> {
        let slot = self.slots.get(agent).map(|slot| Arc::clone(&slot)).ok_or(Refusal::BadToken)?;
        let state = slot.state.lock();
        let ticket = state.ticket.as_ref().ok_or(Refusal::StaleIncarnation)?;
        if incarnation != ticket.incarnation {
            return Err(Refusal::StaleIncarnation);
        }
        if !bool::from(token_hash(token).ct_eq(&ticket.hash)) {
            return Err(Refusal::BadToken);
        }
        ticket.opened.send_replace(true);
        Ok(())
    }

    fn lives(&self, agent: &AgentId, incarnation: u64) -> bool {
        let Some(slot) = self.slots.get(agent) else { return false };
        slot.state.lock().ticket.as_ref().is_some_and(|ticket| ticket.incarnation == incarnation)
    }

    fn heartbeat_interval(&self, agent: &AgentId) -> Option<Duration> {
        let slot = self.slots.get(agent).map(|slot| Arc::clone(&slot))?;
        let timeout = slot.state.lock().heartbeat_timeout?;
        Some(timeout / HEARTBEATS_WITHIN_TIMEOUT)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn agent() -> AgentId {
        "review/coder-1".parse().unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_incarnation_only() {
        let registry = Registry::default();
        assert_eq!(registry.admit(&agent(), 1, "t"), Err(Refusal::BadToken));
        let slot = registry.slot(&agent());
        assert_eq!(registry.admit(&agent(), 1, "t"), Err(Refusal::StaleIncarnation));
        let opened = slot.issue(2, token_hash("t"));
        assert!(!*opened.borrow());
        assert_eq!(registry.admit(&agent(), 2, "wrong"), Err(Refusal::BadToken));
        assert_eq!(registry.admit(&agent(), 1, "t"), Err(Refusal::StaleIncarnation));
        assert!(!*opened.borrow());
        assert_eq!(registry.admit(&agent(), 2, "t"), Ok(()));
        assert!(*opened.borrow());
        assert!(registry.lives(&agent(), 2) && !registry.lives(&agent(), 1));
        assert!(!registry.speaks(&agent(), 2), "it has only opened a session");
        registry.note_spoke(&agent(), 2);
        assert!(registry.speaks(&agent(), 2) && !registry.speaks(&agent(), 1) && !registry.speaks(&agent(), 3));
        slot.revoke();
        assert!(!registry.lives(&agent(), 2) && !registry.may_live(&agent(), 2));
        let launch = OpenLaunch { launch_id: LaunchId::mint(), incarnation: 2, runtime: RuntimeKind::Process };
        slot.set_unproven(Some(launch));
        assert!(registry.may_live(&agent(), 2) && !registry.may_live(&agent(), 1), "nobody has proven its end");
        assert_eq!(registry.admit(&agent(), 2, "t"), Err(Refusal::StaleIncarnation));
    }
}
