//! The bounds of the data plane.

use std::time::Duration;

/// Bounds that a test may tighten; everybody else takes the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaneLimits {
    /// Connections that came in by TCP, open at a time: thrice the five thousand agents that one daemon is tested with. A session at rest holds
    /// some KiB, so a full house holds less than 200 MiB. Where the system allows fewer open files, accepting fails, waits and is counted.
    pub direct_max: usize,
    /// Of those, connections that have no session yet. Beyond, the one that has waited longest is closed for the one that comes: whoever opens at
    /// once is never the oldest, and whoever only holds places holds them as long as others don't want them.
    pub unopened_max: usize,
    /// Connections accepted a second in the long run; behind TLS at most [`HANDSHAKES_PER_SECOND`]. Five thousand agents that come back at once are in
    /// at once, and a crowd of ten thousand a second costs a fifth of a core. Beyond, it waits in the system's queue, which is bounded.
    pub accepts_per_second: u32,
    /// Connections accepted at once after a pause: a second's worth.
    pub accepts_burst: u32,
    /// Connections that launchers relay, open at a time: two for each of as many agents as there may be. Counted apart, so that a crowd on the
    /// port can't lock out what we launched.
    pub relayed_max: usize,
    /// Time from the connection to an accepted `hive/open`, however busy the peer is meanwhile. Ten seconds are long for a program that starts
    /// under load and short for somebody who only wants to hold a place.
    pub open_deadline: Duration,
    /// Time that a peer has to take what we wrote. At most 64 KiB and one answer wait, which a
    /// peer that reads at all takes at once.
    pub write_deadline: Duration,
    /// Silence after which an open session is asked by `hive/ping`, and again after as long. Twelve times the usual heartbeat interval: who keeps
    /// to the protocol is never asked.
    pub ping_after: Duration,
    /// Silence after which a session is given up. Ten pings went unanswered then; a program that blocks this long in one call connects again.
    pub silence_max: Duration,
    /// Notifications a second from one connection in the long run. A busy agent sends tens; this leaves room for one that
    /// hands in its whole log.
    pub notifications_per_second: u32,
    /// Notifications at once: two seconds' worth, so that a reconnecting agent can hand in what it saved up.
    pub notifications_burst: u32,
    /// Notifications a second from all connections together: more than twice what five thousand agents send with a heartbeat and twenty log
    /// lines a second each, and a third of what two cores were measured to take. Beyond, samples and the oldest log records of each read are let go
    /// and counted.
    pub total_per_second: u32,
    /// Notifications of all at once: a second's worth.
    pub total_burst: u32,
}

impl Default for PlaneLimits {
    fn default() -> Self {
        Self {
            direct_max: 16 * 1024,
            unopened_max: 1024,
            accepts_per_second: 10_000,
            accepts_burst: 10_000,
            relayed_max: 16 * 1024,
            open_deadline: Duration::from_secs(10),
            write_deadline: Duration::from_secs(10),
            ping_after: Duration::from_secs(60),
            silence_max: Duration::from_secs(600),
            notifications_per_second: 10_000,
            notifications_burst: 20_000,
            total_per_second: 250_000,
            total_burst: 250_000,
        }
    }
}

/// How often a heartbeat is wanted of an agent whose document says nothing: a third of the default `heartbeat_timeout` of 15 s, so that one late
/// and one lost beat don't make it `degraded`.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Longest line before `hive/open`: an unknown peer must not make us hold a megabyte, and an open with any sensible capabilities is far shorter.
pub(super) const LINE_BYTES_MAX_UNOPENED: usize = 64 * 1024;
/// Calls of tools that may be without an answer at a time in one session. An agent that does several things at once waits for one lock or message with
/// each; this is several times that, and bounds what one connection can make us hold.
pub(super) const CALLS_MAX: usize = 32;
/// Longest `progress`: it stands in every health document of the agent.
pub(super) const PROGRESS_BYTES_MAX: usize = 4 * 1024;
/// Longest attributes of one metric, and longest `hive/usage`: dozens of attributes.
pub(super) const ATTRIBUTES_BYTES_MAX: usize = 16 * 1024;
/// Longest `hive/event`: a note, as long as a `progress`. Thousands of them are held in memory and a hundred thousand in the journal, so this
/// bounds both, at some 16 MiB and 400 MiB.
pub(super) const EVENT_BYTES_MAX: usize = 4 * 1024;
/// Longest name of a metric, an event, a unit or a stream: a generous identifier.
pub(super) const NAME_BYTES_MAX: usize = 256;
/// Longest piece of a `hive/log` line in one record, like the launcher's pieces of output; a longer line becomes several records.
pub(super) const LOG_PIECE_MAX: usize = crate::wire::channel::LINE_PIECE_MAX;
/// Bytes read at once from one connection: hundreds of usual notifications in one batch, and less than half a millisecond's work. A buffer is held
/// only while there is something in it.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// Connections that the system may keep waiting until we accept them: what it allows by default (net.core.somaxconn).
pub(super) const BACKLOG_MAX: i32 = 4096;
/// Connections behind TLS accepted a second: a handshake costs some hundred microseconds of the one thread that all sessions share.
pub(super) const HANDSHAKES_PER_SECOND: u32 = 2_000;
/// Answers that are gathered before they are written out and no further line is taken: bounds what a peer can make us hold.
pub(super) const ANSWER_BYTES_HELD: usize = 64 * 1024;
/// Orders that wait for one connection: each of them once.
pub(super) const ORDERS_MAX: usize = 3;
/// Sessions of one agent at a time: a program has one, one that forks some, and each that was lost without our knowing may be open for
/// [`PlaneLimits::silence_max`]. Each may hold a line of a MiB that does not end.
pub(super) const SESSIONS_PER_AGENT_MAX: usize = 16;
/// How long we read what an incarnation wrote before it ended: its connections end with it, so this is for those that somebody else holds open.
pub(super) const LAST_WORDS_WAIT: Duration = Duration::from_millis(500);
/// Relayed connections that wait for the listener, while it is restarted: every agent of a large swarm may reconnect at once.
pub(super) const RELAYS_WAITING_MAX: usize = 1024;
/// How long, and for how many bytes, we read on after our last word, so that the peer's system does not throw that word away for unread data.
pub(super) const LINGER: Duration = Duration::from_millis(500);
/// See [`LINGER`].
pub(super) const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pause after a failed accept: it fails for lack of descriptors or memory, and trying at once would spin.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two messages about failed accepts: while it lasts there are ten a second, and each says the same.
pub(super) const FAILURES_TOLD_EVERY: Duration = Duration::from_secs(60);
/// How long a shutdown waits for connections that were told to close.
pub(super) const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
