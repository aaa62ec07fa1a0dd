//! Faults of an agent's own actor and of its supervisor, with real processes.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    path::Path,
    sync::{Arc, Mutex},
    task::{Context, Wake, Waker},
    time::Duration,
};

use hivekeeper::{
    model::{
        AgentId, AgentSpec, Drain, DuplexStream, Observation, OnStuck, Origin, Ready, RelaySink, SecretRights, Witness,
    },
    runtime::{
        AgentActor, AgentDeps, Job, Registry, Runtimes, Secrets,
        process::{ProcessOptions, ProcessRuntime},
    },
    store::{DataDir, LogBook, LogLimits, Options, SqliteJournal},
};
use hivekeeper_actors::{
    Backoff, Child, ChildRef, ChildSpec, EventSink, Ready as ChildReady, Root, Seed, Shutdown, Strategy,
    SupervisionEvent, SupervisorFlags, SupervisorRef,
};

use crate::hive::{PATIENCE, lives};

/// Says in the file `doubled` when it is started while an earlier incarnation, or what that one started, lives.
const LONER: &str = "for pid in $(cat pids 2>/dev/null); do kill -0 $pid 2>/dev/null && echo $pid >> doubled; done
    setsid sleep 1000 & echo $$ $! > pids.new; mv pids.new pids";

#[derive(Default)]
struct Seen(Mutex<Vec<(u64, &'static str)>>);

impl Witness for Seen {
    fn saw(&self, _: &AgentId, incarnation: u64, what: Observation) {
        let word = match what {
            Observation::Alive { .. } => "alive",
            Observation::Exited(_) => "exited",
            _ => return,
        };
        self.0.lock().unwrap().push((incarnation, word));
    }
}

struct Quiet;

impl Drain for Quiet {
    fn drain(&self, _: &AgentId, _: u64) -> bool {
        false
    }
    fn ended(&self, _: &AgentId, _: u64) {}
}

impl RelaySink for Quiet {
    fn serve(&self, _: AgentId, _: u64, _: Box<dyn DuplexStream>) {}
}

impl EventSink for Quiet {
    fn event(&self, _: SupervisionEvent) {}
}

struct Bench {
    deps: Arc<AgentDeps>,
    runtime: Arc<ProcessRuntime>,
    seen: Arc<Seen>,
    root: Root,
    top: SupervisorRef,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("hk").tempdir_in("/tmp").unwrap();
        let data = DataDir::open(dir.path(), "test", Options::default()).unwrap();
        let limits = LogLimits { bytes_per_agent: 1 << 20, total_bytes: 1 << 24, segment_bytes: 1 << 16 };
        let runtime = Arc::new(
            ProcessRuntime::new(ProcessOptions {
                exe: env!("CARGO_BIN_EXE_hivekeeper").into(),
                run_dir: data.run_dir(),
                epoch: data.epoch(),
                env: vec![("PATH".to_owned(), std::env::var("PATH").unwrap())],
                ring_bytes: 64 * 1024,
                open_files: None,
                relay: Arc::new(Quiet),
                tasks: tokio::runtime::Handle::current(),
            })
            .unwrap(),
        );
        let seen = Arc::new(Seen::default());
        let deps = Arc::new(AgentDeps {
            runtimes: Runtimes::one(Arc::clone(&runtime) as _),
            journal: Arc::new(SqliteJournal::open(&data.database(), data.epoch()).unwrap()),
            logs: LogBook::open(&data.logs_dir(), limits, data.fence()).unwrap(),
            witness: Arc::clone(&seen) as _,
            secrets: Secrets::new(SecretRights::default()),
            drain: Arc::new(Quiet),
            registry: Registry::default(),
            work_dir: data.work_dir(),
            sample_interval: Duration::from_secs(1),
            fenced: Arc::new(|| panic!("fenced")),
        });
        let (top, top_ref) =
            Child::supervisor(ChildSpec::new("top"), SupervisorFlags::unlimited(Strategy::OneForOne), Vec::new());
        let root = Root::start(SupervisorFlags::unlimited(Strategy::OneForOne), vec![top], Arc::new(Quiet)).unwrap();
        Self { deps, runtime, seen, root, top: top_ref, dir }
    }

    /// A swarm of one agent, the way the control plane makes it.
    fn swarm(&self, name: &str, script: &str, begun: u64) -> (Child, SupervisorRef, ChildRef<AgentActor>) {
        let id: AgentId = "s/a".parse().unwrap();
        let spec = Arc::new(AgentSpec {
            name: id.name.clone(),
            replicas: None,
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
            restart: hivekeeper::model::RestartType::Permanent,
            ready: Ready::Process,
            start_timeout: Duration::from_secs(30),
            heartbeat_timeout: Duration::from_secs(15),
            progress_timeout: Duration::ZERO,
            on_stuck: OnStuck::Report,
            stop_grace: Duration::from_secs(5),
            lease: Duration::from_secs(30),
        });
        let slot = self.deps.registry.slot(&id);
        let (env, workdir) = (BTreeMap::new(), Some(self.dir.path().to_owned()));
        let job = Arc::new(Job { id, spec, origin: Origin::Config, env, workdir, slot, deps: Arc::clone(&self.deps) });
        let child = ChildSpec {
            ready: ChildReady::Signalled,
            shutdown: Shutdown::Deadline(Duration::from_secs(15)),
            backoff: Backoff { initial: Duration::ZERO, ..Backoff::default() },
            seed: Seed { incarnation: begun, ..Seed::default() },
            ..ChildSpec::new("a")
        };
        let (agent, actor) = Child::actor(child, move |child| Ok(AgentActor::new(child, Arc::clone(&job))));
        let restart = hivekeeper_actors::RestartType::Temporary;
        let (swarm, supervisor) = Child::supervisor(
            ChildSpec { restart, ..ChildSpec::new(name) },
            SupervisorFlags::unlimited(Strategy::OneForOne),
            vec![agent],
        );
        (swarm, supervisor, actor)
    }

    async fn saw(&self, incarnation: u64, word: &'static str) {
        until(&format!("{incarnation} is {word}"), || self.seen.0.lock().unwrap().contains(&(incarnation, word))).await;
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    async fn pids(&self, not: &[i32]) -> Vec<i32> {
        let read = || self.file("pids").split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<i32>>();
        until("its process ids", || read().len() == 2 && read() != not).await;
        read()
    }

    async fn end(self) {
        self.root.shutdown().await.unwrap();
        assert_eq!(self.runtime.finish(Duration::from_secs(10)).await, 0);
        assert!(!Path::new(&self.dir.path().join("doubled")).exists(), "doubled: {}", self.file("doubled"));
        assert!(self.pids(&[]).await.iter().all(|pid| !lives(*pid)));
    }
}

async fn until(what: &str, met: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !met() {
        assert!(std::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Panics where it is woken: inside the supervisor that answers.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("a bug in a supervisor");
    }
}

#[test]
fn a_panic_in_an_agents_actor_ends_the_whole_tree_before_the_next_one_starts() {
    actix::System::new().block_on(async {
        let bench = Bench::new();
        let script = format!("trap '' TERM; {LONER}; while :; do sleep 0.02; done");
        let (swarm, _, actor) = bench.swarm("s", &script, 0);
        bench.top.add_child(swarm).await.unwrap();
        let mut before = bench.pids(&[]).await;
        for incarnation in 2..=4 {
            actor.run(|_, _| panic!("a bug in an agent's actor")).unwrap();
            bench.saw(incarnation, "alive").await;
            assert!(before.iter().all(|pid| !lives(*pid)), "{before:?}");
            before = bench.pids(&before).await;
        }
        assert_eq!(actor.incarnation(), 4);
        // The last one ignores SIGTERM; its grace is not what this is about.
        bench.deps.registry.slot(&"s/a".parse().unwrap()).set_grace(Some(Duration::ZERO));
        bench.end().await;
    });
}

#[test]
fn an_actor_that_winds_its_agent_down_is_left_to_it_by_its_successor() {
    actix::System::new().block_on(async {
        let bench = Bench::new();
        let script = format!("trap 'sleep 0.5; echo yes > clean; exit 0' TERM; {LONER}; while :; do sleep 0.02; done");
        let (swarm, supervisor, _) = bench.swarm("first", &script, 0);
        bench.top.add_child(swarm).await.unwrap();
        let before = bench.pids(&[]).await;
        {
            let mut asked = Box::pin(supervisor.snapshot());
            assert!(asked.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Bomb)))).is_pending());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (again, _, actor) = bench.swarm("second", &script, 1);
        bench.top.add_child(again).await.unwrap();
        bench.saw(2, "alive").await;
        assert_eq!(bench.file("clean"), "yes\n", "it had its grace");
        bench.pids(&before).await;
        let slot = bench.deps.registry.slot(&"s/a".parse().unwrap());
        assert!(slot.control().is_some() && slot.unproven().is_some_and(|open| open.incarnation == 2));
        assert_eq!(*bench.seen.0.lock().unwrap(), [(1, "alive"), (1, "exited"), (2, "alive")]);
        assert_eq!(actor.incarnation(), 2);
        bench.end().await;
    });
}
