//! What reconciliation has found.

use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

use super::words::one_of;
use crate::model::{Fate, Finding, FindingKind};

/// The answer to a request for a pass.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Findings)]
pub struct FindingsView<'a> {
    dry_run: bool,
    findings: Vec<FindingView<'a>>,
}

/// One thing that should not be there: `fate` is `removed`, `removable` (a dry run), `waits` (for `removed_in_ms`), `reported` (another hive's) or
/// `failed` (with `error`).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Finding)]
struct FindingView<'a> {
    #[schema(schema_with = kinds)]
    kind: &'static str,
    name: &'a str,
    swarm: Option<String>,
    why: &'static str,
    #[schema(schema_with = fates)]
    fate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed_in_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Shows them.
pub fn findings(dry_run: bool, found: &[Finding]) -> FindingsView<'_> {
    FindingsView { dry_run, findings: found.iter().map(finding).collect() }
}

fn finding(found: &Finding) -> FindingView<'_> {
    let (fate, removed_in_ms, error) = match &found.fate {
        Fate::Removed => ("removed", None, None),
        Fate::Removable => ("removable", None, None),
        Fate::Waits(left) => ("waits", Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)), None),
        Fate::Reported => ("reported", None, None),
        Fate::Failed(why) => ("failed", None, Some(why.as_str())),
    };
    let kind = match found.kind {
        FindingKind::Container => "container",
        FindingKind::Network => "network",
        FindingKind::Launch => "launch",
    };
    let swarm = found.swarm.as_ref().map(ToString::to_string);
    FindingView { kind, name: &found.name, swarm, why: found.why, fate, removed_in_ms, error }
}

fn kinds() -> RefOr<Schema> {
    one_of("What it is.", &["container", "network", "launch"])
}

fn fates() -> RefOr<Schema> {
    one_of("What becomes of it.", &["removed", "removable", "waits", "reported", "failed"])
}
