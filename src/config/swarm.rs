//! Swarm documents: `[[swarm]]` and its `[[swarm.agent]]`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::model::{
    AgentName, AgentSpec, Backoff, OnExceeded, OnStuck, Origin, Ready, RestartType, Strategy, SwarmName, SwarmSpec,
    spec::{AGENTS_MAX, REPLICAS_MAX},
};

use super::{
    fields::{Fields, Setting, Slot},
    home::{Machine, home},
    problem::{Complaint, Place, Problem},
    read::{self, choice, duration, integer, number},
    secret,
    tree::{Node, Value, quoted},
};

const ZERO: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Shortest time that a launcher or a daemon on a busy machine can be judged by.
const JUDGED_MIN: Duration = Duration::from_millis(100);
/// Shortest lease: a third of it is the renewals' distance, which must outlast a hiccup of the machine.
const LEASE_MIN: Duration = Duration::from_millis(300);

/// The keys of a swarm that `[supervision]` has defaults for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SwarmSlots {
    strategy: Slot<Strategy>,
    intensity: Slot<i64>,
    period: Slot<Duration>,
    on_exceeded: Slot<OnExceeded>,
    initial: Slot<Duration>,
    then: Slot<Duration>,
    factor: Slot<f64>,
    max: Slot<Duration>,
    jitter: Slot<f64>,
    reset_after: Slot<Duration>,
}

impl SwarmSlots {
    /// Lays what a table says over what is there.
    pub(super) fn read(&mut self, fields: &mut Fields<'_>) {
        fields.set("strategy", &mut self.strategy, strategy);
        fields.set("intensity", &mut self.intensity, integer(0..=1000));
        fields.set("period", &mut self.period, duration(SECOND..=DAY));
        if let Some(node) = fields.node("on_exceeded") {
            let place = node.place.clone();
            if let Some(value) = on_exceeded(node, fields) {
                self.on_exceeded = Some(Setting { value, place });
            }
        }
        let Some(mut backoff) = fields.table("backoff") else { return };
        backoff.set("initial", &mut self.initial, duration(ZERO..=HOUR));
        backoff.set("then", &mut self.then, duration(ZERO..=HOUR));
        backoff.set("factor", &mut self.factor, number(1.0..=100.0));
        backoff.set("max", &mut self.max, duration(ZERO..=DAY));
        backoff.set("jitter", &mut self.jitter, number(0.0..=1.0));
        backoff.set("reset_after", &mut self.reset_after, duration(SECOND..=DAY));
        if let (Some(then), Some(max)) = (&self.then, &self.max)
            && then.value > max.value
        {
            let found = format!("then = \"{}\"", humantime::format_duration(then.value));
            let allowed = format!("at most max = \"{}\"", humantime::format_duration(max.value));
            let place = backoff.place.clone();
            backoff.complain(place, "", Complaint::allowed(found, allowed));
        }
        backoff.finish();
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff {
            initial: self.initial.as_ref()?.value,
            then: self.then.as_ref()?.value,
            max: self.max.as_ref()?.value,
            reset_after: self.reset_after.as_ref()?.value,
            factor: self.factor.as_ref()?.value,
            jitter: self.jitter.as_ref()?.value,
        })
    }
}

/// The keys of an agent that `[supervision]` and `[health]` have defaults for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct AgentSlots {
    restart: Slot<RestartType>,
    ready: Slot<Ready>,
    start_timeout: Slot<Duration>,
    pub(super) heartbeat_timeout: Slot<Duration>,
    progress_timeout: Slot<Duration>,
    on_stuck: Slot<OnStuck>,
    stop_grace: Slot<Duration>,
    lease: Slot<Duration>,
}

impl AgentSlots {
    /// Lays what a table says of `restart` over what is there.
    pub(super) fn read_restart(&mut self, fields: &mut Fields<'_>) {
        let types = [
            ("permanent", RestartType::Permanent),
            ("transient", RestartType::Transient),
            ("temporary", RestartType::Temporary),
        ];
        fields.set("restart", &mut self.restart, choice(&types));
    }

    /// Lays what a table says of everything else over what is there.
    pub(super) fn read_health(&mut self, fields: &mut Fields<'_>) {
        fields.set("ready", &mut self.ready, choice(&[("process", Ready::Process), ("session", Ready::Session)]));
        fields.set("start_timeout", &mut self.start_timeout, duration(JUDGED_MIN..=HOUR));
        fields.set("heartbeat_timeout", &mut self.heartbeat_timeout, duration(JUDGED_MIN..=DAY));
        fields.set("progress_timeout", &mut self.progress_timeout, duration(ZERO..=DAY));
        let fates = [("report", OnStuck::Report), ("restart", OnStuck::Restart)];
        fields.set("on_stuck", &mut self.on_stuck, choice(&fates));
        fields.set("stop_grace", &mut self.stop_grace, duration(ZERO..=HOUR));
        fields.set("lease", &mut self.lease, duration(LEASE_MIN..=DAY));
    }
}

/// What a document is read against.
pub(super) struct Ground<'a> {
    /// What its home is read against.
    pub(super) machine: Machine<'a>,
    /// Defaults of a swarm.
    pub(super) swarm: &'a SwarmSlots,
    /// Defaults of an agent.
    pub(super) agent: &'a AgentSlots,
    /// Time between two readings of an agent.
    pub(super) sample_interval: Duration,
}

/// Reads the `swarm` array of the user's file.
pub(super) fn swarms(node: Node, ground: &Ground<'_>, problems: &mut Vec<Problem>) -> Vec<SwarmSpec> {
    let Value::Array(documents) = node.value else {
        problems.push(
            Complaint::allowed(node.value.describe(), "tables headed [[swarm]], with two brackets")
                .at(node.place, "swarm".to_owned()),
        );
        return Vec::new();
    };
    let mut names: HashMap<SwarmName, Place> = HashMap::new();
    let mut specs = Vec::new();
    for (i, document) in documents.into_iter().enumerate() {
        let Some(fields) = Fields::open(document, format!("swarm[#{}]", i + 1), problems) else { continue };
        specs.extend(swarm(fields, ground, &mut names));
    }
    let count: usize = specs.iter().map(SwarmSpec::count).sum();
    if count > AGENTS_MAX {
        let complaint =
            Complaint::allowed(format!("{count} agents"), format_args!("{AGENTS_MAX} in all swarms together"));
        problems.push(complaint.at(node.place, "swarm".to_owned()));
    }
    specs
}

/// Reads a document that stands alone.
pub(super) fn document(node: Node, ground: &Ground<'_>, problems: &mut Vec<Problem>) -> Option<SwarmSpec> {
    swarm(Fields::open(node, "", problems)?, ground, &mut HashMap::new())
}

fn swarm(mut fields: Fields<'_>, ground: &Ground<'_>, names: &mut HashMap<SwarmName, Place>) -> Option<SwarmSpec> {
    let name = fields.required("name", read::name::<SwarmName>);
    if let Some(name) = &name {
        if !fields.is_top() {
            fields.rename(format!("swarm[{}]", name.value));
        }
        if let Some(first) = names.get(&name.value) {
            let complaint = Complaint::allowed(
                format!("a second {:?}", name.value.as_str()),
                format_args!("each name once; the first is at {first}"),
            );
            fields.complain(name.place.clone(), "name", complaint);
        } else {
            names.insert(name.value.clone(), name.place.clone());
        }
    }
    let home = home(&mut fields, ground.machine);
    let mut slots = ground.swarm.clone();
    slots.read(&mut fields);
    let env = secret::environment(&mut fields, ground.machine);
    let agents = agents(&mut fields, name.as_ref().map(|name| &name.value), ground);
    fields.finish();
    Some(SwarmSpec {
        name: name?.value,
        origin: Origin::Config,
        home: home?,
        strategy: slots.strategy.as_ref()?.value,
        intensity: u32::try_from(slots.intensity.as_ref()?.value).ok()?,
        period: slots.period.as_ref()?.value,
        on_exceeded: slots.on_exceeded.as_ref()?.value,
        backoff: slots.backoff()?,
        env,
        agents,
    })
}

fn agents(fields: &mut Fields<'_>, swarm: Option<&SwarmName>, ground: &Ground<'_>) -> Vec<Arc<AgentSpec>> {
    let place = fields.place.clone();
    let nodes = match fields.node("agent") {
        None => {
            fields.complain(place, "agent", Complaint::allowed("no agent", "one [[swarm.agent]] at least"));
            return Vec::new();
        }
        Some(Node { value: Value::Array(nodes), .. }) => nodes,
        Some(Node { value, place }) => {
            let allowed = "tables headed [[swarm.agent]], with two brackets";
            fields.complain(place, "agent", Complaint::allowed(value.describe(), allowed));
            return Vec::new();
        }
    };
    let mut names: HashMap<String, Place> = HashMap::new();
    let mut agents = Vec::new();
    for (i, node) in nodes.into_iter().enumerate() {
        let path = fields.path(&format!("agent[#{}]", i + 1));
        let stem = fields.path("agent");
        let Some(below) = fields.open_below(node, path) else { continue };
        agents.extend(agent(below, &stem, swarm, &mut names, ground).map(Arc::new));
    }
    agents
}

fn agent(
    mut fields: Fields<'_>,
    stem: &str,
    swarm: Option<&SwarmName>,
    names: &mut HashMap<String, Place>,
    ground: &Ground<'_>,
) -> Option<AgentSpec> {
    let name = fields.required("name", read::name::<AgentName>);
    if let Some(name) = &name {
        fields.rename(format!("{stem}[{}]", name.value));
    }
    let replicas =
        fields.get("replicas", integer(1..=i64::from(REPLICAS_MAX))).and_then(|said| u32::try_from(said.value).ok());
    if let Some(name) = &name {
        claim_names(&mut fields, swarm, name, replicas, names);
    }
    let command = fields.required("command", read::argv);
    let env = secret::environment(&mut fields, ground.machine);
    let mut slots = ground.agent.clone();
    slots.read_restart(&mut fields);
    // Only words of the agent's own are judged here: the defaults are judged once, where they stand.
    (slots.on_stuck, slots.heartbeat_timeout) = (None, None);
    slots.read_health(&mut fields);
    if let (Some(Setting { value: OnStuck::Restart, place }), Some(Setting { value: ZERO, .. })) =
        (&slots.on_stuck, &slots.progress_timeout)
    {
        let rule = "it needs a progress_timeout above \"0s\", else nothing is ever stuck";
        fields.complain(place.clone(), "on_stuck", Complaint::rule("\"restart\"", rule));
    }
    if let Some(said) = &slots.heartbeat_timeout
        && let Err(complaint) = heartbeat_fits(said.value, ground.sample_interval)
    {
        fields.complain(said.place.clone(), "heartbeat_timeout", complaint);
    }
    fields.finish();
    Some(AgentSpec {
        name: name?.value,
        replicas,
        command: command?.value,
        env,
        restart: slots.restart.as_ref()?.value,
        ready: slots.ready.as_ref()?.value,
        start_timeout: slots.start_timeout.as_ref()?.value,
        heartbeat_timeout: slots.heartbeat_timeout.as_ref().or(ground.agent.heartbeat_timeout.as_ref())?.value,
        progress_timeout: slots.progress_timeout.as_ref()?.value,
        on_stuck: slots.on_stuck.as_ref().or(ground.agent.on_stuck.as_ref())?.value,
        stop_grace: slots.stop_grace.as_ref()?.value,
        lease: slots.lease.as_ref()?.value,
    })
}

/// An agent without a session shows life by its launcher's readings, so a timeout below two of them would call it degraded for nothing.
pub(super) fn heartbeat_fits(timeout: Duration, sample_interval: Duration) -> Result<(), Complaint> {
    let least = sample_interval * 2;
    if timeout >= least {
        return Ok(());
    }
    let allowed = format!(
        "at least \"{}\", twice runtime.sample_interval, at which launchers report that an agent lives",
        humantime::format_duration(least)
    );
    Err(Complaint::allowed(format!("\"{}\"", humantime::format_duration(timeout)), allowed))
}

/// Every name that the entry stands for must be free and a DNS label.
fn claim_names(
    fields: &mut Fields<'_>,
    swarm: Option<&SwarmName>,
    name: &Setting<AgentName>,
    replicas: Option<u32>,
    names: &mut HashMap<String, Place>,
) {
    let count = names.len() + replicas.map_or(1, |n| n as usize);
    if count > AGENTS_MAX {
        // Before they are made: a short document can stand for millions.
        let allowed = format_args!("{AGENTS_MAX} in all swarms together");
        fields.complain(name.place.clone(), "replicas", Complaint::allowed(format!("{count} agents"), allowed));
        return;
    }
    let all: Vec<String> = match replicas {
        None => vec![name.value.to_string()],
        Some(n) => (1..=n).map(|i| format!("{}-{i}", name.value)).collect(),
    };
    let swarm = swarm.map_or("this swarm", SwarmName::as_str);
    for name_of_one in all {
        if name_of_one.parse::<AgentName>().is_err() {
            let found = format!("{}, which stands for {}", quoted(name.value.as_str()), quoted(&name_of_one));
            let rule = "allowed: 63 characters at most, number and hyphen included";
            fields.complain(name.place.clone(), "name", Complaint::rule(found, rule));
            return;
        }
        if let Some(first) = names.get(&name_of_one) {
            let found = format!("a second agent {:?} in {swarm}", name_of_one);
            let rule = format!("allowed: each name once, numbered ones included; the first is at {first}");
            fields.complain(name.place.clone(), "name", Complaint::rule(found, rule));
            return;
        }
        names.insert(name_of_one, name.place.clone());
    }
}

/// OTP's words without `simple_one_for_one`, which is for children that come and go: a document names its agents.
fn strategy(node: &Node) -> Result<Strategy, Complaint> {
    let words = [
        ("one_for_one", Strategy::OneForOne),
        ("one_for_all", Strategy::OneForAll),
        ("rest_for_one", Strategy::RestForOne),
    ];
    choice(&words)(node)
}

fn on_exceeded(node: Node, fields: &mut Fields<'_>) -> Option<OnExceeded> {
    const ALLOWED: &str = "\"fail\" or { retry_after = \"10m\" }";
    match node.value.meant() {
        Value::String(word) if word == "fail" => Some(OnExceeded::Fail),
        Value::Table(_) => {
            let path = fields.path("on_exceeded");
            let mut below = fields.open_below(node, path)?;
            let after = below.required("retry_after", duration(SECOND..=DAY));
            below.finish();
            Some(OnExceeded::RetryAfter(after?.value))
        }
        other => {
            fields.complain(node.place, "on_exceeded", Complaint::allowed(other.describe(), ALLOWED));
            None
        }
    }
}
