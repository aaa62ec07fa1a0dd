//! What is wrong with a configuration: where, which key, what was found and what is allowed.

use std::{fmt, sync::Arc};

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of a file, counted from 1.
    File {
        /// Its path as the user knows it.
        name: Arc<str>,
        /// The line.
        line: usize,
    },
    /// A file as a whole.
    WholeFile(Arc<str>),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// A document that was sent to the API.
    Document,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::WholeFile(name) => f.write_str(name),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Document => f.write_str("document"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The key, `http.bind` or `swarm[review].agent[coder].lease`; empty when it is the file as a whole.
    pub key: String,
    /// What was found there.
    pub found: String,
    /// What is allowed, or what to do.
    pub rule: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, key, found, rule } = self;
        match key.as_str() {
            "" => write!(f, "{place}: {found}; {rule}"),
            key => write!(f, "{place}: {key}: found {found}; {rule}"),
        }
    }
}

/// What a reader complains about, before it is known which key it reads.
#[derive(Debug)]
pub(super) struct Complaint {
    /// What was found.
    pub(super) found: String,
    /// What is allowed.
    pub(super) rule: String,
}

impl Complaint {
    /// `found X; allowed: Y`.
    pub(super) fn allowed(found: impl Into<String>, allowed: impl fmt::Display) -> Self {
        Self { found: found.into(), rule: format!("allowed: {allowed}") }
    }

    /// `found X; RULE`.
    pub(super) fn rule(found: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { found: found.into(), rule: rule.into() }
    }

    pub(super) fn at(self, place: Place, key: String) -> Problem {
        Problem { place, key, found: self.found, rule: self.rule }
    }
}

/// All that is wrong, in the order of the places. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        Self(problems)
    }

    /// Each of them.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    /// A line for each problem, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
