//! Where a command writes to, and whether a person looks at it.

use std::io::{self, Write};

/// Standard output and standard error.
pub struct Screen<'a> {
    /// What was asked for.
    pub out: &'a mut dyn Write,
    /// What went wrong, and notes.
    pub err: &'a mut dyn Write,
    /// Whether colours may go to `out`: a terminal, and `NO_COLOR` is not set.
    pub colour: bool,
    /// How many columns `err` has when it is a terminal: a line that is written over may go there.
    pub live: Option<u16>,
}

impl Screen<'_> {
    /// Writes a line.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// Writes a document that the API gave, unchanged, with a newline at its end.
    pub(super) fn json(&mut self, text: &str) -> io::Result<()> {
        self.line(text.trim_end_matches('\n'))
    }

    /// Writes a note beside the output.
    pub(super) fn note(&mut self, text: &str) {
        // There is nowhere left to say that a note can't be written.
        let _ = writeln!(self.err, "{text}");
    }
}
