//! What retention no longer covers, taken away in bites. Each function takes one bite and says how much it was; 0 means that nothing is left to take.

use rusqlite::{Connection, params};

use super::database::WAL_LEFT_BYTES_MAX;
use crate::model::FREQUENT_KINDS;
use crate::store::{
    error::StoreError,
    forms::{signed, unsigned},
};

/// Rows in one bite: some ten milliseconds, after which other writes get their turn.
pub(super) const BITE: i64 = 5_000;

/// Pages handed back to the file system in one bite.
pub(in crate::store) const PAGES_FREED: u64 = 2_000;

/// Events that stay however little room there is, a megabyte or two: what has just happened, and what followers have not read yet.
const EVENTS_LEFT_MIN: i64 = 1_000;

/// What is older than this goes, unix time in ms.
pub(super) type Horizon = i64;

/// Of the frequent kinds half as many stay as of all together: however busy swarms are with their work, what has become of agents stays.
pub(super) fn events(db: &Connection, keep: i64, horizon: Horizon) -> Result<u64, StoreError> {
    let kinds = FREQUENT_KINDS.map(|kind| format!("'{kind}'")).join(", ");
    let sql = format!(
        "DELETE FROM events WHERE seq IN (
             SELECT seq FROM events WHERE kind IN ({kinds})
             AND seq <= coalesce((SELECT seq FROM events WHERE kind IN ({kinds}) ORDER BY seq DESC LIMIT 1 OFFSET ?1), -1)
             ORDER BY seq LIMIT ?2)"
    );
    let taken = db.prepare_cached(&sql)?.execute(params![keep / 2, BITE])? as u64;
    if taken > 0 {
        return Ok(taken);
    }
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

/// Takes a bite of the oldest events away when the file is too large for them, and gives back what it is too large. What the bite leaves free is used
/// for the next events, so that this is seldom more than a look.
pub(super) fn make_room(db: &Connection, bytes_max: u64) -> Result<u64, StoreError> {
    let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get(0)).map(unsigned);
    let pages_max = bytes_max.saturating_sub(unsigned(WAL_LEFT_BYTES_MAX)) / number("page_size")?.max(1);
    let pages = number("page_count")?;
    if pages <= pages_max {
        return Ok(0);
    }
    let mut taken = 0;
    if pages - number("freelist_count")? > pages_max {
        let mut statement = db.prepare_cached(
            "DELETE FROM events WHERE seq IN (
                 SELECT seq FROM events
                 WHERE seq <= coalesce((SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET ?1), -1)
                 ORDER BY seq LIMIT ?2)",
        )?;
        taken = statement.execute(params![EVENTS_LEFT_MIN, BITE])? as u64;
    }
    shrink(db, (pages - pages_max).min(PAGES_FREED))?;
    Ok(taken)
}

/// Gives so many of the free pages back to the file system.
pub(in crate::store) fn shrink(db: &Connection, pages: u64) -> Result<(), StoreError> {
    let mut statement = db.prepare(&format!("PRAGMA incremental_vacuum({})", signed(pages)))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
