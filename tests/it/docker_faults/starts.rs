//! Starts that fail, each with the words that tell an operator what to mend.

use serde_json::{Value, json};

use super::harness::{Case, DEBIAN, SCRATCH, agent, shell, sleeper, swarm, swarm_of};

/// Tried once, so that the first failure stays to be seen.
const ONCE: &str = "restart = \"temporary\"";

/// The end of an agent that could not be started, in the words of its document.
#[track_caller]
fn start_fails(case: &Case, id: &str, says: &[&str]) -> Value {
    let agent = case.agent_until(id, "has failed", |agent| agent["state"] == "failed");
    let exit = &agent["last_exit"];
    assert_eq!(exit["cause"], "start_failed", "{agent:#}");
    let message = exit["message"].as_str().unwrap_or_default();
    let detail = agent["reasons"][0]["detail"].as_str().unwrap_or_default();
    for word in says {
        assert!(message.contains(word), "{id} does not say {word:?}: {agent:#}");
        assert!(detail.contains(word), "{id} gives no such reason, {word:?}: {agent:#}");
    }
    assert!(!message.contains('\n') && message.len() < 600, "one line for people: {message:?}");
    assert_eq!(agent["pid"], json!(null));
    agent
}

#[test]
fn commands_that_cannot_be_started_say_why_and_their_sibling_runs() {
    let agents = [
        agent("missing", ONCE, &["no-such-program"]),
        agent("nowhere", ONCE, &["/no/such/program"]),
        agent("directory", ONCE, &["/etc"]),
        agent("text", ONCE, &["/etc/passwd"]),
        sleeper("sibling", ""),
    ];
    let Some(case) = Case::start(&swarm("", &agents)) else { return };
    start_fails(&case, "s/missing", &["no-such-program", "No such file or directory"]);
    start_fails(&case, "s/nowhere", &["/no/such/program", "No such file or directory"]);
    start_fails(&case, "s/directory", &["/etc", "Permission denied"]);
    start_fails(&case, "s/text", &["/etc/passwd", "Permission denied"]);
    case.runs_as("s/sibling", 1);
    let swarm = case.get("/api/v1/swarms/s").body;
    assert!(swarm.to_string().contains("sibling"), "{swarm:#}");
    case.end();
}

#[test]
fn a_program_of_another_format_is_told_apart_from_one_that_may_not_run() {
    // Executable, and nothing that a kernel could run.
    let script = "cp /etc/passwd /share/x; chmod 755 /share/x; echo made > /share/made; exec sleep 1000";
    let agents = [shell("maker", "", script), agent("bad", "", &["/share/x"])];
    let keys = format!("intensity = 1000\n{}", super::harness::share());
    let Some(case) = Case::start(&swarm(&keys, &agents)) else { return };
    let agent = case.agent_until("s/bad", "says what is wrong", |agent| {
        agent["last_exit"]["message"].as_str().is_some_and(|said| said.contains("format"))
    });
    assert_eq!(agent["last_exit"]["cause"], "start_failed", "{agent:#}");
    case.end();
}

#[test]
fn an_image_that_is_not_there_is_named_and_other_swarms_run() {
    let missing = swarm_of("m", "hivekeeper-test:no-such-image", "", &[sleeper("a", ONCE)]);
    let good = swarm_of("g", DEBIAN, "", &[sleeper("a", "")]);
    let Some(case) = Case::start(&format!("{missing}{good}")) else { return };
    start_fails(&case, "m/a", &["no such image", "hivekeeper-test:no-such-image"]);
    case.runs_as("g/a", 1);
    assert!(case.containers(Some("m")).is_empty());
    case.end();
}

#[test]
fn a_user_that_the_image_does_not_know_is_named() {
    let Some(case) = Case::start(&swarm("user = \"nobody-here\"", &[sleeper("a", ONCE)])) else { return };
    start_fails(&case, "s/a", &["nobody-here"]);
    assert!(case.containers(None).is_empty(), "what did not start is removed");
    case.end();
}

#[test]
fn a_working_directory_that_cannot_be_made_is_named() {
    // Below a file.
    let Some(case) = Case::start(&swarm("workdir = \"/etc/passwd/x\"", &[sleeper("a", ONCE)])) else { return };
    start_fails(&case, "s/a", &["/etc/passwd"]);
    assert!(case.containers(None).is_empty(), "what did not start is removed");
    case.end();
}

#[test]
fn a_network_that_is_not_there_is_named() {
    let Some(case) = Case::start(&swarm("network = \"no-such-network\"", &[sleeper("a", ONCE)])) else { return };
    start_fails(&case, "s/a", &["no-such-network"]);
    assert!(case.containers(None).is_empty(), "what did not start is removed");
    case.end();
}

#[test]
fn an_image_without_a_shell_runs_and_says_what_it_does_not_have() {
    let agents = [agent("shell", ONCE, &["sh", "-c", "true"]), agent("probe", "", &["/probe", "sleep"])];
    let Some(case) = Case::start(&swarm_of("s", SCRATCH, "", &agents)) else { return };
    start_fails(&case, "s/shell", &["sh", "No such file or directory"]);
    case.runs_as("s/probe", 1);
    case.end();
}

#[test]
fn what_is_mounted_read_only_cannot_be_written_and_the_agent_is_told() {
    let mounts = "mounts = [{ source = \"share\", target = \"/share\", read_only = true }]";
    let script = "touch /share/x; touch /etc/x; touch /tmp/x && echo tmp is writable; exec sleep 1000";
    let Some(case) = Case::start(&swarm(mounts, &[shell("a", "", script)])) else { return };
    let said = super::harness::until("what it was told", || {
        let lines = case.lines("s/a");
        let text: Vec<String> = lines.iter().filter_map(|line| Some(line["text"].as_str()?.to_owned())).collect();
        (text.len() >= 3).then_some(text)
    });
    assert_eq!(said.iter().filter(|line| line.contains("Read-only file system")).count(), 2, "{said:?}");
    assert!(said.contains(&"tmp is writable".to_owned()), "{said:?}");
    assert!(!case.shared("x").exists());
    case.runs_as("s/a", 1);
    case.end();
}

#[test]
fn a_mount_whose_source_has_gone_is_named_and_works_when_it_is_back() {
    let keys = "mounts = [{ source = \"share/sub\", target = \"/x\", read_only = true }]\nintensity = 1000";
    let document = swarm(keys, &[sleeper("a", "")]);
    let Some(mut case) = Case::prepare(&document) else { return };
    std::fs::create_dir(case.shared("sub")).unwrap();
    case.boot();
    case.runs_as("s/a", 1);
    std::fs::remove_dir(case.shared("sub")).unwrap();
    case.ask(&["rm", "-f", &case.container("s")]);
    case.agent_until("s/a", "says what is missing", |agent| {
        agent["last_exit"]["message"].as_str().is_some_and(|said| said.contains("share/sub"))
    });
    std::fs::create_dir(case.shared("sub")).unwrap();
    case.running("s/a");
    case.end();
}
