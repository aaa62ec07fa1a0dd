//! What is forgotten: what is older than its resolution is kept for, and, when the file grows too large, the oldest of the finest first.

use rusqlite::{Connection, params};

use super::point::Resolution;
use crate::store::{
    error::StoreError,
    forms::{signed, unsigned},
    sqlite::prune,
};

/// Starts taken in one bite: with a thousand agents ten thousand rows, some ten milliseconds.
const STARTS_IN_BITE: u64 = 10;
/// What lies further ahead than this was written by a clock that was wrong.
const AHEAD_S_MAX: u64 = 24 * 60 * 60;
/// The share of `max` that is kept free for what is written next: at the smallest `max` (16 MiB) 2 MiB, four times what one write of 2,048
/// buckets at three resolutions takes.
const ROOM: u64 = 8;
/// Holes kept: one a minute for a day. A hive with more has a trouble that the history is not needed to see.
const HOLES_MAX: u64 = 1_440;

/// Takes a bite of what is too old, and gives free pages back once the file is larger than it should be; whether there is more.
pub(super) fn trim(db: &Connection, now_s: u64, bytes_max: u64) -> Result<bool, StoreError> {
    for resolution in Resolution::ALL {
        let horizon = now_s.saturating_sub(resolution.kept().as_secs() + resolution.span_s());
        if let Some(oldest) = oldest(db, resolution)?.filter(|oldest| *oldest < horizon) {
            take(db, resolution, oldest, horizon)?;
            return Ok(true);
        }
        db.prepare_cached("DELETE FROM buckets WHERE span_s = ?1 AND start_s > ?2")?
            .execute([signed(resolution.span_s()), signed(now_s + AHEAD_S_MAX)])?;
    }
    let day_ago = now_s.saturating_sub(Resolution::TenMinutes.kept().as_secs() + Resolution::TenMinutes.span_s());
    db.prepare_cached(
        "DELETE FROM holes WHERE to_ms < ?1 OR to_ms < (SELECT to_ms FROM holes ORDER BY to_ms DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute([signed(day_ago * 1000), signed(HOLES_MAX)])?;
    if file_bytes(db)? > bytes_max {
        prune::shrink(db, prune::PAGES_FREED)?;
    }
    Ok(false)
}

/// Forgets a bite when there is no room for the next write; whether it did.
pub(super) fn make_room(db: &Connection, bytes_max: u64) -> Result<bool, StoreError> {
    if used_bytes(db)? <= bytes_max - bytes_max / ROOM {
        return Ok(false);
    }
    for resolution in Resolution::ALL {
        if let Some(oldest) = oldest(db, resolution)? {
            take(db, resolution, oldest, u64::MAX)?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn take(db: &Connection, resolution: Resolution, oldest: u64, horizon: u64) -> Result<(), StoreError> {
    let span_s = resolution.span_s();
    let end = horizon.min(oldest + STARTS_IN_BITE * span_s);
    db.prepare_cached("DELETE FROM buckets WHERE span_s = ?1 AND start_s < ?2")?
        .execute([signed(span_s), signed(end)])?;
    if resolution == Resolution::TenMinutes {
        // Each series that has a bucket has one of these for longest.
        db.prepare_cached(
            "DELETE FROM series WHERE id NOT IN (SELECT DISTINCT series FROM buckets WHERE span_s = ?1)",
        )?
        .execute([signed(span_s)])?;
    }
    Ok(())
}

fn oldest(db: &Connection, resolution: Resolution) -> Result<Option<u64>, StoreError> {
    let mut statement = db.prepare_cached("SELECT min(start_s) FROM buckets WHERE span_s = ?1")?;
    let oldest: Option<i64> = statement.query_row(params![signed(resolution.span_s())], |row| row.get(0))?;
    Ok(oldest.map(unsigned))
}

fn used_bytes(db: &Connection) -> Result<u64, StoreError> {
    Ok(file_bytes(db)? - pragma(db, "freelist_count")? * pragma(db, "page_size")?)
}

fn file_bytes(db: &Connection) -> Result<u64, StoreError> {
    Ok(pragma(db, "page_count")? * pragma(db, "page_size")?)
}

fn pragma(db: &Connection, name: &str) -> Result<u64, StoreError> {
    Ok(unsigned(db.pragma_query_value(None, name, |row| row.get(0))?))
}
