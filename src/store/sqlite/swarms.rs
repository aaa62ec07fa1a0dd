//! Swarms and what the operator wants.

use std::{sync::Arc, time::SystemTime};

use rusqlite::{Connection, params};

use crate::{
    model::{AgentId, Desired, Origin, SwarmName},
    store::{
        error::StoreError,
        forms::{millis, parse, time},
        records::SwarmRow,
    },
};

pub(super) fn all(db: &Connection) -> Result<Vec<SwarmRow>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT name, origin, document, desired, since_ms, scaled FROM swarms ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut swarms = Vec::new();
    while let Some(row) = rows.next()? {
        swarms.push(SwarmRow {
            name: parse(row.get_ref(0)?.as_str()?)?,
            origin: origin_of(row.get_ref(1)?.as_str()?)?,
            document: Arc::from(row.get_ref(2)?.as_str()?),
            desired: desired_of(row.get_ref(3)?.as_str()?)?,
            since: time(row.get(4)?),
            scaled: row.get::<_, Option<String>>(5)?.map(Arc::from),
        });
    }
    Ok(swarms)
}

pub(super) fn put(db: &Connection, row: &SwarmRow) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO swarms (name, origin, document, desired, since_ms, scaled) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO UPDATE SET
         origin = excluded.origin, document = excluded.document, desired = excluded.desired, since_ms = excluded.since_ms,
         scaled = excluded.scaled",
    )?
    .execute(params![
        row.name.as_str(),
        origin_word(row.origin),
        &*row.document,
        desired_word(row.desired),
        millis(row.since),
        row.scaled.as_deref()
    ])?;
    Ok(())
}

pub(super) fn set_desired(
    db: &Connection,
    name: &SwarmName,
    to: Desired,
    follow: &[AgentId],
    at: SystemTime,
) -> Result<(), StoreError> {
    let changed = db
        .prepare_cached("UPDATE swarms SET desired = ?2, since_ms = ?3 WHERE name = ?1")?
        .execute(params![name.as_str(), desired_word(to), millis(at)])?;
    if changed == 0 {
        return Err(StoreError::Conflict(format!("no swarm {name} in the journal")));
    }
    follow.iter().try_for_each(|agent| set_agent_desired(db, agent, None, at))
}

pub(super) fn set_agent_desired(
    db: &Connection,
    agent: &AgentId,
    to: Option<Desired>,
    at: SystemTime,
) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO agents (agent, swarm, desired, desired_at_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (agent) DO UPDATE SET desired = excluded.desired, desired_at_ms = excluded.desired_at_ms",
    )?
    .execute(params![agent.to_string(), agent.swarm.as_str(), to.map(desired_word), millis(at)])?;
    Ok(())
}

pub(super) fn agent_desires(db: &Connection) -> Result<Vec<(AgentId, Desired)>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT agent, desired FROM agents WHERE desired IS NOT NULL ORDER BY agent")?;
    let mut rows = statement.query([])?;
    let mut desires = Vec::new();
    while let Some(row) = rows.next()? {
        desires.push((parse(row.get_ref(0)?.as_str()?)?, desired_of(row.get_ref(1)?.as_str()?)?));
    }
    Ok(desires)
}

pub(super) fn remove(db: &Connection, name: &SwarmName) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM swarms WHERE name = ?1")?.execute(params![name.as_str()])?;
    db.prepare_cached(
        "UPDATE agents SET desired = NULL, desired_at_ms = NULL, standing = NULL, standing_at_ms = NULL,
         retry_at_ms = NULL, attempt = 0, window_after = incarnation WHERE swarm = ?1",
    )?
    .execute(params![name.as_str()])?;
    Ok(())
}

fn desired_word(desired: Desired) -> &'static str {
    match desired {
        Desired::Running => "running",
        Desired::Paused => "paused",
        Desired::Stopped => "stopped",
    }
}

fn desired_of(word: &str) -> Result<Desired, StoreError> {
    match word {
        "running" => Ok(Desired::Running),
        "paused" => Ok(Desired::Paused),
        "stopped" => Ok(Desired::Stopped),
        other => Err(StoreError::Corrupt(format!("desired state {other:?}"))),
    }
}

fn origin_word(origin: Origin) -> &'static str {
    match origin {
        Origin::Config => "config",
        Origin::Api => "api",
    }
}

fn origin_of(word: &str) -> Result<Origin, StoreError> {
    match word {
        "config" => Ok(Origin::Config),
        "api" => Ok(Origin::Api),
        other => Err(StoreError::Corrupt(format!("origin {other:?}"))),
    }
}
