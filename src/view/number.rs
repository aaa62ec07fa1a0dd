//! Numbers of a query string.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

/// Reads an optional whole number; for `deserialize_with`.
///
/// # Errors
/// What was found, and what is allowed: the number's own words say neither.
pub fn whole<'de, D: Deserializer<'de>, N: FromStr>(deserializer: D) -> Result<Option<N>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let refused = |_| de::Error::invalid_value(de::Unexpected::Str(&text), &"a whole number from 0 to 2^64 - 1");
    text.parse().map(Some).map_err(refused)
}
