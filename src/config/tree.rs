//! A layer as a tree whose nodes know where they stand.

use std::sync::Arc;

use toml::{Spanned, de::DeTable, de::DeValue};

use super::problem::{Place, Problem};

/// One value and where it was said.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value as it was written.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Text of a variable or a flag: what it is depends on what is asked for.
    Raw(String),
    /// A string.
    String(String),
    /// An integer that fits.
    Integer(i64),
    /// A float, or an integer that does not fit.
    Float(f64),
    /// A boolean.
    Boolean(bool),
    /// A date or a time, which no key takes.
    Datetime(String),
    /// An array.
    Array(Vec<Node>),
    /// A table.
    Table(Vec<Entry>),
}

/// One key of a table.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

/// Longest piece of a value that an error repeats: enough to recognise it.
const QUOTED_CHARS_MAX: usize = 60;

impl Value {
    /// What an error says was found.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Raw(text) | Self::String(text) => quoted(text),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Boolean(truth) => truth.to_string(),
            Self::Datetime(text) => format!("the date {text}"),
            Self::Array(_) => "an array".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }

    /// The value that is meant: text of a variable or a flag is read as TOML, and is a string when it is none.
    pub(super) fn meant(&self) -> Value {
        let Self::Raw(text) = self else { return self.clone() };
        let line = format!("v = {text}");
        let parsed = DeTable::parse(&line).ok().and_then(|table| {
            let (_, value) = table.get_ref().iter().next()?;
            let lines = Lines { name: Arc::from(""), starts: Vec::new() };
            (table.get_ref().len() == 1).then(|| lines.value(value))
        });
        parsed.unwrap_or_else(|| Self::String(text.clone()))
    }
}

/// Text in quotes, cut when it is long.
pub(super) fn quoted(text: &str) -> String {
    if text.chars().count() > QUOTED_CHARS_MAX {
        format!("{:?}...", text.chars().take(QUOTED_CHARS_MAX).collect::<String>())
    } else {
        format!("{text:?}")
    }
}

/// Reads a TOML file; all syntax errors at once.
pub(super) fn parse(name: &Arc<str>, text: &str) -> Result<Node, Vec<Problem>> {
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let lines = Lines { name: Arc::clone(name), starts };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(Node {
            place: Place::WholeFile(Arc::clone(name)),
            value: Value::Table(lines.entries(table.get_ref())),
        });
    }
    Err(errors
        .iter()
        .map(|error| Problem {
            place: lines.place(error.span().map_or(0, |span| span.start)),
            key: String::new(),
            found: format!("syntax error: {}", error.message().replace('\n', ", ")),
            rule: "allowed: TOML 1.0, see https://toml.io".to_owned(),
        })
        .collect())
}

struct Lines {
    name: Arc<str>,
    starts: Vec<usize>,
}

impl Lines {
    fn place(&self, offset: usize) -> Place {
        Place::File { name: Arc::clone(&self.name), line: self.starts.partition_point(|start| *start <= offset).max(1) }
    }

    fn entries(&self, table: &DeTable<'_>) -> Vec<Entry> {
        let mut entries: Vec<(usize, Entry)> = table
            .iter()
            .map(|(key, value)| {
                let entry = Entry {
                    key: key.get_ref().to_string(),
                    place: self.place(key.span().start),
                    node: Node { place: self.place(value.span().start), value: self.value(value) },
                };
                (key.span().start, entry)
            })
            .collect();
        entries.sort_by_key(|(at, _)| *at);
        entries.into_iter().map(|(_, entry)| entry).collect()
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> Value {
        match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(fits) => Value::Integer(fits),
                Err(_) => Value::Float(number.as_str().parse().unwrap_or(f64::INFINITY)),
            },
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(truth) => Value::Boolean(*truth),
            DeValue::Datetime(date) => Value::Datetime(date.to_string()),
            DeValue::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| Node { place: self.place(item.span().start), value: self.value(item) })
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(self.entries(table)),
        }
    }
}
