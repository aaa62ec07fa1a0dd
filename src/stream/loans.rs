//! Who still holds which long text, so that viewers who stall at different documents of a large hive can't keep any number of them alive. Pure.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;

/// What is lent, the oldest text first, and what it weighs together.
#[derive(Debug)]
pub(super) struct Loans {
    bytes_max: usize,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    last: u64,
    bytes: usize,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// Its address tells the text from others; while the entry stands somebody holds it.
    address: usize,
    bytes: usize,
    /// How many frames of each viewer hold it.
    holders: HashMap<u64, usize>,
}

/// A long text in the hands of a viewer, given back when the last frame that has it is gone.
pub(super) struct Loan {
    loans: Arc<Loans>,
    text: Arc<str>,
    number: u64,
    viewer: u64,
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.loans.give_back(self.number, self.viewer);
    }
}

impl Loans {
    /// Texts of so many bytes at most are held at a time.
    pub(super) fn within(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, ledger: Mutex::default() })
    }

    /// Lends a text to a viewer. Returns also those viewers that must go, since they hold the oldest of too much; never for the text itself.
    pub(super) fn lend(self: &Arc<Self>, text: Arc<str>, viewer: u64) -> (Loan, Vec<u64>) {
        let ledger = &mut *self.ledger.lock();
        let address = text.as_ptr() as usize;
        let number = match ledger.entries.iter_mut().rev().find(|entry| entry.address == address) {
            Some(entry) => {
                *entry.holders.entry(viewer).or_default() += 1;
                entry.number
            }
            None => {
                ledger.last += 1;
                ledger.bytes += text.len();
                let holders = HashMap::from([(viewer, 1)]);
                ledger.entries.push_back(Entry { number: ledger.last, address, bytes: text.len(), holders });
                ledger.last
            }
        };
        let mut must_go = Vec::new();
        while ledger.bytes > self.bytes_max && ledger.entries.front().is_some_and(|oldest| oldest.number != number) {
            // It is struck off at once: its holders are ended, and give nothing back that still counts.
            if let Some(oldest) = ledger.entries.pop_front() {
                ledger.bytes -= oldest.bytes;
                must_go.extend(oldest.holders.into_keys());
            }
        }
        (Loan { loans: Arc::clone(self), text, number, viewer }, must_go)
    }

    fn give_back(&self, number: u64, viewer: u64) {
        let ledger = &mut *self.ledger.lock();
        let Ok(at) = ledger.entries.binary_search_by_key(&number, |entry| entry.number) else { return };
        let entry = &mut ledger.entries[at];
        if let Some(frames) = entry.holders.get_mut(&viewer) {
            *frames -= 1;
            if *frames == 0 {
                entry.holders.remove(&viewer);
            }
        }
        if entry.holders.is_empty() {
            ledger.bytes -= entry.bytes;
            ledger.entries.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> Arc<str> {
        Arc::from("x".repeat(bytes))
    }

    fn bytes(loans: &Loans) -> usize {
        loans.ledger.lock().bytes
    }

    #[test]
    fn a_text_counts_once_for_all_who_hold_it_and_until_the_last_gives_it_back() {
        let (loans, document) = (Loans::within(100), text(60));
        let all: Vec<_> = [1, 2, 2].map(|viewer| loans.lend(Arc::clone(&document), viewer)).into();
        assert!(all.iter().all(|(_, must_go)| must_go.is_empty()));
        let mut held: Vec<_> = all.into_iter().map(|(loan, _)| loan).collect();
        while let Some(loan) = held.pop() {
            assert_eq!(bytes(&loans), 60);
            drop(loan);
        }
        assert_eq!(bytes(&loans), 0);
        assert!(loans.ledger.lock().entries.is_empty());
    }

    #[test]
    fn who_holds_the_oldest_of_too_much_must_go_and_nobody_else() {
        let loans = Loans::within(100);
        let (old, middle, new) = (text(40), text(40), text(40));
        let first = loans.lend(Arc::clone(&old), 1);
        let (second, _) = loans.lend(middle, 2);
        let (_read, _) = loans.lend(Arc::clone(&old), 3);
        drop(_read);
        let (_third, must_go) = loans.lend(new, 4);
        assert_eq!(must_go, [1], "3 has read it, 2 holds a younger one");
        assert_eq!(bytes(&loans), 80);
        drop(first);
        assert_eq!(bytes(&loans), 80, "struck off once, not twice");
        drop(second);
        assert_eq!(bytes(&loans), 40);
    }

    #[test]
    fn a_text_that_is_lent_again_after_its_holders_had_to_go_is_another_loan() {
        let loans = Loans::within(50);
        let old = text(40);
        let (ended, _) = loans.lend(Arc::clone(&old), 1);
        let (_new, must_go) = loans.lend(text(40), 2);
        assert_eq!(must_go, [1]);
        let (_again, must_go) = loans.lend(old, 3);
        assert_eq!(must_go, [2]);
        drop(ended);
        assert_eq!(bytes(&loans), 40, "what 1 gives back is not what 3 holds");
    }

    #[test]
    fn one_text_above_the_bound_is_lent_all_the_same() {
        let loans = Loans::within(50);
        let (_held, must_go) = loans.lend(text(80), 1);
        assert!(must_go.is_empty());
    }
}
