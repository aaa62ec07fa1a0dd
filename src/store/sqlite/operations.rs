//! Operations and their idempotency keys.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{
    model::{Operation, OperationId},
    store::{
        error::StoreError,
        forms::{OperationColumns, signed},
        records::{OperationKey, PutOutcome},
    },
};

const COLUMNS: &str = "id, state, requested_at_ms, ended_at_ms, body";

pub(super) fn put(db: &Connection, new: &Operation, key: Option<&OperationKey>) -> Result<PutOutcome, StoreError> {
    if let Some(key) = key
        && let Some((fingerprint, before)) = by_key(db, &key.key)?
    {
        return Ok(if fingerprint.as_deref() != Some(&key.fingerprint) {
            PutOutcome::KeyReused
        } else {
            PutOutcome::Existing(Box::new(before.operation()?))
        });
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

pub(super) fn latest(db: &Connection, limit: usize) -> Result<Vec<Operation>, StoreError> {
    // Ids are UUIDv7: their order is the order of acceptance.
    many(db, "ORDER BY id DESC LIMIT ?1", limit)
}

pub(super) fn unfinished(db: &Connection) -> Result<Vec<Operation>, StoreError> {
    many(db, "WHERE state IN ('accepted', 'running') ORDER BY id LIMIT ?1", usize::MAX)
}

fn many(db: &Connection, which: &str, limit: usize) -> Result<Vec<Operation>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM operations {which}");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params![signed(limit as u64)])?;
    let mut operations = Vec::new();
    while let Some(row) = rows.next()? {
        operations.push(columns(row)?.operation()?);
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
