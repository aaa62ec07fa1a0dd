//! Server-sent events: a stream that is taken up again where it broke off.

use std::{
    io::{BufRead, BufReader, Read},
    ops::ControlFlow,
    thread,
    time::Duration,
};

use super::{client::Client, error::CliError};

/// Between two attempts to take a stream up again: what the daemon's `retry:` field asks for, too.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// Longest line of a stream: an event with thousands of agents fits; a stranger's endless line does not fill the memory.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// Its number, when it has one.
    pub(super) id: Option<String>,
    /// Its kind.
    pub(super) event: String,
    /// Its document.
    pub(super) data: String,
}

/// What a follower is told.
pub(super) enum Heard<'a> {
    /// One event.
    Frame(&'a Frame),
    /// The connection broke, or came back; a note for people.
    Note(&'static str),
}

/// Follows a stream until `each` breaks, or the daemon refuses. A connection that breaks is made again, behind the last number seen.
pub(super) fn follow(
    client: &Client,
    first_path: &str,
    later_path: &str,
    mut each: impl FnMut(Heard<'_>) -> Result<ControlFlow<()>, CliError>,
) -> Result<(), CliError> {
    let mut last_id: Option<String> = None;
    let mut first = true;
    let mut told = false;
    loop {
        let path = if last_id.is_some() { later_path } else { first_path };
        match client.stream(path, last_id.as_deref()) {
            Ok(stream) => {
                if told && each(Heard::Note("connected again"))?.is_break() {
                    return Ok(());
                }
                told = false;
                for frame in Frames::new(stream) {
                    if frame.id.is_some() {
                        last_id.clone_from(&frame.id);
                    }
                    if each(Heard::Frame(&frame))?.is_break() {
                        return Ok(());
                    }
                }
            }
            Err(error) if first || matches!(error, CliError::Refused { .. } | CliError::Usage(_)) => return Err(error),
            Err(_) => {}
        }
        first = false;
        if !told && each(Heard::Note("the connection broke; trying again every second, Ctrl-C ends"))?.is_break() {
            return Ok(());
        }
        told = true;
        thread::sleep(RETRY);
    }
}

/// Frames of one connection; the end of the connection, however it came, is their end.
pub(super) struct Frames<R> {
    input: BufReader<R>,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input: BufReader::new(input) }
    }

    fn line(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        self.input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).ok()?;
        // Without its newline it is a piece of something that broke off.
        (bytes.pop()? == b'\n').then_some(())?;
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl<R: Read> Iterator for Frames<R> {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let mut frame = Frame::default();
        let mut any = false;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                if any {
                    return Some(frame);
                }
                frame = Frame::default();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => frame.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut frame.event),
                "data" => {
                    if any {
                        frame.data.push('\n');
                    }
                    frame.data.push_str(value);
                    any = true;
                }
                // Comments have an empty field name; `retry` is our own constant.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_at_blank_lines_and_half_ones_are_dropped() {
        let text = b": hello\n\nretry: 1000\n\nid: 7\nevent: line\ndata: {\"a\":\r\ndata: 1}\n\ndata:x\n\nid: 9\ndata: cut off";
        let frames: Vec<Frame> = Frames::new(&text[..]).collect();
        let first = Frame { id: Some("7".into()), event: "line".into(), data: "{\"a\":\n1}".into() };
        let second = Frame { data: "x".into(), ..Frame::default() };
        assert_eq!(frames, [first, second]);
    }
}
