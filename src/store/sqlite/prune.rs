//! What retention no longer covers, taken away in bites. Each function takes one bite and says how much it was; 0 means that nothing is left to take.

use rusqlite::{Connection, params};

use crate::store::error::StoreError;

/// Rows in one bite: some ten milliseconds, after which other writes get their turn.
pub(super) const BITE: i64 = 5_000;

/// Pages handed back to the file system in one bite.
const PAGES_FREED: i64 = 2_000;

/// What is older than this goes, unix time in ms.
pub(super) type Horizon = i64;

pub(super) fn events(db: &Connection, keep: i64, horizon: Horizon) -> Result<u64, StoreError> {
    let mut statement = db.prepare_cached(
        "DELETE FROM events WHERE seq IN (
             SELECT seq FROM events
             WHERE seq <= coalesce((SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET ?1), -1) OR at_ms < ?2
             ORDER BY seq LIMIT ?3)",
    )?;
    Ok(statement.execute(params![keep, horizon, BITE])? as u64)
}

pub(super) fn operations(db: &Connection, keep: i64, horizon: Horizon) -> Result<u64, StoreError> {
    const ENDED: &str = "state NOT IN ('accepted', 'running')";
    let sql = format!(
        "DELETE FROM operations WHERE id IN (
             SELECT id FROM operations WHERE {ENDED} AND (
                 id <= coalesce((SELECT id FROM operations WHERE {ENDED} ORDER BY id DESC LIMIT 1 OFFSET ?1), '')
                 OR requested_at_ms < ?2)
             LIMIT ?3)"
    );
    Ok(db.prepare_cached(&sql)?.execute(params![keep, horizon, BITE])? as u64)
}

/// The youngest incarnation of an agent of the hive stays: it holds the last exit. Open ones stay in any case.
pub(super) fn incarnations(db: &Connection, keep: i64, horizon: Horizon) -> Result<u64, StoreError> {
    let mut statement = db.prepare_cached(
        "DELETE FROM incarnations WHERE launch_id IN (
             SELECT launch_id FROM (
                 SELECT i.launch_id, i.ended_at_ms, a.swarm,
                        row_number() OVER (PARTITION BY i.agent ORDER BY i.incarnation DESC) AS place
                 FROM incarnations i JOIN agents a USING (agent) WHERE i.exit IS NOT NULL)
             WHERE (place > max(?1, 1) OR ended_at_ms < ?2) AND (place > 1 OR swarm NOT IN (SELECT name FROM swarms))
             LIMIT ?3)",
    )?;
    let taken = statement.execute(params![keep, horizon, BITE])? as u64;
    // An agent of a swarm that is gone, with no history left.
    db.prepare_cached(
        "DELETE FROM agents WHERE swarm NOT IN (SELECT name FROM swarms)
         AND NOT EXISTS (SELECT 1 FROM incarnations i WHERE i.agent = agents.agent)",
    )?
    .execute([])?;
    Ok(taken)
}

/// Gives free pages back to the file system.
pub(in crate::store) fn shrink(db: &Connection) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES_FREED})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
