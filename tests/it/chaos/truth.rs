//! What must hold after every fault.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::model::{Agent, Desired, Model};
use crate::hive::{Hive, lives, until_within};

/// How long a hive may take to settle.
const SETTLE: Duration = Duration::from_secs(20);

/// How long a launcher may outlive its last frame.
const LINGER: Duration = Duration::from_secs(3);

/// What was seen so far, and may not change any more.
#[derive(Default)]
pub(super) struct Truth {
    last_event: u64,
    events: Vec<Value>,
}

impl Truth {
    #[track_caller]
    pub(super) fn look(&mut self, hive: &Hive, model: &mut Model, after: &str) {
        let deadline = Instant::now() + SETTLE;
        loop {
            match settled(hive, model) {
                Ok(()) => break,
                Err(why) => assert!(Instant::now() < deadline, "{after}: never settled: {why}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        no_two(hive, model, after);
        journal(hive, model, after);
        lines(hive, model, after);
        self.events(hive, after);
        for agent in model.agents.values_mut() {
            agent.touched = false;
        }
    }

    /// Numbers grow; what is new lies behind what was.
    fn events(&mut self, hive: &Hive, after: &str) {
        loop {
            let page = hive.get(&format!("/api/v1/events?after={}&limit=1000", self.last_event));
            assert_eq!(page.status, 200, "{page:?}");
            let events = page.body["events"].as_array().unwrap().clone();
            for event in events.iter() {
                let seq = event["seq"].as_u64().unwrap();
                assert!(seq > self.last_event, "{after}: event {seq} behind {}", self.last_event);
                self.last_event = seq;
            }
            if events.is_empty() {
                return;
            }
            // Readings are not kept across daemons.
            self.events.extend(events.into_iter().filter(|event| event["kind"] != "samples"));
        }
    }

    /// What was read along the way is what is there.
    pub(super) fn whole_history(&mut self, hive: &Hive) {
        let seen = std::mem::take(&mut self.events);
        self.last_event = 0;
        self.events(hive, "at the end");
        for (at, before) in seen.iter().enumerate() {
            assert_eq!(self.events.get(at), Some(before), "history has changed");
        }
    }
}

/// Whether every agent is as it is desired, with the numbers that it must have.
fn settled(hive: &Hive, model: &mut Model) -> Result<(), String> {
    for (id, agent) in model.agents.iter_mut().filter(|(_, agent)| agent.listed) {
        let (swarm, name) = id.split_once('/').unwrap();
        let answer = hive.get(&format!("/api/v1/swarms/{swarm}/agents/{name}"));
        if answer.status != 200 {
            return Err(format!("{id}: {answer:?}"));
        }
        is_right(id, agent, &answer.body)?;
        agent.pid = answer.body["pid"].as_i64().map(|pid| i32::try_from(pid).unwrap());
        agent.incarnation = answer.body["incarnation"].as_u64().unwrap();
    }
    for (id, agent) in model.agents.iter_mut().filter(|(_, agent)| !agent.listed) {
        let (swarm, name) = id.split_once('/').unwrap();
        let answer = hive.get(&format!("/api/v1/swarms/{swarm}/agents/{name}"));
        if answer.status != 404 {
            return Err(format!("{id} was removed: {answer:?}"));
        }
        agent.pid = None;
    }
    Ok(())
}

fn is_right(id: &str, agent: &Agent, shown: &Value) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{id} {what}: expected {agent:?}, shown {shown:#}"));
    if shown["desired"] != agent.desired.word() {
        return wrong("is desired otherwise".to_owned());
    }
    if shown["state"] != agent.desired.word() {
        return wrong(format!("is not {}", agent.desired.word()));
    }
    let (pid, incarnation) = (shown["pid"].as_i64(), shown["incarnation"].as_u64().unwrap());
    if pid.is_some() != (agent.desired != Desired::Stopped) {
        return wrong("has a process id, or none".to_owned());
    }
    if incarnation < agent.incarnation {
        return wrong("has an incarnation that went back".to_owned());
    }
    if !agent.touched && (pid != agent.pid.map(i64::from) || incarnation != agent.incarnation) {
        return wrong("was replaced without need".to_owned());
    }
    if shown["restarts"] != agent.restarts {
        return wrong("has another count of restarts".to_owned());
    }
    let Some(pid) = pid.map(|pid| i32::try_from(pid).unwrap()) else { return Ok(()) };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    let frozen = match state {
        Some('T') => true,
        // It waits in vfork(2) for a child that is frozen, and will be stopped when that goes on.
        Some('D') => agent.desired == Desired::Paused,
        Some(_) => false,
        None => return wrong("is not there".to_owned()),
    };
    if frozen != (agent.desired == Desired::Paused) {
        return wrong(format!("is not frozen as it should be: {state:?}"));
    }
    Ok(())
}

/// Living processes that name an agent: of the one incarnation that is shown, and of no removed or stopped agent.
/// Living processes that name an agent: of the one incarnation that is shown, and of no removed or stopped agent.
#[track_caller]
fn no_two(hive: &Hive, model: &Model, after: &str) {
    let expected: BTreeMap<String, BTreeSet<u64>> =
        model.living().into_iter().map(|id| (id.clone(), [model.agents[&id].incarnation].into())).collect();
    let (found, _) = living(hive);
    assert_eq!(found, expected, "{after}: the living incarnations");
    // A launcher that has told the end takes a moment to end itself.
    until_within(LINGER, &format!("{after}: one launcher for each agent, and no stranger"), || {
        (living(hive).1 == expected.len()).then_some(())
    });
    for entry in fs::read_dir(hive.file("marks")).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(!name.ends_with(".two"), "{after}: two living incarnations: {name}");
    }
}

/// Incarnations with a living process, and how many processes name no agent: launchers, if all is well.
fn living(hive: &Hive) -> (BTreeMap<String, BTreeSet<u64>>, usize) {
    let daemon = i32::try_from(hive.pid).unwrap();
    let mut found: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let mut others = 0;
    for pid in hive.processes() {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let environ = String::from_utf8_lossy(&environ).into_owned();
        let of = |name: &str| environ.split('\0').find_map(|var| var.strip_prefix(name)).map(str::to_owned);
        match (of("HIVEKEEPER_AGENT="), of("HIVEKEEPER_INCARNATION=")) {
            (Some(agent), Some(number)) => _ = found.entry(agent).or_default().insert(number.parse().unwrap()),
            _ => others += usize::from(pid != daemon && lives(pid)),
        }
    }
    (found, others)
}

#[track_caller]
fn journal(hive: &Hive, model: &Model, after: &str) {
    let path = hive.data().join("hive.db");
    let db = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut rows =
        db.prepare("SELECT agent, incarnation, automatic, exit IS NULL FROM incarnations ORDER BY 1, 2").unwrap();
    let rows: Vec<(String, u64, bool, bool)> = rows
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned(), row.get(2)?, row.get(3)?)))
        .unwrap()
        .flatten()
        .collect();
    for (id, agent) in &model.agents {
        let own: Vec<_> = rows.iter().filter(|row| row.0 == *id).collect();
        let numbers: Vec<u64> = own.iter().map(|row| row.1).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{after}: {id}: {numbers:?}");
        let automatic = own.iter().filter(|row| row.2).count() as u64;
        assert_eq!(automatic, agent.restarts, "{after}: {id}: automatic starts in the journal");
        let open: Vec<u64> = own.iter().filter(|row| row.3).map(|row| row.1).collect();
        let living: Vec<u64> = agent.pid.map(|_| agent.incarnation).into_iter().collect();
        assert_eq!(open, living, "{after}: {id}: incarnations without an end");
    }
}

/// Each incarnation counts its lines; what is kept has no gap and no double.
#[track_caller]
fn lines(hive: &Hive, model: &Model, after: &str) {
    for id in model.listed() {
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for line in hive.lines(&id) {
            let text = line["text"].as_str().unwrap();
            // Of a launcher that ended while nobody led it: what it had not handed over is counted, and behind the lines that are kept.
            if text.contains("lines of output were lost here: they went with the launcher") {
                continue;
            }
            let Some((incarnation, number)) = text.split_once(':') else { panic!("{after}: {id}: {line:#}") };
            let (incarnation, number): (u64, u64) = (incarnation.parse().unwrap(), number.parse().unwrap());
            let before = last.insert(incarnation, number).unwrap_or(0);
            assert_eq!(number, before + 1, "{after}: {id}: incarnation {incarnation}");
            assert!(last.keys().next_back() == Some(&incarnation), "{after}: {id}: {text} out of order");
        }
    }
}
