//! [`WorkStore`] on SQLite: a table for each kind of document, in the journal's file and written by its thread.

use rusqlite::{Connection, params};

use super::{
    journal::SqliteJournal,
    schema::{meta_number, set_meta},
    writer::Durability,
};
use crate::store::{
    error::StoreError,
    forms::signed,
    journal::Answer,
    work::{WorkBatch, WorkKept, WorkStore},
    work_forms::{lock_text, message_text, read_lock, read_message, read_task, task_text},
};

/// The greatest number or fencing token that was given out.
const COUNTER: &str = "work_counter";

impl WorkStore for SqliteJournal {
    fn load(&self) -> Answer<'_, WorkKept> {
        Box::pin(async {
            // What was given up for want of an answer may still be on its way.
            self.writer().settled().await?;
            self.reader().call(load).await
        })
    }

    fn commit(&self, batch: WorkBatch) -> Answer<'_, ()> {
        let durability = if batch.promises() { Durability::Power } else { Durability::Process };
        self.writer().call(durability, move |db| commit(db, &batch))
    }
}

fn load(db: &Connection) -> Result<WorkKept, StoreError> {
    Ok(WorkKept {
        tasks: all(db, "SELECT body FROM tasks ORDER BY number", read_task)?,
        locks: all(db, "SELECT body FROM locks ORDER BY number", read_lock)?,
        messages: all(db, "SELECT body FROM messages ORDER BY number, recipient", read_message)?,
        counter: meta_number(db, COUNTER)?,
    })
}

fn all<T>(db: &Connection, query: &str, read: impl Fn(&str) -> Result<T, StoreError>) -> Result<Vec<T>, StoreError> {
    let mut statement = db.prepare_cached(query)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row.get_ref(0)?.as_str()?)?);
    }
    Ok(found)
}

fn commit(db: &Connection, batch: &WorkBatch) -> Result<(), StoreError> {
    let mut put =
        db.prepare_cached("INSERT INTO tasks VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET body = excluded.body")?;
    for task in &batch.tasks {
        put.execute(params![task.id.0.as_bytes(), signed(task.number), task_text(task)?])?;
    }
    let mut remove = db.prepare_cached("DELETE FROM tasks WHERE id = ?1")?;
    for id in &batch.tasks_gone {
        remove.execute(params![id.0.as_bytes()])?;
    }
    let mut put =
        db.prepare_cached("INSERT INTO locks VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET body = excluded.body")?;
    for lock in &batch.locks {
        put.execute(params![lock.id.0.as_bytes(), signed(lock.number), lock_text(lock)?])?;
    }
    let mut remove = db.prepare_cached("DELETE FROM locks WHERE id = ?1")?;
    for id in &batch.locks_gone {
        remove.execute(params![id.0.as_bytes()])?;
    }
    let mut put = db.prepare_cached(
        "INSERT INTO messages VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id, recipient) DO UPDATE SET body = excluded.body",
    )?;
    for message in &batch.messages {
        let (id, to) = (message.id.0.as_bytes(), message.to.as_str());
        put.execute(params![id, to, signed(message.number), message_text(message)?])?;
    }
    let mut remove = db.prepare_cached("DELETE FROM messages WHERE id = ?1 AND recipient = ?2")?;
    for (id, to) in &batch.messages_gone {
        remove.execute(params![id.0.as_bytes(), to.as_str()])?;
    }
    if batch.counter > meta_number(db, COUNTER)? {
        set_meta(db, COUNTER, &batch.counter.to_string())?;
    }
    Ok(())
}
