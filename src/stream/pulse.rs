//! Whether a viewer still reads, judged by what its peer sends. Pure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What to do about a viewer.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Nothing,
    /// Send this ping.
    Ping(u64),
    /// End it.
    Drop(Why),
}

/// Why a viewer is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Its peer does not read: its actor could not even write the ping, or the peer spoke and did not answer it.
    Slow {
        /// Whether its actor is held up by a full socket, so that no close frame will pass.
        stalled: bool,
    },
    /// Nothing came from its peer at all.
    Silent,
}

/// One viewer's pings and what came back. Our own pings are no sign of life.
#[derive(Debug)]
pub(super) struct Pulse {
    interval: Duration,
    answer_within: Duration,
    next_ping_at: Instant,
    last_ping: u64,
    /// The last ping that the viewer's actor has written.
    taken: u64,
    unanswered: VecDeque<(u64, Instant)>,
    heard: Instant,
    /// Of a peer that can't answer: a ping that its socket has taken, and what its kernel will have acknowledged then.
    mark: Option<(u64, u64)>,
}

impl Pulse {
    pub(super) fn new(interval: Duration, answer_within: Duration, now: Instant) -> Self {
        Self {
            interval,
            answer_within,
            next_ping_at: now + interval,
            last_ping: 0,
            taken: 0,
            unanswered: VecDeque::new(),
            heard: now,
            mark: None,
        }
    }

    /// What the kernel says of a peer that can't answer. Once all is acknowledged that was held for it when a ping was found taken, that ping
    /// has been read as far as anybody can tell: a peer that stops reading closes its window when its own buffer is full.
    pub(super) fn acknowledged(&mut self, bytes: u64, held: u64, heard: Instant) {
        self.heard(heard);
        if let Some((number, mark)) = self.mark
            && bytes >= mark
        {
            self.mark = None;
            self.ponged(number);
        }
        let waits = self.unanswered.front().is_some_and(|(first, _)| *first <= self.taken);
        if self.mark.is_none() && waits {
            if held == 0 {
                self.ponged(self.taken);
            } else {
                self.mark = Some((self.taken, bytes + held));
            }
        }
    }

    /// Judges, and says when a ping is due.
    pub(super) fn tick(&mut self, now: Instant) -> Verdict {
        if let Some((_, sent)) = self.unanswered.front().copied()
            && now.saturating_duration_since(sent) >= self.answer_within
        {
            let stalled = self.taken < self.last_ping;
            let why = if stalled || self.heard > sent { Why::Slow { stalled } } else { Why::Silent };
            return Verdict::Drop(why);
        }
        if now < self.next_ping_at {
            return Verdict::Nothing;
        }
        self.last_ping += 1;
        self.next_ping_at = now + self.interval;
        self.unanswered.push_back((self.last_ping, now));
        Verdict::Ping(self.last_ping)
    }

    /// When [`Pulse::tick`] has something to say next.
    pub(super) fn deadline(&self) -> Instant {
        let drop_at = self.unanswered.front().map(|(_, sent)| *sent + self.answer_within);
        drop_at.map_or(self.next_ping_at, |at| at.min(self.next_ping_at))
    }

    /// The viewer's actor has written a ping: its socket takes frames.
    pub(super) fn taken(&mut self, number: u64) {
        self.taken = self.taken.max(number);
    }

    /// The peer sent something.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
    }

    /// The peer answered a ping, and by that all before it (RFC 6455, section 5.5.3). A number that was never sent proves nothing.
    pub(super) fn ponged(&mut self, number: u64) {
        if number <= self.last_ping {
            while self.unanswered.front().is_some_and(|(first, _)| *first <= number) {
                self.unanswered.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);
    const ANSWER: Duration = Duration::from_secs(10);

    struct Bench {
        start: Instant,
        pulse: Pulse,
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now();
            Self { start, pulse: Pulse::new(INTERVAL, ANSWER, start) }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// Ticks at each deadline until `ms`; `taken` and `ponged` say whether the actor writes and the peer answers at once.
        fn run(&mut self, from: u64, ms: u64, taken: bool, ponged: bool) -> Option<(u64, Why)> {
            let mut now = self.pulse.deadline().max(self.at(from));
            while now <= self.at(ms) {
                match self.pulse.tick(now) {
                    Verdict::Nothing => {}
                    Verdict::Ping(number) => {
                        if taken {
                            self.pulse.taken(number);
                        }
                        if ponged {
                            self.pulse.heard(now);
                            self.pulse.ponged(number);
                        }
                    }
                    Verdict::Drop(why) => {
                        let after = u64::try_from((now - self.start).as_millis()).unwrap_or(u64::MAX);
                        return Some((after, why));
                    }
                }
                now = self.pulse.deadline();
            }
            None
        }
    }

    #[test]
    fn who_answers_stays() {
        assert_eq!(Bench::new().run(0, 3_600_000, true, true), None);
    }

    #[test]
    fn silence_ends_after_fifteen_seconds() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(0, 60_000, true, false), Some((15_000, Why::Silent)));
    }

    #[test]
    fn a_stalled_actor_is_slow_within_fifteen_seconds_of_its_last_pong() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(0, 21_000, true, true), None);
        assert_eq!(bench.run(21_000, 90_000, false, false), Some((35_000, Why::Slow { stalled: true })));
    }

    #[test]
    fn speaking_without_reading_is_slow() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(0, 14_000, true, false), None);
        bench.pulse.heard(bench.at(14_000));
        assert_eq!(bench.run(14_000, 60_000, true, false), Some((15_000, Why::Slow { stalled: false })));
    }

    #[test]
    fn a_late_pong_counts_and_answers_all_before_it() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(0, 14_999, true, false), None);
        bench.pulse.ponged(2);
        assert_eq!(bench.run(14_999, 24_999, true, false), None, "both pings are answered");
        assert_eq!(bench.run(24_999, 60_000, true, false), Some((25_000, Why::Silent)), "the third is not");
    }

    #[test]
    fn an_answer_that_is_late_between_two_pings_ends_it_then() {
        let start = Instant::now();
        let mut bench = Bench { start, pulse: Pulse::new(INTERVAL, Duration::from_millis(8_500), start) };
        assert_eq!(bench.run(0, 60_000, true, false), Some((13_500, Why::Silent)));
    }

    #[test]
    fn what_was_heard_and_written_is_not_unheard_by_older_news() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(0, 14_000, true, false), None);
        bench.pulse.heard(bench.at(14_000));
        bench.pulse.heard(bench.at(3_000));
        bench.pulse.taken(1);
        assert_eq!(bench.run(14_000, 60_000, true, false), Some((15_000, Why::Slow { stalled: false })));
    }

    #[test]
    fn a_kernel_that_holds_nothing_any_more_has_delivered_the_ping() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(0, 9_000, true, false), None);
        bench.pulse.acknowledged(100, 0, bench.at(9_000));
        assert_eq!(bench.run(9_000, 60_000, true, false), Some((20_000, Why::Silent)), "the second is not answered");
    }

    #[test]
    fn acknowledged_bytes_stand_for_a_pong() {
        let mut bench = Bench::new();
        let mut now = bench.at(0);
        for _ in 0..1000 {
            now = bench.pulse.deadline();
            // Always some bytes on the way, and always others.
            let sent = u64::try_from((now - bench.start).as_millis()).unwrap();
            bench.pulse.acknowledged(sent, 700, now);
            match bench.pulse.tick(now) {
                Verdict::Nothing => {}
                Verdict::Ping(number) => bench.pulse.taken(number),
                Verdict::Drop(why) => panic!("{why:?} at {now:?}"),
            }
        }
        assert!(now - bench.start > INTERVAL * 900);
    }

    #[test]
    fn bytes_that_stay_unacknowledged_are_slow_or_silent() {
        for (answers_probes, expected) in [(true, Why::Slow { stalled: false }), (false, Why::Silent)] {
            let mut bench = Bench::new();
            let end = loop {
                let now = bench.pulse.deadline();
                let heard = if answers_probes { now } else { bench.start };
                bench.pulse.acknowledged(100, 700, heard);
                match bench.pulse.tick(now) {
                    Verdict::Nothing => {}
                    Verdict::Ping(number) => bench.pulse.taken(number),
                    Verdict::Drop(why) => break (now - bench.start, why),
                }
            };
            assert_eq!(end, (Duration::from_secs(15), expected));
        }
    }

    #[test]
    fn a_pong_that_answers_nothing_proves_nothing() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(0, 14_000, true, false), None);
        bench.pulse.ponged(99);
        assert_eq!(bench.run(14_000, 60_000, true, false), Some((15_000, Why::Silent)));
    }
}
