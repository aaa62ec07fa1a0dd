//! The parameters of every `hive/*` method, as they stand on the wire. Members that are not known here are ignored, so that a newer agent can
//! talk to an older daemon.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::value::RawValue;

use super::message::seen;

/// Longest explanation of what is wrong with parameters: it may quote them.
const DETAIL_CHARS_MAX: usize = 200;

/// Text, borrowed from the line unless an escape forbids that.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// The one member of `hive/open` that every version of the protocol has. Read first.
#[derive(Debug, Deserialize)]
pub struct Version {
    /// The protocol that the agent speaks.
    pub protocol: u64,
}

/// `hive/open` of protocol 1.
#[derive(Debug, Deserialize)]
pub struct Open<'a> {
    /// The incarnation's token.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
    /// `SWARM/NAME`.
    #[serde(borrow)]
    pub agent: Cow<'a, str>,
    /// Which start of it.
    pub incarnation: u64,
    /// What the agent can do beyond what everyone must.
    #[serde(default, deserialize_with = "known_capabilities")]
    pub capabilities: Capabilities,
}

/// What an agent may declare.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Capabilities {
    /// It ends by itself when it is asked to by `hive/drain`, so that SIGTERM may wait.
    #[serde(default)]
    pub drain: bool,
    /// It is a tool of the agent's and not its program: no sign of life is expected here, and none is taken for one of the agent's that it does not give.
    #[serde(default)]
    pub tool: bool,
}

/// What is declared in a form that nobody knows here is not declared.
fn known_capabilities<'de, D: Deserializer<'de>>(from: D) -> Result<Capabilities, D::Error> {
    let raw = <&RawValue>::deserialize(from)?;
    Ok(serde_json::from_str(raw.get()).unwrap_or_default())
}

/// `hive/heartbeat`.
#[derive(Debug, Default, Deserialize)]
pub struct Heartbeat<'a> {
    /// Anything that changes when work goes on.
    #[serde(borrow, default)]
    pub progress: Option<&'a RawValue>,
    /// Whether it works on something.
    #[serde(default)]
    pub busy: Option<bool>,
}

/// `hive/log`.
#[derive(Debug, Deserialize)]
pub struct Log<'a> {
    /// `trace`, `debug`, `info`, `warn` or `error`; `info` when it is missing.
    #[serde(borrow, default)]
    pub level: Option<Text<'a>>,
    /// The line.
    #[serde(borrow)]
    pub line: Cow<'a, str>,
    /// Which stream of the agent's it belongs to.
    #[serde(borrow, default)]
    pub stream: Option<Text<'a>>,
    /// When, RFC 3339.
    #[serde(borrow, default)]
    pub at: Option<Text<'a>>,
}

/// `hive/metric`.
#[derive(Debug, Deserialize)]
pub struct Metric<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Its value.
    pub value: f64,
    /// UCUM unit.
    #[serde(borrow, default)]
    pub unit: Option<Text<'a>>,
    /// An object of attributes.
    #[serde(borrow, default)]
    pub attributes: Option<&'a RawValue>,
}

/// `hive/usage`: absolute totals of the incarnation by OpenTelemetry's GenAI names, which has none for money. Counts are whole and not negative,
/// whatever form their writer's language gives them (`1200`, `1200.0`, `1.2e3`).
#[derive(Debug, Deserialize)]
pub struct Usage<'a> {
    /// Tokens.
    #[serde(rename = "gen_ai.usage.input_tokens", default, deserialize_with = "tokens")]
    pub input_tokens: Option<u64>,
    /// Tokens.
    #[serde(rename = "gen_ai.usage.output_tokens", default, deserialize_with = "tokens")]
    pub output_tokens: Option<u64>,
    /// Tokens.
    #[serde(rename = "gen_ai.usage.cache_read.input_tokens", default, deserialize_with = "tokens")]
    pub cache_read_input_tokens: Option<u64>,
    /// Tokens.
    #[serde(rename = "gen_ai.usage.cache_creation.input_tokens", default, deserialize_with = "tokens")]
    pub cache_creation_input_tokens: Option<u64>,
    /// Tokens.
    #[serde(rename = "gen_ai.usage.reasoning.output_tokens", default, deserialize_with = "tokens")]
    pub reasoning_output_tokens: Option<u64>,
    /// US dollars.
    #[serde(default, deserialize_with = "money")]
    pub cost_usd: Option<f64>,
    /// The model that answered.
    #[serde(rename = "gen_ai.response.model", borrow, default)]
    pub response_model: Option<Text<'a>>,
    /// The model that was asked for.
    #[serde(rename = "gen_ai.request.model", borrow, default)]
    pub request_model: Option<Text<'a>>,
}

/// The greatest number of which every smaller whole one has a form of its own in a double.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

fn tokens<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Count {
        Whole(u64),
        Other(f64),
    }
    Ok(match Option::deserialize(from)? {
        None => None,
        Some(Count::Whole(count)) => Some(count),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, not negative and small enough"
        )]
        Some(Count::Other(count)) if count.fract() == 0.0 && (0.0..=WHOLE_MAX).contains(&count) => Some(count as u64),
        Some(Count::Other(_)) => return Err(D::Error::custom("a count of tokens is whole and not negative")),
    })
}

fn money<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    match Option::<f64>::deserialize(from)? {
        Some(amount) if !amount.is_finite() || amount < 0.0 => {
            Err(D::Error::custom("a cost is finite and not negative"))
        }
        amount => Ok(amount),
    }
}

/// The one member of `hive/event` that is ours.
#[derive(Debug, Deserialize)]
pub struct EventKind<'a> {
    /// What happened, in the agent's words.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
}

/// `hive/batch`.
#[derive(Debug, Deserialize)]
pub struct Batch<'a> {
    /// Notifications, in order.
    #[serde(borrow)]
    pub notifications: Vec<Item<'a>>,
}

/// One notification of a batch; `jsonrpc` may be left out.
#[derive(Debug, Deserialize)]
pub struct Item<'a> {
    /// What is told.
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    /// As in a message of its own.
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
    /// Must not be there: a batch takes notifications only.
    #[serde(default, deserialize_with = "seen", rename = "id")]
    pub has_id: bool,
}

/// Parameters that don't fit their method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct BadParams {
    /// What is wrong.
    pub detail: String,
}

impl BadParams {
    /// Says what is wrong, shortened.
    pub fn new(detail: impl ToString) -> Self {
        Self { detail: detail.to_string().chars().take(DETAIL_CHARS_MAX).collect() }
    }
}

/// Reads parameters by name. None at all count as `{}`.
///
/// # Errors
/// Parameters by position, missing members, members of a wrong type.
pub fn object<'a, T: Deserialize<'a>>(params: Option<&'a RawValue>) -> Result<T, BadParams> {
    let text = params.map_or("{}", RawValue::get);
    if !text.starts_with('{') {
        return Err(BadParams::new("parameters are taken by name, from an object"));
    }
    serde_json::from_str(text).map_err(BadParams::new)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn unknown_members_are_ignored_and_known_ones_are_judged() {
        let good =
            raw(r#"{"token":"t","agent":"a/b","incarnation":3,"protocol":1,"capabilities":{"x":[]},"new":null}"#);
        let open: Open = object(Some(&good)).unwrap();
        assert_eq!((open.token.as_ref(), open.agent.as_ref(), open.incarnation), ("t", "a/b", 3));
        assert!(matches!(open.token, Cow::Borrowed(_)));
        for bad in [r#"{"token":"t"}"#, r#"["t","a/b",3]"#, r#"{"token":"t","agent":"a/b","incarnation":-1}"#] {
            assert!(object::<Open>(Some(&raw(bad))).is_err(), "{bad}");
        }
        assert!(object::<Heartbeat>(None).is_ok());
    }

    #[test]
    fn what_is_wrong_is_told_shortly() {
        let bad = raw(&format!(r#"{{"token":"t","agent":"a/b","incarnation":"{}"}}"#, "x".repeat(10_000)));
        let detail = object::<Open>(Some(&bad)).unwrap_err().detail;
        assert!(detail.starts_with("invalid type: string"), "{detail}");
        assert!(detail.chars().count() <= DETAIL_CHARS_MAX);
    }
}
