//! What happens to shared work, for the feed: each change an event, as long as there are not too many. Beyond that the feed would hold nothing else, and
//! readers who follow agents would miss what becomes of them; so the rest of that second is counted, and the count is told.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use parking_lot::Mutex;

use crate::{
    coordination::{Refused, WorkChanges, locks::LockNews, mail::MailTurn},
    events::Feed,
    model::{EventKind, LockBrief},
};

/// Changes told a second in the long run: far more than agents bring that think between two of them, and the feed's ring still holds several seconds.
const PER_SECOND: f64 = 500.0;
/// Changes told at once after a pause: half of what the feed's ring holds, so that what became of agents is still in it.
const BURST: f64 = 2_000.0;
/// Bytes of a refusal that are told: a deadlock may name many.
const REASON_BYTES_MAX: usize = 512;

/// Tells the feed.
pub(super) struct News {
    feed: Feed,
    told: Mutex<Told>,
}

/// What may be told now, and what was not.
#[derive(Debug)]
struct Told {
    tokens: f64,
    filled_at: Instant,
    /// Nothing more is told until the next turn.
    silent: bool,
    tasks: u64,
    locks: u64,
    messages: u64,
}

impl Told {
    fn new(now: Instant) -> Self {
        Self { tokens: BURST, filled_at: now, silent: false, tasks: 0, locks: 0, messages: 0 }
    }

    fn may_tell(&mut self) -> bool {
        if self.silent || self.tokens < 1.0 {
            self.silent = true;
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    /// A second is over: what was not told in it.
    fn turn(&mut self, now: Instant) -> Option<EventKind> {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        (self.filled_at, self.tokens) = (now, (self.tokens + passed * PER_SECOND).min(BURST));
        let was_silent = std::mem::take(&mut self.silent);
        let [tasks, locks, messages] = [&mut self.tasks, &mut self.locks, &mut self.messages].map(std::mem::take);
        was_silent.then_some(EventKind::WorkUntold { tasks, locks, messages })
    }
}

impl News {
    pub(super) fn new(feed: Feed) -> Self {
        Self { feed, told: Mutex::new(Told::new(Instant::now())) }
    }

    /// Tells what one batch has changed.
    pub(super) fn tell(&self, changes: &WorkChanges) {
        let (at, mut told) = (SystemTime::now(), self.told.lock());
        for news in &changes.board.news {
            if !told.may_tell() {
                told.tasks += 1;
                continue;
            }
            self.feed.publish(at, EventKind::TaskChanged { from: news.from, task: Arc::new((&*news.task).into()) });
        }
        for news in &changes.locks.news {
            if !told.may_tell() {
                told.locks += 1;
                continue;
            }
            self.feed.publish(at, lock_changed(news));
        }
        for news in &changes.mail.news {
            if !told.may_tell() {
                told.messages += 1;
                continue;
            }
            let (change, message) = (turn_word(news.turn), Arc::new((&*news.message).into()));
            self.feed.publish(at, EventKind::MessageChanged { change, message });
        }
    }

    /// To be called about once a second.
    pub(super) fn turn(&self) {
        let untold = self.told.lock().turn(Instant::now());
        if let Some(untold) = untold {
            self.feed.publish(SystemTime::now(), untold);
        }
    }
}

fn lock_changed(news: &LockNews) -> EventKind {
    let (change, lock, other_mode, why) = match news {
        LockNews::Waits { lock, mode } => ("waits", lock, Some(*mode), None),
        LockNews::Granted(lock) => ("granted", lock, None, None),
        LockNews::Changed { lock, from } => ("changed", lock, Some(*from), None),
        LockNews::Ended { lock, end } => (end.word(), lock, None, None),
        LockNews::NotGiven { lock, mode, why } => ("not_given", lock, Some(*mode), why.as_ref()),
    };
    EventKind::LockChanged { change, reason: why.map(reason), lock: Arc::new(LockBrief::of(lock, other_mode)) }
}

fn reason(why: &Refused) -> Arc<str> {
    let text = format!("{}: {why}", why.code());
    Arc::from(&text[..text.floor_char_boundary(REASON_BYTES_MAX)])
}

fn turn_word(turn: MailTurn) -> &'static str {
    match turn {
        MailTurn::Sent => "sent",
        MailTurn::Delivered => "delivered",
        MailTurn::Returned => "returned",
        MailTurn::Acknowledged => "acknowledged",
        MailTurn::Answered => "answered",
        MailTurn::Unanswered => "unanswered",
        MailTurn::Died => "died",
        MailTurn::Redriven => "redriven",
        MailTurn::Lost => "lost",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_too_much_is_counted_and_told_once_a_second() {
        let start = Instant::now();
        let mut told = Told::new(start);
        let tell = |told: &mut Told, changes: u64| (0..changes).filter(|_| told.may_tell()).count();
        assert_eq!(tell(&mut told, 2_000), 2_000);
        assert_eq!(told.turn(start), None, "nothing was left out");
        assert_eq!(tell(&mut told, 10), 0);
        told.tasks += 10;
        let untold = EventKind::WorkUntold { tasks: 10, locks: 0, messages: 0 };
        assert_eq!(told.turn(start + Duration::from_secs(1)), Some(untold));
        assert_eq!(told.turn(start + Duration::from_secs(1)), None);
        assert_eq!(tell(&mut told, 10_000), 500);
        told.locks += 9_500;
        let untold = EventKind::WorkUntold { tasks: 0, locks: 9_500, messages: 0 };
        assert_eq!(told.turn(start + Duration::from_secs(60)), Some(untold));
        assert_eq!(tell(&mut told, 10_000), 2_000, "never more than the burst");
    }
}
