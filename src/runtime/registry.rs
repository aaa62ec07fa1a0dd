//! What is known of each agent across its incarnations: who may open a session, who holds the reins, what is not proven dead.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::{sync::watch, task::JoinSet};

use super::contract::{AgentControl, Recovered};
use crate::model::{Admission, AgentId, ExitRecord, LaunchId, Refusal};

/// Heartbeats asked for within an agent's `heartbeat_timeout`: one may be lost and one late before the agent is `degraded`.
const HEARTBEATS_WITHIN_TIMEOUT: u32 = 3;

/// A launch that the journal has begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenLaunch {
    /// Its id.
    pub launch_id: LaunchId,
    /// Which start.
    pub incarnation: u64,
}

/// The hash of a token, as the journal keeps it.
pub fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

type Writing = Shared<BoxFuture<'static, bool>>;

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
    loses_output: AtomicBool,
    /// The end on its way into the journal; true once it is there.
    writing: Mutex<Option<Writing>>,
    /// What sees to it, and tidies up behind it.
    ending: Mutex<JoinSet<()>>,
}

impl Slot {
    /// One actor at a time leads the agent, from before its launch to after its end: one whose supervisor has crashed may still wind down
    /// when its successor comes.
    pub(super) fn turn(&self) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.turn)
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

    /// Keeps an end until the journal has it, which is before the next incarnation is launched.
    pub fn keep_end(&self, launch_id: LaunchId, record: ExitRecord) {
        self.state.lock().unwritten_end = Some((launch_id, record));
    }

    /// The end that the journal does not have, as far as is known.
    pub fn unwritten_end(&self) -> Option<(LaunchId, ExitRecord)> {
        self.state.lock().unwritten_end.clone()
    }

    /// The journal has it.
    pub fn end_written(&self, launch_id: LaunchId) {
        self.state.lock().unwritten_end.take_if(|(kept, _)| *kept == launch_id);
    }

    /// Begins here and now to write an end down, so that it is queued before whatever its caller does next, and goes on with it beside, then tidies
    /// up if it is written. The place owns this work; where it is cut off, the end is still kept as unwritten.
    pub(super) fn see_to_end(
        &self,
        writing: impl Future<Output = bool> + Send + 'static,
        tidying: impl Future<Output = ()> + Send + 'static,
    ) {
        let writing = writing.boxed().shared();
        let _ = writing.clone().now_or_never();
        *self.writing.lock() = Some(writing.clone());
        let mut ending = self.ending.lock();
        while ending.try_join_next().is_some() {}
        ending.spawn(async move {
            if writing.await {
                tidying.await;
            }
        });
    }

    /// Whether an end is on its way into the journal.
    pub(super) fn is_ending(&self) -> bool {
        self.writing.lock().as_ref().is_some_and(|writing| writing.peek().is_none())
    }

    /// Waits for the answer to an end that is on its way into the journal.
    pub(super) async fn end_answered(&self) {
        let writing = self.writing.lock().clone();
        if let Some(writing) = writing {
            writing.await;
        }
    }

    /// Waits until ends are seen to.
    pub(super) async fn ended(&self) {
        let mut ending = std::mem::take(&mut *self.ending.lock());
        while ending.join_next().await.is_some() {}
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
        slot.revoke();
        assert_eq!(registry.admit(&agent(), 2, "t"), Err(Refusal::StaleIncarnation));
    }
}
