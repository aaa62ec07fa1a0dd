//! How an incarnation begins: the one before it is proven dead, its start is journaled, and it is launched, or taken over from an earlier daemon.

use std::{sync::Arc, time::SystemTime};

use tokio::sync::OwnedMutexGuard;

use super::{
    super::{
        child::{Order, runs},
        contract::{LaunchError, LaunchOrder, Launched, RecoverError, Recovered},
        keep::keep_loss,
        registry::{OpenLaunch, new_token, token_hash},
        veil::Veil,
    },
    Drive, RETRY_PAUSE, STOP_PATIENCE, WAITS, wait_exit,
};
use crate::{
    model::{ExitCause, ExitRecord, Observation, RuntimeKind},
    store::{Incarnation, StoreError},
};

/// How it began.
pub(super) enum Begun {
    Running(Launched, tokio::sync::watch::Receiver<bool>),
    Ended(ExitRecord),
    /// A stop came before anything was launched.
    Withdrawn,
    Fenced,
}

/// What became of a launch that was not known to have ended.
pub(super) enum Proof {
    /// So it ended.
    Dead(ExitRecord),
    Withdrawn,
    Fenced,
}

impl Drive {
    /// Waits until no other actor leads this agent; `None` when a stop came meanwhile.
    pub(super) async fn turn(&mut self) -> Option<OwnedMutexGuard<()>> {
        let turn = self.job.slot.turn();
        if let Ok(free) = Arc::clone(&turn).try_lock_owned() {
            return Some(free);
        }
        self.waits("its last incarnation is still being stopped".to_owned());
        tokio::select! {
            biased;
            () = self.stopped() => None,
            free = turn.lock_owned() => Some(free),
        }
    }

    pub(super) async fn launch(&mut self, automatic: bool) -> Begun {
        // One that was given for an agent which did not live then is not for the next stop of this one.
        self.job.slot.set_grace(None);
        if let Some(open) = self.job.slot.unproven() {
            match self.prove_dead(open).await {
                Proof::Dead(_) => {}
                Proof::Withdrawn => return Begun::Withdrawn,
                Proof::Fenced => return Begun::Fenced,
            }
        }
        let token = match new_token() {
            Ok(token) => token,
            Err(error) => return Begun::Ended(self.start_failed(format!("no random bytes for a token: {error}"))),
        };
        let hash = token_hash(&token);
        let launch_id = self.runtime().reserve(&self.job.id.swarm);
        let row = Incarnation {
            launch_id,
            agent: self.job.id.clone(),
            incarnation: self.incarnation,
            token_hash: hash,
            begun_at: SystemTime::now(),
            automatic,
            runs: Some(runs(&self.job.spec.command, &self.job.env)),
        };
        loop {
            let written = self.write_begin(&row).await;
            match written {
                Ok(()) => break,
                Err(StoreError::Fenced) => return Begun::Fenced,
                // The journal is ahead of us. Another try with the same number would be refused for ever; the next start has the next one.
                Err(error @ StoreError::Conflict(_)) => {
                    self.runtime().forget(launch_id).await;
                    return Begun::Ended(self.start_failed(format!("the journal refuses this start: {error}")));
                }
                Err(error) => {
                    self.waits(format!("the journal can't be written: {error}"));
                    if self.stop_within(RETRY_PAUSE).await {
                        self.runtime().forget(launch_id).await;
                        return Begun::Withdrawn;
                    }
                }
            }
        }
        self.launch_id = Some(launch_id);
        self.job.slot.set_unproven(Some(OpenLaunch {
            launch_id,
            incarnation: self.incarnation,
            runtime: self.runtime().kind(),
        }));
        let resolved = match self.job.deps.secrets.resolve(&self.job.env, self.job.origin).await {
            Ok(resolved) => resolved,
            Err(error) => return Begun::Ended(self.start_failed(error.to_string())),
        };
        self.job.slot.set_veil(Veil::new(hash, &resolved.secrets));
        let opened = self.job.slot.issue(self.incarnation, hash);
        let order = LaunchOrder {
            launch_id,
            agent: self.job.id.clone(),
            incarnation: self.incarnation,
            argv: self.job.spec.command.clone(),
            env: resolved.env,
            workdir: self.job.workdir.clone(),
            token,
            lease: self.job.spec.lease,
            grace: self.job.spec.stop_grace,
            sample_interval: self.job.deps.sample_interval,
        };
        let runtime = Arc::clone(self.runtime());
        let mut stop_came = false;
        loop {
            let give_up = async {
                while let Some(Order::EndStuck) = self.orders.recv().await {}
                stop_came = true;
                tokio::time::sleep(STOP_PATIENCE).await;
            };
            let launched = tokio::select! {
                biased;
                launched = runtime.launch(order.clone()) => launched,
                // What comes of it is killed with its reins; whether anything did, the next start finds out.
                () = give_up => return Begun::Withdrawn,
            };
            match launched {
                Ok(launched) => {
                    if stop_came {
                        self.obey(Order::Stop, &launched);
                    }
                    return Begun::Running(launched, opened);
                }
                // No fault of the agent's, and nothing runs: it waits, and spends nothing.
                Err(error @ (LaunchError::Unreachable(_) | LaunchError::NotYet(_))) => {
                    let away =
                        matches!(error, LaunchError::Unreachable(_)) && self.runtime().kind() == RuntimeKind::Docker;
                    let code = if away { "engine_unreachable" } else { WAITS };
                    self.saw(Observation::Waiting { code, reason: error.to_string() });
                    if stop_came || self.stop_within(RETRY_PAUSE).await {
                        self.stopping = true;
                        return Begun::Ended(self.record(ExitCause::NeverStarted));
                    }
                }
                Err(error @ (LaunchError::Refused(_) | LaunchError::Launcher(_))) => {
                    return Begun::Ended(self.start_failed(error.to_string()));
                }
            }
        }
    }

    async fn write_begin(&self, row: &Incarnation) -> Result<(), StoreError> {
        if let Some((launch_id, record)) = self.job.slot.take_end() {
            match self.job.deps.journal.end_incarnation(launch_id, &record).await {
                Ok(()) => {}
                // It does not know the launch, and never will: there is nothing to be closed.
                Err(error @ StoreError::Conflict(_)) => {
                    tracing::error!(agent = %self.job.id, %error, "the journal has lost a start whose end was to be written");
                }
                Err(error) => {
                    self.job.slot.keep_end(launch_id, record);
                    return Err(error);
                }
            }
            self.runtime().forget(launch_id).await;
        }
        self.job.deps.journal.begin_incarnation(row.clone()).await
    }

    pub(super) async fn adopt(&mut self) -> Begun {
        let Some(open) = self.job.slot.unproven() else {
            return Begun::Ended(self.record(ExitCause::NeverStarted));
        };
        self.launch_id = Some(open.launch_id);
        let opened = self.job.slot.opened();
        let mut recovered = self.job.slot.take_recovered();
        loop {
            match recovered.take() {
                Some(Recovered::Running(launched) | Recovered::Ending(launched)) => {
                    return Begun::Running(launched, opened);
                }
                Some(Recovered::Exited { record, lost }) => {
                    self.lose(open.incarnation, lost).await;
                    return Begun::Ended(record);
                }
                Some(Recovered::Lost) => return Begun::Ended(self.record(ExitCause::LauncherLost)),
                None => {}
            }
            match self.recover(open).await {
                Ok(found) => recovered = Some(found),
                Err(RecoverError::Fenced) => return Begun::Fenced,
                Err(RecoverError::Unproven(why)) => {
                    self.waits(format!("its launcher does not answer: {why}"));
                    if self.stop_within(RETRY_PAUSE).await {
                        return Begun::Withdrawn;
                    }
                }
            }
        }
    }

    pub(super) async fn recover(&self, open: OpenLaunch) -> Result<Recovered, RecoverError> {
        let last_seq = self.job.deps.logs.last_seq(&self.job.id, open.incarnation);
        let runtime = self.job.deps.runtimes.of_kind(open.runtime);
        runtime.recover(open.launch_id, self.job.id.clone(), open.incarnation, last_seq).await
    }

    /// Counts output that went with a launcher which nobody led.
    pub(super) async fn lose(&self, incarnation: u64, lines: u64) {
        if lines > 0 {
            self.saw(Observation::Lost { lines, bytes: 0 });
            keep_loss(Arc::clone(&self.job.deps), self.job.id.clone(), incarnation, lines, 0).await;
        }
    }

    /// Incarnation n+1 never starts before n is proven dead: it is found, killed and waited for.
    pub(super) async fn prove_dead(&mut self, open: OpenLaunch) -> Proof {
        loop {
            let record = match self.recover(open).await {
                Ok(Recovered::Running(mut launched) | Recovered::Ending(mut launched)) => {
                    launched.control.kill();
                    wait_exit(&mut launched).await
                }
                Ok(Recovered::Exited { record, lost }) => {
                    self.lose(open.incarnation, lost).await;
                    Some(record)
                }
                Ok(Recovered::Lost) => {
                    Some(ExitRecord::unseen(open.incarnation, SystemTime::now(), ExitCause::LauncherLost))
                }
                Err(RecoverError::Fenced) => return Proof::Fenced,
                Err(RecoverError::Unproven(_)) => None,
            };
            if let Some(record) = record {
                self.close(open.launch_id, open.incarnation, record.clone()).await;
                return Proof::Dead(record);
            }
            self.waits(format!("incarnation {} is not proven dead", open.incarnation));
            if self.stop_within(RETRY_PAUSE).await {
                return Proof::Withdrawn;
            }
        }
    }
}
