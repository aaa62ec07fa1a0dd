//! Tokens of the API; never their secrets or hashes.

use serde::Serialize;
use utoipa::ToSchema;

use super::time::Rfc3339;
use crate::model::ApiToken;

/// A token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenView<'a> {
    id: &'a str,
    name: &'a str,
    scope: &'static str,
    created_at: Rfc3339,
    expires_at: Option<Rfc3339>,
    last_used_at: Option<Rfc3339>,
}

/// Shows a token.
pub fn token(token: &ApiToken) -> TokenView<'_> {
    TokenView {
        id: token.id.as_str(),
        name: token.name.as_str(),
        scope: token.scope.word(),
        created_at: Rfc3339(token.created_at),
        expires_at: token.expires_at.map(Rfc3339),
        last_used_at: token.last_used_at.map(Rfc3339),
    }
}
