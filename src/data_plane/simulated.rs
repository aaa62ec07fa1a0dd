//! A connection without IO, for the simulation: what [`connection`](super::connection) does between a read and a write.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    DataPlaneHandle,
    connection::hand_up,
    limits::ORDERS_MAX,
    plane::Plane,
    seats::{Order, Seat},
    session::{Effects, Now, Session},
};
use crate::{
    health,
    wire::{lines::Lines, rpc::Code},
};

/// Our end of one connection.
pub(crate) struct Peer {
    plane: Arc<Plane>,
    session: Session,
    lines: Lines,
    order: mpsc::Sender<Order>,
    orders: mpsc::Receiver<Order>,
    seat: Option<Seat>,
    is_closed: bool,
}

impl Peer {
    pub(crate) fn new(handle: &DataPlaneHandle, number: u128, now: health::Now) -> Self {
        let plane = Arc::clone(&handle.plane);
        let session = Session::new(Uuid::from_u128(number), both(now), Arc::clone(&plane.limits));
        let lines = Lines::new(session.line_bytes_max());
        let (order, orders) = mpsc::channel(ORDERS_MAX);
        Self { plane, session, lines, order, orders, seat: None, is_closed: false }
    }

    /// Whether nothing more is read.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// When [`Peer::tick`] is due.
    pub(crate) fn deadline(&self) -> Instant {
        self.session.deadline()
    }

    /// Takes what was read; returns the answers.
    pub(crate) fn read(&mut self, now: health::Now, mut chunk: &[u8]) -> Vec<u8> {
        let plane = Arc::clone(&self.plane);
        let gate = plane.gate();
        let mut effects = Effects::default();
        self.session.verify(both(now), gate);
        while let Some(line) = self.lines.next(&mut chunk) {
            self.session.line(both(now), &line, gate, &mut effects);
            if let Some(opening) = effects.opened.take() {
                self.seat = Some(plane.seats.take(opening, self.order.clone()));
                self.lines.set_limit(self.session.line_bytes_max());
            }
            if effects.close {
                break;
            }
        }
        self.perform(now, effects)
    }

    /// Lets time pass, and hears what the house orders.
    pub(crate) fn tick(&mut self, now: health::Now) -> Vec<u8> {
        let plane = Arc::clone(&self.plane);
        let mut effects = Effects::default();
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Drain => self.session.drain(&mut effects),
                Order::Part => self.session.verify(both(now), plane.gate()),
                Order::Yield => effects.close = true,
            }
        }
        if !effects.close {
            self.session.tick(both(now), plane.gate(), &mut effects);
        }
        self.perform(now, effects)
    }

    /// The peer is gone. What it left of a line is counted.
    pub(crate) fn gone(self) {
        if !self.is_closed && self.lines.unfinished() {
            self.plane.refused(self.session.agent(), Code::ParseError, 1);
        }
    }

    fn perform(&mut self, now: health::Now, mut effects: Effects) -> Vec<u8> {
        hand_up(&self.plane, &self.session, self.seat.as_ref(), None, both(now), &mut effects);
        if effects.close {
            self.is_closed = true;
            self.seat = None;
        }
        effects.replies
    }
}

fn both(now: health::Now) -> Now {
    Now { wall: now.wall, steady: now.mono }
}
