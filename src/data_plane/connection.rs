//! One connection: moves bytes, waits, and leaves every decision to the session. While answers wait for the peer nothing is read from it, so a
//! peer that does not read costs a bounded buffer, and after the write deadline nothing.

use std::{
    future::pending,
    io,
    sync::{Arc, atomic::Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, watch},
    task::yield_now,
    time::{sleep_until, timeout},
};
use uuid::Uuid;

use super::{
    calls::{Calls, Word},
    limits::{ANSWER_BYTES_HELD, LINGER, LINGER_BYTES_MAX, ORDERS_MAX},
    newcomers::Newcomer,
    plane::{Phase, Plane, Presence, count},
    scratch::{self, Scratch, Stint},
    seats::{Order, Seat},
    session::{Effects, Now, Session},
};
use crate::{
    mcp::{Mcp, Talk},
    model::{AgentId, DuplexStream, Lost},
    wire::{lines::Lines, rpc::Code},
};

/// Serves a connection to its end. `via` is the agent whose launcher relays it: refusals before `hive/open` are put down to that agent. `newcomer` is
/// let go of as soon as a session is open.
pub(super) async fn serve(plane: Arc<Plane>, stream: impl DuplexStream, via: Option<AgentId>, newcomer: Newcomer) {
    let session = Session::new(Uuid::now_v7(), Now::read(), Arc::clone(&plane.limits));
    let lines = Lines::new(session.line_bytes_max());
    let (order, orders) = mpsc::channel(ORDERS_MAX);
    let phase = plane.phase.subscribe();
    let newcomer = Some(newcomer);
    let mut connection = Connection {
        plane,
        stream,
        via,
        session,
        lines,
        order,
        newcomer,
        seat: None,
        calls: Calls::default(),
        talk: None,
        stint: Stint::default(),
        deaf: false,
    };
    match connection.run(orders, phase).await {
        End::Said => connection.say_goodbye().await,
        End::Left => connection.close().await,
        End::Gone => {}
    }
}

struct Connection<S> {
    plane: Arc<Plane>,
    stream: S,
    via: Option<AgentId>,
    session: Session,
    lines: Lines,
    order: mpsc::Sender<Order>,
    newcomer: Option<Newcomer>,
    seat: Option<(Seat, Counted)>,
    calls: Calls,
    /// MCP on this connection, once somebody speaks it.
    talk: Option<Box<Talk>>,
    stint: Stint,
    /// Whether nothing that we write arrives any more.
    deaf: bool,
}

/// Why a connection ends.
#[derive(PartialEq, Eq)]
enum End {
    /// We end it; what we wrote should arrive.
    Said,
    /// The peer has said all that it wants to say.
    Left,
    /// The peer is gone, or does not read.
    Gone,
}

enum Turn {
    Read(io::Result<Scratch>),
    Order(Order),
    Word(Word),
    /// A line of MCP's for the peer; `None`: that conversation is over.
    Spoken(Option<Vec<u8>>),
    Phase,
    Deadline,
}

impl<S: DuplexStream> Connection<S> {
    async fn run(&mut self, mut orders: mpsc::Receiver<Order>, mut phase: watch::Receiver<Phase>) -> End {
        let mut alarm = std::pin::pin!(sleep_until(self.session.deadline().into()));
        loop {
            if *phase.borrow_and_update() == Phase::Closing {
                return End::Said;
            }
            let turn = tokio::select! {
                read = scratch::read(&mut self.stream) => Turn::Read(read),
                Some(order) = orders.recv() => Turn::Order(order),
                word = self.calls.next() => Turn::Word(word),
                spoken = spoken(&mut self.talk) => Turn::Spoken(spoken),
                _ = phase.changed() => Turn::Phase,
                () = &mut alarm => Turn::Deadline,
            };
            let now = Now::read();
            let mut effects = Effects::default();
            let written = match turn {
                Turn::Phase => continue,
                Turn::Read(Ok(scratch)) if !scratch.bytes().is_empty() => {
                    let taken = self.take(now, scratch.bytes(), &mut effects).await;
                    let over = self.stint.is_over(scratch.bytes().len());
                    drop(scratch);
                    if over {
                        // Everybody else gets a turn first, or a few floods would hold up the quiet ones.
                        yield_now().await;
                    }
                    taken
                }
                Turn::Read(ended) => {
                    if self.lines.unfinished() {
                        self.plane.refused(self.session.agent().or(self.via.as_ref()), Code::ParseError, 1);
                    }
                    return if ended.is_ok() { End::Left } else { End::Gone };
                }
                Turn::Order(Order::Drain) => {
                    self.session.drain(&mut effects);
                    self.perform(now, &mut effects).await
                }
                Turn::Order(Order::Part) => {
                    self.session.verify(now, self.plane.gate());
                    Ok(())
                }
                Turn::Order(Order::Yield) => {
                    count(&self.plane.counters.displaced);
                    return End::Said;
                }
                Turn::Word(word) => {
                    self.session.answer(&word, &mut effects);
                    self.perform(now, &mut effects).await
                }
                Turn::Spoken(Some(line)) => {
                    effects.replies = line;
                    self.perform(now, &mut effects).await
                }
                Turn::Spoken(None) => {
                    self.talk = None;
                    Ok(())
                }
                Turn::Deadline => {
                    if self.talk.as_ref().is_some_and(|talk| talk.waits()) {
                        self.session.waits(now);
                    }
                    self.session.tick(now, self.plane.gate(), &mut effects);
                    if effects.overdue {
                        count(&self.plane.counters.overdue);
                    }
                    self.perform(now, &mut effects).await
                }
            };
            if alarm.is_elapsed() || alarm.deadline() > self.session.deadline().into() {
                // Otherwise it goes off too early at worst, and is set anew then.
                alarm.as_mut().reset(self.session.deadline().into());
            }
            match written {
                Err(_) => return End::Gone,
                Ok(()) if effects.close => return End::Said,
                Ok(()) => {}
            }
        }
    }

    /// All lines that a read has completed.
    async fn take(&mut self, now: Now, mut chunk: &[u8], effects: &mut Effects) -> io::Result<()> {
        let plane = Arc::clone(&self.plane);
        let gate = plane.gate();
        self.session.verify(now, gate);
        let mut lines = 0;
        while let Some(line) = self.lines.next(&mut chunk) {
            lines += 1;
            self.session.line(now, &line, gate, effects);
            if let Some(opening) = effects.opened.take() {
                let counted = Counted::new(&plane, |now| &mut now.sessions);
                self.seat = Some((plane.seats.take(opening, self.order.clone()), counted));
                self.newcomer = None;
                self.lines.set_limit(self.session.line_bytes_max());
            }
            if let Some(line) = effects.spoken.take() {
                self.converse(now, &line, effects);
            }
            if effects.close {
                break;
            }
            if effects.replies.len() >= ANSWER_BYTES_HELD {
                self.perform(now, effects).await?;
            }
        }
        plane.counters.messages.fetch_add(lines, Ordering::Relaxed);
        self.perform(now, effects).await
    }

    /// Hands a line to the MCP room, in the name of whom the session serves or of whom the line itself proves to come from.
    fn converse(&mut self, now: Now, line: &[u8], effects: &mut Effects) {
        let plane = Arc::clone(&self.plane);
        let Some(tools) = plane.tools.get() else { return };
        let gate = plane.gate();
        let talk = self.talk.get_or_insert_with(|| Box::new(Talk::new(Mcp::new(tools.clone()))));
        let mut judged = None;
        let heard = talk.hear(line, self.session.party(), |claimed| {
            let admitted = gate.admission.admit(&claimed.agent, claimed.incarnation, &claimed.token).is_ok();
            *judged.insert(admitted && !gate.shutting_down)
        });
        match judged {
            Some(true) => self.session.proven(now),
            Some(false) => effects.refused.push(Code::BadToken),
            None => {}
        }
        if let Err(why) = heard {
            self.session.unheard(line, why, effects);
        }
    }

    /// Hands telemetry up first, once for all that was read: it must not wait for a peer that does not read.
    async fn perform(&mut self, now: Now, effects: &mut Effects) -> io::Result<()> {
        for ask in effects.asked.drain(..) {
            if let (Some(tools), Some(party)) = (self.plane.tools.get(), self.session.party()) {
                self.calls.begin(tools, party, ask);
            }
        }
        let seat = self.seat.as_ref().map(|(seat, _)| seat);
        hand_up(&self.plane, &self.session, seat, self.via.as_ref(), now, effects);
        if effects.replies.is_empty() || self.deaf {
            effects.replies.clear();
            return Ok(());
        }
        let written = timeout(self.plane.limits.write_deadline, async {
            self.stream.write_all(&effects.replies).await?;
            self.stream.flush().await
        });
        let written = written.await;
        effects.replies.clear();
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => {
                // A program that has ended hears nothing, and its last words may still wait to be read.
                self.deaf = true;
                Ok(())
            }
            Err(_) => {
                count(&self.plane.counters.overdue);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// Ends our side, too: behind TLS an end that is not said looks like a cut.
    async fn close(mut self) {
        self.seat = None;
        let _in_time = timeout(LINGER, self.stream.shutdown()).await;
    }

    /// Ends our side and reads on for a moment: a system that closes a socket with unread data resets it, and the peer might never see what was
    /// written last.
    async fn say_goodbye(mut self) {
        self.seat = None;
        let _in_time = timeout(LINGER, async {
            let mut left = LINGER_BYTES_MAX;
            let mut scrap = [0; 1024];
            self.stream.shutdown().await?;
            while left > 0 {
                match self.stream.read(&mut scrap).await? {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
            io::Result::Ok(())
        })
        .await;
    }
}

/// The next line of MCP's; waits for ever while nobody speaks it. May be dropped at any time.
async fn spoken(talk: &mut Option<Box<Talk>>) -> Option<Vec<u8>> {
    match talk {
        Some(talk) => talk.next().await,
        None => pending().await,
    }
}

/// Hands up what was heard and counts what was not taken, as far as all connections together may tell so much.
pub(super) fn hand_up(
    plane: &Plane,
    session: &Session,
    seat: Option<&Seat>,
    via: Option<&AgentId>,
    now: Now,
    effects: &mut Effects,
) {
    for same in effects.refused.chunk_by(|one, next| one == next) {
        plane.refused(session.agent().or(via), same[0], same.len() as u64);
    }
    effects.refused.clear();
    let (needed, spare) = (effects.heard.needed(), effects.heard.spare());
    if needed + spare > 0 {
        let granted = plane.rate.lock().claim(now.steady, needed, spare);
        effects.heard.shed(spare - granted);
    }
    effects.heard.retain_usage(|totals| seat.is_some_and(|seat| seat.may_tell(totals)));
    session.gather(now, effects);
    if !effects.telemetry.is_empty() {
        plane.sink.accept(std::mem::take(&mut effects.telemetry));
    }
    let lost = std::mem::take(&mut effects.heard.lost);
    if lost != Lost::default()
        && let Some((agent, incarnation)) = session.serves()
    {
        plane.sink.dropped(agent, incarnation, lost);
    }
}

/// Counts itself in and, however it ends, out.
pub(super) struct Counted {
    plane: Arc<Plane>,
    which: fn(&mut Presence) -> &mut u64,
}

impl Counted {
    pub(super) fn new(plane: &Arc<Plane>, which: fn(&mut Presence) -> &mut u64) -> Self {
        plane.presence.send_modify(|now| *which(now) += 1);
        Self { plane: Arc::clone(plane), which }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.plane.presence.send_modify(|now| *(self.which)(now) -= 1);
    }
}
