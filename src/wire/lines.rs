//! Lines out of a byte stream, bounded: a line ends with `\n` or `\r\n`, blank ones are skipped, one that is too long is told once and skipped
//! to its end. Where the stream was cut into chunks makes no difference.

/// Longest line, its ending not counted: the data plane's contract.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Capacity that a reader keeps between lines: a usual line fits, and thousands of readers hold little. A long line must not hold its memory for
/// ever.
const HELD_BYTES_KEPT: usize = 512;

/// What a stream held next.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line without its ending; never blank.
    Whole(&'a [u8]),
    /// A line that is longer than the limit. Told as soon as that is certain; the rest of it is skipped.
    TooLong,
}

/// Cuts a stream into lines. Holds at most its limit and one byte.
#[derive(Debug)]
pub struct Lines {
    held: Vec<u8>,
    limit: usize,
    /// `held` was lent out by the last call.
    lent: bool,
    /// In the middle of a line that was too long.
    skipping: bool,
}

impl Lines {
    /// A reader at the start of a stream, for lines of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { held: Vec::new(), limit, lent: false, skipping: false }
    }

    /// Changes the limit for everything that comes after.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The next line, or `None` when `chunk` is used up; what remains of it is kept for the next chunk.
    pub fn next<'line, 'chunk: 'line>(&'line mut self, chunk: &mut &'chunk [u8]) -> Option<Line<'line>> {
        if self.lent {
            self.forget();
        }
        loop {
            let Some(end) = memchr::memchr(b'\n', chunk) else {
                let rest = std::mem::take(chunk);
                return self.hold(rest).then_some(Line::TooLong);
            };
            let piece = &chunk[..end];
            *chunk = &chunk[end + 1..];
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.held.is_empty() {
                let line = without_return(piece);
                if line.len() > self.limit {
                    return Some(Line::TooLong);
                }
                if !is_blank(line) {
                    return Some(Line::Whole(line));
                }
            } else {
                // Looked at before the piece is copied, so that no more than the limit is ever held.
                if self.held.len() + without_return(piece).len() > self.limit.saturating_add(1) {
                    self.forget();
                    return Some(Line::TooLong);
                }
                self.held.extend_from_slice(piece);
                if without_return(&self.held).len() > self.limit {
                    self.forget();
                    return Some(Line::TooLong);
                }
                if is_blank(&self.held) {
                    self.forget();
                    continue;
                }
                self.lent = true;
                return Some(Line::Whole(without_return(&self.held)));
            }
        }
    }

    /// Whether the stream ended in the middle of a line, which is then no line: what a dying writer left.
    pub fn unfinished(&self) -> bool {
        !self.lent && !is_blank(&self.held)
    }

    /// Keeps the beginning of a line; true when it has just become too long. One byte more than the limit may be a `\r`.
    fn hold(&mut self, piece: &[u8]) -> bool {
        if self.skipping {
            return false;
        }
        let len = self.held.len() + piece.len();
        let last = piece.last().or(self.held.last());
        if len > self.limit + usize::from(last == Some(&b'\r')) {
            self.forget();
            self.skipping = true;
            return true;
        }
        self.held.extend_from_slice(piece);
        false
    }

    fn forget(&mut self) {
        self.lent = false;
        self.held.clear();
        self.held.shrink_to(HELD_BYTES_KEPT);
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `None` stands for a line that was too long.
    fn cut(limit: usize, chunks: &[&[u8]]) -> (Vec<Option<Vec<u8>>>, bool) {
        let mut lines = Lines::new(limit);
        let mut all = Vec::new();
        for chunk in chunks {
            let mut rest = *chunk;
            while let Some(line) = lines.next(&mut rest) {
                all.push(match line {
                    Line::Whole(line) => Some(line.to_vec()),
                    Line::TooLong => None,
                });
            }
            assert!(rest.is_empty());
            assert!(lines.held.len() <= limit + 1, "held {} bytes", lines.held.len());
        }
        (all, lines.unfinished())
    }

    /// What the whole stream holds, told plainly.
    fn plainly(limit: usize, stream: &[u8]) -> (Vec<Option<Vec<u8>>>, bool) {
        let mut pieces: Vec<&[u8]> = stream.split(|b| *b == b'\n').collect();
        let last = pieces.pop().unwrap();
        let mut all: Vec<Option<Vec<u8>>> = pieces
            .into_iter()
            .map(without_return)
            .filter(|line| line.len() > limit || !is_blank(line))
            .map(|line| (line.len() <= limit).then(|| line.to_vec()))
            .collect();
        let open = last.len() > limit && !(last.len() == limit + 1 && last.ends_with(b"\r"));
        if open {
            all.push(None);
        }
        (all, !open && !is_blank(last))
    }

    #[test]
    fn lines_end_with_newline_or_both_and_blank_ones_are_skipped() {
        let (lines, unfinished) = cut(9, &[b"one\ntwo\r\n\n \t\r\n\r\nthree\nfo"]);
        assert_eq!(lines, [Some(b"one".to_vec()), Some(b"two".to_vec()), Some(b"three".to_vec())]);
        assert!(unfinished);
    }

    #[test]
    fn a_line_at_the_limit_passes_and_one_beyond_is_told_once() {
        let (lines, _) =
            cut(4, &[b"1234\r\n12345\nab\n", b"123", b"4\r", b"\n", b"1234", b"\rx", b"yyyyyyy", b"y\nok\n"]);
        let ok = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(lines, [ok("1234"), None, ok("ab"), ok("1234"), None, ok("ok")]);
    }

    #[test]
    fn too_long_is_told_before_the_line_ends() {
        let (lines, unfinished) = cut(4, &[b"12345"]);
        assert_eq!(lines, [None]);
        assert!(!unfinished);
    }

    #[test]
    fn memory_of_a_long_line_is_given_back() {
        let mut lines = Lines::new(LINE_BYTES_MAX);
        let long = vec![b'x'; LINE_BYTES_MAX];
        let mut rest = &long[..];
        assert_eq!(lines.next(&mut rest), None);
        assert!(lines.held.capacity() >= LINE_BYTES_MAX);
        let mut end: &[u8] = b"\n";
        assert!(matches!(lines.next(&mut end), Some(Line::Whole(line)) if line.len() == LINE_BYTES_MAX));
        assert_eq!(lines.next(&mut end), None);
        assert!(lines.held.capacity() <= HELD_BYTES_KEPT);
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(
            stream in proptest::collection::vec(prop_oneof![4 => Just(b'a'), 2 => Just(b'\n'), 1 => Just(b'\r'), 1 => Just(b' ')], 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..6),
            limit in 1usize..8,
        ) {
            let mut at: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
            at.extend([0, stream.len()]);
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            prop_assert_eq!(cut(limit, &chunks), plainly(limit, &stream));
        }
    }
}
