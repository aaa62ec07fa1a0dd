//! The actor of one source. It owns the pool and so every connection: when the actor ends, all of them end, and its successor goes on from the
//! record, which lies outside.

use std::sync::Arc;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::{
    breaker::Permit,
    link::Trouble,
    pool::Pool,
    record::{Now, Polled, Record},
};
use crate::model::{SourceName, SourceSpec, SourceWitness};

/// One source as its supervisor holds it.
#[derive(Clone)]
pub struct DialerHandle {
    shared: Arc<Shared>,
}

struct Shared {
    spec: Arc<SourceSpec>,
    witness: Arc<dyn SourceWitness>,
    record: Mutex<Record>,
}

impl DialerHandle {
    /// A source that is not polled yet, which is told at once.
    pub fn new(spec: SourceSpec, witness: Arc<dyn SourceWitness>) -> Self {
        let spec = Arc::new(spec);
        let record = Mutex::new(Record::new(Arc::clone(&spec), Now::read()));
        let shared = Arc::new(Shared { spec, witness, record });
        shared.tell();
        Self { shared }
    }

    /// Its name.
    pub fn name(&self) -> &SourceName {
        &self.shared.spec.name
    }

    /// The actor that polls, for the factory of a supervised child.
    pub fn dialer(&self) -> Dialer {
        Dialer { shared: Arc::clone(&self.shared) }
    }
}

/// Polls one source; made by [`DialerHandle::dialer`].
pub struct Dialer {
    shared: Arc<Shared>,
}

impl Actor for Dialer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let shared = Arc::clone(&self.shared);
        let polling = async move { shared.poll_for_ever().await };
        ctx.spawn(polling.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

/// What the loop waits for.
enum Turn {
    Due,
    Ended(Trouble),
}

impl Shared {
    async fn poll_for_ever(&self) {
        let mut pool = Pool::new(Arc::clone(&self.spec));
        loop {
            let due = Instant::from_std(self.record.lock().due());
            let turn = tokio::select! {
                () = sleep_until(due) => Turn::Due,
                trouble = pool.rest() => Turn::Ended(trouble),
            };
            match turn {
                Turn::Due => {
                    let permit = self.begin();
                    let polled = pool.poll(permit).await;
                    self.end(polled);
                }
                Turn::Ended(Trouble::Cut(_)) => self.record.lock().cut(),
                Turn::Ended(trouble) => self.record.lock().left(Now::read(), trouble.describe()),
            }
            self.tell();
        }
    }

    fn begin(&self) -> Permit {
        let permit = self.record.lock().begin(Now::read());
        if permit == Permit::Trial {
            self.tell();
        }
        permit
    }

    fn end(&self, polled: Polled) {
        if let Some(why) = &polled.trouble {
            tracing::debug!(source = %self.spec.name, %why, "a poll failed");
        }
        self.record.lock().end(Now::read(), polled, chance());
    }

    fn tell(&self) {
        let report = self.record.lock().report();
        self.witness.stands(report);
    }
}

/// A number in 0..1; the middle where the system has no chance to give.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |chance| f64::from(chance) / f64::from(u32::MAX))
}
