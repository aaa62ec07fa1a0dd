//! Incarnations, and where supervision stands with each agent.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{
    model::{AgentId, ExitRecord, LaunchId, Spent},
    store::{
        error::StoreError,
        forms::{ExitForm, SpentForm, from_json, millis, parse, signed, time, to_json, unsigned},
        records::{Incarnation, IncarnationRow, Ledger, Standing, StandingState},
    },
};

const COLUMNS: &str = "launch_id, agent, incarnation, token_hash, begun_at_ms, automatic, pid, alive_at_ms, exit, runs";

pub(super) fn begin(db: &Connection, new: &Incarnation) -> Result<(), StoreError> {
    let (agent, number) = (new.agent.to_string(), signed(new.incarnation));
    let launch = new.launch_id.to_string();
    let same: Option<bool> = db
        .prepare_cached("SELECT agent = ?2 AND incarnation = ?3 FROM incarnations WHERE launch_id = ?1")?
        .query_row(params![launch, agent, number], |row| row.get(0))
        .optional()?;
    match same {
        Some(true) => return Ok(()),
        Some(false) => return Err(StoreError::Conflict(format!("launch {launch} belongs to another incarnation"))),
        None => {}
    }
    let advanced = db
        .prepare_cached(
            "INSERT INTO agents (agent, swarm, incarnation, restarts, standing, standing_at_ms)
             VALUES (?1, ?2, ?3, ?4, 'active', ?5)
             ON CONFLICT (agent) DO UPDATE SET incarnation = excluded.incarnation, restarts = restarts + excluded.restarts,
             standing = excluded.standing, standing_at_ms = excluded.standing_at_ms, retry_at_ms = NULL
             WHERE agents.incarnation < excluded.incarnation",
        )?
        .execute(params![
            agent,
            new.agent.swarm.as_str(),
            number,
            i64::from(new.automatic),
            millis(new.begun_at)
        ])?;
    if advanced == 0 {
        return Err(StoreError::Conflict(format!("{agent} is past incarnation {number}")));
    }
    db.prepare_cached(
        "INSERT INTO incarnations (launch_id, agent, incarnation, token_hash, begun_at_ms, automatic, runs)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![launch, agent, number, new.token_hash, millis(new.begun_at), new.automatic, new.runs])?;
    Ok(())
}

pub(super) fn mark_alive(db: &Connection, launch: LaunchId, pid: u32, at: SystemTime) -> Result<(), StoreError> {
    let changed = db
        .prepare_cached("UPDATE incarnations SET pid = ?2, alive_at_ms = ?3 WHERE launch_id = ?1")?
        .execute(params![launch.to_string(), pid, millis(at)])?;
    known(changed, launch)
}

pub(super) fn end(db: &Connection, launch: LaunchId, exit: &ExitRecord) -> Result<(), StoreError> {
    let changed = db
        .prepare_cached(
            "UPDATE incarnations SET ended_at_ms = coalesce(ended_at_ms, ?2), exit = coalesce(exit, ?3) WHERE launch_id = ?1",
        )?
        .execute(params![launch.to_string(), millis(exit.at), to_json(&ExitForm::from(exit))?])?;
    known(changed, launch)
}

fn known(changed: usize, launch: LaunchId) -> Result<(), StoreError> {
    if changed == 0 { Err(StoreError::Conflict(format!("no launch {launch} in the journal"))) } else { Ok(()) }
}

pub(super) fn open(db: &Connection) -> Result<Vec<IncarnationRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM incarnations WHERE exit IS NULL ORDER BY begun_at_ms, launch_id");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    collect(&mut rows)
}

pub(super) fn history(db: &Connection, agent: &AgentId, limit: usize) -> Result<Vec<IncarnationRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM incarnations WHERE agent = ?1 ORDER BY incarnation DESC LIMIT ?2");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params![agent.to_string(), signed(limit as u64)])?;
    collect(&mut rows)
}

fn collect(rows: &mut rusqlite::Rows<'_>) -> Result<Vec<IncarnationRow>, StoreError> {
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(incarnation(row)?);
    }
    Ok(all)
}

fn incarnation(row: &Row<'_>) -> Result<IncarnationRow, StoreError> {
    let exit: Option<String> = row.get(8)?;
    Ok(IncarnationRow {
        begun: Incarnation {
            launch_id: parse(row.get_ref(0)?.as_str()?)?,
            agent: parse(row.get_ref(1)?.as_str()?)?,
            incarnation: unsigned(row.get(2)?),
            token_hash: row.get(3)?,
            begun_at: time(row.get(4)?),
            automatic: row.get(5)?,
            runs: row.get(9)?,
        },
        pid: row.get(6)?,
        alive_at: row.get::<_, Option<i64>>(7)?.map(time),
        exit: exit.as_deref().map(exit_of).transpose()?,
    })
}

fn exit_of(text: &str) -> Result<ExitRecord, StoreError> {
    from_json::<ExitForm>(text).map(ExitRecord::from)
}

pub(super) fn set_standing(
    db: &Connection,
    agent: &AgentId,
    standing: Standing,
    at: SystemTime,
) -> Result<(), StoreError> {
    let (word, retry_at) = match standing.state {
        StandingState::Active => ("active", None),
        StandingState::BackingOff { retry_at } => ("backing_off", Some(retry_at)),
        StandingState::Failed { retry_at } => ("failed", retry_at),
        StandingState::Completed => ("completed", None),
        StandingState::New => ("new", None),
    };
    db.prepare_cached(
        "INSERT INTO agents (agent, swarm, standing, retry_at_ms, standing_at_ms, attempt) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (agent) DO UPDATE SET standing = excluded.standing, retry_at_ms = excluded.retry_at_ms,
         standing_at_ms = excluded.standing_at_ms, attempt = excluded.attempt",
    )?
    .execute(params![
        agent.to_string(),
        agent.swarm.as_str(),
        word,
        retry_at.map(millis),
        millis(at),
        standing.attempt
    ])?;
    Ok(())
}

pub(super) fn reset_window(db: &Connection, agent: &AgentId, at: SystemTime) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE agents SET window_after = incarnation, window_reset_at_ms = ?2, attempt = 0 WHERE agent = ?1",
    )?
    .execute(params![agent.to_string(), millis(at)])?;
    Ok(())
}

pub(super) fn put_usage(db: &Connection, spent: &[(AgentId, Spent)]) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached("UPDATE agents SET spent = ?2 WHERE agent = ?1")?;
    for (agent, spent) in spent {
        statement.execute(params![agent.to_string(), to_json(&SpentForm::from(spent))?])?;
    }
    Ok(())
}

pub(super) fn ledger(
    db: &Connection,
    agent: &AgentId,
    now: SystemTime,
    period: Duration,
) -> Result<Ledger, StoreError> {
    let id = agent.to_string();
    let mut ledger = Ledger {
        incarnation: 0,
        restarts: 0,
        attempt: 0,
        recent: Vec::new(),
        standing: None,
        last_exit: None,
        spent: None,
    };
    let mut window_after = 0;
    {
        let mut statement = db.prepare_cached(
            "SELECT incarnation, restarts, attempt, standing, retry_at_ms, window_after, spent FROM agents WHERE agent = ?1",
        )?;
        let mut rows = statement.query(params![id])?;
        if let Some(row) = rows.next()? {
            ledger.incarnation = unsigned(row.get(0)?);
            ledger.restarts = unsigned(row.get(1)?);
            ledger.attempt = row.get(2)?;
            let word: Option<String> = row.get(3)?;
            ledger.standing = standing_of(word.as_deref(), row.get::<_, Option<i64>>(4)?.map(time))?;
            window_after = row.get(5)?;
            let spent: Option<String> = row.get(6)?;
            ledger.spent = spent.as_deref().map(from_json::<SpentForm>).transpose()?.map(Spent::from);
        }
    }
    let begin = now.checked_sub(period).map_or(0, millis);
    let mut statement = db.prepare_cached(
        "SELECT begun_at_ms FROM incarnations WHERE agent = ?1 AND incarnation > ?2 AND automatic AND begun_at_ms > ?3
         ORDER BY incarnation",
    )?;
    let mut rows = statement.query(params![id, window_after, begin])?;
    while let Some(row) = rows.next()? {
        ledger.recent.push(time(row.get(0)?));
    }
    let exit: Option<String> = db
        .prepare_cached(
            "SELECT exit FROM incarnations WHERE agent = ?1 AND exit IS NOT NULL ORDER BY incarnation DESC LIMIT 1",
        )?
        .query_row(params![id], |row| row.get(0))
        .optional()?;
    ledger.last_exit = exit.as_deref().map(exit_of).transpose()?;
    Ok(ledger)
}

fn standing_of(word: Option<&str>, retry_at: Option<SystemTime>) -> Result<Option<StandingState>, StoreError> {
    let state = match (word, retry_at) {
        (None, _) => return Ok(None),
        (Some("active"), _) => StandingState::Active,
        (Some("backing_off"), Some(retry_at)) => StandingState::BackingOff { retry_at },
        (Some("failed"), retry_at) => StandingState::Failed { retry_at },
        (Some("completed"), _) => StandingState::Completed,
        (Some("new"), _) => StandingState::New,
        (Some(other), _) => return Err(StoreError::Corrupt(format!("standing {other:?}"))),
    };
    Ok(Some(state))
}
