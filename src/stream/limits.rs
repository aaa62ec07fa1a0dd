//! The numbers of the room.

use std::time::Duration;

/// How much a viewer may cost and how long it may keep us waiting. Only tests use anything but the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Viewers at a time; more are answered 503. Each costs a connection, two file descriptors and its buffers.
    pub viewers_max: usize,
    /// Between two pings.
    pub ping_interval: Duration,
    /// How long a pong may take. With the interval it stays half a second below the 15 s within which a viewer that stops reading or falls
    /// silent is dropped: that much is left for a busy machine.
    pub answer_within: Duration,
    /// Longest message of a client; a longer one ends the connection with 1009. Subscriptions to a thousand swarms fit.
    pub frame_bytes_max: usize,
    /// Between two `performance_update`s.
    pub performance_interval: Duration,
    /// Between two `status_update`s that a client asked for; they are whole documents. What is asked in between is answered once.
    pub status_interval: Duration,
    /// How long a connection may take to end by itself after its close frame.
    pub linger: Duration,
    /// The kernel's send buffer of a viewer's socket, bytes (Linux doubles it). Linux alone would let it grow to megabytes.
    pub send_buffer_bytes: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            viewers_max: 256,
            ping_interval: Duration::from_secs(5),
            answer_within: Duration::from_millis(9_500),
            frame_bytes_max: 64 * 1024,
            performance_interval: Duration::from_secs(1),
            status_interval: Duration::from_millis(100),
            linger: Duration::from_secs(1),
            send_buffer_bytes: 128 * 1024,
        }
    }
}
