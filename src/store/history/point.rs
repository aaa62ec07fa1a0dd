//! What is asked of the history, and what it answers.

use std::time::{Duration, SystemTime};

use crate::model::Target;

/// How far one point reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// Ten seconds: two readings of a launcher at its default interval.
    TenSeconds,
    /// A minute.
    Minute,
    /// Ten minutes.
    TenMinutes,
}

impl Resolution {
    /// Finest first.
    pub const ALL: [Self; 3] = [Self::TenSeconds, Self::Minute, Self::TenMinutes];

    /// How long a point is, in seconds. Each divides the next, so that coarse points are sums of fine ones.
    pub fn span_s(self) -> u64 {
        match self {
            Self::TenSeconds => 10,
            Self::Minute => 60,
            Self::TenMinutes => 600,
        }
    }

    /// How long points are kept: 360, 360 and 144 of them, which is what a chart across a screen can show.
    pub fn kept(self) -> Duration {
        const HOUR_S: u64 = 60 * 60;
        Duration::from_secs(match self {
            Self::TenSeconds => HOUR_S,
            Self::Minute => 6 * HOUR_S,
            Self::TenMinutes => 24 * HOUR_S,
        })
    }

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::TenSeconds => "10s",
            Self::Minute => "1m",
            Self::TenMinutes => "10m",
        }
    }

    /// The finest whose points reach back so far, up to one; the coarsest when none does.
    pub fn reaching(age: Duration) -> Self {
        Self::ALL
            .into_iter()
            .find(|resolution| resolution.kept() + Duration::from_secs(resolution.span_s()) > age)
            .unwrap_or(Self::TenMinutes)
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Of whom.
    pub of: Target,
    /// From when; what is kept no longer is left out.
    pub since: SystemTime,
    /// Until when; the future is left out.
    pub until: SystemTime,
    /// `None` takes the finest that reaches back to `since`.
    pub resolution: Option<Resolution>,
}

/// What is answered: one point for each span of time that touches the range, oldest first, whether anything was measured in it or not.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPage {
    /// How long each point is.
    pub resolution: Resolution,
    /// Where the first point begins; `until` when there is none.
    pub since: SystemTime,
    /// The end of the range.
    pub until: SystemTime,
    /// The points.
    pub points: Vec<Point>,
}

/// What was measured within one span of time. `None` where nothing was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When it begins.
    pub at: SystemTime,
    /// Cores in use. Of a swarm: of all its agents that showed a value together.
    pub cpu: Option<Spread>,
    /// Bytes of memory. Of a swarm: of all its agents that showed a value together.
    pub memory: Option<Spread>,
    /// By how much the latest heartbeat came late, ms. Of a swarm: that of the latest of its agents.
    pub heartbeat_latency_ms_max: Option<u64>,
    /// Tokens used. Nothing also where a part of the span went by unseen.
    pub tokens: Tokens,
    /// Automatic restarts. `None` also where a part of the span went by unseen.
    pub restarts: Option<u64>,
}

/// Mean and largest of the readings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Their mean, each counted once.
    pub mean: f64,
    /// The largest.
    pub max: f64,
}

/// Tokens that a model took and gave; `None` of what nobody told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Taken.
    pub input: Option<u64>,
    /// Given.
    pub output: Option<u64>,
}
