//! The bounds of the dialer.

use std::time::Duration;

/// Polls that fail in a row before the breaker opens. One is a server that restarts, two is one that restarts slowly.
pub(super) const FAILURES_MAX: u32 = 3;
/// Longest back-off of an open breaker, unless the interval itself is longer: who mends a server sees it back within minutes.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// How much longer each back-off is than the one before.
pub(super) const BACKOFF_FACTOR: u32 = 2;
/// By how much of itself a back-off is spread either way, so that a hundred sources of one machine don't come back in step.
pub(super) const BACKOFF_JITTER: f64 = 0.25;
/// Longest line of a server: the data plane's own.
pub(super) const LINE_BYTES_MAX: usize = crate::wire::lines::LINE_BYTES_MAX;
/// Bytes at once between two questions on one connection. The longest answer eight times over, so that one may come late and broadcasts between;
/// who sends more floods us, and is left.
pub(super) const UNASKED_BYTES_MAX: usize = 8 * LINE_BYTES_MAX;
/// Bytes a second that a server may send between two questions for as long as it likes: some hundred notifications. The interval may be a day, and a
/// server that broadcasts its log all the while floods nobody.
pub(super) const UNASKED_BYTES_PER_SECOND: usize = 64 * 1024;
/// Bytes read at once.
pub(super) const READ_BYTES: usize = 8 * 1024;
/// Replies to a server's own requests that wait for it to read. Nothing more is read from it meanwhile.
pub(super) const REPLY_BYTES_HELD: usize = 64 * 1024;
/// Deepest nesting of an answer that is shown, so that it can stand inside a document which others parse to the usual depth of 128.
pub(super) const DEPTH_MAX: usize = crate::wire::rpc::DEPTH_MAX;
/// Longest answer of a tool that is shown whole, as long as an agent's `progress`: it stands in every health document.
pub(super) const ANSWER_BYTES_MAX: usize = 4 * 1024;
/// Longest `progress` of a server's agent: a thousand of them stand in one document.
pub(super) const PROGRESS_BYTES_MAX: usize = 1024;
/// Agents kept of one source: as many as a container holds, and more than the peers' limits (lessons: 50 connections, tens of agents).
pub(super) const AGENTS_MAX: usize = 1024;
/// Longest word of a server about an agent, characters: a generous sentence.
pub(super) const TEXT_CHARS_MAX: usize = 200;
/// Deepest place in an answer where a list of agents is looked for: `{ result: { swarm: { agents: [...] } } }`.
pub(super) const AGENTS_DEPTH_MAX: usize = 4;
