//! Tokens of the API: who may ask, and for what.

use std::{fmt, str::FromStr, sync::Arc, time::SystemTime};

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// See everything, change nothing.
    Read,
    /// That, and command.
    Control,
}

impl Scope {
    /// The word of the API and of the journal.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Control => "control",
        }
    }

    /// Whether it covers what a route asks for.
    pub fn covers(self, needed: Self) -> bool {
        self >= needed
    }
}

impl FromStr for Scope {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Read, Self::Control].into_iter().find(|scope| scope.word() == word).ok_or(())
    }
}

/// Hexadecimal digits of a token's id.
pub const TOKEN_ID_LEN: usize = 12;
/// Longest name of a token.
pub const TOKEN_NAME_LEN_MAX: usize = 63;

/// The public half of a token, by which it is listed, found and revoked.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(Arc<str>);

/// A text that is no token's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no token's id: allowed are {TOKEN_ID_LEN} of 0-9 and a-f")]
pub struct InvalidTokenId {
    /// What was found.
    pub found: String,
}

impl TokenId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenId {
    type Err = InvalidTokenId;

    fn from_str(text: &str) -> Result<Self, InvalidTokenId> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == TOKEN_ID_LEN && text.bytes().all(digit) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidTokenId { found: text.chars().take(80).collect() })
        }
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name that people give a token; what they do with it is told under this name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenName(Arc<str>);

/// A text that is no token's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "found {found:?}, allowed: 1 to {TOKEN_NAME_LEN_MAX} of a-z, A-Z, 0-9, '.', '_' and '-', a letter or a digit first"
)]
pub struct InvalidTokenName {
    /// What was found.
    pub found: String,
}

impl TokenName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenName {
    type Err = InvalidTokenName;

    fn from_str(text: &str) -> Result<Self, InvalidTokenName> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if first && text.len() <= TOKEN_NAME_LEN_MAX && text.bytes().all(inner) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidTokenName { found: text.chars().take(80).collect() })
        }
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A token as it is kept: its secret is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its id.
    pub id: TokenId,
    /// Its name, which no other token has while this one is good.
    pub name: TokenName,
    /// What it may do.
    pub scope: Scope,
    /// SHA-256 of the whole text that a client presents.
    pub sha256: [u8; 32],
    /// When it was made.
    pub created_at: SystemTime,
    /// When it ends by itself.
    pub expires_at: Option<SystemTime>,
    /// When it was presented last, to the minute.
    pub last_used_at: Option<SystemTime>,
    /// When it was revoked.
    pub revoked_at: Option<SystemTime>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn control_covers_reading_and_not_the_other_way_round() {
        assert!(Scope::Control.covers(Scope::Read) && Scope::Control.covers(Scope::Control));
        assert!(Scope::Read.covers(Scope::Read) && !Scope::Read.covers(Scope::Control));
        assert_eq!(("read".parse(), "admin".parse::<Scope>()), (Ok(Scope::Read), Err(())));
    }

    #[test]
    fn names_and_ids() {
        for good in ["ci", "Grafana_2.local-x", "0", &"a".repeat(63)] {
            assert!(good.parse::<TokenName>().is_ok(), "{good}");
        }
        for bad in ["", "-ci", "two words", "tök", "a\n", &"a".repeat(64)] {
            assert!(bad.parse::<TokenName>().is_err(), "{bad}");
        }
        assert!("0123456789ab".parse::<TokenId>().is_ok());
        for bad in ["", "0123456789AB", "0123456789a", "0123456789abc", "0123456789ag"] {
            assert!(bad.parse::<TokenId>().is_err(), "{bad}");
        }
    }
}
