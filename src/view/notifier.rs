//! Those who are told when something is wrong.

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::{NotifierStatus, SwarmName, Topic};

/// How telling goes with one notifier. Where its messages go is not shown: an address may be a secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Notifier)]
pub struct NotifierView<'a> {
    name: &'a str,
    kind: &'static str,
    on: Vec<&'static str>,
    swarms: Vec<&'a str>,
    delivered: u64,
    summed_up: u64,
    lost: u64,
    failed_attempts: u64,
    waiting: u64,
    trouble: Option<&'a str>,
}

/// Shows a notifier.
pub fn notifier(status: &NotifierStatus) -> NotifierView<'_> {
    NotifierView {
        name: status.name.as_str(),
        kind: status.kind,
        on: status.on.iter().map(|topic| Topic::word(*topic)).collect(),
        swarms: status.swarms.iter().map(SwarmName::as_str).collect(),
        delivered: status.delivered,
        summed_up: status.summed_up,
        lost: status.lost,
        failed_attempts: status.failed_attempts,
        waiting: status.waiting,
        trouble: status.trouble.as_deref(),
    }
}
