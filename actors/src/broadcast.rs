//! Events for whoever listens: a bounded broadcast.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::event::{EventSink, SupervisionEvent, ThreadEvent};

/// An [`EventSink`] with any number of listeners, none of which can hold up a supervisor: one that is slower than its `capacity` of events
/// loses the oldest and is told how many.
#[derive(Clone, Debug)]
pub struct Broadcast {
    sender: broadcast::Sender<Heard>,
}

impl Broadcast {
    /// Keeps the latest `capacity` events (at least one) for those who have not read them.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { sender: broadcast::Sender::new(capacity.max(1)) }
    }

    /// Hears every event from now on.
    #[must_use]
    pub fn subscribe(&self) -> Listener {
        Listener { receiver: self.sender.subscribe() }
    }
}

impl EventSink for Broadcast {
    fn event(&self, event: SupervisionEvent) {
        if self.sender.receiver_count() > 0 {
            // The last listener may go at this very moment: then nobody is left to be told.
            let _ = self.sender.send(Heard::Event(Arc::new(event)));
        }
    }

    fn thread(&self, event: ThreadEvent) {
        // As above; one of these costs nothing to make.
        let _ = self.sender.send(Heard::Thread(event));
    }
}

/// What a listener hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// The next event.
    Event(Arc<SupervisionEvent>),
    /// What happened to a thread, next to what happened to children meanwhile.
    Thread(ThreadEvent),
    /// The listener was too slow: so many events are lost, the oldest that is left comes next.
    Missed(u64),
    /// The tree and every handle on the broadcast are gone.
    End,
}

/// One listener's place in a [`Broadcast`].
#[derive(Debug)]
pub struct Listener {
    receiver: broadcast::Receiver<Heard>,
}

impl Listener {
    /// Waits for the next event. Dropping the future half-way loses nothing.
    pub async fn next(&mut self) -> Heard {
        match self.receiver.recv().await {
            Ok(heard) => heard,
            Err(broadcast::error::RecvError::Lagged(missed)) => Heard::Missed(missed),
            Err(broadcast::error::RecvError::Closed) => Heard::End,
        }
    }
}

impl EventSink for Vec<Arc<dyn EventSink>> {
    /// Tells each in turn.
    fn event(&self, event: SupervisionEvent) {
        for sink in self {
            sink.event(event.clone());
        }
    }

    fn thread(&self, event: ThreadEvent) {
        for sink in self {
            sink.thread(event);
        }
    }
}
