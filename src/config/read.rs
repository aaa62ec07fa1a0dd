//! Readers: from a node to a value, or to what was found and what is allowed.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use super::{
    problem::Complaint,
    tree::{Node, Value, quoted},
};

type Read<T> = Result<T, Complaint>;

/// A string.
pub(super) fn text(node: &Node) -> Read<String> {
    match &node.value {
        Value::Raw(text) | Value::String(text) => Ok(text.clone()),
        other => Err(Complaint::allowed(other.describe(), "a string")),
    }
}

/// A string that parses.
pub(super) fn name<T: std::str::FromStr>(node: &Node) -> Read<T> {
    const ALLOWED: &str = "1 to 63 of a-z, 0-9 and '-', with no '-' at the ends";
    let text = text(node).map_err(|complaint| Complaint::allowed(complaint.found, ALLOWED))?;
    text.parse().map_err(|_| Complaint::allowed(quoted(&text), ALLOWED))
}

/// One of a few words.
pub(super) fn choice<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Node) -> Read<T> {
    move |node| {
        let allowed = || words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        let found = text(node).map_err(|complaint| Complaint::allowed(complaint.found, allowed()))?;
        let known = words.iter().find(|(word, _)| *word == found);
        known.map(|(_, value)| *value).ok_or_else(|| Complaint::allowed(quoted(&found), allowed()))
    }
}

/// A truth.
pub(super) fn boolean(node: &Node) -> Read<bool> {
    match node.value.meant() {
        Value::Boolean(found) => Ok(found),
        other => Err(Complaint::allowed(other.describe(), "true or false")),
    }
}

/// An integer within bounds.
pub(super) fn integer(range: RangeInclusive<i64>) -> impl Fn(&Node) -> Read<i64> {
    move |node| match node.value.meant() {
        Value::Integer(found) if range.contains(&found) => Ok(found),
        other => Err(Complaint::allowed(
            other.describe(),
            format_args!("an integer from {} to {}", range.start(), range.end()),
        )),
    }
}

/// A number within bounds.
pub(super) fn number(range: RangeInclusive<f64>) -> impl Fn(&Node) -> Read<f64> {
    move |node| {
        let meant = node.value.meant();
        let found = match meant {
            Value::Integer(found) => found as f64,
            Value::Float(found) => found,
            _ => f64::NAN,
        };
        if range.contains(&found) {
            return Ok(found);
        }
        Err(Complaint::allowed(meant.describe(), format_args!("a number from {} to {}", range.start(), range.end())))
    }
}

/// A duration with its unit, within bounds.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Node) -> Read<Duration> {
    move |node| {
        let allowed = || {
            let (from, to) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
            format!("{from} to {to} as text with a unit (ms, s, m, h, d), such as \"30s\"")
        };
        let found = text(node).map_err(|complaint| Complaint::allowed(complaint.found, allowed()))?;
        let value = humantime::parse_duration(&found).ok().filter(|value| range.contains(value));
        value.ok_or_else(|| Complaint::allowed(quoted(&found), allowed()))
    }
}

/// A size in bytes with its unit, within bounds.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&Node) -> Read<u64> {
    move |node| {
        let allowed = || {
            let (from, to) = (bytesize::ByteSize(*range.start()), bytesize::ByteSize(*range.end()));
            format!("{from} to {to} as text with a unit (KiB, MiB, GiB), such as \"16MiB\"")
        };
        let found = text(node).map_err(|complaint| Complaint::allowed(complaint.found, allowed()))?;
        let value = found.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64()).filter(|v| range.contains(v));
        value.ok_or_else(|| Complaint::allowed(quoted(&found), allowed()))
    }
}

/// An address and a port.
pub(super) fn address(node: &Node) -> Read<SocketAddr> {
    const ALLOWED: &str = "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::1]:0\"";
    let found = text(node).map_err(|complaint| Complaint::allowed(complaint.found, ALLOWED))?;
    found.parse().map_err(|_| Complaint::allowed(quoted(&found), ALLOWED))
}

/// A path, made absolute from the directory of what says it. `None` for the empty string.
pub(super) fn path(base: &Path) -> impl Fn(&Node) -> Read<Option<PathBuf>> {
    move |node| {
        let found = text(node)?;
        if found.contains('\0') {
            return Err(Complaint::allowed(quoted(&found), "a path without a NUL byte"));
        }
        Ok((!found.is_empty()).then(|| tidy(&base.join(found))))
    }
}

/// An array of strings.
pub(super) fn strings(node: &Node) -> Read<Vec<String>> {
    let meant = node.value.meant();
    let Value::Array(items) = &meant else {
        return Err(Complaint::allowed(meant.describe(), "an array of strings"));
    };
    items.iter().map(text).collect()
}

/// Names that a request's `Host` may carry.
pub(super) fn hosts(node: &Node) -> Read<Vec<String>> {
    let names = strings(node)?;
    let fits = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'))
    };
    match names.iter().find(|name| !fits(name)) {
        Some(name) => Err(Complaint::allowed(
            quoted(name),
            "host names with or without a port, such as \"hive.lan\"; no http:// and no path",
        )),
        None => Ok(names),
    }
}

/// A program and its arguments.
pub(super) fn argv(node: &Node) -> Read<Vec<String>> {
    const ALLOWED: &str =
        "an array of a program and its arguments, such as [\"my-agent\", \"--role\", \"coder\"]; no shell splits it";
    let words = match node.value.meant() {
        Value::Array(items) => items.iter().map(text).collect::<Read<Vec<String>>>(),
        other => Err(Complaint::allowed(other.describe(), "")),
    };
    let words = words.map_err(|complaint| Complaint::allowed(complaint.found, ALLOWED))?;
    match words.first() {
        None => Err(Complaint::allowed("an empty array", ALLOWED)),
        Some(program) if program.is_empty() => Err(Complaint::allowed("an empty program name", ALLOWED)),
        Some(_) => match words.iter().find(|word| word.contains('\0')) {
            Some(word) => Err(Complaint::allowed(quoted(word), "words without a NUL byte")),
            None => Ok(words),
        },
    }
}

/// The name of an environment variable that a document may set.
pub(super) fn variable_name(name: &str) -> Read<()> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Complaint::allowed(
            "a name that no variable can have",
            "names that are not empty and hold no '=' and no NUL",
        ));
    }
    if name.starts_with("HIVEKEEPER_") {
        return Err(Complaint::rule(
            "a name of ours",
            "variables that begin with HIVEKEEPER_ are set by Hivekeeper alone",
        ));
    }
    Ok(())
}

/// One environment variable.
pub(super) fn variable(name: &str, node: &Node) -> Read<String> {
    variable_name(name)?;
    match &node.value {
        Value::String(text) if !text.contains('\0') => Ok(text.clone()),
        other => Err(Complaint::allowed(
            other.describe(),
            "a string without a NUL byte, { file = \"PATH\" } or { env = \"NAME\" }",
        )),
    }
}

/// Removes `.`, so that a shown path is the short one. `..` stays: what it means depends on symbolic links.
fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|part| !matches!(part, Component::CurDir)).collect()
}
