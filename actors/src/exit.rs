//! Why an incarnation ended.

use std::fmt;
use std::sync::Arc;

use crate::spec::ChildId;

/// Why an incarnation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// It stopped itself.
    Normal,
    /// It stopped because its supervisor asked for it.
    Shutdown,
    /// It panicked.
    Panic {
        /// What the panic said.
        text: Arc<str>,
        /// Where: `file:line:column`.
        location: Arc<str>,
    },
    /// It failed without a panic, see [`ChildCtx::fail`](crate::ChildCtx::fail).
    Error(Arc<str>),
    /// Through no fault of its own: what it lived on is gone, see [`ChildCtx::lose`](crate::ChildCtx::lose). Abnormal, so that the restart
    /// type decides as after any failure; but the restart debits nobody: it is due at once, it is not counted, it spends no intensity, and the
    /// back-off stays where it stood.
    Lost(Arc<str>),
    /// Its factory returned an error.
    StartFailed(Arc<str>),
    /// It was not ready within its start timeout.
    StartTimeout,
    /// It was dropped without being asked first.
    Killed,
    /// It was asked to stop, outlived its deadline and was dropped.
    DeadlineExceeded,
    /// The thread it lived on ended.
    ArbiterGone,
    /// A handler blocked its thread for too long. The incarnation was fenced: it handles no further message, and its thread is leaked until the
    /// handler returns.
    Stuck,
    /// Its inbox was full, and [`Overflow::Stop`](crate::Overflow::Stop) says that it ends then.
    Overflow,
    /// Its factory declined to make it ([`Ignore`](crate::Ignore), OTP `ignore`). That is no failure.
    Ignored,
    /// A supervisor whose children needed more restarts than its intensity allows. Abnormal, unlike OTP's `shutdown`: a transient supervisor
    /// that gives up is restarted.
    GaveUp {
        /// The child that failed once too often.
        child: ChildId,
        /// How that child ended.
        reason: Arc<ExitReason>,
    },
}

impl ExitReason {
    /// Whether a transient child is done after this exit.
    #[must_use]
    pub fn is_normal(&self) -> bool {
        matches!(self, Self::Normal | Self::Shutdown | Self::Ignored)
    }

    /// Whether a restart after this exit spends intensity and advances the back-off.
    #[must_use]
    pub fn is_debited(&self) -> bool {
        !matches!(self, Self::Lost(_))
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("normal exit"),
            Self::Shutdown => f.write_str("stopped on request"),
            Self::Panic { text, location } => write!(f, "panic at {location}: {text}"),
            Self::Error(text) => write!(f, "failed: {text}"),
            Self::Lost(text) => write!(f, "lost: {text}"),
            Self::StartFailed(text) => write!(f, "start failed: {text}"),
            Self::StartTimeout => f.write_str("not ready within its start timeout"),
            Self::Killed => f.write_str("killed"),
            Self::DeadlineExceeded => f.write_str("killed after its stop deadline"),
            Self::ArbiterGone => f.write_str("its thread ended"),
            Self::Stuck => f.write_str("stuck: a handler blocked its thread"),
            Self::Overflow => f.write_str("its inbox overflowed"),
            Self::Ignored => f.write_str("not wanted"),
            Self::GaveUp { child, reason } => write!(f, "gave up after child `{child}`: {reason}"),
        }
    }
}

impl std::error::Error for ExitReason {}
