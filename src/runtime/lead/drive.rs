//! The one task of a launch: follows the channel from `Alive` to a proven end, renews the lease beside it, and finds out what became of a
//! launcher whose channel broke.

use std::{
    ops::ControlFlow,
    pin::pin,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    carrier::{Carrier, attach},
    channel::{Attached, Incoming, Link, LinkError, STALE_EPOCH, Writer},
    order,
    outbox::{Fate, KILL_ANSWER, Outbox, Reins},
    relay::Relays,
};
use crate::{
    model::{AgentId, ExitCause, ExitRecord, LaunchId},
    runtime::{
        AgentEvent, Launched,
        orphans::{Leader, Tree},
    },
    wire::channel::{Attach, Exit, FromLauncher, State, ToLauncher, VERSION, encode},
};

/// Events that wait for the caller. Each batch of output in them is at most one read of the channel; what does not fit waits in the launcher.
const EVENTS_MAX: usize = 64;
/// Between questions that nobody answered, and sweeps that proved nothing. No end is reported before one has.
const AGAIN: Duration = Duration::from_secs(1);
/// Renewals within one lease: two may be lost or late.
const RENEWALS: u32 = 3;
/// Who is followed.
pub(in crate::runtime) struct Drive {
    carrier: Arc<dyn Carrier>,
    launch_id: LaunchId,
    agent: AgentId,
    incarnation: u64,
    lease: Duration,
    outbox: Arc<Outbox>,
    events: mpsc::Sender<AgentEvent>,
    view: View,
}

/// What has been seen of the agent.
#[derive(Default)]
pub(super) struct View {
    alive: bool,
    paused: bool,
    /// The last output number that was passed on, or counted as lost.
    seen: u64,
    leader: Arc<OnceLock<Leader>>,
}

/// How following one channel ended.
enum End {
    Exit(Exit),
    StartFailed(String),
    Fenced,
    Detached,
    Broken(LinkError),
}

impl Drive {
    /// Of a launch, and what its caller gets. `seen` is the last output number that is kept already.
    pub(in crate::runtime) fn new(
        carrier: Arc<dyn Carrier>,
        launch_id: LaunchId,
        agent: AgentId,
        incarnation: u64,
        lease: Duration,
        seen: u64,
    ) -> (Self, Launched) {
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let outbox = Arc::new(Outbox::new());
        let control = Arc::new(Reins(Arc::clone(&outbox)));
        let view = View { seen, ..View::default() };
        let drive = Self { carrier, launch_id, agent, incarnation, lease, outbox, events, view };
        (drive, Launched { control, events: received })
    }

    /// Follows a launcher that another daemon started, or another channel of ours led.
    pub(in crate::runtime) async fn adopted(mut self, link: Link, state: State) {
        self.learn(&state).await;
        let _ = self.lead(link).await;
    }

    /// Follows a launcher until the end is reported (`Continue`), or the launcher is somebody else's business (`Break`).
    pub(in crate::runtime) async fn lead(&mut self, link: Link) -> ControlFlow<()> {
        let Link { mut incoming, mut write } = link;
        loop {
            let end = self.follow(&mut incoming, write).await;
            match end {
                End::Exit(exit) => {
                    self.ended(exit).await;
                    incoming.closed().await;
                }
                End::StartFailed(message) => self.ended_without_record(ExitCause::StartFailed { message }).await,
                End::Fenced => return self.fenced().await,
                End::Detached => return ControlFlow::Break(()),
                End::Broken(why) => match self.settle(why).await {
                    Settled::Led(again) => {
                        Link { incoming, write } = again;
                        continue;
                    }
                    Settled::Reported => {}
                    Settled::NotOurs => return ControlFlow::Break(()),
                },
            }
            return ControlFlow::Continue(());
        }
    }

    /// Reads and writes side by side, so that a caller that takes no events delays neither renewals nor orders.
    async fn follow(&mut self, incoming: &mut Incoming, write: Writer) -> End {
        let outbox = Arc::clone(&self.outbox);
        let mut fate = outbox.fate();
        let (launch_id, tree, carrier) = (self.launch_id, self.tree(), Arc::clone(&self.carrier));
        let renew = ToLauncher::Renew { epoch: self.carrier.epoch().0 };
        let rouse = || carrier.awaken(launch_id);
        let mut writing = pin!(write_all(Arc::clone(&outbox), write, renew, self.lease / RENEWALS, rouse));
        let mut reading = pin!(self.read_all(incoming));
        let mut writable = true;
        loop {
            tokio::select! {
                end = &mut reading => return end,
                // Whoever can't be written to may still have something to say; if not, the lease runs out.
                error = &mut writing, if writable => {
                    tracing::debug!(%error, "channel can't be written any more");
                    writable = false;
                }
                next = turn(&mut fate) => match next {
                    Turn::Detached => return End::Detached,
                    // The end shows in the channel, which the launcher's death closes.
                    Turn::Overdue => {
                        outbox.due(Instant::now() + KILL_ANSWER);
                        if let Err(why) = carrier.sweep(tree()).await {
                            tracing::error!(launch_id = %tree().launch_id, why, "a launch whose end is overdue could not be swept");
                        }
                    }
                },
            }
        }
    }

    async fn read_all(&mut self, incoming: &mut Incoming) -> End {
        let mut relays = Relays::new(Arc::clone(&self.outbox));
        let mut lines = Vec::new();
        loop {
            let frame = match incoming.buffered() {
                Ok(Some(FromLauncher::Output(output))) => {
                    if output.seq > self.view.seen {
                        self.view.seen = output.seq;
                        lines.push(order::line(output));
                    }
                    continue;
                }
                Ok(frame) => frame,
                Err(error) => return End::Broken(error),
            };
            if !lines.is_empty() {
                self.emit(AgentEvent::Output(std::mem::take(&mut lines))).await;
            }
            match frame {
                Some(frame) => {
                    if let ControlFlow::Break(end) = self.take(frame, &mut relays).await {
                        return end;
                    }
                }
                None => {
                    if let Err(error) = incoming.fill().await {
                        return End::Broken(error);
                    }
                }
            }
        }
    }

    async fn take(&mut self, frame: FromLauncher, relays: &mut Relays) -> ControlFlow<End> {
        match frame {
            FromLauncher::Started { pid, at_ms } => self.started(pid, at_ms).await,
            FromLauncher::StartFailed { message } => return ControlFlow::Break(End::StartFailed(message)),
            FromLauncher::Exit(exit) => return ControlFlow::Break(End::Exit(exit)),
            FromLauncher::Refused { code, .. } if code == STALE_EPOCH => return ControlFlow::Break(End::Fenced),
            FromLauncher::Refused { code, message } => {
                let why = LinkError::Unexpected(format!("refused {code}: {message}"));
                return ControlFlow::Break(End::Broken(why));
            }
            FromLauncher::Lost { lines, bytes, next_seq } => self.lost(lines, bytes, next_seq).await,
            FromLauncher::Sample(sample) => self.emit(order::sample(sample)).await,
            FromLauncher::Paused { paused } => self.paused(paused).await,
            FromLauncher::RelayOpen { conn } => {
                if let Some(stream) = relays.open(conn) {
                    self.carrier.relay().serve(self.agent.clone(), self.incarnation, Box::new(stream));
                }
            }
            FromLauncher::RelayData { conn, bytes } => relays.data(conn, &bytes),
            FromLauncher::RelayClose { conn } => relays.close(conn),
            FromLauncher::RelayCredit { conn, bytes } => relays.credit(conn, bytes),
            FromLauncher::Hello { .. }
            | FromLauncher::State(_)
            | FromLauncher::Output(_)
            | FromLauncher::Swept { .. }
            | FromLauncher::Listed { .. } => {
                tracing::debug!(launch_id = %self.launch_id, "frame out of place ignored");
            }
        }
        ControlFlow::Continue(())
    }

    /// What a launcher's state adds to what has been seen.
    async fn learn(&mut self, state: &State) {
        if let Some(pid) = state.pid {
            self.started(pid, state.started_at_ms).await;
        }
        if state.paused != self.view.paused {
            self.paused(state.paused).await;
        }
    }

    async fn started(&mut self, pid: u32, at_ms: u64) {
        if std::mem::replace(&mut self.view.alive, true) {
            return;
        }
        if let Some(leader) = self.carrier.leader(pid) {
            // The first one stays: an incarnation has one process.
            let _ = self.view.leader.set(leader);
        }
        self.emit(AgentEvent::Alive { pid, at: order::time(at_ms) }).await;
    }

    async fn paused(&mut self, paused: bool) {
        self.view.paused = paused;
        self.emit(AgentEvent::Paused(paused)).await;
        if paused {
            self.carrier.rest(self.launch_id).await;
        }
    }

    /// After a re-attach the launcher counts from what is acknowledged; what came through before is not lost.
    async fn lost(&mut self, lines: u64, bytes: u64, next_seq: u64) {
        let missing = next_seq.saturating_sub(self.view.seen + 1).min(lines);
        if missing > 0 {
            self.view.seen = next_seq - 1;
            self.emit(AgentEvent::Lost { lines: missing, bytes }).await;
        }
    }

    /// Finds out what became of a launcher whose channel broke, and reports an end when there is one.
    async fn settle(&mut self, why: LinkError) -> Settled {
        tracing::debug!(launch_id = %self.launch_id, agent = %self.agent, %why, "channel to a launcher broke");
        let mut fate = self.outbox.fate();
        let attached = tokio::select! {
            attached = self.present() => attached,
            () = detached(&mut fate) => return Settled::NotOurs,
        };
        match attached {
            Ok(Attached::Gone(message)) => self.ended_without_record(ExitCause::ContainerLost { message }).await,
            Ok(Attached::Led(link, state)) => {
                self.outbox.rewind();
                self.learn(&state).await;
                return Settled::Led(link);
            }
            Ok(Attached::Ended(exit)) => self.ended(exit).await,
            Ok(Attached::Fenced) => {
                let _ = self.fenced().await;
                return Settled::NotOurs;
            }
            Ok(Attached::Nobody) => match self.carrier.record(self.launch_id).await {
                Some(exit) => self.ended(exit).await,
                None => self.lost_launcher(why).await,
            },
            Err(error) => {
                tracing::warn!(launch_id = %self.launch_id, agent = %self.agent, %error, "launcher can't be led any more");
                self.lost_launcher(why).await;
            }
        }
        Settled::Reported
    }

    /// Presents ourselves anew, as soon as there is somebody to ask: until then nothing is known of the agent, so nothing is done to it.
    async fn present(&self) -> Result<Attached, LinkError> {
        let hello = Attach { version: VERSION, epoch: self.carrier.epoch().0, last_seq: self.outbox.acked() };
        let mut told = false;
        loop {
            match attach(&*self.carrier, self.launch_id, hello.clone()).await {
                Err(LinkError::Unreachable(why)) => self.unreachable(&mut told, &why).await,
                other => return other,
            }
            sleep(AGAIN).await;
        }
    }

    /// Said once: where an engine is away, every agent of it asks each second.
    async fn unreachable(&self, told: &mut bool, why: &str) {
        if !std::mem::replace(told, true) {
            tracing::warn!(launch_id = %self.launch_id, agent = %self.agent, why, "it is not known how an agent is");
            self.emit(AgentEvent::Unreachable).await;
        }
    }

    async fn lost_launcher(&self, why: LinkError) {
        tracing::warn!(launch_id = %self.launch_id, agent = %self.agent, %why, "launcher lost; what it left is swept");
        self.prove_dead().await;
        let cause = match why {
            // It never came to starting anything.
            LinkError::Unexpected(message) if !self.view.alive => ExitCause::StartFailed { message },
            _ => ExitCause::LauncherLost,
        };
        self.ended_without_record(cause).await;
    }

    async fn prove_dead(&self) {
        let mut told = false;
        while let Err(why) = self.carrier.sweep(self.tree()()).await {
            self.unreachable(&mut told, &why).await;
            sleep(AGAIN).await;
        }
    }

    /// What belongs to this launch, as far as it is known when it is asked for.
    fn tree(&self) -> impl Fn() -> Tree + Send + use<> {
        let (launch_id, leader) = (self.launch_id, Arc::clone(&self.view.leader));
        move || Tree { launch_id: launch_id.to_string(), leader: leader.get().copied() }
    }

    async fn ended(&mut self, exit: Exit) {
        if exit.unswept > 0 {
            tracing::warn!(launch_id = %self.launch_id, left = exit.unswept, "launcher could not end its whole tree");
            self.prove_dead().await;
        }
        let missing = exit.last_seq.saturating_sub(self.view.seen);
        if missing > 0 {
            // How long they were, only the launcher knew.
            self.emit(AgentEvent::Lost { lines: missing, bytes: 0 }).await;
        }
        self.emit(AgentEvent::Exited(order::ended(&exit))).await;
    }

    async fn ended_without_record(&self, cause: ExitCause) {
        let record = ExitRecord::unseen(self.incarnation, SystemTime::now(), cause);
        self.emit(AgentEvent::Exited(record)).await;
    }

    async fn fenced(&self) -> ControlFlow<()> {
        self.emit(AgentEvent::Fenced).await;
        ControlFlow::Break(())
    }

    /// A caller that has stopped listening does not stop the work.
    async fn emit(&self, event: AgentEvent) {
        let _ = self.events.send(event).await;
    }
}

/// What became of a launcher whose channel broke.
enum Settled {
    /// It is ours again.
    Led(Link),
    /// Its end is reported.
    Reported,
    /// It lives and is not led from here.
    NotOurs,
}

enum Turn {
    Detached,
    Overdue,
}

/// Waits until the launch is detached or its end overdue.
async fn turn(fate: &mut watch::Receiver<Fate>) -> Turn {
    loop {
        let now = *fate.borrow_and_update();
        if now.detached {
            return Turn::Detached;
        }
        let overdue = async {
            match now.due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = overdue => return Turn::Overdue,
            changed = fate.changed() => if changed.is_err() { std::future::pending::<()>().await },
        }
    }
}

async fn detached(fate: &mut watch::Receiver<Fate>) {
    if fate.wait_for(|fate| fate.detached).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Writes renewals and orders until that fails.
async fn write_all<F: Future<Output = ()>>(
    outbox: Arc<Outbox>,
    mut write: Writer,
    renew: ToLauncher,
    period: Duration,
    rouse: impl Fn() -> F,
) -> LinkError {
    let mut renewals = interval(period.max(Duration::from_millis(1)));
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut bytes = Vec::new();
    loop {
        tokio::select! {
            biased;
            _ = renewals.tick() => if let Err(error) = encode(&renew, &mut bytes) { return error.into() },
            () = outbox.work() => {}
        }
        if outbox.rouses() {
            rouse().await;
        }
        outbox.take(&mut bytes);
        if let Err(error) = async {
            write.write_all(&bytes).await?;
            write.flush().await
        }
        .await
        {
            return error.into();
        }
        bytes.clear();
    }
}
