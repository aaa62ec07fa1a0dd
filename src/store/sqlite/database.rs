//! Opening an SQLite database: its mode, its log, its schema.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::store::{error::StoreError, forms::signed};

/// How long a lock may be waited for. Our own transactions take milliseconds; whoever holds one for longer is a stopped process or a person's tool.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);

/// The write-ahead log is cut back to this after a checkpoint. SQLite checkpoints every 4 MB, so more than this is the trace of a burst.
pub(super) const WAL_LEFT_BYTES_MAX: i64 = 8 * 1024 * 1024;

/// Opens a database for writing, makes it when it is not there, and brings its schema up to date: each entry of `migrations` leads from the schema of
/// its index to the next, and `user_version` counts those that were done. Entries are never changed, only added.
pub(in crate::store) fn open(path: &Path, migrations: &[&str]) -> Result<Connection, StoreError> {
    create_private(path)?;
    let mut connection = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
    connection.busy_timeout(LOCK_WAIT_MAX)?;
    // Only takes effect before the first table; lets pruning give space back to the file system.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_LEFT_BYTES_MAX)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    migrate(&mut connection, migrations)?;
    Ok(connection)
}

/// Opens the database, which must be there, for reading.
pub(in crate::store) fn open_for_reading(path: &Path) -> Result<Connection, StoreError> {
    // Read-write for SQLite, since a reader takes part in the write-ahead log's index; the pragma refuses writes.
    let connection = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
    connection.busy_timeout(LOCK_WAIT_MAX)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn flags(mode: OpenFlags) -> OpenFlags {
    // Each connection stays on one thread at a time, so SQLite's own mutexes are not needed.
    mode | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// SQLite gives its log and index the mode of the database: nobody else reads them.
fn create_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The schema of a database, which must not be a later version's.
pub(in crate::store) fn check_version(connection: &Connection, migrations: &[&str]) -> Result<i64, StoreError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = signed(migrations.len() as u64);
    if found > known { Err(StoreError::Newer { found, known }) } else { Ok(found) }
}

/// Reads every page of a database.
pub(in crate::store) fn check(connection: &Connection) -> Result<(), StoreError> {
    let said: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if said == "ok" { Ok(()) } else { Err(StoreError::Damaged(said)) }
}

fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = check_version(&tx, migrations)?;
    let known = signed(migrations.len() as u64);
    let done = usize::try_from(found).map_err(|_| StoreError::Corrupt(format!("schema {found}")))?;
    for step in &migrations[done..] {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "user_version", known)?;
    tx.commit()?;
    Ok(())
}
