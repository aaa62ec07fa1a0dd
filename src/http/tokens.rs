//! Tokens and tickets: who else may ask.

use std::time::{Duration, SystemTime};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    commands::NoBody,
    dto,
    error::{Code, Problem},
    guard,
    server::Deps,
};
use crate::{
    model::{Scope, TokenId},
    view::{self, Rfc3339, TokenView},
};

/// Longest life that can be asked for: ten years. Who wants a token without an end leaves `expires_in_ms` out.
const LIFE_MS_MAX: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

#[derive(Serialize, ToSchema)]
#[schema(as = TokenList)]
pub(super) struct TokensView<'a> {
    tokens: Vec<TokenView<'a>>,
}

/// The tokens that are good.
pub(super) async fn list(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let tokens = deps.keys.list(SystemTime::now());
    Ok(HttpResponse::Ok().json(TokensView { tokens: tokens.iter().map(view::token).collect() }))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    #[schema(pattern = "^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$")]
    name: String,
    scope: Word,
    #[schema(minimum = 1, maximum = 315_360_000_000_u64)]
    expires_in_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[schema(as = Scope)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    Read,
    Control,
}

#[derive(Serialize, ToSchema)]
#[schema(as = NewSecret)]
pub(super) struct MintedView<'a> {
    #[serde(flatten)]
    token: TokenView<'a>,
    /// Shown this once.
    secret: &'a str,
}

/// Makes a token. Its secret is in this answer and nowhere else.
pub(super) async fn create(request: HttpRequest, payload: Payload, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let NewToken { name, scope, expires_in_ms } = dto::body(&request, payload).await?;
    let name = name.parse().map_err(|error| Problem::new(Code::InvalidBody, format!("name: {error}")))?;
    let scope = match scope {
        Word::Read => Scope::Read,
        Word::Control => Scope::Control,
    };
    if let Some(found) = expires_in_ms.filter(|ms| !(1..=LIFE_MS_MAX).contains(ms)) {
        let detail = format!("expires_in_ms: found {found}, allowed: 1 to {LIFE_MS_MAX}");
        return Err(Problem::new(Code::InvalidBody, detail));
    }
    let now = SystemTime::now();
    let expires_at = expires_in_ms.map(|ms| now + Duration::from_millis(ms));
    let minted = deps.keys.mint(name, scope, expires_at, now).await?;
    let shown = MintedView { token: view::token(&minted.token), secret: minted.secret.reveal() };
    Ok(HttpResponse::Created().json(shown))
}

/// Ends a token, and what it has opened.
pub(super) async fn revoke(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let found = request.match_info().get("token").unwrap_or_default();
    let id: TokenId = found.parse().map_err(|_| Problem::new(Code::NotFound, "no such token"))?;
    deps.keys.revoke(&id, SystemTime::now()).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[derive(Serialize, ToSchema)]
#[schema(as = Ticket)]
pub(super) struct TicketView<'a> {
    ticket: &'a str,
    expires_at: Rfc3339,
}

/// A ticket for a page, which can send no token when it opens a socket or an event stream.
pub(super) async fn ticket(request: HttpRequest, payload: Payload, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let NoBody {} = dto::body(&request, payload).await?;
    let (ticket, expires_at) = deps.keys.ticket(guard::key(&request), SystemTime::now())?;
    let shown = TicketView { ticket: ticket.reveal(), expires_at: Rfc3339(expires_at) };
    Ok(HttpResponse::Created().json(shown))
}
