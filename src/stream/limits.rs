//! The numbers of the room.

use std::time::Duration;

/// Frames that are made before they are written: as many bytes as the server buffers for a connection, so that a write is worth its call.
pub(super) const BATCH_BYTES: usize = 32 * 1024;

/// How many of the open files that the system allows us each may be a viewer's: a viewer holds two, so that viewers take a quarter at most and
/// agents, which need three each at most, keep the rest.
const FILES_PER_VIEWER: u64 = 8;

/// How much a viewer may cost and how long it may keep us waiting. Only tests use anything but the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Viewers at a time, of both protocols; more are answered 503. Each costs a connection, two file descriptors and some 20 KiB while it reads.
    /// One that does not read holds a batch that is made and two in the connection's buffer until it is dropped, and its kernel 256 KiB: 2048 of
    /// them are 200 MiB, and 512 in the kernel. What is longer than a batch, as the document of a large hive is, they share: it lies there once for
    /// all who were sent the same one.
    pub viewers_max: usize,
    /// Between two pings.
    pub ping_interval: Duration,
    /// How long a pong may take. With the interval it stays a second and a half below the 15 s within which a viewer that stops reading or falls
    /// silent is dropped: that much is left for a busy machine, and for the second between two counts that viewers are told.
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
    /// Bytes of all different long texts that viewers have not read yet. Beyond, those who hold the oldest are dropped: they stalled while others
    /// were told as much. 64 MiB are fifteen documents of five thousand agents.
    pub unread_bytes_max: usize,
}

impl StreamLimits {
    /// The default, on a machine that allows us so many open files.
    pub fn with_open_files(files: u64) -> Self {
        let limits = Self::default();
        let fitting = usize::try_from(files / FILES_PER_VIEWER).unwrap_or(usize::MAX);
        Self { viewers_max: limits.viewers_max.min(fitting), ..limits }
    }
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            viewers_max: 2048,
            ping_interval: Duration::from_secs(5),
            answer_within: Duration::from_millis(8_500),
            frame_bytes_max: 64 * 1024,
            performance_interval: Duration::from_secs(1),
            status_interval: Duration::from_millis(100),
            linger: Duration::from_secs(1),
            send_buffer_bytes: 128 * 1024,
            unread_bytes_max: 64 * 1024 * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_take_a_quarter_of_the_open_files_at_most() {
        let most = StreamLimits::default().viewers_max;
        for (files, viewers) in [(1024, 128), (8 * 2048, 2048), (u64::MAX, most), (0, 0)] {
            assert_eq!(StreamLimits::with_open_files(files).viewers_max, viewers, "{files} open files");
        }
    }
}
