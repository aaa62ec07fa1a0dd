//! What a service manager such as systemd is told: that we are ready, how we are, that we end, and, as long as it is so, that our loops turn.
//! Without a `NOTIFY_SOCKET` all of it is silent.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::tree::Trunk;
use crate::{
    control_plane::{Control, Office},
    health,
    model::{AgentState, HiveHealth},
    view::words,
};

/// Where the manager listens; without it there is none.
const SOCKET: &str = "NOTIFY_SOCKET";
/// Between two looks at whether we are ready.
const READY_LOOK: Duration = Duration::from_millis(50);
/// Between two looks at the loops and the status, where the manager asks for none more often: an operator's patience with `systemctl status`.
const ROUND_MAX: Duration = Duration::from_secs(10);
/// The manager's time holds so many rounds: one may be late, and one may fail, before it ends us.
const ROUNDS_IN_WATCH: u32 = 3;
/// How long a loop may take to answer where the manager sets no watch; it is only logged then.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Tells the manager when the daemon is ready, and from then on how it is. Never ends.
///
/// `WATCHDOG=1` is sent only after every loop has answered: this one, the supervision tree, the services, the control plane and the thread that renews
/// the leases. Disks, engines and agents are not asked: another daemon would have the same trouble with them.
pub(super) async fn attend(
    trunk: &Trunk,
    office: &Office,
    health: &health::Handle,
    launches: tokio::runtime::Handle,
) -> ! {
    if std::env::var_os(SOCKET).is_none() {
        std::future::pending::<()>().await;
    }
    while !office.readiness().iter().all(|check| check.ok) {
        sleep(READY_LOOK).await;
    }
    let watch = sd_notify::watchdog_enabled();
    let (every, patience) = rounds(watch);
    let mut status = status(&health.hive());
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    loop {
        match timeout(patience, prove(trunk, &launches)).await {
            Ok(Ok(())) => tell(&[NotifyState::Watchdog]),
            Ok(Err(silent)) => tracing::error!(silent, "a loop of the daemon does not turn"),
            Err(_) => tracing::error!(?patience, "a loop of the daemon has not answered in time"),
        }
        let now = self::status(&health.hive());
        if now != status {
            tell(&[NotifyState::Status(&now)]);
            status = now;
        }
        sleep(every).await;
    }
}

/// How often to look, and how long to wait for the answers.
fn rounds(watch: Option<Duration>) -> (Duration, Duration) {
    match watch {
        Some(watch) => ((watch / ROUNDS_IN_WATCH).min(ROUND_MAX), watch / ROUNDS_IN_WATCH),
        None => (ROUND_MAX, ANSWER_MAX),
    }
}

async fn prove(trunk: &Trunk, launches: &tokio::runtime::Handle) -> Result<(), &'static str> {
    trunk.prove().await?;
    turns(launches).await.map_err(|()| "the thread that renews leases")
}

/// Whether this runtime runs what it is given.
async fn turns(runtime: &tokio::runtime::Handle) -> Result<(), ()> {
    let (turned, turn) = oneshot::channel();
    runtime.spawn(async move { turned.send(()) });
    turn.await.map_err(drop)
}

/// The configuration is being read again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "failed to tell the service manager of a reload"),
    }
}

/// It has been, and was taken up or not.
pub(super) fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// The daemon ends, in this way.
pub(super) fn stopping(how: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(how)]);
}

/// The agents may take so long to end: the manager's patience must not be shorter than their graces.
pub(super) fn ending_takes(grace: Duration) {
    let micros = u32::try_from(grace.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "failed to tell the service manager");
    }
}

/// The one line that `systemctl status` shows.
fn status(hive: &HiveHealth) -> String {
    let running = hive.agents.iter().filter(|agent| agent.state == AgentState::Running).count();
    let why = hive.reasons.first().map(|reason| format!(" ({})", reason.code)).unwrap_or_default();
    format!("{}{why}; {running} of {} agents run", words::level(hive.level), hive.agents.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::app::machine::LaunchThread;

    #[tokio::test]
    async fn a_thread_that_is_blocked_proves_nothing_until_it_turns_again() {
        let thread = LaunchThread::start().unwrap();
        turns(&thread.handle()).await.unwrap();
        let (free, blocked) = mpsc::sync_channel::<()>(1);
        thread.handle().spawn(async move { blocked.recv() });
        let answer = timeout(Duration::from_millis(100), turns(&thread.handle())).await;
        assert!(answer.is_err(), "{answer:?}");
        free.send(()).unwrap();
        timeout(Duration::from_secs(20), turns(&thread.handle())).await.unwrap().unwrap();
    }

    #[test]
    fn a_watch_holds_three_rounds() {
        assert_eq!(rounds(Some(Duration::from_secs(3))), (Duration::from_secs(1), Duration::from_secs(1)));
        assert_eq!(rounds(Some(Duration::from_secs(90))), (Duration::from_secs(10), Duration::from_secs(30)));
        assert_eq!(rounds(None), (Duration::from_secs(10), Duration::from_secs(10)));
    }
}
