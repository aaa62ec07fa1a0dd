//! `examples/coding-swarm` for real: mini-swe-agent and an MCP server from PyPI, three coders in a container without network, killed in mid-work and
//! back. Runs with `tests/run --long`: it builds the example's image, for which PyPI and Debian's packages must be reachable.

use std::{
    fs,
    ops::{Deref, DerefMut},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::harness::skipped;
use crate::hive::{Hive, kill, until_within};

const CODERS: [&str; 3] = ["coding/coder-1", "coding/coder-2", "coding/coder-3"];
/// Three interpreters that load at the same time, and nine steps of work: 25 s on an idle machine.
const WORK: Duration = Duration::from_secs(180);

#[test]
fn coders_killed_in_mid_work_go_on_and_commit_once() {
    let long = std::env::var("HK_TEST_LONG").is_ok_and(|long| !long.is_empty());
    if !long {
        return skipped("takes minutes and PyPI: tests/run --long");
    }
    if !engine_is_there() {
        return;
    }
    let Some(image) = Image::build() else { return };
    let mut swarm = Swarm::start(&image);
    for coder in CODERS {
        swarm.runs_as(coder, 1);
    }

    // After the change, before the commit: what is in the clone is all that there is of it.
    let [first, second, third] = CODERS;
    swarm.said(first, "$ cat > toolbox/");
    let siblings = [second, third].map(|coder| swarm.agent_pid(coder));
    kill(swarm.outside(first), libc::SIGKILL);
    let back = swarm.runs_as(first, 2);
    assert_eq!(back["last_exit"]["signal"], 9, "{back:#}");
    assert_eq!([second, third].map(|coder| swarm.agent_pid(coder)), siblings);
    swarm.said(first, "of a predecessor");

    // At the commit: it is made or not, and only the repository knows.
    swarm.said(second, "$ git commit");
    kill(swarm.outside(second), libc::SIGKILL);
    swarm.runs_as(second, 2);

    // Under everybody's feet: the coders' client asks again until it is answered.
    kill(swarm.outside("coding/model"), libc::SIGKILL);
    swarm.runs_as("coding/model", 2);

    let agents = ["coding/model", "coding/board", first, second];
    let seen =
        |swarm: &Swarm| agents.map(|agent| swarm.agent(agent)).map(|it| (it["incarnation"].clone(), it["pid"].clone()));
    let before = seen(&swarm);
    swarm.kill();
    swarm.boot();
    assert_eq!(seen(&swarm), before, "taken over\n{}", swarm.log());

    for (coder, incarnation) in CODERS.into_iter().zip([2, 2, 1]) {
        let ended = until_within(WORK, "the coders end", || {
            let agent = swarm.agent(coder);
            (agent["state"] == "completed").then_some(agent)
        });
        assert_eq!(ended["last_exit"]["code"], 0, "{ended:#}");
        assert_eq!(ended["incarnation"], incarnation, "{ended:#}\n{}", swarm.output(coder));
    }
    for (issue, module) in [(1, "slug"), (2, "roman"), (3, "median")] {
        let commits = swarm.git(&["log", "--format=%s", &format!("main..issue-{issue}")]);
        assert_eq!(commits.trim(), format!("Fix #{issue}: {module}"));
        swarm.passes(issue, module);
    }
    // The MCP server, asked by the client that the agents use.
    let list = docker(&["exec", &swarm.container(), "board", "list"]);
    assert_eq!(text(&list).matches(" finished: ").count(), 3, "{list:?}");
    swarm.end();
}

/// What happens without an engine is the business of the other tests' harness.
fn engine_is_there() -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(super::harness::hive()).is_some()
}

/// The example's image under a name of this test's own; it goes with the test.
struct Image {
    name: String,
}

impl Image {
    /// `None` once it has been said that PyPI does not answer.
    fn build() -> Option<Self> {
        let context = tempfile::tempdir().unwrap();
        for part in ["Dockerfile", ".dockerignore", "requirements.txt", "issues.json", "agents", "project"] {
            assert!(
                Command::new("cp").arg("-r").arg(example().join(part)).arg(context.path()).status().unwrap().success()
            );
        }
        // On this machine, as a build may not reach what this machine does: as the example's README has it.
        let mut pip = Command::new("timeout");
        pip.args([
            "300",
            "python3",
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--python-version",
            "3.11",
        ]);
        let fetched =
            pip.args(["-d", "wheels", "-r", "requirements.txt"]).current_dir(context.path()).output().unwrap();
        if !fetched.status.success() {
            let why = String::from_utf8_lossy(&fetched.stderr);
            skipped(&format!("needs PyPI: {}", why.lines().last().unwrap_or_default()));
            return None;
        }
        // Made before it is tried, so that whatever comes of it goes.
        let image = Self { name: format!("hivekeeper-test:coding-{}", std::process::id()) };
        let directory = context.path().to_str().unwrap();
        let built = within(900, &["build", "--network", "host", "--force-rm", "-t", &image.name, directory]);
        assert!(built.status.success(), "{}{}", text(&built), String::from_utf8_lossy(&built.stderr));
        Some(image)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        docker(&["image", "rm", "-f", &self.name]);
    }
}

/// The example's own document in a hive under test. Dropping it, also in a panic, removes its container.
struct Swarm {
    hive: Option<Hive>,
}

impl Swarm {
    fn start(image: &Image) -> Self {
        let document = fs::read_to_string(example().join("config.toml")).unwrap();
        let (_, swarm) = document.split_once("\n[[swarm]]\n").unwrap();
        let mut swarm = format!("[[swarm]]\n{swarm}");
        // SAFETY: no memory effects, never fails.
        let own = format!("user = \"{}\"", unsafe { libc::geteuid() });
        let mut changes =
            vec![("hivekeeper-coding-swarm", image.name.as_str()), ("THINK_SECONDS = \"2\"", "THINK_SECONDS = \"1\"")];
        // Else nobody but root could remove what the agents leave in the test's directory.
        if own != "user = \"0\"" {
            changes.push(("user = \"10001\"", &own));
        }
        for (here, there) in changes {
            assert!(swarm.contains(here), "the example says {here} no longer");
            swarm = swarm.replace(here, there);
        }
        let hive = Hive::prepare(&swarm);
        fs::create_dir(hive.file("work")).unwrap();
        fs::set_permissions(hive.file("work"), fs::Permissions::from_mode(0o777)).unwrap();
        let mut swarm = Self { hive: Some(hive) };
        swarm.boot();
        swarm
    }

    /// Waits until an agent runs as this incarnation.
    #[track_caller]
    fn runs_as(&self, id: &str, incarnation: u64) -> Value {
        until_within(WORK, &format!("{id} runs as incarnation {incarnation}"), || {
            let agent = self.agent(id);
            assert!(agent["state"] != "failed", "{agent:#}\n{}", self.output(id));
            (agent["state"] == "running" && agent["incarnation"] == incarnation && agent["pid"].is_u64())
                .then_some(agent)
        })
    }

    /// Waits until an agent has said this.
    #[track_caller]
    fn said(&self, id: &str, what: &str) {
        until_within(WORK, &format!("{id} says {what}"), || self.output(id).contains(what).then_some(()));
    }

    fn output(&self, id: &str) -> String {
        let lines = self.lines(id);
        lines.iter().filter_map(|line| line["text"].as_str()).collect::<Vec<_>>().join("\n")
    }

    /// The agent by its id on this machine; its document says what it is in its container.
    #[track_caller]
    fn outside(&self, id: &str) -> i32 {
        let inside = self.agent_pid(id).to_string();
        let ours = |pid: &i32| {
            let environ = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            environ.split('\0').any(|entry| entry == format!("HIVEKEEPER_AGENT={id}"))
                && ids.split_whitespace().next_back() == Some(inside.as_str())
        };
        let found: Vec<i32> = self.processes().into_iter().filter(ours).collect();
        assert_eq!(found.len(), 1, "{id} is {inside} in its container: {found:?}");
        found[0]
    }

    /// Of the repository that the coders share.
    fn git(&self, words: &[&str]) -> String {
        let origin = self.file("work/origin.git");
        let done =
            Command::new("git").args(["-c", "safe.directory=*", "--git-dir"]).arg(origin).args(words).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        text(&done)
    }

    /// The issue's own test, on what was handed over.
    fn passes(&self, issue: u32, module: &str) {
        let place = tempfile::tempdir().unwrap();
        let place = place.path().to_str().unwrap();
        self.git(&["--work-tree", place, "checkout", "-f", &format!("issue-{issue}"), "--", "."]);
        let mut test = Command::new("python3");
        let ran =
            test.args(["-m", "unittest", "-q", &format!("tests.test_{module}")]).current_dir(place).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }

    fn containers(&self) -> Vec<String> {
        let id = fs::read_to_string(self.data().join("hive-id")).unwrap_or_default();
        if id.is_empty() {
            return Vec::new();
        }
        let ours = format!("label=dev.hivekeeper.hive-id={}", id.trim());
        text(&docker(&["ps", "-aq", "--filter", &ours])).lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn container(&self) -> String {
        let found = self.containers();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    /// Ends the daemon; then nothing of it may be left.
    fn end(mut self) {
        assert_eq!(self.terminate().code(), Some(0), "{}", self.log());
        self.nothing_left(WORK);
        until_within(WORK, "the container goes", || self.containers().is_empty().then_some(()));
    }
}

impl Deref for Swarm {
    type Target = Hive;
    fn deref(&self) -> &Hive {
        self.hive.as_ref().unwrap()
    }
}

impl DerefMut for Swarm {
    fn deref_mut(&mut self) -> &mut Hive {
        self.hive.as_mut().unwrap()
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let found = self.containers();
        if std::thread::panicking() {
            for agent in ["coding/model", "coding/board"].into_iter().chain(CODERS) {
                eprintln!("--- {agent}\n{}", self.output(agent));
            }
        }
        // The daemon first: it would mend what is removed under it.
        drop(self.hive.take());
        for container in found {
            docker(&["rm", "-f", &container]);
        }
    }
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/coding-swarm")
}

fn docker(words: &[&str]) -> Output {
    within(60, words)
}

/// The engine's client, under a deadline in seconds.
fn within(seconds: u32, words: &[&str]) -> Output {
    Command::new("timeout").arg(seconds.to_string()).arg("docker").args(words).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
