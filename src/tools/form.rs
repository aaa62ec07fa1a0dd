//! How arguments are read, and what is said of those that can't be.

use std::{cell::Cell, collections::BTreeMap, time::Duration};

use serde::de::{DeserializeOwned, value::MapDeserializer};
use serde_json::value::RawValue;

use super::error::ToolError;

/// Arguments by name, each as it was written.
pub(super) type Arguments = BTreeMap<String, Box<RawValue>>;

/// How much of what was found is said back.
const FOUND_CHARS_MAX: usize = 200;

/// Reads the members of an object.
///
/// # Errors
/// It is none.
pub(super) fn members(place: &str, text: &str) -> Result<Arguments, ToolError> {
    serde_json::from_str(text).map_err(|error| unreadable(place, &error))
}

/// Reads what is the tool's own of the arguments. Null is as good as nothing: many clients say every name.
///
/// # Errors
/// What is wrong with them.
pub(super) fn form<T: DeserializeOwned>(arguments: &Arguments) -> Result<T, ToolError> {
    form_at("", arguments)
}

/// Reads an object in a list of objects.
///
/// # Errors
/// What is wrong with it, by its place.
pub(super) fn item<T: DeserializeOwned>(list: &str, at: usize, text: &RawValue) -> Result<T, ToolError> {
    let place = format!("{list}[{at}]");
    form_at(&format!("{place}."), &members(&place, text.get())?)
}

fn form_at<T: DeserializeOwned>(before: &str, arguments: &Arguments) -> Result<T, ToolError> {
    let at = Cell::new("");
    let said = arguments.iter().filter(|(_, text)| text.get() != "null");
    let said = said.inspect(|(name, _)| at.set(name)).map(|(name, text)| (name.as_str(), &**text));
    // Behind the last one, what is missed is at none of them.
    let said = said.chain(std::iter::from_fn(|| {
        at.set("");
        None
    }));
    T::deserialize(MapDeserializer::new(said)).map_err(|error| unreadable(&format!("{before}{}", at.get()), &error))
}

/// What was found and what is allowed, from the one sentence in which the reader says both.
fn unreadable(place: &str, error: &serde_json::Error) -> ToolError {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    if let Some(name) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return wrong(&format!("{place}{name}"), "nothing", "a value, for it is needed");
    }
    let text =
        ["invalid type: ", "invalid value: "].iter().find_map(|before| text.strip_prefix(before)).unwrap_or(text);
    let (found, allowed) = text.rsplit_once(", expected ").unwrap_or((text, "what the schema of the tool says"));
    let place = if place.is_empty() { "arguments" } else { place };
    wrong(place, plain(found).chars().take(FOUND_CHARS_MAX).collect::<String>(), plain(allowed))
}

/// The reader's words for a kind of value, in those of JSON.
fn plain(kind: &str) -> &str {
    match kind {
        "map" | "a map" => "an object",
        "sequence" | "a sequence" => "a list",
        "u8" => "a whole number from 0 to 255",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0 to 18446744073709551615",
        other => other,
    }
}

pub(super) fn wrong(key: &str, found: impl ToString, allowed: impl ToString) -> ToolError {
    ToolError::Arguments { key: key.to_owned(), found: found.to_string(), allowed: allowed.to_string() }
}

/// A number from one bound to another.
///
/// # Errors
/// It is beyond them.
pub(super) fn within<N: PartialOrd + Copy + std::fmt::Display>(
    key: &str,
    found: N,
    min: N,
    max: N,
) -> Result<N, ToolError> {
    if found < min || found > max {
        return Err(wrong(key, found, format!("{min} to {max}")));
    }
    Ok(found)
}

/// A time in milliseconds of at most so many.
///
/// # Errors
/// It is longer.
pub(super) fn time(key: &str, found_ms: u64, max: Duration) -> Result<Duration, ToolError> {
    let max_ms = u64::try_from(max.as_millis()).unwrap_or(u64::MAX);
    within(key, found_ms, 0, max_ms).map(Duration::from_millis)
}
