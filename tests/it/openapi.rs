//! The OpenAPI document that the daemon serves: what it says of who may do what is so, and programs of others find the daemon true to it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::{
    harness::{
        outside::{command, home, long, succeed},
        skipped,
    },
    hive,
    http_support::{self, Reply, Setup},
};

const DOCUMENT: &str = "/api/v1/openapi.json";
const CONTROL: &str = "the-first-token-of-all";
/// A peer is refused twenty times at once, then made to wait; one server is asked for so many routes.
const ROUTES_PER_SERVER: usize = 4;

/// One operation of the document.
#[derive(Debug)]
struct Route {
    method: String,
    path: String,
    body: String,
    /// What each way in wants of a token; empty where there is a way in without one.
    scopes: Vec<String>,
}

/// Every operation, its path filled in with the examples of its parameters.
fn routes(document: &Value) -> Vec<Route> {
    let mut found = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let mut path = template.clone();
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for parameter in parameters.iter().filter(|parameter| parameter["in"] == "path") {
                let name = parameter["name"].as_str().unwrap();
                path = path.replace(&format!("{{{name}}}"), parameter["example"].as_str().unwrap());
            }
            assert!(!path.contains('{'), "{template} has a parameter that the document does not name");
            let ways = operation["security"].as_array().unwrap();
            let scopes = ways.iter().map(|way| way["bearer"][0].as_str().map(str::to_owned));
            let example = &operation["requestBody"]["content"]["application/json"]["example"];
            found.push(Route {
                method: method.to_uppercase(),
                path,
                body: if example.is_null() { String::new() } else { example.to_string() },
                scopes: scopes.collect::<Option<Vec<_>>>().unwrap_or_default(),
            });
        }
    }
    found
}

fn ask(hive: &http_support::Hive, route: &Route, more: &[&str]) -> Reply {
    let mut headers = vec!["Content-Type: application/json"];
    headers.extend(more);
    hive.send(&route.method, &route.path, &headers, &route.body)
}

fn guarded() -> http_support::Hive {
    http_support::hive(Setup { token: Some(CONTROL), ..Setup::default() })
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

fn served(hive: &http_support::Hive) -> Value {
    hive.send("GET", DOCUMENT, &[&bearer(CONTROL)], "").json()
}

#[test]
fn every_route_wants_the_token_that_the_document_names() {
    let routes = routes(&served(&guarded()));
    assert!(routes.len() > 25, "{routes:?}");
    for some in routes.chunks(ROUTES_PER_SERVER) {
        let hive = guarded();
        let body = json!({ "name": "reader", "scope": "read" }).to_string();
        let minted = hive.send("POST", "/api/v1/tokens", &["Content-Type: application/json", &bearer(CONTROL)], &body);
        let secret = minted.json()["secret"].as_str().unwrap().to_owned();
        for route in some {
            let (none, wrong) = (ask(&hive, route, &[]), ask(&hive, route, &[&bearer("wrong")]));
            let (read, control) = (ask(&hive, route, &[&bearer(&secret)]), ask(&hive, route, &[&bearer(CONTROL)]));
            let let_in = |reply: &Reply| assert!(![401, 403, 429].contains(&reply.status), "{route:?}: {reply:?}");
            match route.scopes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                [] => [&none, &wrong, &read].into_iter().for_each(let_in),
                ["read"] => {
                    none.problem(401, "unauthorized");
                    wrong.problem(401, "invalid_token");
                    let_in(&read);
                }
                ["control"] => {
                    none.problem(401, "unauthorized");
                    wrong.problem(401, "invalid_token");
                    read.problem(403, "forbidden");
                }
                _ => panic!("{route:?}"),
            }
            let_in(&control);
        }
    }
}

#[test]
fn no_route_serves_a_foreign_page_or_under_a_foreign_name() {
    let routes = routes(&served(&guarded()));
    let token = bearer(CONTROL);
    for some in routes.chunks(ROUTES_PER_SERVER) {
        let hive = guarded();
        for route in some {
            ask(&hive, route, &[&token, "Origin: https://evil.example"]).problem(403, "origin_refused");
            let rebound = format!("Host: evil.example:{}", hive.address.port());
            ask(&hive, route, &[&token, &rebound]).problem(421, "host_refused");
        }
        assert!(hive.desk.requests.lock().is_empty());
    }
}

#[test]
fn the_document_is_known_again_by_its_tag() {
    let hive = http_support::hive(Setup::default());
    let first = hive.get(DOCUMENT);
    assert_eq!((first.status, &first.json()["openapi"]), (200, &json!("3.1.0")));
    let held = format!("If-None-Match: {}", first.header("etag"));
    let again = hive.send("GET", DOCUMENT, &[&held], "");
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(hive.send("GET", DOCUMENT, &["If-None-Match: \"other\""], "").status, 200);
    // A daemon that asks nobody for a token does not say that it does.
    assert!(routes(&first.json()).iter().all(|route| route.scopes.is_empty()));
}

#[test]
fn the_page_on_shared_work_names_the_route_of_every_tool() {
    let document = http_support::hive(Setup::default()).get(DOCUMENT).json();
    let page = include_str!("../../docs/coordination.md");
    let mut named = 0;
    for heading in page.lines().filter_map(|line| line.strip_prefix("### `")) {
        let (tool, route) = heading.split_once("`: `").unwrap();
        let (method, path) = route.trim_end_matches('`').split_once(' ').unwrap();
        let shown = &document["paths"][format!("/api/v1{path}")][method.to_lowercase()];
        // Health has had its route before there were tools.
        assert!(shown["operationId"] == tool || (tool, path) == ("health", "/health"), "{heading}: {shown}");
        named += 1;
    }
    assert!(named > 30, "{named}");
}

#[test]
fn every_reference_of_the_document_leads_somewhere_and_every_schema_is_used() {
    fn references(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                into.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, into));
            }
            Value::Array(array) => array.iter().for_each(|value| references(value, into)),
            _ => {}
        }
    }
    let document = http_support::hive(Setup::default()).get(DOCUMENT).json();
    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in &found {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(found.iter().any(|one| *one == format!("#/components/schemas/{name}")), "{name} is used nowhere");
    }
}

/// A directory with the programs of some packages of PyPI.
fn pypi(packages: &[&str]) -> Option<PathBuf> {
    let at = home("pypi-openapi");
    let bin = at.join("bin");
    let has = || succeed(&mut [command(bin.join("schemathesis"), &["--version"])]);
    if !has() {
        let made = succeed(&mut [command("python3", &["-m", "venv", at.to_str().unwrap()])]);
        let install = [&["install", "--quiet", "--disable-pip-version-check"], packages].concat();
        if !(made && succeed(&mut [command(bin.join("pip"), &install)]) && has()) {
            return None;
        }
    }
    Some(bin)
}

/// Runs a program and returns how it ended and what it said.
fn told(program: &Path, dir: &Path, words: &[&str]) -> (bool, String) {
    let output = command(program, words).current_dir(dir).stdin(Stdio::null()).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Schemathesis makes requests of the document, good ones and bad ones, and holds each answer against it.
#[test]
fn strangers_find_the_daemon_true_to_its_document() {
    if !long() {
        return;
    }
    let Some(bin) = pypi(&["openapi-spec-validator", "schemathesis"]) else {
        return skipped("needs python3 and PyPI's schemathesis and openapi-spec-validator");
    };
    for token in [None, Some(CONTROL)] {
        found_true(&bin, token);
    }
}

/// A daemon that asks for this token, or for none, before all of its routes.
fn found_true(bin: &Path, token: Option<&str>) {
    const SWARM: &str = "[[notify]]\nname = \"oncall\"\ncommand = [\"true\"]\n[[swarm]]\nname = \"review\"\nruntime = \"process\"\n[[swarm.agent]]\nname = \"coder\"\n\
         replicas = 2\ncommand = [\"sh\", \"-c\", \"while :; do echo line; sleep 1; done\"]\n";
    /// An honest 501 is no failure, and neither is a 503 of a hive in trouble.
    const SETTINGS: &str =
        "[checks]\nnot_a_server_error.expected-statuses = [\"2xx\", \"3xx\", \"4xx\", \"501\", \"503\"]\n";
    const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                          response_headers_conformance,response_schema_conformance,negative_data_rejection,unsupported_method";
    let mut hive = hive::Hive::prepare(SWARM);
    if let Some(token) = token {
        fs::write(hive.file("token"), token).unwrap();
        let config = fs::read_to_string(hive.config()).unwrap();
        fs::write(hive.config(), config.replace("[http]\n", "[http]\ntoken_file = \"token\"\n")).unwrap();
    }
    hive.boot();
    let url = format!("http://{}", hive.http.trim_start_matches("http://"));
    let header = bearer(token.unwrap_or_default());
    let agent = ureq::Agent::from(ureq::Agent::config_builder().timeout_global(Some(hive::PATIENCE)).build());
    let get = |path: &str| {
        let request =
            agent.get(format!("{url}{path}")).header("authorization", header.trim_start_matches("Authorization: "));
        request.call().map(|mut answer| answer.body_mut().read_to_string().unwrap())
    };
    hive::until("an agent runs", || {
        get("/api/v1/swarms/review/agents/coder-2").ok().filter(|agent| agent.contains("\"state\":\"running\""))
    });
    let dir = tempfile::tempdir().unwrap();
    let document = get(DOCUMENT).unwrap();
    let file = dir.path().join("openapi.json");
    fs::write(&file, document).unwrap();
    let (valid, words) = told(&bin.join("openapi-spec-validator"), dir.path(), &["openapi.json"]);
    assert!(valid, "{words}");

    fs::write(dir.path().join("schemathesis.toml"), SETTINGS).unwrap();
    // A socket and a stream without end are no answers that it could judge.
    let run = [
        "run",
        "openapi.json",
        "--url",
        &url,
        "--header",
        &header,
        "--checks",
        CHECKS,
        "--exclude-path-regex",
        "^/(ws|sse)/",
    ];
    let bounds = ["--max-examples", "30", "--request-timeout", "5", "--seed", "6", "--no-color"];
    let rest = ["--suppress-health-check", "all"];
    let (good, words) = told(&bin.join("schemathesis"), dir.path(), &[&run[..], &bounds, &rest].concat());
    assert!(good, "{words}");
    assert!(get("/api/v1/tree").is_ok());
}
