//! The actor that listens. It owns the accepting loop, and that owns one task a connection: when the actor ends, all of them end, and its
//! successor goes on with the same port.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Instant,
};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use nix::sys::socket::{Backlog, listen};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
    time::{sleep_until, timeout},
};

use super::{
    bucket::Bucket,
    connection::{self, Counted},
    failures::Failures,
    limits::{ACCEPT_PAUSE, BACKLOG_MAX, HANDSHAKES_PER_SECOND},
    newcomers::{Newcomer, Newcomers},
    plane::{DataPlaneHandle, Plane, Relayed, count},
};
use crate::tls::Tls;

/// One incarnation of the listener. Made by a factory from the same bound socket each time.
pub struct DataPlane {
    plane: Arc<Plane>,
    listener: Option<StdListener>,
}

impl DataPlane {
    /// Takes a copy of the bound socket, so that the port stays ours when the actor is restarted.
    ///
    /// # Errors
    /// No descriptor for the copy.
    pub fn new(handle: &DataPlaneHandle, listener: &StdListener) -> io::Result<Self> {
        // On a socket that listens already this sets its queue's length alone, listen(2). What is accepted in a second: nobody who finds a place in it
        // waits longer.
        let queue = i32::try_from(accepts(&handle.plane).0).unwrap_or(BACKLOG_MAX).min(BACKLOG_MAX);
        listen(listener, Backlog::new(queue)?)?;
        let copy = listener.try_clone()?;
        copy.set_nonblocking(true)?;
        Ok(Self { plane: Arc::clone(&handle.plane), listener: Some(copy) })
    }
}

impl Actor for DataPlane {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let plane = Arc::clone(&self.plane);
        let listener = self.listener.take();
        let accepting = async move {
            match listener.map(TcpListener::from_std) {
                Some(Ok(listener)) => accept(plane, listener).await,
                Some(Err(why)) => tracing::error!(%why, "the data plane's socket can't be polled"),
                None => {}
            }
        };
        ctx.spawn(accepting.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

/// What the loop waits for.
enum Turn {
    Accepted(io::Result<(TcpStream, SocketAddr)>),
    Relayed(Option<Relayed>),
    Ended(Result<(), JoinError>),
}

/// Ends only when nobody can relay any more, which is when the daemon has let go of the data plane.
async fn accept(plane: Arc<Plane>, listener: TcpListener) {
    let mut relays = plane.relays.lock().await;
    let _listening = Listening::new(&plane);
    let direct = Arc::new(Semaphore::new(plane.limits.direct_max));
    let relayed = Arc::new(Semaphore::new(plane.limits.relayed_max));
    let mut newcomers = Newcomers::new(plane.limits.unopened_max);
    let (per_second, burst) = accepts(&plane);
    let mut pace = Bucket::new(Instant::now(), per_second, burst);
    let mut connections = JoinSet::new();
    let mut failures = Failures::default();
    let mut paused_until = Instant::now();
    loop {
        let now = Instant::now();
        let due = pace.next(now);
        let from = due.max(paused_until);
        let turn = tokio::select! {
            accepted = paced(&listener, from) => Turn::Accepted(accepted),
            stream = relays.recv() => Turn::Relayed(stream),
            Some(ended) = connections.join_next() => Turn::Ended(ended),
        };
        match turn {
            Turn::Accepted(Ok((stream, _peer))) => {
                pace.take(Instant::now());
                if due > now {
                    count(&plane.counters.delayed);
                }
                if let Some(place) = place(&plane, &direct) {
                    // Answers are small and each is waited for.
                    let _best_effort = stream.set_nodelay(true);
                    let newcomer = Newcomer::default();
                    let served = direct_connection(Arc::clone(&plane), stream, Arc::clone(&newcomer));
                    let end = connections.spawn(keep(place, served));
                    if let Some(oldest) = newcomers.add(&newcomer, end) {
                        count(&plane.counters.displaced);
                        oldest.abort();
                    }
                }
            }
            Turn::Accepted(Err(why)) => {
                count(&plane.counters.accept_errors);
                let now = Instant::now();
                paused_until = now + ACCEPT_PAUSE;
                if let Some(times) = failures.tell(now) {
                    tracing::warn!(%why, times, "connections to the data plane could not be accepted");
                }
            }
            Turn::Relayed(Some(Relayed { agent, stream })) => {
                if let Some(place) = place(&plane, &relayed) {
                    let present = Counted::new(&plane, |now| &mut now.connections);
                    let served = connection::serve(Arc::clone(&plane), stream, Some(agent), Newcomer::default());
                    connections.spawn(keep((place, present), served));
                }
            }
            Turn::Relayed(None) => return,
            Turn::Ended(Err(why)) if why.is_panic() => {
                count(&plane.counters.panics);
                tracing::error!("a panic ended one connection of the data plane");
            }
            Turn::Ended(_) => {}
        }
    }
}

/// Connections accepted a second, and at once.
fn accepts(plane: &Plane) -> (u32, u32) {
    let most = if plane.tls.is_some() { HANDSHAKES_PER_SECOND } else { u32::MAX };
    (plane.limits.accepts_per_second.min(most), plane.limits.accepts_burst.min(most))
}

/// The next connection, not before its time. Those that come sooner wait in the system's queue.
async fn paced(listener: &TcpListener, from: Instant) -> io::Result<(TcpStream, SocketAddr)> {
    if from > Instant::now() {
        sleep_until(from.into()).await;
    }
    listener.accept().await
}

/// Serves who came by TCP, behind TLS if that is asked for.
async fn direct_connection(plane: Arc<Plane>, stream: TcpStream, newcomer: Newcomer) {
    let _present = Counted::new(&plane, |now| &mut now.connections);
    let Some(acceptor) = plane.tls.as_ref().map(Tls::acceptor) else {
        return connection::serve(plane, stream, None, newcomer).await;
    };
    let handshake = timeout(plane.limits.open_deadline, acceptor.accept(stream));
    match handshake.await {
        // On the heap: a stream behind TLS is large, and those without it should not hold its room.
        Ok(Ok(stream)) => Box::pin(connection::serve(plane, stream, None, newcomer)).await,
        Ok(Err(why)) => {
            count(&plane.counters.handshakes_failed);
            tracing::debug!(%why, "a TLS handshake on the data plane failed");
        }
        Err(_) => count(&plane.counters.handshakes_failed),
    }
}

/// A place for one more connection. Without one the connection is closed at once: its caller drops it.
fn place(plane: &Plane, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let place = Arc::clone(places).try_acquire_owned().ok();
    if place.is_none() {
        count(&plane.counters.turned_away);
    }
    place
}

/// Gives the place back when the connection has ended, by a panic or an abort, too.
async fn keep<P>(place: P, connection: impl Future<Output = ()>) {
    connection.await;
    drop(place);
}

/// Says that the listener accepts, for as long as it does.
struct Listening(Arc<Plane>);

impl Listening {
    fn new(plane: &Arc<Plane>) -> Self {
        plane.presence.send_modify(|now| now.listening = true);
        Self(Arc::clone(plane))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.presence.send_modify(|now| now.listening = false);
    }
}
