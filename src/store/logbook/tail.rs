//! The last lines of the incarnation that wrote last, in memory, for exit records.

use std::collections::VecDeque;

use crate::model::exit::LAST_LINES_MAX;

/// Bytes kept of one line: with [`LAST_LINES_MAX`] at most 20 KiB for an agent.
const LINE_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Tail {
    incarnation: u64,
    lines: VecDeque<(&'static str, String)>,
    /// The stream whose last line goes on.
    open: Option<&'static str>,
}

impl Tail {
    /// Takes a line that the agent wrote.
    pub(super) fn push(&mut self, incarnation: u64, stream: &'static str, partial: bool, text: &str) {
        if stream == "hivekeeper" {
            return;
        }
        if incarnation != self.incarnation {
            *self = Self { incarnation, ..Self::default() };
        }
        let goes_on = self.open == Some(stream) && self.lines.back().is_some_and(|(last, _)| *last == stream);
        if !goes_on {
            if self.lines.len() == LAST_LINES_MAX {
                self.lines.pop_front();
            }
            self.lines.push_back((stream, String::new()));
        }
        if let Some((_, line)) = self.lines.back_mut() {
            let room = LINE_MAX.saturating_sub(line.len());
            line.push_str(&text[..text.floor_char_boundary(room)]);
        }
        self.open = partial.then_some(stream);
    }

    /// At most `n` lines of an incarnation, oldest first.
    pub(super) fn last(&self, incarnation: u64, n: usize) -> Vec<String> {
        if incarnation != self.incarnation {
            return Vec::new();
        }
        self.lines.iter().skip(self.lines.len().saturating_sub(n)).map(|(_, line)| line.clone()).collect()
    }
}
