//! Words, ids and JSON in the words of others, as they are written and read on every door.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Value, value::RawValue};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema, SchemaFormat,
        schema::{Type, empty},
    },
};

use crate::{
    model::{AttemptEnd, LockId, LockMode, MessageId, OnDependencyFailure, Priority, TaskId, TaskState},
    view::health,
};

/// Levels of arrays and objects within each other, in what others say: half of what common readers of JSON bear, because documents lie in documents.
const DEPTH_MAX: usize = 64;

/// A closed set of words.
pub trait Words: Copy + 'static {
    /// Its name as a schema.
    const NAME: &'static str;
    /// All of it.
    const ALL: &'static [Self];
    /// The word.
    fn text(self) -> &'static str;
}

macro_rules! words {
    ($($type:ty, $name:literal;)+) => {
        $(
            impl Words for $type {
                const NAME: &'static str = $name;
                const ALL: &'static [Self] = &<$type>::ALL;
                fn text(self) -> &'static str {
                    self.word()
                }
            }
        )+
    };
}

words! {
    Priority, "Priority";
    TaskState, "TaskState";
    AttemptEnd, "AttemptEnd";
    LockMode, "LockMode";
    OnDependencyFailure, "OnDependencyFailure";
}

/// One of a closed set of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<T>(pub T);

/// How urgent.
pub type PriorityWord = Word<Priority>;
/// Where a task stands.
pub type TaskStateWord = Word<TaskState>;
/// How a claim ended.
pub type AttemptEndWord = Word<AttemptEnd>;
/// What a lock allows.
pub type LockModeWord = Word<LockMode>;
/// What becomes of those who depend on a task that fails.
pub type OnDependencyFailureWord = Word<OnDependencyFailure>;

impl<T: Words> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.text())
    }
}

impl<'de, T: Words> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        let known = T::ALL.iter().find(|one| one.text() == text);
        known.map(|one| Self(*one)).ok_or_else(|| {
            let all: Vec<&str> = T::ALL.iter().map(|one| one.text()).collect();
            de::Error::invalid_value(de::Unexpected::Str(&text), &Expected(format!("one of {}", all.join(", "))))
        })
    }
}

impl<T: Words> PartialSchema for Word<T> {
    fn schema() -> RefOr<Schema> {
        let all: Vec<&str> = T::ALL.iter().map(|one| one.text()).collect();
        RefOr::T(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(all)).into())
    }
}

impl<T: Words> ToSchema for Word<T> {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed(T::NAME)
    }
}

/// An id that the daemon has minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id<T>(pub T);

/// The id of a task.
pub type TaskIdText = Id<TaskId>;
/// The id of a lock.
pub type LockIdText = Id<LockId>;
/// The id of a message.
pub type MessageIdText = Id<MessageId>;

impl<T: fmt::Display> Serialize for Id<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Id<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        text.parse()
            .map(Self)
            .map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &"an id, which is a UUID"))
    }
}

impl<T> PartialSchema for Id<T> {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::Custom("uuid".to_owned());
        RefOr::T(ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into())
    }
}

impl<T> ToSchema for Id<T> {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Id")
    }
}

/// Any JSON value, as somebody has written it, without the blanks between its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(pub Arc<str>);

impl Json {
    /// `null`.
    pub fn null() -> Self {
        Self(Arc::from("null"))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        health::json_or_text(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <Box<RawValue>>::deserialize(deserializer)?;
        let (text, depth) = tight(raw.get());
        if depth > DEPTH_MAX {
            let found = de::Unexpected::Other("JSON of too many levels");
            return Err(de::Error::invalid_value(found, &Expected(format!("at most {DEPTH_MAX} levels"))));
        }
        // Half of a surrogate pair or a number beyond all bounds can be written, and nobody could read the document in which it lies.
        serde_json::from_str::<Value>(&text).map_err(|error| {
            // The place is one in this text alone.
            let error = error.to_string();
            let why = error.split(" at line ").next().unwrap_or_default();
            de::Error::custom(format!("JSON that can't be read ({why}), expected a JSON value"))
        })?;
        Ok(Self(text.into()))
    }
}

impl PartialSchema for Json {
    fn schema() -> RefOr<Schema> {
        RefOr::T(empty())
    }
}

impl ToSchema for Json {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Anything")
    }
}

/// JSON without the blanks between its parts, for it goes into lines; and its levels.
fn tight(json: &str) -> (String, usize) {
    let (mut text, mut depth, mut deepest) = (String::with_capacity(json.len()), 0_usize, 0);
    let (mut quoted, mut escaped) = (false, false);
    for c in json.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            ' ' | '\t' | '\n' | '\r' => continue,
            '[' | '{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        text.push(c);
    }
    (text, deepest)
}

/// What was expected, as text.
struct Expected(String);

impl de::Expected for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn json_of_others_stays_as_it_was_written_save_for_the_blanks() {
        let read = |text: &str| serde_json::from_str::<Json>(text).map(|json| json.0.to_string());
        assert_eq!(
            read("{ \"b\" : [ 1.50 ,\n 12345678901234567890123 ],\t\"a\": \"x \\\" y\" }").unwrap(),
            r#"{"b":[1.50,12345678901234567890123],"a":"x \" y"}"#
        );
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(&deep(DEPTH_MAX)).is_ok());
        assert!(read(&deep(DEPTH_MAX + 1)).unwrap_err().to_string().contains("expected at most 64 levels"));
        for unreadable in [r#""\ud800""#, "1e999"] {
            assert!(read(unreadable).unwrap_err().to_string().contains("expected a JSON value"), "{unreadable}");
        }
    }

    #[test]
    fn a_word_that_is_none_is_told_with_those_that_are() {
        let error = serde_json::from_str::<Word<Priority>>("\"urgent\"").unwrap_err().to_string();
        assert!(error.contains("\"urgent\", expected one of critical, high, normal, low"), "{error}");
        assert_eq!(serde_json::to_string(&Word(Priority::High)).unwrap(), "\"high\"");
    }
}
