//! `up`: swarms as documents say.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{config::read_file, model::SwarmName};

use super::{
    args::UpArgs,
    client::{Answer, Client},
    commands::{each, fresh_key},
    error::CliError,
    progress::{self, Patience},
    screen::Screen,
    words::clean,
};

/// Standard input's name.
const STDIN: &str = "-";
/// Largest document that is read from standard input; a file's bound is the configuration's.
const STDIN_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Keys that make a swarm one of containers, in which a working directory is not of this machine.
const CONTAINER_KEYS: [&str; 2] = ["image", "container"];

/// What the daemon would do about a document.
#[derive(Debug, Deserialize)]
struct Plan {
    #[serde(default)]
    change: Option<String>,
    #[serde(default)]
    agents: Vec<AgentPlan>,
}

#[derive(Debug, Deserialize)]
struct AgentPlan {
    agent: String,
    change: String,
}

/// What came of handing a document in.
enum Handed {
    Accepted(Answer),
    /// A line for people, and for machines.
    Planned {
        line: String,
        json: String,
    },
}

/// Hands all documents in before any is waited for; one that is refused keeps none from going.
pub(super) fn up(
    client: &Client,
    args: &UpArgs,
    cwd: &Path,
    patience: Patience<'_>,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let documents = read(&args.files, cwd)?;
    let handed: Vec<_> = documents
        .into_iter()
        .map(|(name, document)| (name.clone(), hand(client, &name, &document, args.dry_run)))
        .collect();
    each(handed, screen, |handed, screen| match handed {
        Handed::Planned { line, json } => Ok(screen.line(if patience.json { &json } else { &line })?),
        Handed::Accepted(answer) if args.wait.no_wait => progress::accepted(client, &answer, patience.json, screen),
        Handed::Accepted(answer) => progress::to_its_end(client, answer, patience, screen),
    })
}

fn hand(client: &Client, name: &SwarmName, document: &Value, dry_run: bool) -> Result<Handed, CliError> {
    let path = format!("/api/v1/swarms/{name}");
    let text = document.to_string();
    let Some(present) = client.find(&path)? else {
        if dry_run {
            let agents = names(document);
            let line = format!("{name}: would be launched: start {}", agents.join(", "));
            let changes: Vec<Value> = agents.iter().map(|agent| json!({ "agent": agent, "change": "start" })).collect();
            let json = json!({ "swarm": name.as_str(), "change": "add", "agents": changes }).to_string();
            return Ok(Handed::Planned { line, json });
        }
        return client.post("/api/v1/swarms", &text, &fresh_key()).map(Handed::Accepted);
    };
    let etag = present.etag.as_deref();
    let answer = client.put(&format!("{path}?dry_run=true"), &text, &fresh_key(), etag)?;
    let plan: Plan = client.parse(&answer.text)?;
    if dry_run || plan.changes_nothing() {
        let line = clean(&format!("{name}: {}", plan.describe(dry_run)));
        return Ok(Handed::Planned { line, json: answer.text.trim_end().to_owned() });
    }
    client.put(&path, &text, &fresh_key(), etag).map(Handed::Accepted)
}

impl Plan {
    fn changes_nothing(&self) -> bool {
        self.change.as_deref().is_none_or(|change| change == "keep")
            && self.agents.iter().all(|agent| agent.change == "keep")
    }

    /// `would be updated: replace coder-1, coder-2; keep 3`
    fn describe(&self, dry_run: bool) -> String {
        if self.changes_nothing() {
            return if dry_run { "would stay as it is" } else { "unchanged" }.to_owned();
        }
        let mut parts = Vec::new();
        for change in ["stop", "replace", "start", "adjust"] {
            let named: Vec<&str> =
                self.agents.iter().filter(|agent| agent.change == change).map(|agent| agent.agent.as_str()).collect();
            if !named.is_empty() {
                parts.push(format!("{change} {}", named.join(", ")));
            }
        }
        let kept = self.agents.iter().filter(|agent| agent.change == "keep").count();
        if kept > 0 {
            parts.push(format!("keep {kept}"));
        }
        format!("would be updated: {}", parts.join("; "))
    }
}

/// All documents of all files, or every mistake at once, before anything is sent.
fn read(files: &[PathBuf], cwd: &Path) -> Result<Vec<(SwarmName, Value)>, CliError> {
    let mut documents = Vec::new();
    let mut mistakes = Vec::new();
    let mut first: HashMap<String, String> = HashMap::new();
    for file in files {
        let shown = file.display().to_string();
        let (text, base) = match open(file, cwd) {
            Ok(opened) => opened,
            Err(error) => {
                mistakes.push(format!("{shown}: can't be read: {error}"));
                continue;
            }
        };
        let found = match parse(file, &text).and_then(swarms) {
            Ok(found) => found,
            Err(mistake) => {
                mistakes.push(format!("{shown}: {mistake}"));
                continue;
            }
        };
        for (at, mut document) in found.into_iter().enumerate() {
            let name = document.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let name = match name.parse::<SwarmName>() {
                Ok(name) => name,
                Err(error) => {
                    mistakes.push(format!("{shown}: swarm[#{}].name: {error}", at + 1));
                    continue;
                }
            };
            if let Some(other) = first.insert(name.to_string(), shown.clone()) {
                mistakes.push(format!("{shown}: a second swarm {name}; the first is in {other}"));
                continue;
            }
            locate(&mut document, &base);
            documents.push((name, document));
        }
    }
    match mistakes.is_empty() {
        true => Ok(documents),
        false => Err(CliError::Usage(format!("nothing was sent\n  {}", mistakes.join("\n  ")))),
    }
}

/// The text, and the directory that relative paths in it count from.
fn open(file: &Path, cwd: &Path) -> io::Result<(String, PathBuf)> {
    if file.as_os_str() == STDIN {
        let mut text = String::new();
        if io::stdin().take(STDIN_BYTES_MAX + 1).read_to_string(&mut text)? as u64 > STDIN_BYTES_MAX {
            return Err(io::Error::other("larger than 16 MiB"));
        }
        return Ok((text, cwd.to_owned()));
    }
    let path = cwd.join(file);
    let base = path.parent().unwrap_or(cwd).to_owned();
    Ok((read_file(&path)?, base))
}

fn parse(file: &Path, text: &str) -> Result<Value, String> {
    // No TOML begins with a brace.
    let is_json =
        text.trim_start().starts_with('{') || file.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(error) if is_json => Err(format!("no JSON: {error}")),
        // TOML is what no JSON is: a `[[swarm]]` heading looks like the beginning of an array.
        Err(_) => toml::from_str(text).map_err(|error| format!("no TOML: {}", error.to_string().trim_end())),
    }
}

/// The `swarm` tables of a file, a list of documents, or one document.
fn swarms(value: Value) -> Result<Vec<Value>, String> {
    const ALLOWED: &str = "allowed: [[swarm]] tables";
    let found = match value {
        Value::Array(all) => all,
        Value::Object(mut all) if all.contains_key("swarm") => {
            let swarms = all.remove("swarm");
            if let Some(other) = all.keys().next() {
                let whose = "everything else is the daemon's own configuration, which it reads itself";
                return Err(format!("found [{other}], {ALLOWED}; {whose}"));
            }
            match swarms {
                Some(Value::Array(swarms)) => swarms,
                _ => return Err(format!("found [swarm] with one bracket, {ALLOWED}, with two")),
            }
        }
        Value::Object(one) if one.contains_key("name") => vec![Value::Object(one)],
        _ => return Err(format!("no swarm in it, {ALLOWED}")),
    };
    match found.iter().all(Value::is_object) && !found.is_empty() {
        true => Ok(found),
        false => Err(format!("no swarm in it, {ALLOWED}")),
    }
}

/// Relative paths of this machine become absolute: the daemon has another working directory.
fn locate(document: &mut Value, base: &Path) {
    let in_container = CONTAINER_KEYS.iter().any(|key| document.get(key).is_some())
        || document.get("runtime").is_some_and(|runtime| runtime == "docker");
    if !in_container {
        document.get_mut("workdir").into_iter().for_each(|path| absolute(path, base));
    }
    let mounts = document.get_mut("mounts").and_then(Value::as_array_mut);
    for mount in mounts.into_iter().flatten() {
        mount.get_mut("source").into_iter().for_each(|path| absolute(path, base));
    }
    let agents = document.get_mut("agent").and_then(Value::as_array_mut);
    for agent in agents.into_iter().flatten() {
        agent.get_mut("env").into_iter().for_each(|env| secrets(env, base));
    }
    document.get_mut("env").into_iter().for_each(|env| secrets(env, base));
}

/// `{ file = "..." }`, a secret by reference.
fn secrets(env: &mut Value, base: &Path) {
    for value in env.as_object_mut().into_iter().flat_map(|env| env.values_mut()) {
        value.get_mut("file").into_iter().for_each(|path| absolute(path, base));
    }
}

/// What is no text is left to the daemon, which says what is allowed.
fn absolute(path: &mut Value, base: &Path) {
    if let Value::String(text) = path {
        // Collecting the components leaves `.` out.
        let whole: PathBuf = base.join(&*text).components().collect();
        *text = whole.to_string_lossy().into_owned();
    }
}

/// The agents of a document by the names that they will have.
fn names(document: &Value) -> Vec<String> {
    let agents = document.get("agent").and_then(Value::as_array);
    let one = |agent: &Value| {
        let name = agent.get("name").and_then(Value::as_str).map(clean).unwrap_or_default();
        match agent.get("replicas").and_then(Value::as_u64) {
            None => name,
            Some(1) => format!("{name}-1"),
            Some(count) => format!("{name}-1 to {name}-{count}"),
        }
    };
    agents.into_iter().flatten().map(one).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn found(text: &str) -> Result<Vec<Value>, String> {
        parse(Path::new("x.toml"), text).and_then(swarms)
    }

    #[test]
    fn toml_and_json_hold_the_same_documents() {
        let expected = vec![json!({ "name": "a", "agent": [{ "name": "x", "command": ["true"], "replicas": 2 }] })];
        let toml = "[[swarm]]\nname = \"a\"\n[[swarm.agent]]\nname = \"x\"\ncommand = [\"true\"]\nreplicas = 2";
        assert_eq!(found(toml), Ok(expected.clone()));
        assert_eq!(found(&json!({ "swarm": expected }).to_string()), Ok(expected.clone()));
        assert_eq!(found(&json!(expected).to_string()), Ok(expected.clone()));
        assert_eq!(found(&expected[0].to_string()), Ok(expected.clone()));
        assert_eq!(names(&expected[0]), ["x-1 to x-2"]);
    }

    #[test]
    fn what_is_no_swarm_is_named() {
        for (text, piece) in [
            ("[http]\nbind = \"x\"\n[[swarm]]\nname = \"a\"", "found [http], allowed: [[swarm]] tables"),
            ("[swarm]\nname = \"a\"", "with one bracket"),
            ("", "no swarm in it"),
            ("[]", "no swarm in it"),
            ("[[swarm]\nname", "line 1"),
            ("7", "no swarm in it"),
            ("7 =", "no TOML"),
            ("\n{\"name\": 3", "no JSON"),
        ] {
            let mistake = found(text).unwrap_err();
            assert!(mistake.contains(piece), "{text:?}: {mistake}");
        }
        assert!(parse(Path::new("x.json"), "[[swarm]]").unwrap_err().starts_with("no JSON"));
    }

    #[test]
    fn paths_of_this_machine_count_from_the_file() {
        let mut process = json!({
            "workdir": "w", "env": { "A": { "file": "./s" }, "B": "./plain" },
            "agent": [{ "env": { "C": { "file": "/abs" }, "D": { "env": "E" } } }]
        });
        locate(&mut process, Path::new("/base"));
        let expected = json!({
            "workdir": "/base/w", "env": { "A": { "file": "/base/s" }, "B": "./plain" },
            "agent": [{ "env": { "C": { "file": "/abs" }, "D": { "env": "E" } } }]
        });
        assert_eq!(process, expected);
        let mut docker = json!({ "image": "i", "workdir": "w", "mounts": [{ "source": "./r", "target": "t" }, 7] });
        locate(&mut docker, Path::new("/base"));
        let expected = json!({ "image": "i", "workdir": "w", "mounts": [{ "source": "/base/r", "target": "t" }, 7] });
        assert_eq!(docker, expected);
    }

    #[test]
    fn a_plan_is_one_line() {
        let plan =
            |agents: Value| serde_json::from_value::<Plan>(json!({ "change": "update", "agents": agents })).unwrap();
        let mixed = plan(json!([
            { "agent": "a-1", "change": "replace" }, { "agent": "a-2", "change": "replace" },
            { "agent": "b", "change": "keep" }, { "agent": "c", "change": "stop" }
        ]));
        assert_eq!(mixed.describe(true), "would be updated: stop c; replace a-1, a-2; keep 1");
        assert!(!mixed.changes_nothing());
        let same: Plan =
            serde_json::from_value(json!({ "change": "keep", "agents": [{ "agent": "a", "change": "keep" }] }))
                .unwrap();
        assert_eq!((same.describe(true).as_str(), same.describe(false).as_str()), ("would stay as it is", "unchanged"));
    }
}
