//! What a daemon is made of here: its rooms, its limits, its clocks, and the swarms that it is given.

use super::*;

/// Who may open: an incarnation and its token.
#[derive(Default)]
pub(super) struct Gate {
    pub(super) lives: Mutex<HashMap<AgentId, (u64, String)>>,
}

impl Admission for Gate {
    fn admit(&self, agent: &AgentId, incarnation: u64, token: &str) -> Result<(), Refusal> {
        match self.lives.lock().get(agent) {
            Some((lives, _)) if *lives != incarnation => Err(Refusal::StaleIncarnation),
            None => Err(Refusal::StaleIncarnation),
            Some((_, good)) if good != token => Err(Refusal::BadToken),
            Some(_) => Ok(()),
        }
    }

    fn lives(&self, agent: &AgentId, incarnation: u64) -> bool {
        self.lives.lock().get(agent).is_some_and(|(lives, _)| *lives == incarnation)
    }
}

/// What the data plane hands up, until the world looks at it.
#[derive(Default)]
pub(super) struct Basket {
    pub(super) reports: Mutex<Vec<Report>>,
}

impl TelemetrySink for Basket {
    fn accept(&self, batch: Vec<Telemetry>) {
        self.reports.lock().push(Report::Telemetry(batch));
    }

    fn refused(&self, _: Option<&AgentId>, code: i64, messages: u64) {
        self.reports.lock().push(Report::Refused { code, messages });
    }

    fn dropped(&self, agent: &AgentId, incarnation: u64, lost: Lost) {
        self.reports.lock().push(Report::Dropped { agent: agent.clone(), incarnation, lost });
    }
}

/// One daemon.
pub(super) struct House {
    pub(super) feed: Feed,
    pub(super) health: Handle,
    pub(super) plane: DataPlaneHandle,
    pub(super) hub: Hub,
    pub(super) model: Model,
    /// Agents that health wants restarted.
    pub(super) stuck: Arc<Mutex<Vec<(AgentId, u64)>>>,
    /// Up to which number the next daemon may not go.
    pub(super) reserved: u64,
    /// The health actor is down until then.
    pub(super) down_until: u64,
}

fn identity() -> Identity {
    Identity { hive: HiveId(Uuid::nil()), name: "home".to_owned(), sample_interval: SAMPLE_INTERVAL }
}

fn limits(is_crowded: bool) -> PlaneLimits {
    let total = if is_crowded { (30, 40) } else { (1_000_000, 1_000_000) };
    PlaneLimits {
        total_per_second: total.0,
        total_burst: total.1,
        notifications_per_second: PER_SECOND,
        notifications_burst: BURST,
        open_deadline: Duration::from_secs(3),
        ping_after: Duration::from_secs(5),
        silence_max: Duration::from_secs(16),
        ..PlaneLimits::default()
    }
}

/// Where the time of all simulations begins.
pub(super) fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    // Behind whatever reads the clock while a daemon is made.
    *BASE.get_or_init(|| Instant::now() + Duration::from_secs(3600))
}

pub(super) fn at(base: Instant, ms: u64, set: i64) -> Now {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(ms);
    let wall = match u64::try_from(set) {
        Ok(ahead) => wall + Duration::from_millis(ahead),
        Err(_) => wall - Duration::from_millis(set.unsigned_abs()),
    };
    Now { wall, mono: base + Duration::from_millis(ms) }
}

pub(super) fn house(
    epoch: u64,
    first: u64,
    now: Now,
    gate: &Arc<Gate>,
    basket: &Arc<Basket>,
    is_crowded: bool,
) -> House {
    let feed = Feed::with_ring(Epoch(epoch), Seq(first), RING);
    let stuck: Arc<Mutex<Vec<(AgentId, u64)>>> = Arc::default();
    let told = Arc::clone(&stuck);
    let options = Options {
        identity: identity(),
        feed: feed.clone(),
        on_stuck: Arc::new(move |agent, incarnation| told.lock().push((agent, incarnation))),
    };
    let health = actor::begin(options, now);
    let mut model = Model::default();
    model.promise(actor::deadline(&health));
    let plane = DataPlaneHandle::new(
        Arc::clone(gate) as Arc<dyn Admission>,
        Arc::clone(basket) as Arc<dyn TelemetrySink>,
        limits(is_crowded),
    );
    let hub = crate::stream::simulated::hub(feed.clone(), health.clone());
    House { feed, health, plane, hub, model, stuck, reserved: first + SEQS_AHEAD, down_until: 0 }
}

fn agent_spec(name: &str, chance: &mut Chance) -> AgentSpec {
    AgentSpec {
        name: name.parse().expect("a name"),
        replicas: None,
        command: vec!["true".to_owned()],
        env: BTreeMap::new(),
        restart: [RestartType::Permanent, RestartType::Transient, RestartType::Temporary][chance.index(3)],
        ready: if chance.permille(300) { Ready::Session } else { Ready::Process },
        start_timeout: Duration::from_secs(30),
        heartbeat_timeout: Duration::from_millis(chance.between(2_000, 5_000)),
        progress_timeout: Duration::from_millis(if chance.permille(500) { chance.between(3_000, 8_000) } else { 0 }),
        on_stuck: if chance.permille(500) { OnStuck::Restart } else { OnStuck::Report },
        stop_grace: Duration::from_secs(10),
        lease: Duration::from_secs(30),
    }
}

pub(super) fn swarm_spec(name: &str, chance: &mut Chance) -> SwarmSpec {
    let agents = (0..chance.between(1, 2)).map(|n| Arc::new(agent_spec(&format!("a{n}"), chance))).collect();
    SwarmSpec {
        name: name.parse().expect("a name"),
        origin: Origin::Config,
        home: Home::Process { workdir: None },
        strategy: Strategy::OneForOne,
        intensity: 5,
        period: Duration::from_secs(60),
        on_exceeded: OnExceeded::Fail,
        backoff: Backoff::default(),
        env: BTreeMap::new(),
        agents,
    }
}
