//! Operations and their idempotency keys.

use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use crate::{
    model::{Operation, OperationId, SwarmName},
    store::{
        error::StoreError,
        forms::{OperationColumns, signed, state_word},
        records::{OperationKey, OperationQuery, PutOutcome},
    },
};

const COLUMNS: &str = "id, state, requested_at_ms, ended_at_ms, body";

pub(super) fn put(db: &Connection, new: &Operation, key: Option<&OperationKey>) -> Result<PutOutcome, StoreError> {
    if let Some(before) = key.map(|key| keyed(db, key)).transpose()?.flatten() {
        return Ok(before);
    }
    let columns = OperationColumns::of(new)?;
    db.prepare_cached(
        "INSERT INTO operations (id, state, requested_at_ms, ended_at_ms, body, key, fingerprint)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO NOTHING",
    )?
    .execute(params![
        columns.id,
        columns.state,
        columns.requested_at,
        columns.ended_at,
        columns.body,
        key.map(|k| k.key.as_str()),
        key.map(|k| k.fingerprint.as_str())
    ])?;
    Ok(PutOutcome::Stored)
}

pub(super) fn keyed(db: &Connection, key: &OperationKey) -> Result<Option<PutOutcome>, StoreError> {
    let Some((fingerprint, before)) = by_key(db, &key.key)? else { return Ok(None) };
    if fingerprint.as_deref() != Some(&key.fingerprint) {
        return Ok(Some(PutOutcome::KeyReused));
    }
    Ok(Some(PutOutcome::Existing(Box::new(before.operation()?))))
}

fn by_key(db: &Connection, key: &str) -> Result<Option<(Option<String>, OperationColumns)>, StoreError> {
    let sql = format!("SELECT {COLUMNS}, fingerprint FROM operations WHERE key = ?1");
    let mut statement = db.prepare_cached(&sql)?;
    Ok(statement.query_row(params![key], |row| Ok((row.get(5)?, columns(row)?))).optional()?)
}

pub(super) fn update(db: &Connection, operation: &Operation) -> Result<(), StoreError> {
    let columns = OperationColumns::of(operation)?;
    let changed = db
        .prepare_cached("UPDATE operations SET state = ?2, ended_at_ms = ?3, body = ?4 WHERE id = ?1")?
        .execute(params![columns.id, columns.state, columns.ended_at, columns.body])?;
    if changed == 0 {
        return Err(StoreError::Conflict(format!("no operation {} in the journal", operation.id)));
    }
    Ok(())
}

pub(super) fn one(db: &Connection, id: OperationId) -> Result<Option<Operation>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM operations WHERE id = ?1");
    let found = db.prepare_cached(&sql)?.query_row(params![id.to_string()], columns).optional()?;
    found.map(|columns| columns.operation()).transpose()
}

pub(super) fn some(db: &Connection, query: &OperationQuery) -> Result<Vec<Operation>, StoreError> {
    // Ids are UUIDv7: their order is the order of acceptance. An agent's id begins with its swarm's name and a slash.
    let which = "WHERE (?2 IS NULL OR id < ?2) AND (?3 IS NULL OR state = ?3)
         AND (?4 IS NULL OR body ->> '$.target' = ?4 OR body ->> '$.target' GLOB ?4 || '/*')
         ORDER BY id DESC LIMIT ?1";
    let OperationQuery { before, swarm, state, limit } = query;
    let before = before.map(|id| id.to_string());
    many(
        db,
        which,
        params![signed(*limit as u64), before, state.map(state_word), swarm.as_ref().map(SwarmName::as_str)],
    )
}

pub(super) fn unfinished(db: &Connection) -> Result<Vec<Operation>, StoreError> {
    many(db, "WHERE state IN ('accepted', 'running') ORDER BY id", params![])
}

fn many(db: &Connection, which: &str, params: &[&dyn ToSql]) -> Result<Vec<Operation>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM operations {which}");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params)?;
    let mut operations = Vec::new();
    while let Some(row) = rows.next()? {
        let columns = columns(row)?;
        match columns.operation() {
            Ok(operation) => operations.push(operation),
            // It must not hide the others, and a daemon that will not start for it helps nobody.
            Err(error) => {
                tracing::error!(operation = %columns.id, %error, "an operation in the journal can't be read; it is passed over")
            }
        }
    }
    Ok(operations)
}

fn columns(row: &Row<'_>) -> rusqlite::Result<OperationColumns> {
    Ok(OperationColumns {
        id: row.get(0)?,
        state: row.get(1)?,
        requested_at: row.get(2)?,
        ended_at: row.get(3)?,
        body: row.get(4)?,
    })
}
