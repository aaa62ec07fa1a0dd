//! The statements. Rows of one span and start lie together, so that a round of a thousand agents touches some twenty pages and not a thousand; reading
//! one series takes a look for each of its at most 360 points.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{
    bucket::Closed,
    file::{Entry, Numbered, Stored},
    point::{Resolution, Tokens},
    tally::{COUNT_MAX, Gauge, Tally},
};
use crate::{
    model::Epoch,
    store::{
        error::StoreError,
        forms::{millis, signed, unsigned},
    },
};

/// See [`database::open`](crate::store::sqlite::database::open).
pub(super) const MIGRATIONS: &[&str] = &[FIRST];

const FIRST: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE buckets (
        span_s INTEGER NOT NULL, start_s INTEGER NOT NULL, series INTEGER NOT NULL,
        cpu_sum REAL NOT NULL, cpu_n INTEGER NOT NULL, cpu_max REAL NOT NULL,
        memory_sum REAL NOT NULL, memory_n INTEGER NOT NULL, memory_max REAL NOT NULL,
        latency_ms_max INTEGER, tokens_in INTEGER, tokens_out INTEGER, restarts INTEGER,
        PRIMARY KEY (span_s, start_s, series)
    ) STRICT, WITHOUT ROWID;
    -- Times in which not everything was seen.
    CREATE TABLE holes (from_ms INTEGER NOT NULL, to_ms INTEGER NOT NULL) STRICT;
    CREATE INDEX holes_by_end ON holes (to_ms);
";

const EPOCH: &str = "epoch";
/// The number of the last entry of that epoch.
const UPTO: &str = "upto";
/// Everything before this was seen and is there, ms since 1970.
const SEEN_UNTIL: &str = "seen_until_ms";
/// 1 when the last daemon said everything it had to say.
const ENDED: &str = "ended";

/// A daemon begins, or goes on after it had to open the database once more. Where nobody looked in between is a hole.
pub(super) fn begin(db: &mut Connection, epoch: Epoch, now_ms: i64, renewed: bool) -> Result<(), StoreError> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if meta(&tx, EPOCH)? != Some(signed(epoch.0)) {
        let seen_until = meta(&tx, SEEN_UNTIL)?.or(renewed.then_some(now_ms));
        if let Some(from) = seen_until.filter(|_| meta(&tx, ENDED).ok().flatten() != Some(1)) {
            // A clock that was set back has the time before it lived through once more.
            add_hole(&tx, from.min(now_ms), now_ms)?;
        }
        set_meta(&tx, EPOCH, signed(epoch.0))?;
        set_meta(&tx, UPTO, 0)?;
        set_meta(&tx, SEEN_UNTIL, now_ms)?;
        set_meta(&tx, ENDED, 0)?;
    }
    tx.commit()?;
    Ok(())
}

pub(super) fn write(
    db: &Connection,
    epoch: Epoch,
    entries: &[Numbered],
    seen_until: Option<i64>,
    ended: bool,
) -> Result<(), StoreError> {
    if meta(db, EPOCH)? != Some(signed(epoch.0)) {
        return Err(StoreError::Fenced);
    }
    let upto = unsigned(meta(db, UPTO)?.unwrap_or(0));
    let fresh = || entries.iter().filter(|entry| entry.number > upto);
    for entry in fresh() {
        match &entry.entry {
            Entry::Bucket(bucket) => add(db, bucket)?,
            Entry::Hole { from, to } => add_hole(db, millis(*from), millis(*to))?,
        }
    }
    if let Some(last) = fresh().map(|entry| entry.number).max() {
        set_meta(db, UPTO, signed(last))?;
    }
    if let Some(seen_until) = seen_until {
        set_meta(db, SEEN_UNTIL, seen_until)?;
    }
    set_meta(db, ENDED, i64::from(ended))
}

fn add(db: &Connection, bucket: &Closed) -> Result<(), StoreError> {
    let name = bucket.of.to_string();
    let known = db.prepare_cached("SELECT id FROM series WHERE name = ?1")?.query_row([&name], |row| row.get(0));
    let series: i64 = match known.optional()? {
        Some(id) => id,
        None => {
            db.prepare_cached("INSERT INTO series (name) VALUES (?1)")?.execute([&name])?;
            db.last_insert_rowid()
        }
    };
    let mut statement = db.prepare_cached(
        "INSERT INTO buckets VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (span_s, start_s, series) DO UPDATE SET
         cpu_max = CASE WHEN excluded.cpu_n = 0 THEN cpu_max WHEN cpu_n = 0 THEN excluded.cpu_max
             ELSE max(cpu_max, excluded.cpu_max) END,
         cpu_sum = cpu_sum + excluded.cpu_sum, cpu_n = cpu_n + excluded.cpu_n,
         memory_max = CASE WHEN excluded.memory_n = 0 THEN memory_max WHEN memory_n = 0 THEN excluded.memory_max
             ELSE max(memory_max, excluded.memory_max) END,
         memory_sum = memory_sum + excluded.memory_sum, memory_n = memory_n + excluded.memory_n,
         latency_ms_max = coalesce(max(latency_ms_max, excluded.latency_ms_max), latency_ms_max, excluded.latency_ms_max),
         tokens_in = coalesce(min(tokens_in + excluded.tokens_in, ?14), tokens_in, excluded.tokens_in),
         tokens_out = coalesce(min(tokens_out + excluded.tokens_out, ?14), tokens_out, excluded.tokens_out),
         restarts = coalesce(min(restarts + excluded.restarts, ?14), restarts, excluded.restarts)",
    )?;
    let Tally { cpu, memory, latency_ms_max, tokens, restarts } = bucket.tally;
    for resolution in Resolution::ALL {
        let span_s = resolution.span_s();
        statement.execute(params![
            signed(span_s),
            signed(bucket.start_s / span_s * span_s),
            series,
            cpu.sum,
            signed(cpu.count),
            cpu.max,
            memory.sum,
            signed(memory.count),
            memory.max,
            latency_ms_max.map(signed),
            tokens.input.map(signed),
            tokens.output.map(signed),
            restarts.map(signed),
            signed(COUNT_MAX),
        ])?;
    }
    Ok(())
}

fn add_hole(db: &Connection, from_ms: i64, to_ms: i64) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO holes VALUES (?1, ?2)")?.execute([from_ms, to_ms.max(from_ms)])?;
    Ok(())
}

/// All of it as it was at one moment.
pub(super) fn read(
    db: &Connection,
    epoch: Epoch,
    of: &str,
    resolution: Resolution,
    from_s: u64,
    to_s: u64,
) -> Result<Stored, StoreError> {
    let tx = db.unchecked_transaction()?;
    let ours = meta(&tx, EPOCH)? == Some(signed(epoch.0));
    let mut stored =
        Stored { upto: if ours { unsigned(meta(&tx, UPTO)?.unwrap_or(0)) } else { 0 }, ..Stored::default() };
    let series: Option<i64> =
        tx.prepare_cached("SELECT id FROM series WHERE name = ?1")?.query_row([of], |row| row.get(0)).optional()?;
    let span_s = resolution.span_s();
    if let Some(series) = series {
        let mut look = tx.prepare_cached(
            "SELECT cpu_sum, cpu_n, cpu_max, memory_sum, memory_n, memory_max, latency_ms_max, tokens_in, tokens_out, restarts
             FROM buckets WHERE span_s = ?1 AND start_s = ?2 AND series = ?3",
        )?;
        for start_s in (from_s..=to_s).step_by(usize::try_from(span_s).unwrap_or(usize::MAX)) {
            let tally = look.query_row([signed(span_s), signed(start_s), series], tally).optional()?;
            stored.tallies.extend(tally.map(|tally| (start_s, tally)));
        }
    }
    let mut holes = tx.prepare_cached("SELECT from_ms, to_ms FROM holes WHERE to_ms >= ?1 AND from_ms < ?2")?;
    let mut rows = holes.query([signed(from_s * 1000), signed((to_s + span_s) * 1000)])?;
    while let Some(row) = rows.next()? {
        stored.holes.push((unsigned(row.get(0)?), unsigned(row.get(1)?)));
    }
    Ok(stored)
}

fn tally(row: &rusqlite::Row<'_>) -> rusqlite::Result<Tally> {
    let gauge = |at: usize| {
        Ok::<_, rusqlite::Error>(Gauge { sum: row.get(at)?, count: unsigned(row.get(at + 1)?), max: row.get(at + 2)? })
    };
    let number = |at: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(at)?.map(unsigned));
    let tokens = Tokens { input: number(7)?, output: number(8)? };
    Ok(Tally { cpu: gauge(0)?, memory: gauge(3)?, latency_ms_max: number(6)?, tokens, restarts: number(9)? })
}

fn meta(db: &Connection, key: &str) -> Result<Option<i64>, StoreError> {
    Ok(db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?.query_row([key], |row| row.get(0)).optional()?)
}

fn set_meta(db: &Connection, key: &str, value: i64) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value")?
        .execute(params![key, value])?;
    Ok(())
}
