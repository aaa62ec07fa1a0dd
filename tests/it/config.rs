//! Configuration: layers, every kind of error by file, line and key, and no drift between `config.toml` and what is read.

mod docker;
mod notify;
mod sources;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use hivekeeper::{
    config::{COMPILED_IN, Config, FlagValue, LoadArgs, LogFormat},
    model::{EnvValue, OnExceeded, OnStuck, Origin, Ready, RestartType, SecretRef},
};

/// A machine with these files in `/h`.
fn load_with(files: &[(&str, &str)], env: &[(&str, &str)], flags: Vec<FlagValue>) -> Result<Config, Vec<String>> {
    let files: BTreeMap<PathBuf, String> =
        files.iter().map(|(name, text)| (Path::new("/h").join(name), (*text).to_owned())).collect();
    let read = |path: &Path| match files.get(path) {
        Some(text) if text == "DENIED" => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
        Some(text) => Ok(text.clone()),
        None => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let args = LoadArgs { file: None, cwd: PathBuf::from("/h"), env: &env, flags, read: &read, resolve: &nowhere };
    Config::load(&args).map_err(|errors| errors.problems().iter().map(ToString::to_string).collect())
}

/// A machine on which nothing can be mounted.
fn nowhere(_: &Path) -> io::Result<PathBuf> {
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn load(text: &str) -> Result<Config, Vec<String>> {
    load_with(&[("config.toml", text)], &[], Vec::new())
}

/// A swarm with one agent, with `swarm` and `agent` added.
fn document(swarm: &str, agent: &str) -> String {
    format!("[[swarm]]\nname = \"s\"\n{swarm}\n[[swarm.agent]]\nname = \"a\"\ncommand = [\"true\"]\n{agent}\n")
}

#[test]
fn nothing_said_means_the_compiled_in_defaults_and_no_swarm() {
    let config = load_with(&[], &[], Vec::new()).unwrap();
    assert_eq!(config.file, None);
    assert_eq!(config.swarms, []);
    assert_eq!(config.hive.data_dir, Path::new("/h/.hivekeeper"));
    assert_eq!(config.http.bind.to_string(), "127.0.0.1:8080");
    assert_eq!(config.http.token, None);
    assert_eq!(config.data_plane.bind.to_string(), "127.0.0.1:9500");
    assert_eq!(config.runtime.sample_interval, Duration::from_secs(5));
    assert_eq!(config.runtime.output_ring_bytes, 256 * 1024);
    assert_eq!(config.log.format, LogFormat::Text);
}

#[test]
fn the_repositorys_file_is_a_good_configuration_with_the_demonstration() {
    let config = load(COMPILED_IN).unwrap();
    let demo = &config.swarms[0];
    let names: Vec<String> = demo.expand().unwrap().into_iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(names, ["demo/clock", "demo/indexer-1", "demo/indexer-2", "demo/reporter", "demo/flaky", "demo/census"]);
    assert_eq!(demo.workdir(), Some(Path::new("/h")));
    assert_eq!(demo.origin, Origin::Config);
    for agent in &demo.agents {
        let script = agent.command.iter().find(|word| word.ends_with(".sh")).expect("a script");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        assert!(path.is_file(), "{} is not there", path.display());
    }
}

#[test]
fn layers_lie_over_one_another() {
    let flag = FlagValue { flag: "--http", table: "http", key: "bind", value: "127.0.0.1:4".to_owned() };
    let file = "[http]\nbind = \"127.0.0.1:2\"\nhosts = [\"from-file\"]\n[data_plane]\nbind = \"127.0.0.1:5\"\n[log]\nlevel = \"debug\"";
    let env = [
        ("HIVEKEEPER__HTTP__BIND", "127.0.0.1:3"),
        ("HIVEKEEPER__HTTP__HOSTS", "[\"from-env\"]"),
        ("HIVEKEEPER__SUPERVISION__INTENSITY", "7"),
        ("HIVEKEEPER__SUPERVISION__BACKOFF", "{ max = \"5s\" }"),
        ("HIVEKEEPER__HIVE__DATA_DIR", "d"),
        ("HIVEKEEPER_ADDR", "not ours to read"),
        ("HIVEKEEPER_URL", "not ours to read"),
    ];
    let file = format!("{file}\n{}", document("", ""));
    let config = load_with(&[("config.toml", &file)], &env, vec![flag]).unwrap();
    assert_eq!(config.http.bind.port(), 4, "a flag beats a variable");
    assert_eq!(config.http.hosts, ["from-env"], "a variable beats the file");
    assert_eq!(config.data_plane.bind.port(), 5, "the file beats the default");
    assert_eq!(config.hive.data_dir, Path::new("/h/d"));
    let swarm = &config.swarms[0];
    assert_eq!((swarm.intensity, swarm.backoff.max), (7, Duration::from_secs(5)));
    assert_eq!(swarm.backoff.factor, 2.0, "keys that a table doesn't say keep the lower layer's word");
}

#[test]
fn a_secret_is_a_reference_that_counts_from_the_file() {
    let agent = "env = { KEY = { file = \"./key\" }, OTHER = { env = \"DAEMONS\" } }";
    let config = load(&document("", agent)).unwrap();
    let env = &config.swarms[0].agents[0].env;
    assert_eq!(
        env["KEY"],
        EnvValue::Secret(SecretRef::File("/h/key".into())),
        "whether it is there is seen at the start"
    );
    assert_eq!(env["OTHER"], EnvValue::Secret(SecretRef::Env("DAEMONS".to_owned())));
    let said = load("[secrets]\nallow_files = [\"/srv/keys\"]\nallow_env = [\"KEY\"]").unwrap().secrets;
    assert_eq!((said.files, said.env), (vec![PathBuf::from("/srv/keys")], vec!["KEY".to_owned()]));
    for (value, piece) in [
        ("{}", "neither `file` nor `env`"),
        ("{ file = \"a\", env = \"B\" }", "both `file` and `env`"),
        ("{ file = \"\" }", "the path of a file"),
        ("{ env = \"\" }", "the name of a variable"),
        ("{ env = \"HIVEKEEPER_API_TOKEN\" }", "the daemon's own"),
        ("{ file = \"a\", mode = 1 }", "env.KEY.mode: found an unknown key"),
        ("1", "{ file = \"PATH\" } or { env = \"NAME\" }"),
    ] {
        let problems = load(&document("", &format!("env = {{ KEY = {value} }}"))).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(piece), "{value}: {problems:?}");
        assert!(problems[0].contains("env.KEY"), "{problems:?}");
    }
}

#[test]
fn a_document_overrides_the_defaults() {
    let swarm = "period = \"90s\"\nintensity = 0\non_exceeded = \"fail\"\nbackoff = { initial = \"1s\" }\nworkdir = \"work\"\nenv = { A = \"1\" }";
    let agent = "replicas = 2\nrestart = \"temporary\"\nready = \"session\"\nprogress_timeout = \"1m\"\non_stuck = \"restart\"\nlease = \"500ms\"";
    let config = load(&document(swarm, agent)).unwrap();
    let swarm = &config.swarms[0];
    assert_eq!((swarm.period, swarm.intensity), (Duration::from_secs(90), 0));
    assert_eq!(swarm.on_exceeded, OnExceeded::Fail);
    assert_eq!(swarm.backoff.initial, Duration::from_secs(1));
    assert_eq!(swarm.workdir(), Some(Path::new("/h/work")));
    assert_eq!(swarm.env["A"], EnvValue::Plain("1".to_owned()));
    let agent = &swarm.agents[0];
    assert_eq!((agent.replicas, agent.restart, agent.ready), (Some(2), RestartType::Temporary, Ready::Session));
    assert_eq!((agent.on_stuck, agent.lease), (OnStuck::Restart, Duration::from_millis(500)));
    assert_eq!(agent.start_timeout, Duration::from_secs(30));
}

/// Each text gives exactly one problem, whose line holds all the pieces.
#[test]
fn every_error_names_file_line_key_what_was_found_and_what_is_allowed() {
    let long = format!("[hive]\ndata_dir = \"/{}\"", "x".repeat(60));
    let swarm = |line: &str| document(line, "");
    let agent = |line: &str| document("", line);
    let cases: Vec<(String, Vec<&str>)> = vec![
        (
            "[http]\nbnid = \"127.0.0.1:1\"".into(),
            vec!["config.toml:2: http.bnid", "unknown", "did you mean `bind`?", "token_file"],
        ),
        ("[htpt]\n".into(), vec!["config.toml:1: htpt", "unknown", "did you mean `http`?", "swarm"]),
        (
            "[http]\nbind = 8080".into(),
            vec!["config.toml:2: http.bind", "found 8080", "allowed: an IP address and a port"],
        ),
        ("[http]\nbind = \"localhost\"".into(), vec!["http.bind", "\"localhost\"", "127.0.0.1:8080"]),
        ("http = 1".into(), vec!["config.toml:1: http", "found 1", "a table"]),
        (
            "[runtime]\nsample_interval = \"60 parsecs\"".into(),
            vec!["config.toml:2: runtime.sample_interval", "\"60 parsecs\"", "ms, s, m, h, d"],
        ),
        ("[runtime]\nsample_interval = 5".into(), vec!["runtime.sample_interval", "found 5", "text with a unit"]),
        ("[runtime]\nsample_interval = \"2m\"".into(), vec!["runtime.sample_interval", "\"2m\"", "50ms to 1m"]),
        (
            "[runtime]\noutput_ring = \"1 pint\"".into(),
            vec!["runtime.output_ring", "\"1 pint\"", "16.0 KiB to 64.0 MiB"],
        ),
        ("[journal]\nevents_max = 12.5".into(), vec!["journal.events_max", "found 12.5", "an integer from 1000 to"]),
        ("[journal]\nevents_max = 99999999999999999999".into(), vec!["journal.events_max", "an integer from 1000 to"]),
        ("[log]\nlevel = \"loud\"".into(), vec!["log.level", "\"loud\"", "\"trace\""]),
        ("[log]\nagent_max = \"2GiB\"".into(), vec!["log.agent_max", "at most log.total_max"]),
        ("[hive]\nname = \"My Hive\"".into(), vec!["hive.name", "\"My Hive\"", "a-z"]),
        ("[hive]\ndata_dir = \"\"".into(), vec!["config.toml:2: hive.data_dir", "the path of a directory"]),
        (long, vec!["config.toml:2: hive.data_dir", "61 bytes long", "60 bytes at most"]),
        ("[http]\nbind = \"0.0.0.0:8080\"".into(), vec!["config.toml:2: http.bind", "0.0.0.0:8080", "http.token_file"]),
        ("[data_plane]\nbind = \"[::]:9500\"".into(), vec!["config.toml:2: data_plane.bind", "without a token"]),
        (
            "[data_plane]\nbind = \"127.0.0.1:8080\"".into(),
            vec!["data_plane.bind", "which http.bind has", "a port of its own"],
        ),
        ("[http]\nhosts = [\"http://x/\"]".into(), vec!["config.toml:2: http.hosts", "http://x/", "no path"]),
        ("[http]\ntoken_file = \"none\"".into(), vec!["config.toml:2: http.token_file", "/h/none", "can't be read"]),
        ("[http]\ntoken_file = \"short\"".into(), vec!["http.token_file", "holds no token", "at least 16"]),
        (
            "[health]\nheartbeat_timeout = \"6s\"".into(),
            vec!["config.toml:2: health.heartbeat_timeout", "at least \"10s\""],
        ),
        (
            "[supervision]\nbackoff = { then = \"2m\" }".into(),
            vec!["config.toml:2: supervision.backoff", "then = \"2m\"", "max = \"1m\""],
        ),
        ("[supervision]\nbackoff = { jitter = 1.5 }".into(), vec!["supervision.backoff.jitter", "1.5", "from 0 to 1"]),
        ("[hive\nname = 1".into(), vec!["config.toml:1", "syntax error"]),
        ("[hive]\nname = \"a\"\nname = \"b\"".into(), vec!["config.toml:3", "syntax error", "duplicate key"]),
        ("[swarm]\nname = \"s\"".into(), vec!["config.toml:1: swarm", "[[swarm]], with two brackets"]),
        (swarm("nmae = \"x\""), vec!["config.toml:3: swarm[s].nmae", "did you mean `name`?"]),
        (
            swarm("strategy = \"simple_one_for_one\""),
            vec![
                "config.toml:3: swarm[s].strategy",
                "\"simple_one_for_one\"",
                "allowed: \"one_for_one\", \"one_for_all\", \"rest_for_one\"",
            ],
        ),
        (
            "[supervision]\nstrategy = \"all_for_one\"".into(),
            vec!["config.toml:2: supervision.strategy", "\"all_for_one\"", "\"one_for_all\""],
        ),
        (
            swarm("runtime = \"podman\""),
            vec!["config.toml:3: swarm[s].runtime", "\"podman\"", "\"docker\", \"process\", \"auto\""],
        ),
        (swarm("on_exceeded = \"explode\""), vec!["swarm[s].on_exceeded", "\"explode\"", "retry_after"]),
        (
            swarm("on_exceeded = { retry_after = \"1m\", times = 2 }"),
            vec!["swarm[s].on_exceeded.times", "unknown", "retry_after"],
        ),
        (swarm("env = { HIVEKEEPER_TOKEN = \"x\" }"), vec!["swarm[s].env.HIVEKEEPER_TOKEN", "set by Hivekeeper alone"]),
        (swarm("env = { A = 1 }"), vec!["config.toml:3: swarm[s].env.A", "found 1", "a string"]),
        (agent("replicas = 0"), vec!["config.toml:7: swarm[s].agent[a].replicas", "found 0", "from 1 to 1000"]),
        (
            agent("restart = \"always\""),
            vec!["swarm[s].agent[a].restart", "\"always\"", "\"permanent\", \"transient\", \"temporary\""],
        ),
        (agent("on_stuck = \"restart\""), vec!["config.toml:7: swarm[s].agent[a].on_stuck", "progress_timeout above"]),
        (
            agent("heartbeat_timeout = \"1s\""),
            vec!["config.toml:7: swarm[s].agent[a].heartbeat_timeout", "at least \"10s\""],
        ),
        (
            agent("[[swarm.agent]]\nname = \"a\"\ncommand = [\"b\"]"),
            vec!["config.toml:8: swarm[s].agent[a].name", "a second agent \"a\"", "config.toml:5"],
        ),
        (
            agent("[[swarm]]\nname = \"s\"\n[[swarm.agent]]\nname = \"b\"\ncommand = [\"b\"]"),
            vec!["config.toml:8: swarm[s].name", "a second \"s\"", "config.toml:2"],
        ),
        (
            agent("[[swarm.agent]]\nname = \"b\""),
            vec!["config.toml:7: swarm[s].agent[b].command", "found nothing", "required"],
        ),
        (
            agent("[[swarm.agent]]\nname = \"b\"\ncommand = []"),
            vec!["config.toml:9: swarm[s].agent[b].command", "an empty array", "a program and its arguments"],
        ),
        (
            agent("[[swarm.agent]]\nname = \"b\"\ncommand = \"b -v\""),
            vec!["swarm[s].agent[b].command", "\"b -v\"", "no shell"],
        ),
        (
            agent("[[swarm.agent]]\nname = \"b\"\ncommand = [\"\"]"),
            vec!["swarm[s].agent[b].command", "an empty program name"],
        ),
        (agent("[[swarm.agent]]\ncommand = [\"b\"]"), vec!["config.toml:7: swarm[s].agent[#2].name", "required"]),
        ("[[swarm]]\nname = \"s\"".into(), vec!["config.toml:1: swarm[s].agent", "[[swarm.agent]]"]),
    ];
    for (text, pieces) in cases {
        let problems = load_with(&[("config.toml", &text), ("short", "abc")], &[], Vec::new()).unwrap_err();
        assert_eq!(problems.len(), 1, "{text}\n{problems:#?}");
        for piece in pieces {
            assert!(problems[0].contains(piece), "{piece:?} is not in {:?}", problems[0]);
        }
    }
}

#[test]
fn numbered_names_clash_with_plain_ones() {
    let text = agent_after("replicas = 2", "name = \"a-2\"\ncommand = [\"x\"]");
    let problems = load(&text).unwrap_err();
    assert!(problems[0].contains("a second agent \"a-2\" in s"), "{problems:?}");
    let long = "x".repeat(62);
    let text = agent_after("", &format!("name = \"{long}\"\nreplicas = 1\ncommand = [\"x\"]"));
    let problems = load(&text).unwrap_err();
    assert!(problems[0].contains("63 characters at most"), "{problems:?}");
}

fn agent_after(first: &str, second: &str) -> String {
    document("", &format!("{first}\n[[swarm.agent]]\n{second}"))
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    let text = "[http]\nbind = 1\ncolour = 2\n[log]\nlevel = 3\n[[swarm]]\nname = \"S\"\nperiod = \"1 fortnight\"\n[[swarm.agent]]\nname = \"a\"";
    let problems = load(text).unwrap_err();
    let lines: Vec<&str> = problems.iter().map(|p| p.split(": ").next().unwrap()).collect();
    let expected =
        ["config.toml:2", "config.toml:3", "config.toml:5", "config.toml:7", "config.toml:8", "config.toml:9"];
    assert_eq!(lines, expected, "{problems:#?}");
    let problems = load("[hive\n[http]\nbind = \n[log]\nlevel = = 1").unwrap_err();
    assert!(problems.len() >= 2, "{problems:#?}");
}

#[test]
fn variables_and_flags_are_named_in_their_errors() {
    let flag = FlagValue { flag: "--http", table: "http", key: "bind", value: "here".to_owned() };
    let env = [
        ("HIVEKEEPER__HTPT__BIND", "x"),
        ("HIVEKEEPER__LOG__LEVEL", "loud"),
        ("HIVEKEEPER__LOG__COLOUR", "red"),
        ("HIVEKEEPER__SWARM", "x"),
        ("HIVEKEEPER__JOURNAL__EVENTS_MAX", "many"),
    ];
    let problems = load_with(&[], &env, vec![flag]).unwrap_err();
    for piece in [
        "variable HIVEKEEPER__HTPT__BIND: htpt.bind: found the name HIVEKEEPER__HTPT__BIND; did you mean `http`?",
        "variable HIVEKEEPER__LOG__LEVEL: log.level: found \"loud\"",
        "variable HIVEKEEPER__LOG__COLOUR: log.colour: found an unknown key",
        "swarms come from the file",
        "journal.events_max: found \"many\"; allowed: an integer",
        "flag --http: http.bind: found \"here\"",
    ] {
        assert!(problems.iter().any(|p| p.contains(piece)), "{piece:?} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), 6, "{problems:#?}");
}

#[test]
fn files_that_cannot_be_read_are_said() {
    let problems = load_with(&[("config.toml", "DENIED")], &[], Vec::new()).unwrap_err();
    assert!(problems[0].starts_with("config.toml: can't be read: permission denied"), "{problems:?}");
    let env = BTreeMap::new();
    let read = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    let file = Some(PathBuf::from("other.toml"));
    let args =
        LoadArgs { file, cwd: PathBuf::from("/h"), env: &env, flags: Vec::new(), read: &read, resolve: &nowhere };
    let errors = Config::load(&args).unwrap_err().to_string();
    assert!(errors.starts_with("other.toml: can't be read"), "a file that was asked for must be there: {errors}");
}

#[test]
fn a_token_opens_wider_binds_and_never_shows() {
    let text = "[http]\nbind = \"0.0.0.0:8080\"\ntoken_file = \"token\"";
    let files = [("config.toml", text), ("token", " 0123456789abcdef\n")];
    let config = load_with(&files, &[], Vec::new()).unwrap();
    assert_eq!(config.http.token.as_ref().unwrap().reveal(), "0123456789abcdef");
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
}

#[test]
fn port_zero_may_be_asked_for_twice() {
    let config = load("[http]\nbind = \"127.0.0.1:0\"\n[data_plane]\nbind = \"127.0.0.1:0\"").unwrap();
    assert_eq!(config.http.bind.port(), 0);
}

#[test]
fn the_data_directory_is_found_in_spite_of_other_mistakes() {
    let env = BTreeMap::new();
    let read = |_: &Path| Ok("[hive]\ndata_dir = \"d\"\n[log]\nlevel = 1".to_owned());
    let args =
        LoadArgs { file: None, cwd: PathBuf::from("/h"), env: &env, flags: Vec::new(), read: &read, resolve: &nowhere };
    assert_eq!(Config::data_dir(&args).as_deref(), Some(Path::new("/h/d")));
}

proptest::proptest! {
    /// Whatever stands in the file, there is a configuration or there are problems with a place, and no panic.
    #[test]
    fn no_text_makes_it_panic(cuts in proptest::collection::vec((0..COMPILED_IN.len(), 0..40_usize, ".{0,6}"), 1..4)) {
        let mut text = with_the_swarms_in_containers();
        for (at, len, insert) in cuts {
            let from = (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
            let to = (from + len..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
            text.replace_range(from.min(text.len())..to, &insert);
        }
        if let Err(problems) = load(&text) {
            proptest::prop_assert!(!problems.is_empty());
            for problem in problems {
                proptest::prop_assert!(problem.starts_with("config.toml"), "{problem}");
            }
        }
    }
}

/// The words of an error's "allowed" list.
fn allowed(text: &str) -> BTreeSet<String> {
    let problems = load(text).unwrap_err();
    let problem = problems.iter().find(|p| p.contains("an unknown key")).expect("an unknown key");
    problem.split("allowed: ").nth(1).unwrap().split(", ").map(str::to_owned).collect()
}

/// Every key that is read stands in `config.toml` with a sentence above it, and every key there is read.
#[test]
fn config_toml_and_what_is_read_do_not_drift_apart() {
    let whole = with_the_swarms_in_containers();
    let file: toml::Table = whole.parse().unwrap();
    let keys = |value: &toml::Value| value.as_table().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    let mut tables = keys(&toml::Value::Table(file.clone()));
    assert_eq!(tables, allowed("zzz = 1"));
    tables.remove("swarm");
    tables.remove("source");
    let sources = file["source"].as_array().unwrap();
    assert_eq!(keys(&sources[0]), allowed("[[source]]\nname = \"s\"\naddress = \"h:1\"\nzzz = 1"));
    tables.remove("notify");
    let notifiers = file["notify"].as_array().unwrap().iter().flat_map(keys).collect::<BTreeSet<_>>();
    assert_eq!(notifiers, allowed("[[notify]]\nname = \"n\"\nwebhook = \"http://h\"\nzzz = 1"));
    for table in &tables {
        assert_eq!(keys(&file[table]), allowed(&format!("[{table}]\nzzz = 1")), "[{table}]");
    }
    assert_eq!(keys(&file["supervision"]["backoff"]), allowed("[supervision]\nbackoff = { zzz = 1 }"));

    let defaults: BTreeSet<String> = keys(&file["supervision"]).union(&keys(&file["health"])).cloned().collect();
    let swarms = file["swarm"].as_array().unwrap();
    let agents: Vec<&toml::Value> = swarms.iter().flat_map(|s| s["agent"].as_array().unwrap()).collect();
    for (read, shown) in [
        (allowed(&document("zzz = 1", "")), swarms.iter().flat_map(&keys).collect::<BTreeSet<String>>()),
        (allowed(&document("", "zzz = 1")), agents.into_iter().flat_map(&keys).collect()),
    ] {
        let documented: BTreeSet<String> = shown.union(&defaults).cloned().collect();
        let missing: Vec<&String> = read.difference(&documented).collect();
        assert!(missing.is_empty(), "read, but not in config.toml: {missing:?}");
    }

    let lines: Vec<&str> = whole.lines().collect();
    let mut seen = BTreeSet::new();
    for (i, line) in lines.iter().enumerate() {
        let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')) else { continue };
        let first_in_demo = line_is_in_demo(&lines, i) && (defaults.contains(key) || !seen.insert(key));
        assert!(first_in_demo || lines[i - 1].starts_with('#'), "line {} has no sentence: {line}", i + 1);
    }
}

/// `config.toml` with what stands at its end as comments, because the demonstration needs no engine.
fn with_the_swarms_in_containers() -> String {
    let (before, swarms) = COMPILED_IN.split_once("\n# [[swarm]]").unwrap();
    let lines = swarms.lines().map(|line| line.strip_prefix("# ").unwrap_or(line));
    format!("{before}\n[[swarm]]{}\n", lines.collect::<Vec<_>>().join("\n"))
}

fn line_is_in_demo(lines: &[&str], at: usize) -> bool {
    lines[..at].contains(&"[[swarm]]")
}
