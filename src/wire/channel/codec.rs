//! Bytes to frames and back: pure, incremental, bounded.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::frames::{
    Attach, Exit, FRAME_LEN_MAX, FromLauncher, LINE_PIECE_MAX, Launch, MAGIC, Output, Sample, State, Stream, ToLauncher,
};

/// Bytes in front of a payload: the length and the kind.
const HEADER_LEN: usize = 5;
/// Bytes of an output frame in front of the line: number, time, flags.
const OUTPUT_FIELDS_LEN: usize = 17;
/// A drained buffer above this is given back: one large `Launch` must not cost a small launcher its memory for life.
const BUFFER_KEPT_MAX: usize = 64 * 1024;
/// Bit of the flags of an output frame: written to stderr.
const FLAG_STDERR: u8 = 1;
/// Bit of the flags of an output frame: the line goes on in the next piece.
const FLAG_PARTIAL: u8 = 2;

/// Bytes that are no frame, or a message that fits into none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The first bytes are not [`MAGIC`]: somebody else wrote them.
    #[error("not a launcher: the first bytes are {}", found.escape_ascii())]
    NoMagic {
        /// What came instead, as far as it has been looked at.
        found: Vec<u8>,
    },
    /// Longer than [`FRAME_LEN_MAX`].
    #[error("frame of {len} bytes, at most {FRAME_LEN_MAX} are allowed")]
    TooLong {
        /// The length that it claims.
        len: usize,
    },
    /// A length that has no room for the kind.
    #[error("empty frame")]
    Empty,
    /// A kind that this version does not know.
    #[error("unknown frame kind {kind}")]
    UnknownKind {
        /// The kind.
        kind: u8,
    },
    /// A payload that does not fit its kind.
    #[error("malformed frame of kind {kind}: {why}")]
    Malformed {
        /// The kind.
        kind: u8,
        /// What is wrong.
        why: String,
    },
}

/// One direction of the channel.
pub trait Frame: Sized {
    /// Appends the payload and returns the kind.
    ///
    /// # Errors
    /// [`ChannelError::Malformed`] when a field can't be written.
    fn write(&self, out: &mut Vec<u8>) -> Result<u8, ChannelError>;
    /// Reads a payload of a kind.
    ///
    /// # Errors
    /// [`ChannelError::UnknownKind`], [`ChannelError::Malformed`].
    fn read(kind: u8, payload: &[u8]) -> Result<Self, ChannelError>;
}

/// Appends one frame to `out`. [`MAGIC`] in front of the first `Hello` is the caller's.
///
/// # Errors
/// [`ChannelError::TooLong`] when the message does not fit into a frame; `out` is then as it was.
pub fn encode<F: Frame>(frame: &F, out: &mut Vec<u8>) -> Result<(), ChannelError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LEN]);
    let written = frame.write(out).and_then(|kind| {
        let len = out.len() - start - HEADER_LEN + 1;
        match u32::try_from(len) {
            Ok(wire) if len <= FRAME_LEN_MAX => Ok((kind, wire)),
            _ => Err(ChannelError::TooLong { len }),
        }
    });
    match written {
        Ok((kind, len)) => {
            out[start..start + 4].copy_from_slice(&len.to_le_bytes());
            out[start + 4] = kind;
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// What stands in front of the bytes of an output line, so that a ring can hold lines as ready frames.
#[must_use]
pub fn output_header(seq: u64, at_ms: u64, stream: Stream, partial: bool, bytes_len: u16) -> [u8; 22] {
    let mut header = [0; HEADER_LEN + OUTPUT_FIELDS_LEN];
    let len = u32::from(bytes_len) + OUTPUT_FIELDS_LEN as u32 + 1;
    header[..4].copy_from_slice(&len.to_le_bytes());
    header[4] = from::OUTPUT;
    header[HEADER_LEN..].copy_from_slice(&output_fields(seq, at_ms, stream, partial));
    header
}

/// Takes bytes as they come and gives frames. Holds at most one frame of [`FRAME_LEN_MAX`] and what one `push` brought, when
/// [`Decoder::next`] is called until it gives `None`. An error is final: the bytes behind it have no known boundary.
#[derive(Debug)]
pub struct Decoder<T> {
    buffer: Vec<u8>,
    start: usize,
    magic_expected: bool,
    failed: Option<ChannelError>,
    frames: PhantomData<fn() -> T>,
}

impl<T: Frame> Default for Decoder<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Frame> Decoder<T> {
    /// For a direction that begins with a frame.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, magic_expected: false, failed: None, frames: PhantomData }
    }

    /// For a direction that begins with [`MAGIC`]: what a launcher writes.
    #[must_use]
    pub fn expecting_magic() -> Self {
        Self { magic_expected: true, ..Self::new() }
    }

    /// Takes bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`ChannelError`], and the same one at each later call.
    #[expect(clippy::should_implement_trait, reason = "an iterator ends at None; here more bytes may come")]
    pub fn next(&mut self) -> Result<Option<T>, ChannelError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let frame = self.take();
        if let Err(error) = &frame {
            self.failed = Some(error.clone());
            self.buffer = Vec::new();
            self.start = 0;
        }
        frame
    }

    fn take(&mut self) -> Result<Option<T>, ChannelError> {
        if self.magic_expected && !self.take_magic()? {
            return Ok(None);
        }
        let rest = &self.buffer[self.start..];
        let Some((len, rest)) = rest.split_first_chunk::<4>() else {
            self.compact();
            return Ok(None);
        };
        let len = u32::from_le_bytes(*len) as usize;
        if len > FRAME_LEN_MAX {
            return Err(ChannelError::TooLong { len });
        }
        let Some(body) = rest.get(..len) else {
            self.compact();
            return Ok(None);
        };
        let Some((&kind, payload)) = body.split_first() else {
            return Err(ChannelError::Empty);
        };
        let frame = T::read(kind, payload)?;
        self.start += 4 + len;
        if self.start == self.buffer.len() {
            // Now, not when the next bytes come: after a large `Launch` that may be a while.
            self.compact();
        }
        Ok(Some(frame))
    }

    /// Whether the magic is through; an error as soon as one byte differs, so that a short start error is seen at once.
    fn take_magic(&mut self) -> Result<bool, ChannelError> {
        let seen = self.buffer.len().min(MAGIC.len());
        if self.buffer[..seen] != MAGIC[..seen] {
            return Err(ChannelError::NoMagic { found: self.buffer.iter().take(64).copied().collect() });
        }
        if seen < MAGIC.len() {
            return Ok(false);
        }
        self.magic_expected = false;
        self.start = MAGIC.len();
        Ok(true)
    }

    fn compact(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_KEPT_MAX {
            self.buffer = Vec::new();
        }
    }
}

/// Kinds of the daemon's frames. A number is never given twice.
mod to {
    pub(super) const LAUNCH: u8 = 1;
    pub(super) const ATTACH: u8 = 2;
    pub(super) const RENEW: u8 = 3;
    pub(super) const ACK: u8 = 4;
    pub(super) const STOP: u8 = 5;
    pub(super) const KILL: u8 = 6;
    pub(super) const PAUSE: u8 = 7;
    pub(super) const RESUME: u8 = 8;
    pub(super) const RELAY_DATA: u8 = 9;
    pub(super) const RELAY_CLOSE: u8 = 10;
    pub(super) const RELAY_CREDIT: u8 = 11;
}

/// Kinds of the launcher's frames: above the daemon's, so that a crossed pipe is seen.
mod from {
    pub(super) const HELLO: u8 = 129;
    pub(super) const STARTED: u8 = 130;
    pub(super) const START_FAILED: u8 = 131;
    pub(super) const STATE: u8 = 132;
    pub(super) const OUTPUT: u8 = 133;
    pub(super) const LOST: u8 = 134;
    pub(super) const SAMPLE: u8 = 135;
    pub(super) const PAUSED: u8 = 136;
    pub(super) const EXIT: u8 = 137;
    pub(super) const RELAY_OPEN: u8 = 138;
    pub(super) const RELAY_DATA: u8 = 139;
    pub(super) const RELAY_CLOSE: u8 = 140;
    pub(super) const RELAY_CREDIT: u8 = 141;
    pub(super) const REFUSED: u8 = 142;
    pub(super) const SWEPT: u8 = 143;
    pub(super) const LISTED: u8 = 144;
}

#[derive(Serialize, Deserialize)]
struct Renew {
    epoch: u64,
}

#[derive(Serialize, Deserialize)]
struct Ack {
    seq: u64,
}

#[derive(Serialize, Deserialize)]
struct Stop {
    grace_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Conn {
    conn: u32,
}

#[derive(Serialize, Deserialize)]
struct Credit {
    conn: u32,
    bytes: u32,
}

#[derive(Serialize, Deserialize)]
struct Hello {
    version: u16,
    pid: u32,
}

#[derive(Serialize, Deserialize)]
struct Started {
    pid: u32,
    at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct StartFailed {
    message: String,
}

#[derive(Serialize, Deserialize)]
struct Lost {
    lines: u64,
    bytes: u64,
    next_seq: u64,
}

#[derive(Serialize, Deserialize)]
struct Paused {
    paused: bool,
}

#[derive(Serialize, Deserialize)]
struct Swept {
    killed: u32,
    left: u32,
}

#[derive(Serialize, Deserialize)]
struct Listed {
    launch_ids: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Refused {
    code: String,
    message: String,
}

impl Frame for ToLauncher {
    fn write(&self, out: &mut Vec<u8>) -> Result<u8, ChannelError> {
        match self {
            Self::Launch(launch) => json(to::LAUNCH, &**launch, out),
            Self::Attach(attach) => json(to::ATTACH, attach, out),
            Self::Renew { epoch } => json(to::RENEW, &Renew { epoch: *epoch }, out),
            Self::Ack { seq } => json(to::ACK, &Ack { seq: *seq }, out),
            Self::Stop { grace_ms } => json(to::STOP, &Stop { grace_ms: *grace_ms }, out),
            Self::Kill => Ok(to::KILL),
            Self::Pause => Ok(to::PAUSE),
            Self::Resume => Ok(to::RESUME),
            Self::RelayData { conn, bytes } => Ok(relay_data(to::RELAY_DATA, *conn, bytes, out)),
            Self::RelayClose { conn } => json(to::RELAY_CLOSE, &Conn { conn: *conn }, out),
            Self::RelayCredit { conn, bytes } => json(to::RELAY_CREDIT, &Credit { conn: *conn, bytes: *bytes }, out),
        }
    }

    fn read(kind: u8, payload: &[u8]) -> Result<Self, ChannelError> {
        Ok(match kind {
            to::LAUNCH => Self::Launch(Box::new(parse::<Launch>(kind, payload)?)),
            to::ATTACH => Self::Attach(parse::<Attach>(kind, payload)?),
            to::RENEW => Self::Renew { epoch: parse::<Renew>(kind, payload)?.epoch },
            to::ACK => Self::Ack { seq: parse::<Ack>(kind, payload)?.seq },
            to::STOP => Self::Stop { grace_ms: parse::<Stop>(kind, payload)?.grace_ms },
            to::KILL => nothing(kind, payload, Self::Kill)?,
            to::PAUSE => nothing(kind, payload, Self::Pause)?,
            to::RESUME => nothing(kind, payload, Self::Resume)?,
            to::RELAY_DATA => {
                let (conn, bytes) = relay_bytes(kind, payload)?;
                Self::RelayData { conn, bytes }
            }
            to::RELAY_CLOSE => Self::RelayClose { conn: parse::<Conn>(kind, payload)?.conn },
            to::RELAY_CREDIT => {
                let Credit { conn, bytes } = parse(kind, payload)?;
                Self::RelayCredit { conn, bytes }
            }
            _ => return Err(ChannelError::UnknownKind { kind }),
        })
    }
}

impl Frame for FromLauncher {
    fn write(&self, out: &mut Vec<u8>) -> Result<u8, ChannelError> {
        match self {
            Self::Hello { version, pid } => json(from::HELLO, &Hello { version: *version, pid: *pid }, out),
            Self::Started { pid, at_ms } => json(from::STARTED, &Started { pid: *pid, at_ms: *at_ms }, out),
            Self::StartFailed { message } => json(from::START_FAILED, &StartFailed { message: message.clone() }, out),
            Self::State(state) => json(from::STATE, state, out),
            Self::Output(Output { seq, at_ms, stream, partial, bytes }) => {
                if bytes.len() > LINE_PIECE_MAX {
                    return Err(malformed(from::OUTPUT, "a piece is longer than LINE_PIECE_MAX"));
                }
                out.extend_from_slice(&output_fields(*seq, *at_ms, *stream, *partial));
                out.extend_from_slice(bytes);
                Ok(from::OUTPUT)
            }
            Self::Lost { lines, bytes, next_seq } => {
                json(from::LOST, &Lost { lines: *lines, bytes: *bytes, next_seq: *next_seq }, out)
            }
            Self::Sample(sample) => json(from::SAMPLE, sample, out),
            Self::Paused { paused } => json(from::PAUSED, &Paused { paused: *paused }, out),
            Self::Exit(exit) => json(from::EXIT, exit, out),
            Self::RelayOpen { conn } => json(from::RELAY_OPEN, &Conn { conn: *conn }, out),
            Self::RelayData { conn, bytes } => Ok(relay_data(from::RELAY_DATA, *conn, bytes, out)),
            Self::RelayClose { conn } => json(from::RELAY_CLOSE, &Conn { conn: *conn }, out),
            Self::RelayCredit { conn, bytes } => json(from::RELAY_CREDIT, &Credit { conn: *conn, bytes: *bytes }, out),
            Self::Swept { killed, left } => json(from::SWEPT, &Swept { killed: *killed, left: *left }, out),
            Self::Listed { launch_ids } => json(from::LISTED, &Listed { launch_ids: launch_ids.clone() }, out),
            Self::Refused { code, message } => {
                json(from::REFUSED, &Refused { code: code.clone(), message: message.clone() }, out)
            }
        }
    }

    fn read(kind: u8, payload: &[u8]) -> Result<Self, ChannelError> {
        Ok(match kind {
            from::HELLO => {
                let Hello { version, pid } = parse(kind, payload)?;
                Self::Hello { version, pid }
            }
            from::STARTED => {
                let Started { pid, at_ms } = parse(kind, payload)?;
                Self::Started { pid, at_ms }
            }
            from::START_FAILED => Self::StartFailed { message: parse::<StartFailed>(kind, payload)?.message },
            from::STATE => Self::State(parse::<State>(kind, payload)?),
            from::OUTPUT => Self::Output(output(kind, payload)?),
            from::LOST => {
                let Lost { lines, bytes, next_seq } = parse(kind, payload)?;
                Self::Lost { lines, bytes, next_seq }
            }
            from::SAMPLE => Self::Sample(parse::<Sample>(kind, payload)?),
            from::PAUSED => Self::Paused { paused: parse::<Paused>(kind, payload)?.paused },
            from::EXIT => Self::Exit(parse::<Exit>(kind, payload)?),
            from::RELAY_OPEN => Self::RelayOpen { conn: parse::<Conn>(kind, payload)?.conn },
            from::RELAY_DATA => {
                let (conn, bytes) = relay_bytes(kind, payload)?;
                Self::RelayData { conn, bytes }
            }
            from::RELAY_CLOSE => Self::RelayClose { conn: parse::<Conn>(kind, payload)?.conn },
            from::RELAY_CREDIT => {
                let Credit { conn, bytes } = parse(kind, payload)?;
                Self::RelayCredit { conn, bytes }
            }
            from::SWEPT => {
                let Swept { killed, left } = parse(kind, payload)?;
                Self::Swept { killed, left }
            }
            from::LISTED => {
                let Listed { launch_ids } = parse(kind, payload)?;
                Self::Listed { launch_ids }
            }
            from::REFUSED => {
                let Refused { code, message } = parse(kind, payload)?;
                Self::Refused { code, message }
            }
            _ => return Err(ChannelError::UnknownKind { kind }),
        })
    }
}

fn json<P: Serialize>(kind: u8, payload: &P, out: &mut Vec<u8>) -> Result<u8, ChannelError> {
    serde_json::to_writer(out, payload).map_err(|error| malformed(kind, error))?;
    Ok(kind)
}

fn parse<P: DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<P, ChannelError> {
    serde_json::from_slice(payload).map_err(|error| malformed(kind, error))
}

fn nothing<T>(kind: u8, payload: &[u8], frame: T) -> Result<T, ChannelError> {
    if payload.is_empty() { Ok(frame) } else { Err(malformed(kind, "a payload where none belongs")) }
}

fn malformed(kind: u8, why: impl ToString) -> ChannelError {
    ChannelError::Malformed { kind, why: why.to_string() }
}

fn relay_data(kind: u8, conn: u32, bytes: &[u8], out: &mut Vec<u8>) -> u8 {
    out.extend_from_slice(&conn.to_le_bytes());
    out.extend_from_slice(bytes);
    kind
}

fn relay_bytes(kind: u8, payload: &[u8]) -> Result<(u32, Vec<u8>), ChannelError> {
    let (conn, bytes) = payload.split_first_chunk().ok_or_else(|| malformed(kind, "shorter than its header"))?;
    Ok((u32::from_le_bytes(*conn), bytes.to_vec()))
}

fn output_fields(seq: u64, at_ms: u64, stream: Stream, partial: bool) -> [u8; OUTPUT_FIELDS_LEN] {
    let mut fields = [0; OUTPUT_FIELDS_LEN];
    fields[..8].copy_from_slice(&seq.to_le_bytes());
    fields[8..16].copy_from_slice(&at_ms.to_le_bytes());
    fields[16] = if stream == Stream::Stderr { FLAG_STDERR } else { 0 } | if partial { FLAG_PARTIAL } else { 0 };
    fields
}

fn output(kind: u8, payload: &[u8]) -> Result<Output, ChannelError> {
    let short = || malformed(kind, "shorter than its header");
    let (seq, rest) = payload.split_first_chunk().ok_or_else(short)?;
    let (at_ms, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let (&flags, bytes) = rest.split_first().ok_or_else(short)?;
    if flags & !(FLAG_STDERR | FLAG_PARTIAL) != 0 {
        return Err(malformed(kind, "unknown flags"));
    }
    if bytes.len() > LINE_PIECE_MAX {
        return Err(malformed(kind, "a piece is longer than LINE_PIECE_MAX"));
    }
    Ok(Output {
        seq: u64::from_le_bytes(*seq),
        at_ms: u64::from_le_bytes(*at_ms),
        stream: if flags & FLAG_STDERR == 0 { Stream::Stdout } else { Stream::Stderr },
        partial: flags & FLAG_PARTIAL != 0,
        bytes: bytes.to_vec(),
    })
}
