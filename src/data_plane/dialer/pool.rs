//! The connections of one source: opened when there is something to ask, kept between polls, opened anew when their peer has ended them.
//! Nothing is spawned: whoever owns the pool owns every connection, and dropping it ends them all.

use std::{cell::Cell, sync::Arc, time::Duration};

use futures_util::future::{join_all, select_all};
use tokio::time::Instant;

use super::{
    answer::{Said, said},
    breaker::Permit,
    era::Era,
    link::{Link, Trouble},
    record::{Outcome, Polled},
    reply::Answer,
};
use crate::model::SourceSpec;

/// At most as many connections as the document says.
pub(super) struct Pool {
    spec: Arc<SourceSpec>,
    slots: Vec<Option<Link>>,
    /// What the server was found to be, until that fails.
    era: Option<Era>,
}

/// What the workers of one poll share.
struct Round<'a> {
    spec: &'a SourceSpec,
    era: Cell<Option<Era>>,
    /// The next tool to be called.
    next: Cell<usize>,
    cut: Cell<u64>,
    /// One connection has failed: the others end what they are at and begin nothing more.
    failed: Cell<bool>,
}

impl Pool {
    pub(super) fn new(spec: Arc<SourceSpec>) -> Self {
        let slots = (0..spec.connections).map(|_| None).collect();
        Self { spec, slots, era: None }
    }

    /// Calls each tool once, over as many connections as there are calls. On trial over one.
    pub(super) async fn poll(&mut self, permit: Permit) -> Polled {
        let round = Round {
            spec: &self.spec,
            era: Cell::new(self.era),
            next: Cell::new(0),
            cut: Cell::new(0),
            failed: Cell::new(false),
        };
        let mut polled = Polled::default();
        let mut slots = &mut self.slots[..];
        // The era is found out once, and a server on trial is not asked by many at once.
        if (permit == Permit::Trial || self.era.is_none())
            && let Some(first) = slots.first_mut()
            && let Err(trouble) = round.ensure(first).await
        {
            polled.trouble = Some(trouble.describe());
            slots = &mut [];
        }
        let most = if permit == Permit::Trial { 1 } else { round.spec.tools.len() };
        let workers = slots.len().min(most);
        let ended = join_all(slots.iter_mut().take(workers).map(|slot| round.work(slot))).await;
        for (outcomes, trouble) in ended {
            polled.outcomes.extend(outcomes);
            polled.trouble = polled.trouble.or(trouble);
        }
        polled.cut = round.cut.get();
        self.era = round.era.get();
        polled.protocol = self.slots.iter().flatten().next().map(|link| Arc::from(link.protocol.as_str()));
        let nothing_good = !polled.outcomes.iter().any(|outcome| outcome.said.is_ok());
        if nothing_good {
            // Whatever is wrong, what was remembered of the server may be it.
            self.era = None;
            self.slots.iter_mut().for_each(|slot| *slot = None);
        }
        polled
    }

    /// Reads what comes unasked, until a connection ends; says whether its peer has ended it. Can be dropped at any time.
    pub(super) async fn rest(&mut self) -> Trouble {
        let open = self.slots.iter_mut().filter(|slot| slot.is_some());
        let waits: Vec<_> = open
            .map(|slot| {
                Box::pin(async move {
                    let trouble = match slot {
                        Some(link) => link.rest().await,
                        None => std::future::pending().await,
                    };
                    *slot = None;
                    trouble
                })
            })
            .collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        select_all(waits).await.0
    }
}

impl Round<'_> {
    /// Calls tools until none is left or the connection fails.
    async fn work(&self, slot: &mut Option<Link>) -> (Vec<Outcome>, Option<String>) {
        let mut outcomes = Vec::new();
        while !self.failed.get()
            && let Some(tool) = self.spec.tools.get(self.next.get())
        {
            let index = self.next.replace(self.next.get() + 1);
            let begun = Instant::now();
            match self.call(slot, &tool.name, &tool.arguments).await {
                Ok((answer, took)) => outcomes.push(Outcome { tool: index, took, said: judged(answer) }),
                Err(trouble) => {
                    trouble.count(&self.cut);
                    // A refusal of one call says nothing of the next tool; one of the connection is followed by its end.
                    let of_one_call = matches!(trouble, Trouble::Late { .. } | Trouble::Refused(_));
                    let alive = of_one_call && slot.as_ref().is_some_and(Link::lives);
                    if !alive {
                        *slot = None;
                        self.failed.set(true);
                    }
                    let why = trouble.describe();
                    outcomes.push(Outcome { tool: index, took: begun.elapsed(), said: Err(why.clone()) });
                    if !alive {
                        return (outcomes, Some(format!("{}: {why}", tool.name)));
                    }
                }
            }
        }
        (outcomes, None)
    }

    /// Calls once, and once more over a new connection where the peer ended one that had served before: servers cut by the clock, used or not.
    async fn call(&self, slot: &mut Option<Link>, tool: &str, arguments: &str) -> Result<(Answer, Duration), Trouble> {
        let served_before = slot.is_some();
        let link = self.ensure(slot).await?;
        let begun = Instant::now();
        match link.call(tool, arguments).await {
            Err(trouble @ Trouble::Cut(_)) if served_before => {
                trouble.count(&self.cut);
                *slot = None;
                let link = self.ensure(slot).await?;
                let begun = Instant::now();
                Ok((link.call(tool, arguments).await?, begun.elapsed()))
            }
            answered => Ok((answered?, begun.elapsed())),
        }
    }

    async fn ensure<'a>(&self, slot: &'a mut Option<Link>) -> Result<&'a mut Link, Trouble> {
        if slot.is_none() {
            let link = Link::open(&self.spec.address, self.spec.timeout, self.era.get(), &self.cut).await?;
            self.era.set(Some(link.era()));
            *slot = Some(link);
        }
        slot.as_mut().ok_or(Trouble::NoAddress)
    }
}

fn judged(answer: Answer) -> Result<serde_json::Value, String> {
    match answer {
        Answer::Result(result) => match said(result) {
            Said::Payload(payload) => Ok(payload),
            Said::Refused(why) => Err(why),
        },
        Answer::Error { message, .. } => Err(message),
    }
}
