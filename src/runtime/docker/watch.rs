//! Follows the engine. Events are a hint: what they tell is looked at by whoever acts on it, and when the stream has a gap everything is looked at.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::{
    core::Core,
    engine::{ContainerEvent, Engine, Happening, Incident},
    orphans,
};
use crate::model::{EngineNews, Fate, Finding};

/// Between two tries to reach an engine that is away.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two questions whether it still answers, while its events tell nothing: an engine that hangs closes no connection.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Between two passes over everything in it, where nothing gives a reason. A pass costs an exec for each swarm, 70 ms of a core.
const PASS_EVERY: Duration = Duration::from_secs(300);
/// Events before this are of no interest, and the time it takes to be listened to is covered.
const BEFORE: Duration = Duration::from_secs(1);

/// Whether the engine answers, and since when it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Reach {
    /// Nobody has asked yet.
    #[default]
    Unknown,
    Answers,
    Silent(Instant),
}

/// Never ends by itself.
pub(super) async fn follow(core: &Arc<Core>) {
    core.until_needed().await;
    loop {
        let begun = Instant::now();
        match core.engine().await {
            Ok(engine) => match engine.ping().await {
                Ok(()) => {
                    note(core, None);
                    let why = attend(core, engine).await;
                    tracing::warn!(why, "the engine's events have ended");
                    // Whether it still answers is asked at once, not after a pause.
                    if begun.elapsed() >= AGAIN {
                        continue;
                    }
                }
                Err(error) => note(core, Some(error.to_string())),
            },
            Err(error) => note(core, Some(error.to_string())),
        }
        sleep(AGAIN).await;
    }
}

/// Ends once the engine has been silent for so long, counted from `asked` at the earliest.
pub(super) async fn lost_for(core: &Core, asked: Instant, time: Duration) {
    let mut reach = core.reach.subscribe();
    loop {
        let now = *reach.borrow_and_update();
        let long_enough = async {
            match now {
                Reach::Silent(since) => sleep_until(since.max(asked) + time).await,
                Reach::Unknown | Reach::Answers => std::future::pending().await,
            }
        };
        tokio::select! {
            () = long_enough => return,
            changed = reach.changed() => if changed.is_err() { std::future::pending::<()>().await },
        }
    }
}

/// Tells a change, once.
fn note(core: &Core, failure: Option<String>) {
    let before = *core.reach.borrow();
    match (before, failure) {
        (Reach::Answers, None) => {}
        (Reach::Unknown | Reach::Silent(_), None) => {
            tracing::info!("the engine answers");
            core.reach.send_replace(Reach::Answers);
            core.witness.heard(EngineNews::Reachable);
        }
        (Reach::Silent(_), Some(_)) => {}
        (Reach::Unknown | Reach::Answers, Some(why)) => {
            tracing::warn!(why, "the engine does not answer");
            core.reach.send_replace(Reach::Silent(Instant::now()));
            core.witness.heard(EngineNews::Unreachable { why });
        }
    }
}

type Pass<'a> = Pin<Box<dyn Future<Output = Result<Vec<Finding>, String>> + Send + 'a>>;

/// Follows events until they end; returns why.
async fn attend(core: &Arc<Core>, engine: &Engine) -> String {
    let now = SystemTime::now();
    let mut events = engine.events(now.checked_sub(BEFORE).unwrap_or(now));
    let mut pings = interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_pass = Instant::now();
    let mut pass: Option<Pass<'_>> = None;
    loop {
        tokio::select! {
            happening = events.next() => match happening {
                Some(Happening::Container(event)) => heard(core, &event),
                Some(Happening::Lost(count)) => {
                    tracing::warn!(count, "events of the engine were lost");
                    next_pass = Instant::now();
                }
                Some(Happening::Ended(why)) => return why,
                None => return "they were cut off".to_owned(),
            },
            _ = pings.tick() => note(core, engine.ping().await.err().map(|error| error.to_string())),
            () = sleep_until(next_pass), if pass.is_none() => pass = Some(Box::pin(orphans::reconcile(core, false))),
            found = passed(&mut pass) => {
                pass = None;
                next_pass = Instant::now() + until_next(&found);
            }
        }
    }
}

/// Ends when the pass under way has; never while there is none.
async fn passed(pass: &mut Option<Pass<'_>>) -> Result<Vec<Finding>, String> {
    match pass {
        Some(pass) => pass.await,
        None => std::future::pending().await,
    }
}

/// When to look again: as soon as the first grace ends.
fn until_next(found: &Result<Vec<Finding>, String>) -> Duration {
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(error, "what is in the engine could not be looked at");
            return PING_EVERY;
        }
    };
    for Finding { kind, name, swarm, why, fate } in found {
        match fate {
            Fate::Waits(left) => tracing::warn!(?kind, name, ?swarm, why, ?left, "an orphan is removed after a grace"),
            Fate::Reported => tracing::warn!(?kind, name, ?swarm, why, "something of another hive's is left alone"),
            Fate::Failed(error) => tracing::warn!(?kind, name, ?swarm, why, error, "an orphan was not removed"),
            Fate::Removed | Fate::Removable => {}
        }
    }
    let waits = |finding: &Finding| match finding.fate {
        Fate::Waits(left) => Some(left),
        _ => None,
    };
    found.iter().filter_map(waits).min().unwrap_or(PASS_EVERY).min(PASS_EVERY)
}

fn heard(core: &Core, event: &ContainerEvent) {
    let lodgings = core.all_lodgings();
    let Some(lodging) = lodgings.iter().find(|lodging| lodging.presence().is_in(&event.id)) else { return };
    match event.incident {
        Incident::Died { code } => core.ended(lodging, &event.id, code),
        Incident::Destroyed => core.ended(lodging, &event.id, None),
        Incident::OutOfMemory => {
            tracing::warn!(swarm = %lodging.swarm(), "memory ran out in a swarm's container, and a process in it was killed");
            lodging.presence().out_of_memory(&event.id);
        }
        Incident::Started | Incident::ExecDied { .. } | Incident::Paused | Incident::Unpaused => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::model::FindingKind;

    #[test]
    fn the_next_pass_comes_when_the_first_grace_ends() {
        let finding = |fate| Finding { kind: FindingKind::Container, name: String::new(), swarm: None, why: "", fate };
        let seconds = Duration::from_secs;
        assert_eq!(until_next(&Ok(vec![])), PASS_EVERY);
        let found = vec![finding(Fate::Waits(seconds(9))), finding(Fate::Reported), finding(Fate::Waits(seconds(4)))];
        assert_eq!(until_next(&Ok(found)), seconds(4));
        assert_eq!(until_next(&Err(String::new())), PING_EVERY);
    }
}
