//! The names, what they mean, and which number each shows. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::{
    process::Process,
    readings::{ActorsReading, Readings},
    text::{Number, Text},
};
use crate::{
    model::{AgentHealth, AgentState, HiveHealth, Level, Seq},
    view::words,
    wire::rpc::Code,
};

/// Everything that one scrape shows.
pub(super) struct Scrape<'a> {
    pub(super) hive: &'a HiveHealth,
    pub(super) readings: &'a Readings,
    /// Children of the supervision tree by state; `None` when it did not tell.
    pub(super) children: Option<BTreeMap<&'static str, u64>>,
    pub(super) head: Seq,
    pub(super) process: Process,
}

const STATES: [AgentState; 12] = [
    AgentState::Pending,
    AgentState::Starting,
    AgentState::Running,
    AgentState::Degraded,
    AgentState::Stuck,
    AgentState::Paused,
    AgentState::Unknown,
    AgentState::Stopping,
    AgentState::Stopped,
    AgentState::Completed,
    AgentState::BackingOff,
    AgentState::Failed,
];
const LEVELS: [Level; 4] = [Level::Healthy, Level::Degraded, Level::Unknown, Level::Critical];

/// The whole text.
pub(super) fn render(scrape: &Scrape<'_>) -> String {
    let mut text = Text::default();
    hive(&mut text, scrape.hive);
    agents(&mut text, scrape.hive);
    data_plane(&mut text, scrape);
    viewers(&mut text, scrape.readings);
    control_plane(&mut text, scrape);
    if let Some(actors) = &scrape.readings.actors {
        threads(&mut text, actors);
    }
    process(&mut text, &scrape.process);
    text.finish()
}

fn hive(text: &mut Text, hive: &HiveHealth) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    text.gauge("hivekeeper_build_info", "The version of this daemon; always 1.").of(&version, 1u64);
    let id = hive.hive.to_string();
    let names = [("hive_id", id.as_str()), ("hive", hive.name.as_str())];
    text.gauge("hivekeeper_hive_info", "The identity and the name of the hive; always 1.").of(&names, 1u64);
    let mut family = text.gauge("hivekeeper_hive_level", "1 for the level that the hive is at, 0 for the others.");
    for level in LEVELS {
        family.is(&[("level", words::level(level))], hive.level == level);
    }
    let mut family = text.gauge("hivekeeper_swarm_level", "1 for the level that a swarm is at, 0 for the others.");
    for swarm in &hive.swarms {
        for level in LEVELS {
            family.is(&[("swarm", swarm.name.as_str()), ("level", words::level(level))], swarm.level == level);
        }
    }
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for swarm in &hive.swarms {
        counts.extend(STATES.map(|state| ((swarm.name.as_str(), words::agent_state(state)), 0)));
    }
    for agent in &hive.agents {
        *counts.entry((agent.id.swarm.as_str(), words::agent_state(agent.state))).or_default() += 1;
    }
    let mut family = text.gauge("hivekeeper_swarm_agents", "Agents of a swarm that are in a state.");
    for ((swarm, state), count) in counts {
        family.of(&[("swarm", swarm), ("state", state)], count);
    }
}

fn agents(text: &mut Text, hive: &HiveHealth) {
    let mut family =
        text.gauge("hivekeeper_agent_state", "1 for the state that an agent is in; the others are left out.");
    for agent in &hive.agents {
        let state = words::agent_state(agent.state);
        family.of(&[("swarm", agent.id.swarm.as_str()), ("agent", agent.id.name.as_str()), ("state", state)], 1u64);
    }
    each(text.counter("hivekeeper_agent_restarts", "Automatic restarts of an agent."), hive, |one| Some(one.restarts));
    each(text.gauge("hivekeeper_agent_incarnation", "How often an agent has been started."), hive, |one| {
        Some(one.incarnation)
    });
    each(text.gauge("hivekeeper_agent_cpu_cores", "Cores in use by an agent's process tree."), hive, |one| {
        one.cpu.value().copied()
    });
    let help = "Summed resident memory of an agent's process tree.";
    each(text.gauge("hivekeeper_agent_memory_bytes", help), hive, |one| one.memory.value().copied());
    let help = "When an agent's last heartbeat came, its own or its launcher's; left out when it is stale.";
    each(text.gauge("hivekeeper_agent_last_heartbeat_timestamp_seconds", help), hive, |one| {
        Some(since_1970(*one.last_heartbeat.value()?))
    });
    let help = "Log records and samples of an agent that were dropped on their way.";
    each(text.counter("hivekeeper_agent_dropped", help), hive, |one| Some(one.dropped));
}

/// One series for each agent of which there is something to show.
fn each<N: Number>(mut family: super::text::Family<'_>, hive: &HiveHealth, show: impl Fn(&AgentHealth) -> Option<N>) {
    for agent in &hive.agents {
        if let Some(value) = show(agent) {
            family.of(&[("swarm", agent.id.swarm.as_str()), ("agent", agent.id.name.as_str())], value);
        }
    }
}

fn data_plane(text: &mut Text, Scrape { hive, readings, .. }: &Scrape<'_>) {
    let plane = &readings.plane;
    let listening = plane.presence.listening;
    text.gauge("hivekeeper_data_plane_listening", "Whether agents can connect.").is(&[], listening);
    text.gauge("hivekeeper_data_plane_sessions", "Open sessions of agents.").value(plane.presence.sessions);
    let help = "Open connections, with and without a session.";
    text.gauge("hivekeeper_data_plane_connections", help).value(plane.presence.connections);
    text.counter("hivekeeper_data_plane_messages", "Lines that were taken.").value(plane.messages);
    let mut family = text.counter("hivekeeper_data_plane_refused", "Messages refused, by the code of the answer.");
    for code in Code::ALL {
        let number = code.number();
        family.of(&[("code", &number.to_string())], plane.refused.get(&number).copied().unwrap_or(0));
    }
    let help = "Log records and samples that were dropped, of all agents.";
    text.counter("hivekeeper_data_plane_dropped", help).value(hive.data_plane.dropped);
    let help = "Connections that found no place.";
    text.counter("hivekeeper_data_plane_turned_away", help).value(plane.turned_away);
    let help = "Connections ended because they missed a deadline.";
    text.counter("hivekeeper_data_plane_overdue", help).value(plane.overdue);
    text.counter("hivekeeper_data_plane_accept_errors", "Failed accepts.").value(plane.accept_errors);
    text.counter("hivekeeper_data_plane_panics", "Connections that a panic ended.").value(plane.panics);
}

fn viewers(text: &mut Text, readings: &Readings) {
    let seen = &readings.viewers;
    text.gauge("hivekeeper_viewers", "Viewers of the health socket.").value(seen.viewers as u64);
    let help = "Viewers dropped because they did not read (slow), or because nothing was heard of them (silent).";
    let mut family = text.counter("hivekeeper_viewers_dropped", help);
    family.of(&[("class", "slow")], seen.dropped_slow);
    family.of(&[("class", "silent")], seen.dropped_silent);
    text.counter("hivekeeper_viewer_frames", "Frames handed to viewers' sockets.").value(seen.frames);
    let help = "Time from an event to its frame's way into a viewer's socket.";
    text.summary("hivekeeper_viewer_push_seconds", help, seen.push_time.as_secs_f64(), seen.timed);
}

fn control_plane(text: &mut Text, Scrape { hive, readings, children, head, .. }: &Scrape<'_>) {
    let help = "Whether the runtime and the journal could be worked with when they were last used.";
    text.gauge("hivekeeper_control_plane_reachable", help).is(&[], hive.control_plane.reachable);
    text.gauge("hivekeeper_feed_head", "The number of the youngest event.").value(head.0);
    let journal = &readings.journal;
    text.gauge("hivekeeper_journal_ok", "Whether the last use of the journal went well.").is(&[], journal.ok);
    let help = "Events of the feed that the journal has not written or passed over yet.";
    text.gauge("hivekeeper_journal_lag_events", help).value(journal.lag);
    let help =
        "Events given up before the journal could write them; readings that left the ring unseen are counted along.";
    text.counter("hivekeeper_journal_lost_events", help).value(journal.lost);
    text.gauge("hivekeeper_journal_size_bytes", "The journal on disk.").value(journal.size_bytes);

    let counted = &readings.operations;
    let mut family = text.gauge("hivekeeper_operations", "Operations that wait or are under way.");
    family.of(&[("state", "accepted")], counted.accepted);
    family.of(&[("state", "running")], counted.running);
    let mut family = text.counter("hivekeeper_operations_ended", "Operations that have ended.");
    family.of(&[("state", "succeeded")], counted.succeeded);
    family.of(&[("state", "failed")], counted.failed);
    family.of(&[("state", "cancelled")], counted.cancelled);

    let mut family =
        text.gauge("hivekeeper_tree_children", "Supervisors and actors of the supervision tree that are in a state.");
    for (state, count) in children.iter().flatten() {
        family.of(&[("state", state)], *count);
    }
}

fn threads(text: &mut Text, actors: &ActorsReading) {
    text.gauge("hivekeeper_actor_threads", "Threads that serve actors.").value(actors.threads);
    let help = "Threads out of use now because a handler blocks them.";
    text.gauge("hivekeeper_actor_threads_stuck", help).value(actors.stuck);
    let help = "Threads that were ever taken out of use because a handler blocked them.";
    text.counter("hivekeeper_actor_threads_fenced", help).value(actors.fenced);
    let help = "How often the thread of the supervisors was found blocked.";
    text.counter("hivekeeper_actor_stalls", help).value(actors.stalls);
    text.counter("hivekeeper_actor_task_panics", "Panics of actors' tasks.").value(actors.task_panics);
    let help = "Messages that were taken and will never be handled.";
    text.counter("hivekeeper_actor_dead_letters", help).value(actors.dead_letters);
}

fn process(text: &mut Text, seen: &Process) {
    if let Some(seconds) = seen.cpu_seconds {
        text.counter("process_cpu_seconds", "User and system CPU time of the daemon.").value(seconds);
    }
    let mut gauge = |name, help, value: Option<u64>| {
        if let Some(value) = value {
            text.gauge(name, help).value(value);
        }
    };
    gauge("process_resident_memory_bytes", "Resident memory of the daemon.", seen.resident_bytes);
    gauge("process_virtual_memory_bytes", "Virtual memory of the daemon.", seen.virtual_bytes);
    gauge("process_threads", "Threads of the daemon.", seen.threads);
    gauge("process_open_fds", "Open file descriptors of the daemon.", seen.open_fds);
    gauge("process_max_fds", "File descriptors that the daemon may have open.", seen.max_fds);
    if let Some(seconds) = seen.start_seconds {
        text.gauge("process_start_time_seconds", "When the daemon was started.").value(seconds);
    }
}

fn since_1970(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}
