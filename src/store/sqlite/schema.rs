//! The journal's schema, and the claim of a new epoch.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::database;
use crate::model::{Epoch, HiveId};
use crate::store::{
    error::StoreError,
    forms::{parse, unsigned},
};

/// See [`database::open`].
const MIGRATIONS: &[&str] = &[FIRST, USAGE, TOKENS, SCALED, RUNS, WORK];

/// What each incarnation runs.
const RUNS: &str = "ALTER TABLE incarnations ADD COLUMN runs BLOB";

/// What the operator made of the file's numbers of agents.
const SCALED: &str = "ALTER TABLE swarms ADD COLUMN scaled TEXT";

/// Tasks, locks that are held, and the copies of messages that each recipient has.
const WORK: &str = "
    CREATE TABLE tasks (id BLOB PRIMARY KEY, number INTEGER NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE locks (id BLOB PRIMARY KEY, number INTEGER NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE messages (
        id BLOB NOT NULL, recipient TEXT NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (id, recipient)
    ) STRICT, WITHOUT ROWID;
";

/// The journal's youngest schema that this version knows, as the database counts it.
pub fn journal_schema() -> u32 {
    // A handful; what does not fit would be a fault of ours that no test lets through.
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// What each agent has used, so that its totals go on under the next daemon.
const USAGE: &str = "ALTER TABLE agents ADD COLUMN spent TEXT";

/// Who may use the API. Of each secret there is only its hash.
const TOKENS: &str = "
    CREATE TABLE tokens (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, scope TEXT NOT NULL, sha256 BLOB NOT NULL,
        created_at_ms INTEGER NOT NULL, expires_at_ms INTEGER, last_used_at_ms INTEGER, revoked_at_ms INTEGER
    ) STRICT, WITHOUT ROWID;
";

const FIRST: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE swarms (
        name TEXT PRIMARY KEY, origin TEXT NOT NULL, document TEXT NOT NULL, desired TEXT NOT NULL, since_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    -- One row per agent that was ever mentioned; incarnation and restarts go on when a swarm is removed and made again.
    CREATE TABLE agents (
        agent TEXT PRIMARY KEY, swarm TEXT NOT NULL,
        desired TEXT, desired_at_ms INTEGER,
        standing TEXT, retry_at_ms INTEGER, standing_at_ms INTEGER, attempt INTEGER NOT NULL DEFAULT 0,
        incarnation INTEGER NOT NULL DEFAULT 0, restarts INTEGER NOT NULL DEFAULT 0,
        -- The window holds only what was begun after this incarnation: a number, so that a clock that is set back does no harm.
        window_after INTEGER NOT NULL DEFAULT 0, window_reset_at_ms INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX agents_by_swarm ON agents (swarm);
    CREATE TABLE incarnations (
        launch_id TEXT PRIMARY KEY, agent TEXT NOT NULL, incarnation INTEGER NOT NULL, token_hash BLOB NOT NULL,
        begun_at_ms INTEGER NOT NULL, automatic INTEGER NOT NULL, pid INTEGER, alive_at_ms INTEGER,
        ended_at_ms INTEGER, exit TEXT,
        UNIQUE (agent, incarnation)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX incarnations_open ON incarnations (begun_at_ms) WHERE exit IS NULL;
    CREATE TABLE operations (
        id TEXT PRIMARY KEY, state TEXT NOT NULL, requested_at_ms INTEGER NOT NULL, ended_at_ms INTEGER, body TEXT NOT NULL,
        key TEXT UNIQUE, fingerprint TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX operations_unfinished ON operations (id) WHERE state IN ('accepted', 'running');
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
";

/// Opens the journal for writing, makes it when it is not there, and brings its schema up to date.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    database::open(path, MIGRATIONS)
}

/// Whether this version can work with a journal. Reads all of it and changes nothing.
pub(in crate::store) fn check_schema(path: &Path) -> Result<(), StoreError> {
    let connection = database::open_for_reading(path)?;
    database::check_version(&connection, MIGRATIONS)?;
    database::check(&connection)
}

/// What a daemon that takes a data directory over brings along.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Claim {
    /// What the file `hive-id` holds.
    pub(in crate::store) hive_id: Option<HiveId>,
    /// What the file `epoch` holds.
    pub(in crate::store) epoch: Option<Epoch>,
    /// The first epoch of a directory that has none.
    pub(in crate::store) first_epoch: Epoch,
}

/// Takes the next epoch and syncs it to the disk. From here on writes of older daemons are refused. Returns the hive's id as file and
/// database have it, or a new one, and the epoch.
pub(in crate::store) fn claim(path: &Path, name: &str, claim: Claim) -> Result<(HiveId, Epoch), StoreError> {
    let mut connection = open(path)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let known: Option<HiveId> = meta(&tx, "hive_id")?.as_deref().map(parse).transpose()?;
    let hive_id = match (claim.hive_id, known) {
        (Some(file), Some(database)) if file != database => {
            return Err(StoreError::Conflict(format!(
                "data directory mixes two hives: file `hive-id` says {file}, the database {database}; put the right pair together"
            )));
        }
        (file, database) => file.or(database).unwrap_or_else(HiveId::mint),
    };
    let epoch = match claim.epoch.max(epoch(&tx)?) {
        Some(last) => Epoch(last.0 + 1),
        None => claim.first_epoch,
    };
    set_meta(&tx, "hive_id", &hive_id.to_string())?;
    set_meta(&tx, "name", name)?;
    set_meta(&tx, "epoch", &epoch.to_string())?;
    tx.commit()?;
    Ok((hive_id, epoch))
}

/// Refuses when the database is no longer, or not, this epoch's.
pub(super) fn check_epoch(connection: &Connection, ours: Epoch) -> Result<(), StoreError> {
    if epoch(connection)? == Some(ours) { Ok(()) } else { Err(StoreError::Fenced) }
}

fn epoch(connection: &Connection) -> Result<Option<Epoch>, StoreError> {
    Ok(meta(connection, "epoch")?.as_deref().map(parse::<u64>).transpose()?.map(Epoch))
}

/// A number of the table `meta`; 0 when it is not there.
pub(super) fn meta_number(connection: &Connection, key: &str) -> Result<u64, StoreError> {
    Ok(meta(connection, key)?.as_deref().map(parse::<i64>).transpose()?.map_or(0, unsigned))
}

fn meta(connection: &Connection, key: &str) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    Ok(statement.query_row(params![key], |row| row.get(0)).optional()?)
}

pub(super) fn set_meta(connection: &Connection, key: &str, value: &str) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value")?
        .execute(params![key, value])?;
    Ok(())
}
