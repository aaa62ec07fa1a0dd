//! Specifications.
use std::time::Duration;
/// OTP's restart types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartType {
    /// always
    Permanent,
    /// unless normal
    Transient,
    /// never
    Temporary,
}
/// Who is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// only the child that ended
    OneForOne,
}
/// Window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// n
    pub max_restarts: u32,
    /// t
    pub period: Duration,
}
/// Back-off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// first
    pub initial: Duration,
    /// second
    pub then: Duration,
    /// cap
    pub max: Duration,
    /// reset
    pub reset_after: Duration,
    /// growth
    pub factor: f64,
    /// spread
    pub jitter: f64,
}
/// Exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExceeded {
    /// end
    Fail,
    /// again
    RetryAfter(Duration),
}
