//! What viewers share: what a hive's event or document looks like to those who see it alike is serialised once, and a frame that they get alike is
//! written once, not once for each.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    time::SystemTime,
};

use parking_lot::Mutex;

use super::{
    frame::Frame,
    protocol::{self, Filter, Head, Parts},
};
use crate::model::{HiveHealth, Seq};

/// Session updates that are kept as text for the next viewer: viewers that keep up are within a few events of each other.
const TAILS_MAX: usize = 256;
/// Bytes of them: a second's samples of five thousand agents, so that those who read them one after the other find them all. The youngest stays
/// whatever its size, for the others to come.
const TAILS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of those of one filter. There may be a thousand filters, and one that lets through more than some hundred agents is rare.
const FILTERED_BYTES_MAX: usize = 512 * 1024;

/// Whole `session_update`s that are kept for the next viewer: what those who keep up are told at once. At most 32 KiB each.
const FRAMES_MAX: usize = 64;

/// An event, the one that was told before it, and the millisecond of the telling.
type FrameKey = (Seq, Seq, u128);

/// `session_update`s that were made for many alike.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Each has one place, by the number of its event.
    kept: Vec<Option<(FrameKey, Frame)>>,
}

impl Frames {
    /// The frame with this head, made unless it is there.
    pub(super) fn get(&mut self, head: &Head, make: impl FnOnce() -> Frame) -> Frame {
        let millisecond = head.sent_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let key = (head.seq, head.prev_seq, millisecond);
        let place = usize::try_from(head.seq.0 % FRAMES_MAX as u64).unwrap_or(0);
        match self.kept.get(place) {
            Some(Some((known, frame))) if *known == key => return frame.clone(),
            Some(_) => {}
            None => self.kept.resize(FRAMES_MAX, None),
        }
        let frame = make();
        // Of a long one the tail is kept already, where its bytes are counted.
        self.kept[place] = (!frame.is_long()).then(|| (key, frame.clone()));
        frame
    }
}

/// Tails of `session_update`s by their events' numbers, the oldest first.
#[derive(Debug)]
pub(super) struct Tails {
    kept: VecDeque<(Seq, Arc<str>)>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Tails {
    fn default() -> Self {
        Self::within(TAILS_BYTES_MAX)
    }
}

impl Tails {
    fn within(bytes_max: usize) -> Self {
        Self { kept: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// The tail of this event, made unless it is there.
    pub(super) fn get(&mut self, seq: Seq, make: impl FnOnce() -> String) -> Arc<str> {
        let place = match self.kept.binary_search_by_key(&seq, |(seq, _)| *seq) {
            Ok(found) => return Arc::clone(&self.kept[found].1),
            Err(place) => place,
        };
        let tail: Arc<str> = Arc::from(make());
        // One older than all that is kept is of a viewer that catches up alone, and must push out nothing that many want.
        if place > 0 || self.kept.is_empty() {
            self.bytes += tail.len();
            self.kept.insert(place, (seq, Arc::clone(&tail)));
            while self.kept.len() > 1 && (self.kept.len() > TAILS_MAX || self.bytes > self.bytes_max) {
                if let Some((_, gone)) = self.kept.pop_front() {
                    self.bytes -= gone.len();
                }
            }
        }
        tail
    }
}

/// What all viewers with one filter share.
#[derive(Debug, Default)]
pub(super) struct Lens {
    only: Filter,
    status: Mutex<Option<(Arc<HiveHealth>, Arc<str>)>>,
    samples: Mutex<Tails>,
}

impl Lens {
    /// Which swarms pass.
    pub(super) fn only(&self) -> &Filter {
        &self.only
    }

    /// The tail of a `status_update`, made once for each document.
    pub(super) fn status(self: &Arc<Self>, hive: Arc<HiveHealth>) -> Arc<str> {
        let mut kept = self.status.lock();
        match &*kept {
            Some((known, tail)) if Arc::ptr_eq(known, &hive) => Arc::clone(tail),
            _ => {
                let tail: Arc<str> = Arc::from(protocol::status_tail(&hive, &self.only));
                *kept = self.is_shared().then(|| (hive, Arc::clone(&tail)));
                tail
            }
        }
    }

    /// The tail of what passes of samples. Each second's come in pieces, which viewers read one after the other.
    pub(super) fn samples(self: &Arc<Self>, seq: Seq, parts: &Parts<'_>) -> Arc<str> {
        let make = || protocol::sessions_tail(parts);
        if self.is_shared() {
            return self.samples.lock().get(seq, make);
        }
        Arc::from(make())
    }

    /// A filter of a single viewer keeps no texts, so that a thousand of them hold no thousand documents.
    fn is_shared(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1
    }
}

/// The filters in use.
#[derive(Debug, Default)]
pub(super) struct Lenses {
    /// No filter. Held here, so always shared.
    whole: Arc<Lens>,
    filtered: Mutex<HashMap<Filter, Weak<Lens>>>,
}

impl Lenses {
    /// The lens of everybody with this filter.
    pub(super) fn of(&self, only: Filter) -> Arc<Lens> {
        if only.is_none() {
            return Arc::clone(&self.whole);
        }
        let mut filtered = self.filtered.lock();
        if let Some(lens) = filtered.get(&only).and_then(Weak::upgrade) {
            return lens;
        }
        // Only here may the map grow, so it never holds more than twice what is in use.
        if filtered.len() == filtered.capacity() {
            filtered.retain(|_, lens| lens.strong_count() > 0);
        }
        let samples = Mutex::new(Tails::within(FILTERED_BYTES_MAX));
        let lens = Arc::new(Lens { only: only.clone(), samples, ..Lens::default() });
        filtered.insert(only, Arc::downgrade(&lens));
        lens
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::stream::loans::Loans;

    fn head(seq: u64, prev_seq: u64, ms: u64) -> Head {
        let sent_at = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(ms);
        Head { epoch: crate::model::Epoch(1), seq: Seq(seq), prev_seq: Seq(prev_seq), observed_at: sent_at, sent_at }
    }

    #[test]
    fn a_run_of_frames_is_made_once_for_all_who_are_told_it_in_the_same_millisecond() {
        let mut frames = Frames::default();
        let run = 1000..1000 + FRAMES_MAX as u64;
        for seq in run.clone() {
            frames.get(&head(seq, seq - 1, 7), || seq.to_string().into());
        }
        for seq in run {
            let again = frames.get(&head(seq, seq - 1, 7), || panic!("made twice"));
            assert_eq!(again.into_text(), seq.to_string());
        }
        for other in [head(1000, 998, 7), head(1000, 999, 8), head(2024, 2023, 7)] {
            let made = frames.get(&other, || "another".to_owned().into());
            assert_eq!(made.into_text(), "another", "{other:?}");
        }
    }

    #[test]
    fn long_frames_are_not_kept() {
        let tail: Arc<str> = Arc::from("x".repeat(100_000));
        let mut frames = Frames::default();
        frames.get(&head(2, 1, 7), || Frame::sharing("head", Loans::within(0).lend(Arc::clone(&tail), 1).0, 1));
        assert_eq!(Arc::strong_count(&tail), 1);
    }

    #[test]
    fn a_tail_is_made_once_in_whatever_order_events_are_asked_for() {
        let mut tails = Tails::default();
        for seq in [5, 7, 6, 6, 5, 7] {
            tails.get(Seq(seq), || seq.to_string());
        }
        for seq in [5, 6, 7] {
            assert_eq!(&*tails.get(Seq(seq), || panic!("made twice")), seq.to_string());
        }
    }

    #[test]
    fn who_catches_up_pushes_out_nothing_that_the_others_want() {
        let mut tails = Tails::default();
        tails.get(Seq(1000), || "young".to_owned());
        for seq in 1..=999 {
            tails.get(Seq(seq), || "old".to_owned());
        }
        tails.get(Seq(1000), || panic!("made twice"));
        assert_eq!((tails.kept.len(), tails.bytes), (1, 5));
    }

    #[test]
    fn tails_are_bounded_by_number_and_by_bytes() {
        let mut tails = Tails::default();
        for seq in 1..=1000 {
            tails.get(Seq(seq), || "x".to_owned());
        }
        assert_eq!((tails.kept.len(), tails.bytes), (TAILS_MAX, TAILS_MAX));
        for seq in 1001..=1010 {
            tails.get(Seq(seq), || "x".repeat(TAILS_BYTES_MAX - 10));
        }
        assert_eq!((tails.kept.len(), tails.bytes), (1, TAILS_BYTES_MAX - 10));
        tails.get(Seq(2000), || "x".repeat(2 * TAILS_BYTES_MAX));
        assert_eq!((tails.kept.len(), tails.bytes), (1, 2 * TAILS_BYTES_MAX), "the youngest stays");
    }

    #[test]
    fn viewers_with_one_filter_share_a_lens_and_leave_none_behind() {
        let lenses = Lenses::default();
        let only = |name: &str| Some([name.parse().unwrap()].into());
        let (first, second) = (lenses.of(only("a")), lenses.of(only("a")));
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &lenses.of(only("b"))));
        assert!(Arc::ptr_eq(&lenses.of(None), &lenses.of(None)));
        for n in 0..10_000 {
            drop(lenses.of(only(&format!("s{n}"))));
        }
        assert!(lenses.filtered.lock().len() < 100, "{}", lenses.filtered.lock().len());
    }

    #[test]
    fn only_what_is_shared_is_kept() {
        let lenses = Lenses::default();
        let one = lenses.of(Some(["a".parse().unwrap()].into()));
        one.samples(Seq(1), &Parts::default());
        assert!(one.samples.lock().kept.is_empty());
        let _two = Arc::clone(&one);
        let made = [2, 3, 4].map(|seq| one.samples(Seq(seq), &Parts::default()));
        for (seq, made) in [2, 3, 4].into_iter().zip(&made) {
            assert!(
                Arc::ptr_eq(made, &one.samples(Seq(seq), &Parts::default())),
                "each piece of a second is made once"
            );
        }
    }
}
