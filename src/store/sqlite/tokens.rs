//! Tokens of the API.

use std::time::SystemTime;

use rusqlite::{Connection, Row, params};

use crate::{
    model::{ApiToken, TokenId},
    store::{
        error::StoreError,
        forms::{millis, parse, time},
    },
};

pub(super) fn all(db: &Connection) -> Result<Vec<ApiToken>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT id, name, scope, sha256, created_at_ms, expires_at_ms, last_used_at_ms, revoked_at_ms FROM tokens
         ORDER BY created_at_ms, id",
    )?;
    let mut rows = statement.query([])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        tokens.push(token(row)?);
    }
    Ok(tokens)
}

fn token(row: &Row<'_>) -> Result<ApiToken, StoreError> {
    let scope = row.get_ref(2)?.as_str()?;
    let at = |millis: Option<i64>| millis.map(time);
    Ok(ApiToken {
        id: parse(row.get_ref(0)?.as_str()?)?,
        name: parse(row.get_ref(1)?.as_str()?)?,
        scope: scope.parse().map_err(|()| StoreError::Corrupt(format!("scope {scope:?}")))?,
        sha256: row.get(3)?,
        created_at: time(row.get(4)?),
        expires_at: at(row.get(5)?),
        last_used_at: at(row.get(6)?),
        revoked_at: at(row.get(7)?),
    })
}

pub(super) fn put(db: &Connection, token: &ApiToken) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO tokens VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO NOTHING")?
        .execute(params![
            token.id.as_str(),
            token.name.as_str(),
            token.scope.word(),
            token.sha256,
            millis(token.created_at),
            token.expires_at.map(millis),
            token.last_used_at.map(millis),
            token.revoked_at.map(millis)
        ])?;
    Ok(())
}

pub(super) fn revoke(db: &Connection, id: &TokenId, at: SystemTime) -> Result<(), StoreError> {
    let changed = db
        .prepare_cached("UPDATE tokens SET revoked_at_ms = coalesce(revoked_at_ms, ?2) WHERE id = ?1")?
        .execute(params![id.as_str(), millis(at)])?;
    if changed == 0 {
        return Err(StoreError::Conflict(format!("no token {id} in the journal")));
    }
    Ok(())
}

pub(super) fn used(db: &Connection, seen: &[(TokenId, SystemTime)]) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached("UPDATE tokens SET last_used_at_ms = ?2 WHERE id = ?1")?;
    seen.iter().try_for_each(|(id, at)| statement.execute(params![id.as_str(), millis(*at)]).map(drop))?;
    Ok(())
}

pub(super) fn forget(db: &Connection, before: SystemTime) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM tokens WHERE min(coalesce(revoked_at_ms, expires_at_ms), coalesce(expires_at_ms, revoked_at_ms)) < ?1")?
        .execute(params![millis(before)])?;
    Ok(())
}
