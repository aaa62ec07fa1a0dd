//! The feed's events and its numbers.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::schema;
use crate::{
    model::{Epoch, Seq},
    store::{
        error::StoreError,
        forms::{millis, signed, time, unsigned},
        records::StoredEvent,
    },
};

const RESERVED: &str = "reserved_seq";

pub(super) fn append(db: &Connection, events: &[StoredEvent]) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(
        "INSERT INTO events (seq, epoch, at_ms, kind, subject, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (seq) DO NOTHING",
    )?;
    let mut youngest = 0;
    for event in events {
        let (seq, epoch) = (signed(event.seq.0), signed(event.epoch.0));
        statement.execute(params![seq, epoch, millis(event.at), event.kind, event.subject, &*event.body])?;
        youngest = youngest.max(event.seq.0);
    }
    // Pruning may take the event away; its number must not come again even if it was used without having been set aside.
    if youngest > schema::meta_number(db, RESERVED)? {
        schema::set_meta(db, RESERVED, &signed(youngest).to_string())?;
    }
    Ok(())
}

pub(super) fn behind(db: &Connection, after: Seq, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT seq, epoch, at_ms, kind, subject, body FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = statement.query(params![signed(after.0), signed(limit as u64)])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(StoredEvent {
            seq: Seq(unsigned(row.get(0)?)),
            epoch: Epoch(unsigned(row.get(1)?)),
            at: time(row.get(2)?),
            kind: row.get(3)?,
            subject: row.get(4)?,
            body: Arc::from(row.get_ref(5)?.as_str()?),
        });
    }
    Ok(events)
}

pub(super) fn reserve(db: &Connection, upto: Seq) -> Result<(), StoreError> {
    let next = upto.max(last(db)?);
    schema::set_meta(db, RESERVED, &signed(next.0).to_string())
}

pub(super) fn last(db: &Connection) -> Result<Seq, StoreError> {
    Ok(Seq(schema::meta_number(db, RESERVED)?))
}
