//! The usual notifications, read in one pass. A notification in the usual form is `jsonrpc`, `method` and `params`, the method before the parameters;
//! anything else, and anything wrong, is left to [`parse`](super::parse), which also knows what is wrong.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    message::shallow,
    params::{Heartbeat, Log, Metric},
};

/// A notification in the usual form.
#[derive(Debug)]
pub enum Told<'a> {
    /// `hive/heartbeat`.
    Heartbeat(Heartbeat<'a>),
    /// `hive/log`.
    Log(Log<'a>),
    /// `hive/metric`.
    Metric(Metric<'a>),
}

/// Reads a line that is a usual notification. `None` for any other line: it has to be parsed.
pub fn told(line: &[u8]) -> Option<Told<'_>> {
    if !shallow(line) {
        return None;
    }
    let text = std::str::from_utf8(line).ok()?;
    if let Some(told) = tight(text) {
        return Some(told);
    }
    serde_json::from_str::<Usual<'_>>(text).ok().map(|usual| usual.0)
}

/// The form that programs write which put no spaces between members: what is before the parameters is compared, not read.
fn tight(text: &str) -> Option<Told<'_>> {
    let rest = text.strip_prefix(r#"{"jsonrpc":"2.0","method":"hive/"#)?.strip_suffix('}')?;
    // Each reads all of what it is given, so what was left out on both sides is the whole envelope.
    if let Some(params) = rest.strip_prefix(r#"log","params":"#) {
        serde_json::from_str::<ByName<Log<'_>>>(params).ok().map(|params| Told::Log(params.0))
    } else if let Some(params) = rest.strip_prefix(r#"heartbeat","params":"#) {
        serde_json::from_str::<ByName<Heartbeat<'_>>>(params).ok().map(|params| Told::Heartbeat(params.0))
    } else if let Some(params) = rest.strip_prefix(r#"metric","params":"#) {
        serde_json::from_str::<ByName<Metric<'_>>>(params).ok().map(|params| Told::Metric(params.0))
    } else {
        None
    }
}

struct Usual<'a>(Told<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Usual<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Envelope(PhantomData)).map(Self)
    }
}

struct Envelope<'a>(PhantomData<Told<'a>>);

impl<'de: 'a, 'a> Visitor<'de> for Envelope<'a> {
    type Value = Told<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a usual notification")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Told<'a>, M::Error> {
        let (mut version, mut method, mut told) = (None, None, None);
        while let Some(key) = map.next_key::<&'de str>()? {
            match key {
                "jsonrpc" if version.is_none() => version = Some(map.next_value::<&'de str>()?),
                "method" if method.is_none() => method = Some(map.next_value::<&'de str>()?),
                "params" if told.is_none() => {
                    told = Some(match method {
                        Some("hive/log") => Told::Log(map.next_value::<ByName<Log<'a>>>()?.0),
                        Some("hive/heartbeat") => Told::Heartbeat(map.next_value::<ByName<Heartbeat<'a>>>()?.0),
                        Some("hive/metric") => Told::Metric(map.next_value::<ByName<Metric<'a>>>()?.0),
                        _ => return Err(M::Error::custom("not usual")),
                    });
                }
                _ => return Err(M::Error::custom("not usual")),
            }
        }
        told.filter(|_| version == Some("2.0")).ok_or_else(|| M::Error::custom("not usual"))
    }
}

/// Parameters from an object; a derived reader would take them from an array, too.
struct ByName<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ByName<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        from.deserialize_map(Object(PhantomData)).map(ByName)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::rpc::{Message, object, parse};

    /// The same line by the other way, if it is a notification of one of the three.
    fn parsed(line: &[u8]) -> Option<String> {
        let Ok(Message::Notification { method, params }) = parse(line) else { return None };
        match &*method {
            "hive/heartbeat" => Some(format!("{:?}", Told::Heartbeat(object(params).ok()?))),
            "hive/log" => Some(format!("{:?}", Told::Log(object(params).ok()?))),
            "hive/metric" => Some(format!("{:?}", Told::Metric(object(params).ok()?))),
            _ => None,
        }
    }

    #[test]
    fn the_usual_form_is_read() {
        for line in [
            r#"{"jsonrpc":"2.0","method":"hive/heartbeat","params":{}}"#,
            r#"{"jsonrpc": "2.0", "method": "hive/heartbeat", "params": {"busy": false}}"#,
            r#"{"jsonrpc":"2.0","method":"hive/log","params":{"line":"}"} }"#,
            r#" {"method":"hive/heartbeat", "jsonrpc":"2.0", "params":{"progress":[{"a":null}],"busy":true,"x":1}} "#,
            r#"{"jsonrpc":"2.0","method":"hive/log","params":{"level":"warn","line":"a\nb","stream":"s","at":"t"}}"#,
            r#"{"jsonrpc":"2.0","method":"hive/metric","params":{"name":"n","value":1,"attributes":{}}}"#,
        ] {
            let told = told(line.as_bytes()).unwrap();
            assert_eq!(Some(format!("{told:?}")), parsed(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn everything_else_is_left_to_the_parser() {
        let deep = format!(
            r#"{{"jsonrpc":"2.0","method":"hive/heartbeat","params":{{"progress":{}1{}}}}}"#,
            "[".repeat(100),
            "]".repeat(100)
        );
        for line in [
            r#"{"jsonrpc":"2.0","method":"hive/log","params":["x"]}"#,
            r#"{"jsonrpc":"2.0","method":"hive/log","params":{"line":"x"},"id":1}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"hive/log","params":{"line":"x"}}"#,
            r#"{"jsonrpc":"2.0","method":"hive/log","params":{"line":"x"},"params":{"line":"x"}}"#,
            r#"{"jsonrpc":"1.0","method":"hive/log","params":{"line":"x"}}"#,
            r#"{"method":"hive/log","params":{"line":"x"}}"#,
            r#"{"jsonrpc":"2.0","params":{"line":"x"},"method":"hive/log"}"#,
            r#"{"jsonrpc":"2.0","method":"hive/log","params":{}}"#,
            r#"{"jsonrpc":"2.0","method":"hive/log","params":null}"#,
            r#"{"jsonrpc":"2.0","method":"hive/heartbeat"}"#,
            r#"{"jsonrpc":"2.0","method":"hive/log","params":{"line":"x"}} {}"#,
            r#"{"jsonrpc":"2.0","method":"hive/log","params":{"line":"x"},"id":{}}"#,
            r#"{"jsonrpc":"2.0","method":"hive/log","params":{"line":"x"}"#,
            r#"{"jsonrpc":"2.0","method":"hive/log","params":}"#,
            r#"["2.0","hive/log",{"line":"x"}]"#,
            &deep,
            "hello",
            "",
        ] {
            assert!(told(line.as_bytes()).is_none(), "{line}");
        }
        assert!(told(b"{\"jsonrpc\":\"2.0\",\"method\":\"hive/log\",\"params\":{\"line\":\"\xff\"}}").is_none());
    }

    proptest! {
        /// What is read in one pass is what the parser reads in two.
        #[test]
        fn one_pass_reads_what_two_passes_read(
            parts in proptest::collection::vec(prop_oneof![
                Just(r#""jsonrpc":"2.0""#), Just(r#""jsonrpc":"2""#), Just(r#""method":"hive/log""#), Just(r#""method":"hive/heartbeat""#),
                Just(r#""method":"hive/metric""#), Just(r#""method":"hive/event""#), Just(r#""params":{"line":"x","level":null}"#),
                Just(r#""params":{"line":"\u00e4\ud800"}"#), Just(r#""params":{"progress":1e999}"#), Just(r#""params":{"busy":1}"#),
                Just(r#""params":{"name":"n","value":-0.5,"unit":"s"}"#), Just(r#""params":[]"#), Just(r#""params":null"#), Just(r#""id":1"#),
                Just(r#""params":{"progress":{"a":[]},"progress":2}"#), Just(r#""\u006dethod":"hive/log""#), Just(r#""x":[]"#),
            ], 2..5),
            end in prop_oneof![8 => Just("}"), 1 => Just(""), 1 => Just("} x")],
        ) {
            let line = format!("{{{}{end}", parts.join(","));
            if let Some(told) = told(line.as_bytes()) {
                prop_assert_eq!(Some(format!("{told:?}")), parsed(line.as_bytes()), "{}", line);
            }
        }
    }
}
