//! Problem documents (RFC 9457).

use serde::Serialize;
use utoipa::ToSchema;

/// The media type of problem documents.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Where the daemon explains its codes, each under a heading of its own.
pub const PROBLEMS_PATH: &str = "/api/v1/problems";

/// Why a request was refused.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemView<'a> {
    /// Leads to what the code means and what to do about it.
    r#type: String,
    /// The code as people write it.
    title: String,
    status: u16,
    /// What was found here, and what is allowed.
    detail: &'a str,
    /// The path that was asked for.
    instance: Option<&'a str>,
    /// Stable: scripts may rely on it.
    code: &'a str,
    /// All that is wrong with a document or with the configuration; where that is very much, the first hundred mistakes, and `detail` says how many there are.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Mistake],
}

/// One thing that is wrong with a document or with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Mistake {
    /// Where: `agent[coder].lease`; empty when it is the whole.
    pub key: String,
    /// What was found there.
    pub found: String,
    /// What is allowed, or what to do.
    pub allowed: String,
    /// File and line, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

impl<'a> ProblemView<'a> {
    /// The same with all that is wrong.
    #[must_use]
    pub fn with(self, errors: &'a [Mistake]) -> Self {
        Self { errors, ..self }
    }
}

/// Shows why a request for the path `instance` was refused.
pub fn problem<'a>(status: u16, code: &'a str, detail: &'a str, instance: Option<&'a str>) -> ProblemView<'a> {
    ProblemView {
        r#type: format!("{PROBLEMS_PATH}#{code}"),
        title: title(code),
        status,
        detail,
        instance,
        code,
        errors: &[],
    }
}

/// `not_found` as `Not found`.
fn title(code: &str) -> String {
    let words = code.replace('_', " ");
    let mut letters = words.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_problem_leads_to_its_page() {
        let shown = serde_json::to_value(problem(404, "not_found", "swarm a not found", None)).unwrap();
        assert_eq!(
            shown,
            serde_json::json!({
                "type": "/api/v1/problems#not_found", "title": "Not found", "status": 404,
                "detail": "swarm a not found", "instance": null, "code": "not_found"
            })
        );
    }
}
