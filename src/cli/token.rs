//! `token`: who may use the API.

use std::time::{Duration, SystemTime};

use clap::{Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::json;

use super::{
    args::duration,
    client::Client,
    commands::fresh_key,
    error::CliError,
    screen::Screen,
    table::{self, Cell},
    words::{ago, clean, until},
};

/// What is done with tokens.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, and print its secret, which is shown this once
    New {
        /// Who it is for
        name: String,
        /// What it allows
        #[arg(long, value_enum, default_value = "read")]
        scope: Scope,
        /// How long it is good for, such as 30d [default: until it is revoked]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires: Option<Duration>,
    },
    /// List the tokens; their secrets are nowhere kept
    Ls,
    /// Take a token back; it is refused at once
    Revoke {
        /// Its id, or its name where only one has it
        #[arg(value_name = "ID|NAME")]
        token: String,
    },
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Scope {
    /// Look at everything
    Read,
    /// Change everything, too
    Control,
}

#[derive(Deserialize)]
struct Made {
    #[serde(flatten)]
    token: Token,
    secret: String,
}

#[derive(Deserialize)]
struct List {
    tokens: Vec<Token>,
}

#[derive(Deserialize)]
struct Token {
    id: String,
    name: String,
    scope: String,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    last_used_at: Option<String>,
}

/// Makes, lists or takes back.
pub(super) fn token(
    client: &Client,
    command: &TokenCommand,
    json: bool,
    now: SystemTime,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    match command {
        TokenCommand::New { name, scope, expires } => {
            let scope = match scope {
                Scope::Read => "read",
                Scope::Control => "control",
            };
            let mut body = json!({ "name": name, "scope": scope });
            if let Some(expires) = expires {
                body["expires_in_ms"] = u64::try_from(expires.as_millis()).unwrap_or(u64::MAX).into();
            }
            let answer = client.post("/api/v1/tokens", &body.to_string(), &fresh_key())?;
            if json {
                return Ok(screen.json(&answer.text)?);
            }
            let made: Made = client.parse(&answer.text)?;
            // The secret alone is the output, so that it can be sent into a file.
            screen.line(&clean(&made.secret))?;
            let Token { id, name, scope, expires_at, .. } = &made.token;
            let end = expires_at.as_ref().map_or_else(|| "until it is revoked".to_owned(), |at| format!("until {at}"));
            let what = format!("token {name:?} ({scope}) is good {end}; its secret is not kept and not shown again");
            screen.note(&clean(&what));
            screen.note("Use it as HIVEKEEPER_API_TOKEN, or put it into a file for --token-file.");
            screen.note(&clean(&format!("`hivekeeper token revoke {id}` takes it back.")));
            Ok(())
        }
        TokenCommand::Ls => {
            let (answer, list): (_, List) = client.get_as("/api/v1/tokens")?;
            if json {
                return Ok(screen.json(&answer.text)?);
            }
            let rows: Vec<Vec<Cell>> = list.tokens.iter().map(|token| row(token, now)).collect();
            let header = ["NAME", "SCOPE", "CREATED", "EXPIRES", "LAST USED", "ID"];
            for line in table::lines(&header, &rows, None, screen.colour) {
                screen.line(&line)?;
            }
            Ok(())
        }
        TokenCommand::Revoke { token } => {
            let id = id(client, token)?;
            let answer = client.delete(&format!("/api/v1/tokens/{id}"), Some(&fresh_key()))?;
            match json {
                true if !answer.text.trim().is_empty() => screen.json(&answer.text)?,
                true => screen.json(&json!({ "id": id, "revoked": true }).to_string())?,
                false => screen.line(&clean(&format!("revoked {id}")))?,
            }
            Ok(())
        }
    }
}

fn row(token: &Token, now: SystemTime) -> Vec<Cell> {
    let past = |at: &Option<String>| at.as_ref().map_or_else(|| "-".to_owned(), |at| ago(at, now));
    let expires = token.expires_at.as_ref().map_or_else(|| "never".to_owned(), |at| until(at, now));
    vec![
        Cell::new(clean(&token.name)),
        Cell::new(clean(&token.scope)),
        Cell::number(past(&token.created_at)),
        Cell::number(expires),
        Cell::number(past(&token.last_used_at)),
        Cell::new(clean(&token.id)),
    ]
}

/// The id that is meant: the word itself, or that of the one token which is called so.
fn id(client: &Client, word: &str) -> Result<String, CliError> {
    let (_, List { tokens }) = client.get_as("/api/v1/tokens")?;
    if tokens.iter().any(|token| token.id == word) {
        return Ok(word.to_owned());
    }
    let named: Vec<&Token> = tokens.iter().filter(|token| token.name == word).collect();
    match named[..] {
        [token] => Ok(token.id.clone()),
        [] => Err(CliError::Failed(format!(
            "no token has the id or the name {word:?}\n`hivekeeper token ls` lists them."
        ))),
        _ => {
            let ids: Vec<&str> = named.iter().map(|token| token.id.as_str()).collect();
            Err(CliError::Failed(clean(&format!(
                "{} tokens are called {word:?}; say which: {}",
                ids.len(),
                ids.join(", ")
            ))))
        }
    }
}
