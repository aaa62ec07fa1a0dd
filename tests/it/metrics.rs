//! `/metrics`: every line held against the format and Prometheus's conventions, and the numbers against what really happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    harness,
    hive::{Hive, kill, until},
    http_support::{Setup, hive},
};

/// A scrape that was read strictly: series in their written form, and the families that they belong to.
struct Scrape {
    series: BTreeMap<String, f64>,
    families: BTreeMap<String, String>,
}

impl Scrape {
    /// Reads a text and fails the test at the first line that is not as format and conventions ask for.
    #[track_caller]
    fn read(text: &str) -> Self {
        let (mut series, mut families) = (BTreeMap::new(), BTreeMap::new());
        let mut helped: Option<&str> = None;
        let mut current: Option<(&str, &str)> = None;
        assert!(text.ends_with('\n'), "the last line is not ended");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(help.ends_with('.') && !help.contains('\\'), "help is no sentence: {line}");
                helped = Some(name);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(helped.take(), Some(name), "HELP stands before TYPE: {line}");
                assert!(["counter", "gauge", "summary"].contains(&kind), "{line}");
                assert_eq!(
                    kind == "counter",
                    name.ends_with("_total"),
                    "a counter ends with _total, nothing else does: {line}"
                );
                let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(name.chars().all(is_plain), "{line}");
                assert!(name.starts_with("hivekeeper_") || name.starts_with("process_"), "{line}");
                for unit in ["_ms", "_millis", "_milliseconds", "_minutes", "_kib", "_kilobytes", "_percent"] {
                    assert!(!name.contains(unit), "no base unit: {line}");
                }
                assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "a family comes twice: {line}");
                current = Some((name, kind));
            } else {
                let (name, kind) = current.unwrap_or_else(|| panic!("a sample without a family: {line}"));
                let (key, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
                let (own, labels) = key.split_once('{').unwrap_or((key, "}"));
                let suffixes: &[&str] = if kind == "summary" { &["_sum", "_count"] } else { &[""] };
                assert!(
                    suffixes.iter().any(|suffix| own == format!("{name}{suffix}")),
                    "a sample of no family: {line}"
                );
                let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("labels don't end: {line}"));
                let names: Vec<&str> =
                    labels.split("\",").filter_map(|label| Some(label.split_once("=\"")?.0)).collect();
                let declared = ["swarm", "agent", "source", "tool", "version", "hive", "hive_id"];
                let few = ["code", "class", "state", "level", "type", "part"];
                let bounded = [&declared[..], &few[..]].concat();
                assert!(names.iter().all(|name| bounded.contains(name)), "a label without a bound: {line}");
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                assert!(value.is_finite() && (kind != "counter" || value >= 0.0), "{line}");
                assert!(series.insert(key.to_owned(), value).is_none(), "a series comes twice: {line}");
            }
        }
        Self { series, families }
    }

    #[track_caller]
    fn get(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} is not among {:#?}", self.series))
    }

    fn has(&self, series: &str) -> bool {
        self.series.contains_key(series)
    }
}

/// Everything that is shown, whatever the hive does.
const ALWAYS: &str = "\
hivekeeper_build_info hivekeeper_hive_info hivekeeper_hive_level hivekeeper_data_plane_listening hivekeeper_data_plane_sessions
hivekeeper_data_plane_connections hivekeeper_data_plane_messages_total hivekeeper_data_plane_refused_total
hivekeeper_data_plane_dropped_total hivekeeper_data_plane_turned_away_total hivekeeper_data_plane_overdue_total
hivekeeper_data_plane_delayed_total hivekeeper_data_plane_displaced_total hivekeeper_data_plane_handshakes_failed_total
hivekeeper_data_plane_accept_errors_total hivekeeper_data_plane_panics_total hivekeeper_viewers hivekeeper_viewers_dropped_total
hivekeeper_viewer_frames_total hivekeeper_viewer_push_seconds hivekeeper_control_plane_reachable hivekeeper_feed_head
hivekeeper_journal_ok hivekeeper_journal_lag_events hivekeeper_journal_lost_events_total hivekeeper_journal_size_bytes
hivekeeper_disk_used_bytes hivekeeper_disk_max_bytes hivekeeper_disk_free_bytes
hivekeeper_operations hivekeeper_operations_ended_total process_cpu_seconds_total process_resident_memory_bytes
process_virtual_memory_bytes process_threads process_open_fds process_max_fds process_start_time_seconds";
/// Where there are agents and a tree.
const LIVING: &str = "\
hivekeeper_swarm_level hivekeeper_swarm_agents hivekeeper_agent_state hivekeeper_agent_restarts_total hivekeeper_agent_incarnation
hivekeeper_agent_cpu_cores hivekeeper_agent_memory_bytes hivekeeper_agent_last_heartbeat_timestamp_seconds
hivekeeper_agent_received_total hivekeeper_agent_dropped_total hivekeeper_tree_children hivekeeper_actor_threads hivekeeper_actor_threads_stuck
hivekeeper_actor_threads_fenced_total hivekeeper_actor_stalls_total hivekeeper_actor_task_panics_total
hivekeeper_actor_dead_letters_total";

fn scrape(hive: &Hive) -> (String, Scrape) {
    let answer = hive.get("/metrics");
    assert_eq!(answer.status, 200);
    let text = answer.body.as_str().unwrap().to_owned();
    let read = Scrape::read(&text);
    (text, read)
}

#[test]
fn a_hive_without_anything_shows_no_series_of_what_is_not_there() {
    let hive = hive(Setup::default());
    let reply = hive.get("/metrics");
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let seen = Scrape::read(&reply.body);
    let names: BTreeSet<&str> = seen.families.keys().map(String::as_str).collect();
    assert_eq!(names, ALWAYS.split_whitespace().collect(), "the tree did not answer and there is no agent");
    assert!((seen.get("hivekeeper_hive_level{level=\"healthy\"}") - 1.0).abs() < f64::EPSILON);
    hive.get("/metrics?x=1").problem(400, "invalid_query");
}

#[test]
#[expect(clippy::float_cmp, reason = "the numbers are whole")]
fn work_is_counted_by_what_has_become_of_it() {
    let hive = hive(Setup::default());
    let ci = |more: serde_json::Value| {
        let mut body = json!({ "swarm": "review", "agent": "ci" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let ask = |path: &str, more: serde_json::Value| hive.post(&format!("/api/v1{path}"), &ci(more));
    let tasks = json!({ "tasks": [{ "title": "a" }, { "title": "b", "depends_on": [0] }, { "title": "c" }] });
    assert_eq!(ask("/tasks", tasks).status, 200);
    let claimed = ask("/tasks/claim", json!({})).json();
    let (id, fence) = (claimed["tasks"][0]["id"].as_str().unwrap(), &claimed["tasks"][0]["claim"]["fence"]);
    assert_eq!(ask(&format!("/tasks/{id}/complete"), json!({ "fence": 0 })).status, 409);
    assert_eq!(ask("/locks", json!({ "resources": ["a"] })).status, 200);
    assert_eq!(ask("/messages", json!({ "to": "coder" })).status, 200);
    let seen = || Scrape::read(&hive.get("/metrics").body);
    let count = |seen: &Scrape, family: &str, state: &str| {
        seen.get(&format!("hivekeeper_{family}{{swarm=\"review\",state=\"{state}\"}}"))
    };
    let first = seen();
    for (family, state, expected) in [
        ("tasks", "blocked", 1.0),
        ("tasks", "ready", 1.0),
        ("tasks", "claimed", 1.0),
        ("tasks", "done", 0.0),
        ("locks", "held", 1.0),
        ("locks", "waiting", 0.0),
        ("messages", "waiting", 1.0),
        ("messages", "delivered", 0.0),
        ("messages", "dead", 0.0),
    ] {
        assert_eq!(count(&first, family, state), expected, "{family} {state}");
    }
    assert_eq!(first.get("hivekeeper_tool_calls_total{tool=\"task_complete\",code=\"stale_token\"}"), 1.0);
    assert_eq!(first.get("hivekeeper_tool_calls_total{tool=\"task_claim\",code=\"ok\"}"), 1.0);
    assert_eq!(first.get("hivekeeper_tool_seconds_count{tool=\"task_claim\"}"), 1.0);
    assert!(first.get("hivekeeper_tool_seconds_sum{tool=\"task_claim\"}") > 0.0);
    assert_eq!(ask(&format!("/tasks/{id}/complete"), json!({ "fence": fence })).status, 200);
    let then = seen();
    assert_eq!((count(&then, "tasks", "done"), count(&then, "tasks", "blocked")), (1.0, 0.0));
    promtool(&hive.get("/metrics").body);
}

const SWARMS: &str = r#"
[[swarm]]
name = "m"
[[swarm.agent]]
name = "steady"
command = ["sleep", "600"]
[[swarm.agent]]
name = "done"
command = ["true"]
restart = "temporary"
"#;

#[test]
#[expect(clippy::float_cmp, reason = "the numbers are whole")]
fn a_scrape_tells_what_happened() {
    let hive = Hive::start(SWARMS);
    let pid = hive.agent_pid("m/steady");
    hive.agent_until("m/done", "completes", |agent| agent["state"] == "completed");
    let steady = |name: &str| format!("hivekeeper_agent_{name}{{swarm=\"m\",agent=\"steady\"}}");
    let (text, first) =
        until("the first readings", || Some(scrape(&hive)).filter(|(_, seen)| seen.has(&steady("memory_bytes"))));
    let names: BTreeSet<&str> = first.families.keys().map(String::as_str).collect();
    assert_eq!(names, ALWAYS.split_whitespace().chain(LIVING.split_whitespace()).collect());
    promtool(&text);

    assert_eq!(first.get("hivekeeper_swarm_agents{swarm=\"m\",state=\"running\"}"), 1.0);
    assert_eq!(first.get("hivekeeper_swarm_agents{swarm=\"m\",state=\"completed\"}"), 1.0);
    assert_eq!(first.get("hivekeeper_swarm_agents{swarm=\"m\",state=\"failed\"}"), 0.0);
    assert_eq!(first.get("hivekeeper_agent_state{swarm=\"m\",agent=\"done\",state=\"completed\"}"), 1.0);
    assert!(!first.has("hivekeeper_agent_state{swarm=\"m\",agent=\"done\",state=\"running\"}"));
    assert_eq!((first.get(&steady("restarts_total")), first.get(&steady("incarnation"))), (0.0, 1.0));
    assert!(first.get(&steady("memory_bytes")) > 1000.0);
    // What has ended has no CPU time: nothing is shown, and no default either.
    for name in ["cpu_cores", "memory_bytes", "last_heartbeat_timestamp_seconds"] {
        assert!(!first.has(&format!("hivekeeper_agent_{name}{{swarm=\"m\",agent=\"done\"}}")), "{name}");
    }
    assert_eq!(first.get("hivekeeper_data_plane_listening"), 1.0);
    assert_eq!(first.get("hivekeeper_journal_ok"), 1.0);
    assert!(first.get("hivekeeper_tree_children{state=\"running\"}") >= 10.0);
    assert!(first.get("hivekeeper_actor_threads") >= 1.0);
    // The executable is static and its own process: what the kernel says of it can be read from outside.
    let status = std::fs::read_to_string(format!("/proc/{}/status", hive.pid)).unwrap();
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap().trim().parse::<f64>().unwrap();
    assert!((first.get("process_threads") - threads).abs() <= 4.0, "{threads}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - first.get("process_start_time_seconds")).abs() < 120.0);

    // Something happens of each kind.
    kill(pid, libc::SIGKILL);
    hive.agent_until("m/steady", "is back", |agent| agent["restarts"] == 1 && agent["state"] == "running");
    hive.command("/swarms/m/agents/steady/restart");
    let mut viewer = hive.viewer();
    viewer.next_that("is a status", |frame| frame["type"] == "status_update");
    let mut stranger = TcpStream::connect(&hive.data_plane).unwrap();
    stranger.write_all(b"nonsense\n").unwrap();
    let mut answer = String::new();
    BufReader::new(stranger.try_clone().unwrap()).read_line(&mut answer).unwrap();
    assert!(answer.contains("-32700"), "{answer}");

    // Both come with the document, which is made anew once a second.
    let refused = "hivekeeper_data_plane_refused_total{code=\"-32700\"}";
    let (text, then) = until("the next readings", || {
        Some(scrape(&hive)).filter(|(_, seen)| seen.has(&steady("memory_bytes")) && seen.get(refused) > 0.0)
    });
    promtool(&text);
    assert_eq!((then.get(&steady("restarts_total")), then.get(&steady("incarnation"))), (1.0, 3.0));
    assert_eq!(then.get("hivekeeper_operations_ended_total{state=\"succeeded\"}"), 1.0);
    assert_eq!(then.get("hivekeeper_viewers"), 1.0);
    assert!(then.get("hivekeeper_viewer_frames_total") >= 2.0);
    assert_eq!(then.get(refused), 1.0);
    assert_eq!(then.get("hivekeeper_data_plane_refused_total{code=\"1002\"}"), 0.0);
    assert_eq!(then.get("hivekeeper_data_plane_connections"), 1.0);
    for (series, before) in &first.series {
        let counted = series.split('{').next().unwrap().ends_with("_total");
        assert!(!counted || then.get(series) >= *before, "{series} went back");
    }
    assert!(then.get("hivekeeper_feed_head") > first.get("hivekeeper_feed_head"));

    hive.command("/swarms/m/stop");
    let (_, last) = scrape(&hive);
    assert_eq!(last.get("hivekeeper_agent_state{swarm=\"m\",agent=\"steady\",state=\"stopped\"}"), 1.0);
    assert!(!last.has(&steady("cpu_cores")), "of what does not run no CPU time is shown");
    assert_eq!(hive.post("/metrics", json!({})).status, 405);
}

/// Prometheus's own linter, where it is: Debian's package `prometheus`; `HK_PROMTOOL` names it elsewhere. The long run can't do without.
#[track_caller]
fn promtool(text: &str) {
    let program = std::env::var("HK_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let spawned = Command::new(program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        let long = std::env::var("HK_TEST_LONG").is_ok_and(|long| !long.is_empty());
        assert!(!long, "the long run needs promtool (Debian: prometheus)");
        harness::skipped("promtool");
        return;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let told = child.wait_with_output().unwrap();
    let words = [told.stdout, told.stderr].concat();
    assert!(told.status.success() && words.is_empty(), "{}\n{text}", String::from_utf8_lossy(&words));
}

#[test]
fn what_breaks_a_convention_is_found() {
    let family = "# HELP hivekeeper_a Something.\n# TYPE hivekeeper_a gauge\n";
    for (good, text) in [
        (true, format!("{family}hivekeeper_a 1\n")),
        (false, "hivekeeper_a 1\n".to_owned()),
        (false, format!("{family}hivekeeper_a 1\nhivekeeper_a 1\n")),
        (false, format!("{family}hivekeeper_a{{task=\"7\"}} 1\n")),
        (false, format!("{family}hivekeeper_b 1\n")),
        (false, format!("{family}hivekeeper_a NaN\n")),
        (false, format!("{family}hivekeeper_a 1")),
        (false, "# HELP hivekeeper_a Starts.\n# TYPE hivekeeper_a counter\nhivekeeper_a 1\n".to_owned()),
        (false, "# HELP hivekeeper_a_ms Time.\n# TYPE hivekeeper_a_ms gauge\nhivekeeper_a_ms 1\n".to_owned()),
        (false, format!("{family}hivekeeper_a 1\n{family}")),
    ] {
        let read = std::panic::catch_unwind(|| Scrape::read(&text));
        assert_eq!(read.is_ok(), good, "{text}");
    }
}
