//! The daemon as an image, in a container of its own beside the containers that it makes.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use hivekeeper::runtime::docker::engine::label;
use serde_json::Value;

use super::harness::{DEBIAN, here};
use crate::hive::until_within;

/// A machine that builds while it tests has been seen to take ten seconds to start a container.
const PATIENCE: Duration = Duration::from_secs(90);
const IMAGE: &str = "hivekeeper-test:daemon";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The daemon's image with the executable under test, made once a run. Leaves one image of this name.
fn image() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| make(Path::new(env!("CARGO_BIN_EXE_hivekeeper")), IMAGE));
}

fn make(executable: &Path, tag: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/daemon");
    let made = Command::new(script).arg(executable).arg(tag).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// What the engine's client says, which must succeed.
#[track_caller]
fn docker(words: &[&str]) -> String {
    let ran = Command::new("docker").args(words).output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(ran.status.success(), "docker {words:?}: {}", said(&ran.stderr));
    said(&ran.stdout)
}

fn socket() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    PathBuf::from(host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock"))
}

/// The group that may use the engine's socket.
fn group() -> String {
    fs::metadata(socket()).unwrap().gid().to_string()
}

/// A daemon in a container, with its data in a volume.
struct Boxed {
    dir: tempfile::TempDir,
    /// The container's, and the hive's.
    name: String,
}

impl Boxed {
    /// Writes the configuration: `swarms` is TOML. `/work` is a directory of this machine, `/shared` a volume.
    fn new(swarms: &str) -> Self {
        image();
        let dir = tempfile::Builder::new().prefix("hkbox").tempdir().unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap().to_lowercase().replace('.', "-");
        let text = format!(
            "[hive]\nname = \"{name}\"\n[http]\nbind = \"0.0.0.0:8080\"\ntoken_file = \"token\"\nhosts = [\"127.0.0.1\"]\n\
             [runtime]\nsample_interval = \"200ms\"\n{swarms}"
        );
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/config.toml"), text).unwrap();
        fs::write(dir.path().join("etc/token"), TOKEN).unwrap();
        fs::create_dir_all(dir.path().join("work/repo")).unwrap();
        for open in ["", "work", "work/repo"] {
            let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            fs::set_permissions(dir.path().join(open), all).unwrap();
        }
        let boxed = Self { dir, name };
        for volume in ["data", "shared"] {
            docker(&["volume", "create", "--label", OURS, &boxed.volume(volume)]);
        }
        boxed
    }

    fn volume(&self, what: &str) -> String {
        format!("{}-{what}", self.name)
    }

    /// Makes and starts the container.
    fn run(&self, more: &[&str]) {
        self.run_image(IMAGE, &[&["--group-add", &group()], more].concat());
    }

    fn run_image(&self, image: &str, more: &[&str]) {
        let socket = format!("{}:/var/run/docker.sock", socket().display());
        let below = |what: &str, target: &str| format!("{}:{target}", self.dir.path().join(what).display());
        let (etc, work) = (below("etc", "/etc/hivekeeper:ro"), below("work", "/work:ro"));
        let data = format!("{}:/var/lib/hivekeeper", self.volume("data"));
        let shared = format!("{}:/shared", self.volume("shared"));
        let words = ["run", "--detach", "--name", &self.name, "--label", OURS, "--publish", "127.0.0.1::8080"];
        let mounts = ["-v", &socket, "-v", &etc, "-v", &work, "-v", &data, "-v", &shared];
        let health = ["--health-interval", "500ms"];
        docker(&[&words[..], &mounts, &health, more, &[image]].concat());
    }

    fn get(&self, path: &str) -> Value {
        // The engine may give another port at each start.
        let ports = Command::new("docker").args(["port", &self.name, "8080/tcp"]).output().unwrap();
        let ports = String::from_utf8_lossy(&ports.stdout).into_owned();
        let Some(at) = ports.lines().next() else { return Value::Null };
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .into();
        let request = agent.get(format!("http://{at}{path}")).header("authorization", format!("Bearer {TOKEN}"));
        let Ok(mut answer) = request.call() else { return Value::Null };
        let mut text = String::new();
        let _ = answer.body_mut().as_reader().read_to_string(&mut text);
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    #[track_caller]
    fn agent(&self, id: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let (swarm, name) = id.split_once('/').unwrap();
        let mut last = Value::Null;
        let path = format!("/api/v1/swarms/{swarm}/agents/{name}");
        let found = until_within_saying(&format!("{id} {what}"), &mut || {
            last = self.get(&path);
            fits(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|what| panic!("{what}: {last:#}\n{}", self.log()))
    }

    #[track_caller]
    fn running(&self, id: &str) -> Value {
        self.agent(id, "runs", |agent| agent["state"] == "running" && agent["pid"].is_u64())
    }

    fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.name])
    }

    fn log(&self) -> String {
        let said = Command::new("docker").args(["logs", &self.name]).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
    }

    /// What of the hive runs or lies in the engine, the daemon's own container aside.
    fn made(&self) -> Vec<String> {
        let ours = format!("label={}={}", label::HIVE, self.name);
        let list = |words: &[&str]| docker(&[words, &["--filter", &ours]].concat());
        let found =
            list(&["ps", "-a", "--format", "{{.Names}}"]) + "\n" + &list(&["network", "ls", "--format", "{{.Name}}"]);
        found.lines().filter(|name| !name.is_empty() && *name != self.name).map(str::to_owned).collect()
    }
}

/// Seen by the inventory of `tests/run`; the value is not the daemon's own, so no hive takes it for one.
const OURS: &str = "dev.hivekeeper.managed-by=hivekeeper-test";

fn until_within_saying<T>(what: &str, look: &mut dyn FnMut() -> Option<T>) -> Result<T, String> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match look() {
            Some(found) => return Ok(found),
            None if std::time::Instant::now() > deadline => return Err(format!("never: {what}")),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        let quiet = |words: &[&str]| drop(Command::new("docker").args(words).output());
        if std::thread::panicking() {
            eprintln!("--- the daemon of the failed test\n{}", self.log());
        }
        quiet(&["rm", "--force", &self.name]);
        for made in self.made() {
            quiet(&["rm", "--force", &made]);
            quiet(&["network", "rm", &made]);
        }
        for volume in ["data", "shared"] {
            quiet(&["volume", "rm", &self.volume(volume)]);
        }
    }
}

/// An agent that says where it is, writes down that it lived, and goes on.
fn swarm(more: &str) -> String {
    format!(
        "[[swarm]]\nname = \"s\"\nimage = \"{DEBIAN}\"\n{more}\n[[swarm.agent]]\nname = \"a\"\nstop_grace = \"2s\"\n\
         command = [\"sh\", \"-c\", \"trap 'echo bye; exit 0' TERM; id -u; echo $HIVEKEEPER_INCARNATION > /out/lived; \
         while :; do sleep 0.1; done\"]\n"
    )
}

#[test]
fn a_daemon_in_a_container_keeps_swarms_in_others() {
    if !here() {
        return;
    }
    let mounts = "limits = { memory = \"64MiB\", cpus = 4000.0, pids = 32 }\n\
         mounts = [{ source = \"/work/repo\", target = \"/out\", read_only = false }, \
         { source = \"/shared\", target = \"/volume\" }]";
    let boxed = Boxed::new(&swarm(mounts));
    boxed.run(&[]);
    let agent = boxed.running("s/a");
    assert_eq!(agent["incarnation"], 1);

    until_within(PATIENCE, "its health check passes", || {
        (boxed.inspect("{{.State.Health.Status}}") == "healthy").then_some(())
    });
    // The client asks the machine's own `ps`: the image has nothing but our executable.
    let top = docker(&["top", &boxed.name, "-eo", "pid,uid,gid"]);
    let users: Vec<_> = top.lines().skip(1).map(|row| row.split_whitespace().skip(1).collect::<Vec<_>>()).collect();
    assert!(!users.is_empty() && users.iter().all(|user| *user == ["10001", "10001"]), "{top}");
    let ps = docker(&["exec", &boxed.name, "hivekeeper", "ps", "-o", "wide"]);
    assert!(ps.contains("s/a") && ps.contains("running") && ps.contains("writable mount /out"), "{ps}");

    // A path that the daemon sees at /work is another one to the engine.
    until_within(PATIENCE, "the agent writes", || {
        fs::read_to_string(boxed.dir.path().join("work/repo/lived")).ok().filter(|text| text == "1\n")
    });
    let [container] = &boxed.made()[..] else { panic!("{:?}", boxed.made()) };
    let sources = docker(&["inspect", "--format", "{{range .Mounts}}{{.Source}} {{.Destination}}\n{{end}}", container]);
    let shared = docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &boxed.volume("shared")]);
    assert!(sources.contains(&format!("{shared} /volume")), "{sources}");
    let cpus: u64 = docker(&["info", "--format", "{{.NCPU}}"]).parse().unwrap();
    let given = docker(&["inspect", "--format", "{{.HostConfig.NanoCpus}}", container]);
    assert_eq!(given, (cpus * 1_000_000_000).to_string(), "as many as there are");
    let adjusted = format!("limits.cpus 4000 is {cpus}, which is all that the engine's machine has");
    assert!(boxed.log().contains(&adjusted), "{}", boxed.log());
    let swarm = boxed.get("/api/v1/swarms/s");
    assert_eq!(swarm["health"]["relaxations"], serde_json::json!(["writable mount /out"]));
    assert_eq!(swarm["health"]["adjustments"], serde_json::json!([adjusted]), "{swarm:#}");

    docker(&["stop", "--time", "60", &boxed.name]);
    assert_eq!(boxed.inspect("{{.State.ExitCode}}"), "0", "{}", boxed.log());
    assert_eq!(boxed.made(), [""; 0], "{}", boxed.log());
}

#[test]
fn its_container_is_restarted_in_order_or_taken_over_after_a_kill() {
    if !here() {
        return;
    }
    let boxed = Boxed::new(&swarm("tmpfs = [\"/tmp\", \"/out\"]\nlimits = { cpus = 4000.0 }"));
    boxed.run(&[]);
    let first = boxed.running("s/a");

    docker(&["kill", "--signal", "KILL", &boxed.name]);
    assert_eq!(boxed.made().len(), 1, "its agents go on");
    docker(&["start", &boxed.name]);
    let taken = boxed.running("s/a");
    for same in ["pid", "incarnation", "restarts"] {
        assert_eq!(taken[same], first[same], "{same}: {taken:#}");
    }
    assert!(boxed.log().contains("1 agents of the last daemon run on"), "{}", boxed.log());

    until_within(PATIENCE, "what the engine can't give is known again", || {
        let adjustments = boxed.get("/api/v1/swarms/s")["health"]["adjustments"].to_string();
        adjustments.contains("limits.cpus 4000 is").then_some(())
    });

    docker(&["restart", "--time", "60", &boxed.name]);
    let again = boxed.agent("s/a", "comes back", |agent| agent["state"] == "running" && agent["incarnation"] == 2);
    assert_eq!(again["restarts"], 0, "nothing has failed: {again:#}");
    assert_eq!(again["last_exit"]["code"], 0, "it was asked to end: {again:#}");
    docker(&["stop", "--time", "60", &boxed.name]);
    assert_eq!((boxed.inspect("{{.State.ExitCode}}").as_str(), boxed.made().len()), ("0", 0), "{}", boxed.log());
}

/// An image that is gone when this is.
struct Image(&'static str);

impl Drop for Image {
    fn drop(&mut self) {
        // The second is the first one without its executable.
        let _ =
            Command::new("docker").args(["image", "rm", "--force", self.0, &format!("{}-runtime", self.0)]).output();
    }
}

#[test]
fn a_new_image_takes_over_what_the_old_one_left_at_usr2() {
    if !here() {
        return;
    }
    // First, and so the last to go: a container that is there keeps its image.
    let newer = Image("hivekeeper-test:newer");
    let boxed = Boxed::new(&swarm("tmpfs = [\"/tmp\", \"/out\"]"));
    // Another executable to everybody who looks at its bytes, and so another launcher.
    let executable = boxed.dir.path().join("newer");
    fs::copy(env!("CARGO_BIN_EXE_hivekeeper"), &executable).unwrap();
    fs::OpenOptions::new().append(true).open(&executable).unwrap().write_all(b"newer").unwrap();
    make(&executable, newer.0);

    boxed.run(&["--restart", "unless-stopped"]);
    let first = boxed.running("s/a");
    let homes = boxed.made();
    docker(&["kill", "--signal", "USR2", &boxed.name]);
    assert_eq!(docker(&["wait", &boxed.name]), "0");
    docker(&["rm", &boxed.name]);
    boxed.run_image(newer.0, &["--group-add", &group()]);
    let taken = boxed.running("s/a");
    for same in ["pid", "incarnation", "restarts"] {
        assert_eq!(taken[same], first[same], "{same}: {taken:#}");
    }
    assert!(boxed.log().contains("1 agents of the last daemon run on"), "{}", boxed.log());

    // What is started from now on has the launcher that lies in its container.
    docker(&["exec", &boxed.name, "hivekeeper", "restart", "s/a"]);
    let again = boxed.running("s/a");
    assert_eq!((&again["incarnation"], &again["restarts"]), (&2.into(), &0.into()), "{again:#}");
    assert_eq!(boxed.made(), homes);
    docker(&["stop", "--time", "60", &boxed.name]);
    assert_eq!((boxed.inspect("{{.State.ExitCode}}").as_str(), boxed.made().len()), ("0", 0), "{}", boxed.log());
}

/// Labels are whatever somebody writes: these say that the daemon's own container is the one of its swarm, made by another plan.
#[test]
fn it_never_takes_its_own_container_for_one_of_a_swarm() {
    if !here() {
        return;
    }
    let boxed = Boxed::new(&swarm("tmpfs = [\"/tmp\", \"/out\"]"));
    boxed.run(&[]);
    boxed.running("s/a");
    let health = boxed.get("/api/v1/health");
    docker(&["stop", "--time", "60", &boxed.name]);
    docker(&["rm", &boxed.name]);
    let id = format!("{}={}", label::HIVE_ID, health["hive_id"].as_str().unwrap());
    let swarm = format!("{}=s", label::SWARM);
    boxed.run(&["--label", &id, "--label", &swarm]);
    let agent = boxed.agent("s/a", "runs again", |agent| agent["state"] == "running" && agent["incarnation"] == 2);
    assert_eq!(boxed.made().len(), 1, "in a container of its own: {agent:#}");
    docker(&["stop", "--time", "60", &boxed.name]);
    assert_eq!((boxed.inspect("{{.State.ExitCode}}").as_str(), boxed.made().len()), ("0", 0), "{}", boxed.log());
}

#[test]
fn what_only_it_can_see_is_refused_to_swarms() {
    if !here() {
        return;
    }
    let boxed = Boxed::new(&swarm("tmpfs = [\"/out\"]\nmounts = [{ source = \"/usr/local\", target = \"/x\" }]"));
    boxed.run(&[]);
    let agent = boxed.agent("s/a", "fails", |agent| agent["last_exit"].is_object());
    let why = agent["last_exit"]["message"].as_str().unwrap();
    assert!(why.contains("/usr/local lies in the daemon's own container (its own file system)"), "{why}");
    assert_eq!(boxed.made(), [""; 0]);
}

#[test]
fn without_the_sockets_group_it_says_what_to_do() {
    if !here() || fs::metadata(socket()).unwrap().mode() & 0o006 != 0 {
        return;
    }
    let boxed = Boxed::new(&swarm("tmpfs = [\"/out\"]"));
    boxed.run_image(IMAGE, &[]);
    let gid = fs::metadata(socket()).unwrap().gid();
    let advice = format!("--group-add {gid}");
    let agent = boxed.agent("s/a", "waits", |agent| agent["reasons"].to_string().contains(&advice));
    assert_eq!(agent["state"], "pending");
}

/// Only the daemon's own container has the directories that it names.
#[test]
fn the_configuration_of_the_example_is_accepted() {
    if !here() {
        return;
    }
    image();
    let dir = tempfile::tempdir().unwrap();
    let (etc, work) = (dir.path().join("etc"), dir.path().join("work"));
    for made in [&etc, &work] {
        fs::create_dir(made).unwrap();
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), open).unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    fs::copy(examples.join("compose/hivekeeper/config.toml"), etc.join("config.toml")).unwrap();
    fs::write(etc.join("token"), TOKEN).unwrap();
    let mount = |source: &Path, target: &str| format!("{}:{target}:ro", source.display());
    let mounts =
        [mount(&etc, "/etc/hivekeeper"), mount(&examples.join("agents"), "/srv/agents"), mount(&work, "/srv/work")];
    let [etc, agents, work] = &mounts;
    docker(&["run", "--rm", "--label", OURS, "-v", etc, "-v", agents, "-v", work, IMAGE, "check"]);
}

#[test]
fn the_compose_file_of_the_example_is_valid() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/compose/compose.yaml");
    let dir = tempfile::tempdir().unwrap();
    fs::copy(file, dir.path().join("compose.yaml")).unwrap();
    let compose = |words: &[&str]| {
        let mut command = Command::new("timeout");
        command.arg("60").args(words).args(["config", "--quiet"]).current_dir(dir.path()).env_remove("DOCKER_GID");
        command.output().unwrap()
    };
    let tools = [&["docker", "compose"][..], &["docker-compose"]];
    let is_there = |tool: &&&[&str]| {
        let asked = Command::new("timeout").arg("60").args(**tool).arg("version").output();
        asked.is_ok_and(|output| output.status.success())
    };
    let Some(tool) = tools.iter().find(is_there) else { return crate::harness::skipped("needs docker compose") };
    let refused = compose(tool);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("run ./prepare first"), "{said}");
    // As `prepare` writes it.
    fs::write(dir.path().join(".env"), "COMPOSE_PROJECT_NAME=hivekeeper\nDOCKER_GID=999\n").unwrap();
    let taken = compose(tool);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
}
