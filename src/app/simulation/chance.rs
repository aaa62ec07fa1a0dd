//! Chance that a number decides, and the trace that proves that it did.

use std::fmt::{self, Write};

/// splitmix64: a few lines, and the same numbers on every machine.
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n` - 1; 0 where there is nothing to choose.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True so many times in a thousand.
    pub(super) fn permille(&mut self, n: u64) -> bool {
        self.below(1000) < n
    }
}

/// What happened, as a hash, and as text for who replays a seed.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    text: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(is_kept: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, text: is_kept.then(Vec::new) }
    }

    pub(super) fn note(&mut self, ms: u64, what: fmt::Arguments<'_>) {
        if let Some(text) = &mut self.text {
            text.push(format!("{ms:>7} ms  {what}"));
        }
        // Writing to a hash can't fail.
        let _ = writeln!(self, "{ms} {what}");
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn into_text(self) -> Vec<String> {
        self.text.unwrap_or_default()
    }
}

impl Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.hash = text.bytes().fold(self.hash, fnv);
        Ok(())
    }
}

fn fnv(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

/// FNV-1a.
pub(super) fn hash_of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv)
}
