//! What the daemon is asked by signals.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::machine::{HangUp, hang_up};

/// Signals this soon after the first are the same word said twice, as timeout(1) does.
const ECHO: Duration = Duration::from_secs(1);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// SIGTERM, SIGINT, and SIGHUP when the terminal goes away.
    Stop,
    /// SIGUSR2.
    HandOver,
}

/// The signals that the daemon listens for.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// SIGHUP where it means that our terminal goes away.
    hang_up: Option<Signal>,
    /// SIGHUP where it means that the configuration is to be read again.
    pub(super) reload: Option<Signal>,
    hand_over: Signal,
}

impl Signals {
    /// From here on none of them ends the process by itself.
    pub(super) fn listen() -> std::io::Result<Self> {
        let (hang_up, reload) = match hang_up() {
            HangUp::Ignored => (None, None),
            HangUp::Stops => (Some(signal(SignalKind::hangup())?), None),
            HangUp::Reloads => (None, Some(signal(SignalKind::hangup())?)),
        };
        Ok(Self {
            hang_up,
            reload,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hand_over: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Order {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hang_up => Order::Stop,
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::Stop,
            _ = self.hand_over.recv() => Order::HandOver,
        }
    }

    /// A signal that is not the echo of the first: some senders signal the process and then its group.
    pub(super) async fn later(&mut self) -> Order {
        let echoes = Instant::now() + ECHO;
        loop {
            let order = self.next().await;
            if Instant::now() >= echoes {
                return order;
            }
        }
    }
}
