//! The names, what they mean, and which number each shows. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::{
    process::Process,
    readings::{ActorsReading, Readings},
    text::{Number, Text},
    work,
};
use crate::{
    coordination::WorkCounts,
    model::{
        AgentHealth, AgentState, BreakerState, HiveHealth, Level, Lost, NotifierStatus, Seq, SourceReport, SwarmName,
    },
    tools::Called,
    view::words,
    wire::rpc::Code,
};

/// Everything that one scrape shows.
pub(super) struct Scrape<'a> {
    pub(super) hive: &'a HiveHealth,
    pub(super) readings: &'a Readings,
    /// Children of the supervision tree by state; `None` when it did not tell.
    pub(super) children: Option<BTreeMap<&'static str, u64>>,
    /// What there is of work; `None` when it could not be told.
    pub(super) work: Option<BTreeMap<SwarmName, WorkCounts>>,
    pub(super) called: &'a [Called],
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
const BREAKERS: [BreakerState; 3] = [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen];
const LEVELS: [Level; 4] = [Level::Healthy, Level::Degraded, Level::Unknown, Level::Critical];

/// The whole text.
pub(super) fn render(scrape: &Scrape<'_>) -> String {
    let mut text = Text::default();
    hive(&mut text, scrape.hive);
    agents(&mut text, scrape.hive);
    data_plane(&mut text, scrape);
    sources(&mut text, scrape.hive);
    viewers(&mut text, scrape.readings);
    notifiers(&mut text, &scrape.readings.notifiers);
    control_plane(&mut text, scrape);
    if let Some(counts) = &scrape.work {
        work::work(&mut text, counts);
    }
    work::calls(&mut text, scrape.called);
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
    let help = "Messages of an agent that were read since this daemon started.";
    each(text.counter("hivekeeper_agent_received", help), hive, |one| Some(one.telemetry.received));
    let help = "Log records, samples and events of an agent that were dropped on their way.";
    let mut family = text.counter("hivekeeper_agent_dropped", help);
    for agent in &hive.agents {
        for (class, count) in by_class(agent.telemetry.dropped) {
            let (swarm, name) = (agent.id.swarm.as_str(), agent.id.name.as_str());
            family.of(&[("swarm", swarm), ("agent", name), ("class", class)], count);
        }
    }
    let help = "By how much an agent's last heartbeat came later than it was due; left out when it is stale.";
    each(text.gauge("hivekeeper_agent_heartbeat_latency_seconds", help), hive, |one| {
        Some(Duration::from_millis(*one.heartbeat_latency_ms.value()?).as_secs_f64())
    });
    let help = "Time from the read of an agent's last message until it was folded.";
    each(text.gauge("hivekeeper_agent_ingest_latency_seconds", help), hive, |one| {
        Some(one.telemetry.latency_ms.value()? / 1000.0)
    });
    let help = "Tokens that an agent says it was given or has given back, over all its incarnations.";
    let mut family = text.counter("hivekeeper_agent_tokens", help);
    for agent in &hive.agents {
        let Some(usage) = agent.usage.value() else { continue };
        for (kind, count) in [("input", usage.input_tokens), ("output", usage.output_tokens)] {
            let (swarm, name) = (agent.id.swarm.as_str(), agent.id.name.as_str());
            if let Some(count) = count {
                family.of(&[("swarm", swarm), ("agent", name), ("type", kind)], count);
            }
        }
    }
    // No counter: it is the agent's reckoning, which may be corrected downwards, and a scraper takes a counter that falls for a new start.
    let help = "What an agent says that it has cost, in US dollars, over all its incarnations.";
    each(text.gauge("hivekeeper_agent_cost_usd", help), hive, |one| one.usage.value()?.cost_usd);
}

fn by_class(Lost { logs, metrics, events }: Lost) -> [(&'static str, u64); 3] {
    [("logs", logs), ("metrics", metrics), ("events", events)]
}

fn sources(text: &mut Text, hive: &HiveHealth) {
    let help = "1 for the state that the circuit breaker of a polled MCP server is in, 0 for the others.";
    let mut family = text.gauge("hivekeeper_source_breaker", help);
    for source in &hive.sources {
        for state in BREAKERS {
            let labels = [("source", source.report.spec.name.as_str()), ("state", words::breaker(state))];
            family.is(&labels, source.report.breaker == state);
        }
    }
    let mut each = |name, help, show: fn(&SourceReport) -> u64| {
        let mut family = text.counter(name, help);
        for source in &hive.sources {
            family.of(&[("source", source.report.spec.name.as_str())], show(&source.report));
        }
    };
    each("hivekeeper_source_polls", "Polls of an MCP server.", |one| one.polls);
    each("hivekeeper_source_failures", "Polls of an MCP server that failed.", |one| one.failures);
    each("hivekeeper_source_cut", "Connections that an MCP server ended.", |one| one.cut);
}

fn notifiers(text: &mut Text, all: &[NotifierStatus]) {
    let mut each = |name, help, show: fn(&NotifierStatus) -> u64| {
        let mut family = text.counter(name, help);
        for one in all {
            family.of(&[("notifier", one.name.as_str())], show(one));
        }
    };
    each("hivekeeper_notify_delivered", "Messages that a receiver took, summaries included.", |one| one.delivered);
    each("hivekeeper_notify_summed_up", "Messages that were told in a summary.", |one| one.summed_up);
    each("hivekeeper_notify_lost", "Messages that a receiver refused for good.", |one| one.lost);
    each("hivekeeper_notify_failed_attempts", "Attempts to tell that failed.", |one| one.failed_attempts);
    let mut family = text.gauge("hivekeeper_notify_waiting", "Messages that wait to be told.");
    for one in all {
        family.of(&[("notifier", one.name.as_str())], one.waiting);
    }
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
    // As the document has them: what comes of an agent that is gone is refused behind the listener, which does not know of it.
    let mut family = text.counter("hivekeeper_data_plane_refused", "Messages refused, by the code of the answer.");
    for code in Code::ALL {
        let number = code.number();
        let refused = hive.data_plane.refused_by_code.get(&number).copied().unwrap_or(0);
        family.of(&[("code", &number.to_string())], refused);
    }
    let mut family = text
        .counter("hivekeeper_data_plane_dropped", "Log records, samples and events that were dropped, of all agents.");
    for (class, count) in by_class(hive.data_plane.dropped_by_class) {
        family.of(&[("class", class)], count);
    }
    let help = "Connections that found no place.";
    text.counter("hivekeeper_data_plane_turned_away", help).value(plane.turned_away);
    let help = "Times that accepting waited, because connections came too fast.";
    text.counter("hivekeeper_data_plane_delayed", help).value(plane.delayed);
    let help = "Connections closed for younger ones: without a session, or of an agent with too many.";
    text.counter("hivekeeper_data_plane_displaced", help).value(plane.displaced);
    text.counter("hivekeeper_data_plane_handshakes_failed", "Failed TLS handshakes.").value(plane.handshakes_failed);
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

    let disk = &readings.disk;
    let mut family = text.gauge("hivekeeper_disk_used_bytes", "What the daemon keeps in its data directory.");
    family.of(&[("part", "journal")], disk.journal);
    family.of(&[("part", "history")], disk.history);
    family.of(&[("part", "logs")], disk.logs);
    text.gauge("hivekeeper_disk_max_bytes", "What journal, history and log books may take together.").value(disk.max);
    text.gauge("hivekeeper_disk_free_bytes", "What the file system of the data directory has left.").value(disk.free);

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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{ControlPlaneHealth, DataPlaneHealth, DiskHealth, HiveId, Measured, Source, Usage};

    fn hive(refused_by_code: BTreeMap<i64, u64>) -> HiveHealth {
        let at = SystemTime::UNIX_EPOCH;
        let usage = Usage { input_tokens: Some(7), cost_usd: Some(0.25), ..Usage::default() };
        let agent = AgentHealth {
            state: AgentState::Running,
            incarnation: 1,
            pid: Some(7),
            usage: Measured::Value { value: usage, observed_at: at, source: Source::Agent },
            ..AgentHealth::unknown("review/coder".parse().unwrap(), at)
        };
        HiveHealth {
            hive: "0199a1b2-0000-7000-8000-00000000000a".parse::<HiveId>().unwrap(),
            name: "laptop".to_owned(),
            level: Level::Healthy,
            since: at,
            reasons: Vec::new(),
            control_plane: ControlPlaneHealth { reachable: true, since: at, last_error: None },
            data_plane: DataPlaneHealth { refused_by_code, ..DataPlaneHealth::unknown() },
            swarms: Vec::new(),
            agents: vec![Arc::new(agent)],
            sources: Vec::new(),
            disk: DiskHealth::unknown(),
        }
    }

    fn scraped(hive: &HiveHealth, readings: &Readings) -> String {
        render(&Scrape {
            hive,
            readings,
            children: None,
            work: None,
            called: &[],
            head: Seq(1),
            process: Process::default(),
        })
    }

    /// An agent may correct its reckoning downwards.
    #[test]
    fn what_an_agent_has_cost_is_no_counter() {
        let text = scraped(&hive(BTreeMap::new()), &Readings::default());
        let labels = "{swarm=\"review\",agent=\"coder\"}";
        assert!(
            text.contains(&format!("# TYPE hivekeeper_agent_cost_usd gauge\nhivekeeper_agent_cost_usd{labels} 0.25\n"))
        );
        assert!(!text.contains("cost_usd_total"), "{text}");
        assert!(text.contains("# TYPE hivekeeper_agent_tokens_total counter\n"), "what was used stays used");
    }

    /// The listener does not see what the fold refuses: one number is shown, and that of the document.
    #[test]
    fn refused_messages_are_those_of_the_document() {
        let mut readings = Readings::default();
        readings.plane.refused = [(1003, 1), (-32602, 2)].into();
        let text = scraped(&hive([(1003, 5), (-32602, 2)].into()), &readings);
        for (code, count) in [(1003, 5), (-32602, 2), (1001, 0)] {
            let line = format!("\nhivekeeper_data_plane_refused_total{{code=\"{code}\"}} {count}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
