//! Supervision trees in the manner of OTP for unmodified actix actors.

pub mod spec;
pub use spec::{Backoff, Intensity, OnExceeded, RestartType, Strategy};
pub mod snapshot;
pub use snapshot::TreeNode;
