//! Swarms in containers: what is read, what is refused and why, and what no swarm may ever see.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use hivekeeper::{
    config::{Config, LoadArgs},
    model::{ContainerSpec, Home, Limits, Mount, NetworkSpec, Origin, Place, RuntimeKind, SwarmSpec},
    view,
};

use super::{document, with_the_swarms_in_containers};

/// What there is on the machine, and where it really is.
const THERE: [(&str, &str); 14] = [
    ("/", "/"),
    ("/run", "/run"),
    ("/var/run", "/run"),
    ("/run/docker.sock", "/run/docker.sock"),
    ("/var/run/docker.sock", "/run/docker.sock"),
    ("/run/user/1000", "/run/user/1000"),
    ("/h", "/h"),
    ("/h/repo", "/h/repo"),
    ("/h/current", "/h/releases/7"),
    ("/h/innocent", "/run/docker.sock"),
    ("/h/held", "/h/held"),
    ("/h/held/podman.sock", "/h/held/podman.sock"),
    ("/h/engine/s", "/srv/engine/s"),
    ("/srv/engine", "/srv/engine"),
];

fn load_on(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let env: BTreeMap<String, String> =
        variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let read = |_: &Path| Ok(text.to_owned());
    let resolve = |path: &Path| match THERE.iter().find(|(name, _)| Path::new(name) == path) {
        Some((_, real)) => Ok(PathBuf::from(real)),
        None => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let args =
        LoadArgs { file: None, cwd: PathBuf::from("/h"), env: &env, flags: Vec::new(), read: &read, resolve: &resolve };
    Config::load(&args).map_err(|errors| errors.problems().iter().map(ToString::to_string).collect())
}

fn swarm(keys: &str) -> Result<SwarmSpec, Vec<String>> {
    load_on(&document(keys, ""), &[]).map(|mut config| config.swarms.remove(0))
}

fn container(keys: &str) -> ContainerSpec {
    match swarm(keys).unwrap().home {
        Home::Docker(spec) => (*spec).clone(),
        other => panic!("{keys}: {other:?}"),
    }
}

#[test]
fn auto_is_docker_for_whoever_has_a_key_of_its_own() {
    use RuntimeKind::{Docker, Process};
    for (keys, runtime) in [
        ("", Process),
        ("runtime = \"auto\"", Process),
        ("workdir = \"repo\"", Process),
        ("runtime = \"process\"", Process),
        ("image = \"debian\"", Docker),
        ("runtime = \"auto\"\ncontainer = \"dev\"", Docker),
        ("runtime = \"docker\"\nimage = \"debian\"", Docker),
    ] {
        assert_eq!(swarm(keys).unwrap().runtime(), runtime, "{keys}");
    }
}

#[test]
fn a_container_of_its_own_is_shut_in_by_default() {
    let spec = container("image = \"debian\"");
    let shut_in = ContainerSpec {
        place: Place::Own { image: "debian".to_owned() },
        network: NetworkSpec::None,
        limits: Limits { memory: Some(2 << 30), cpus: Some(1.5), pids: Some(256) },
        user: None,
        workdir: None,
        read_only_root: true,
        tmpfs: vec!["/tmp".to_owned()],
        cap_add: Vec::new(),
        mounts: Vec::new(),
    };
    assert_eq!(spec, shut_in);
    assert_eq!(spec.relaxations(), [""; 0]);
}

#[test]
fn every_key_is_read() {
    let keys = "image = \"ghcr.io/org/agent:1\"\nnetwork = \"lan\"\nlimits = { memory = \"64MiB\", cpus = 2 }\n\
        user = \"agent:100\"\nworkdir = \"/work/./x\"\nread_only_root = false\ntmpfs = [\"/scratch/\", \"/dev/shm\"]\n\
        cap_add = [\"CAP_NET_RAW\", \"KILL\", \"NET_RAW\"]\n\
        mounts = [{ source = \"./repo\", target = \"/tmp\", read_only = false }, { source = \"current\", target = \"/now\" }]";
    let mount =
        |source: &str, target: &str, read_only| Mount { source: source.into(), target: target.into(), read_only };
    let expected = ContainerSpec {
        place: Place::Own { image: "ghcr.io/org/agent:1".to_owned() },
        network: NetworkSpec::Named("lan".to_owned()),
        limits: Limits { memory: Some(64 << 20), cpus: Some(2.0), pids: Some(256) },
        user: Some("agent:100".to_owned()),
        workdir: Some("/work/x".into()),
        read_only_root: false,
        tmpfs: vec!["/scratch".to_owned(), "/dev/shm".to_owned()],
        cap_add: vec!["NET_RAW".to_owned(), "KILL".to_owned()],
        mounts: vec![mount("/h/repo", "/tmp", false), mount("/h/releases/7", "/now", true)],
    };
    assert_eq!(container(keys), expected);
    let spec = container("image = \"debian\"\nmounts = [{ source = \"repo\", target = \"/tmp\" }]");
    assert_eq!(spec.tmpfs, [""; 0], "the default gives way to a mount");
    let spec = container("image = \"debian\"\nnetwork = \"swarm\"\nlimits = { cpus = 0.3333333333 }");
    assert_eq!((spec.network, spec.limits.cpus), (NetworkSpec::Swarm, Some(0.333333333)));
}

#[test]
fn a_sidecar_takes_a_user_and_a_directory() {
    let spec = container("container = \"dev\"\nuser = \"1000\"\nworkdir = \"/\"");
    let expected = ContainerSpec {
        user: Some("1000".to_owned()),
        workdir: Some("/".into()),
        ..ContainerSpec::sidecar("dev".to_owned())
    };
    assert_eq!(spec, expected);
}

#[test]
fn the_swarms_in_config_toml_have_the_defaults_that_they_show() {
    let whole = with_the_swarms_in_containers();
    // The notifiers behind them name files that are nowhere.
    let shown = load_on(whole.split("[[notify]]").next().unwrap(), &[]).unwrap().swarms;
    let home = |name: &str| match &shown.iter().find(|swarm| swarm.name.as_str() == name).unwrap().home {
        Home::Docker(spec) => (**spec).clone(),
        other => panic!("{other:?}"),
    };
    let review = home("review");
    let silent = container("image = \"debian:bookworm-slim\"");
    assert_eq!(ContainerSpec { user: None, workdir: None, mounts: Vec::new(), ..review.clone() }, silent);
    assert_eq!(review.mounts[0].source, Path::new("/h"));
    assert_eq!(home("beside"), ContainerSpec::sidecar("dev".to_owned()));
}

/// What is kept of a document and shown of it is read back as what it was.
#[test]
fn what_is_read_survives_the_way_through_the_journal() {
    for keys in [
        "workdir = \"repo\"",
        "image = \"debian\"",
        "image = \"debian\"\nlimits = { memory = \"16777217B\", cpus = 0.017, pids = 4 }\nuser = \"0\"\nnetwork = \"swarm\"",
        "image = \"debian\"\ntmpfs = []\nmounts = [{ source = \"repo\", target = \"/w\" }]\ncap_add = [\"KILL\"]",
        "container = \"dev\"\nuser = \"1000\"\nworkdir = \"/w\"",
    ] {
        let spec = swarm(keys).unwrap();
        let json = serde_json::to_string(&view::document(&spec)).unwrap();
        let kept: view::SwarmDocument = serde_json::from_str(&json).unwrap();
        assert_eq!(kept.into_spec(Origin::Config).unwrap(), spec, "{json}");
    }
}

/// Each text gives exactly one problem, whose line holds all the pieces.
#[test]
fn what_cannot_be_had_is_refused_by_name() {
    let own = |line: &str| format!("image = \"debian\"\n{line}");
    let mount = |table: &str| own(&format!("mounts = [{table}]"));
    let engine = "the socket of an engine is never mounted";
    let cases: Vec<(String, Vec<&str>)> = vec![
        (
            "runtime = \"process\"\nimage = \"debian\"".into(),
            vec![
                "config.toml:4: swarm[s].image",
                "\"debian\"",
                "the process runtime can't honour `image`",
                "\"docker\"",
            ],
        ),
        ("runtime = \"process\"\nuser = \"1\"".into(), vec!["swarm[s].user", "can't honour `user`"]),
        (
            "runtime = \"docker\"".into(),
            vec![
                "config.toml:3: swarm[s].image",
                "nothing beside runtime = \"docker\"",
                "needs `image`",
                "`container`",
            ],
        ),
        (
            "limits = { pids = 9 }".into(),
            vec!["config.toml:3: swarm[s].image", "nothing beside `limits`, which needs the docker runtime", "`image`"],
        ),
        (own("container = \"dev\""), vec!["config.toml:4: swarm[s].container", "beside `image`", "not both"]),
        ("imgae = \"debian\"".into(), vec!["swarm[s].imgae", "unknown", "did you mean `image`?", "mounts"]),
        ("image = \"Debian\"".into(), vec!["swarm[s].image", "\"Debian\"", "debian:bookworm-slim"]),
        ("image = 7".into(), vec!["swarm[s].image", "found 7", "debian:bookworm-slim"]),
        ("container = \"-dev\"".into(), vec!["swarm[s].container", "\"-dev\"", "the name of a container"]),
        (
            "container = \"dev\"\nread_only_root = true".into(),
            vec!["config.toml:4: swarm[s].read_only_root", "settled when a container is made", "needs `image`"],
        ),
        ("container = \"dev\"\nmounts = []".into(), vec!["swarm[s].mounts", "settled when a container is made"]),
        (own("network = \"host\""), vec!["swarm[s].network", "\"host\"", "not be isolated", "\"swarm\""]),
        (own("network = \"container:x\""), vec!["swarm[s].network", "\"container:x\"", "an existing network"]),
        (own("limits = { memory = \"15MiB\" }"), vec!["swarm[s].limits.memory", "\"15MiB\"", "16.0 MiB to 64.0 TiB"]),
        (own("limits = { memory = 2 }"), vec!["swarm[s].limits.memory", "found 2", "text with a unit"]),
        (own("limits = { cpus = 0 }"), vec!["swarm[s].limits.cpus", "found 0", "from 0.01 to 4096"]),
        (own("limits = { cpus = nan }"), vec!["swarm[s].limits.cpus", "found NaN", "from 0.01 to 4096"]),
        (own("limits = { pids = 3 }"), vec!["swarm[s].limits.pids", "found 3", "from 4 to 4194304"]),
        (own("limits = { cpu = 1 }"), vec!["swarm[s].limits.cpu", "unknown", "did you mean `cpus`?"]),
        (own("limits = 5"), vec!["swarm[s].limits", "found 5", "a table"]),
        (own("user = \"me@home\""), vec!["swarm[s].user", "\"me@home\"", "10001:10001"]),
        (own("user = \"1:\""), vec!["swarm[s].user", "\"1:\"", "10001:10001"]),
        (own("user = 1000"), vec!["swarm[s].user", "found 1000", "\"10001\""]),
        (own("read_only_root = \"no\""), vec!["swarm[s].read_only_root", "\"no\"", "true or false"]),
        (own("cap_add = [\"ALL\"]"), vec!["swarm[s].cap_add", "\"ALL\"", "name each capability"]),
        (own("cap_add = [\"CAP_ALL\"]"), vec!["swarm[s].cap_add", "\"CAP_ALL\"", "name each capability"]),
        (own("cap_add = [\"net_raw\"]"), vec!["swarm[s].cap_add", "\"net_raw\"", "did you mean \"NET_RAW\"?"]),
        (own("cap_add = \"KILL\""), vec!["swarm[s].cap_add", "\"KILL\"", "an array of strings"]),
        (own("tmpfs = [\"tmp\"]"), vec!["swarm[s].tmpfs", "\"tmp\"", "an absolute path in the container"]),
        (own("tmpfs = [\"/tmp:size=64m\"]"), vec!["swarm[s].tmpfs", "\"/tmp:size=64m\"", "without \"..\" and ':'"]),
        (own("tmpfs = [\"/a/../b\"]"), vec!["swarm[s].tmpfs", "\"/a/../b\"", "without \"..\""]),
        (own("tmpfs = [\"/run/hivekeeper\"]"), vec!["swarm[s].tmpfs", "\"/run/hivekeeper\"", "Hivekeeper's own"]),
        (own("tmpfs = [\"/a\", \"/a/\"]"), vec!["swarm[s].tmpfs", "a second \"/a\"", "each path once"]),
        (own("workdir = \"work\""), vec!["swarm[s].workdir", "\"work\"", "an absolute path in the container"]),
        (own("mounts = 1"), vec!["swarm[s].mounts", "found 1", "an array of tables"]),
        (own("mounts = [\"/a:/b\"]"), vec!["swarm[s].mounts[#1]", "\"/a:/b\"", "a table"]),
        (mount("{ target = \"/w\" }"), vec!["config.toml:4: swarm[s].mounts[#1].source", "found nothing", "required"]),
        (
            mount("{ source = \"repo\", target = \"/w\", readonly = true }"),
            vec!["swarm[s].mounts[#1].readonly", "did you mean `read_only`?"],
        ),
        (
            mount("{ source = \"gone\", target = \"/w\" }"),
            vec!["swarm[s].mounts[#1].source", "\"/h/gone\", which can't be found", "allowed: an existing file"],
        ),
        (mount("{ source = \"\", target = \"/w\" }"), vec!["swarm[s].mounts[#1].source", "the path of a file"]),
        (
            mount("{ source = \"repo\", target = \"/\" }"),
            vec!["swarm[s].mounts[#1].target", "found \"/\"", "not \"/\""],
        ),
        (mount("{ source = \"repo\", target = \"w\" }"), vec!["mounts[#1].target", "found \"w\"", "an absolute path"]),
        (
            mount("{ source = \"repo\", target = \"/.hivekeeper/bin\" }"),
            vec!["mounts[#1].target", "Hivekeeper's own", "\"/run/hivekeeper\""],
        ),
        (
            mount("{ source = \"repo\", target = \"/proc/self/exe\" }"),
            vec!["mounts[#1].target", "\"/proc/self/exe\"", "\"/proc\" is the kernel's"],
        ),
        (mount("{ source = \"repo\", target = \"/sys/\" }"), vec!["mounts[#1].target", "\"/sys\" is the kernel's"]),
        (mount("{ source = \"repo\", target = \"/dev/shm\" }"), vec!["mounts[#1].target", "\"/dev\" is the kernel's"]),
        (own("tmpfs = [\"/dev\"]"), vec!["swarm[s].tmpfs", "\"/dev\" is the kernel's"]),
        (own("tmpfs = [\"/proc/1\"]"), vec!["swarm[s].tmpfs", "\"/proc\" is the kernel's"]),
        (
            mount("{ source = \"repo\", target = \"/w\" }, { source = \"current\", target = \"/w/\" }"),
            vec!["config.toml:4: swarm[s].mounts[#2].target", "a second \"/w\", which mounts has, too"],
        ),
        (
            own("tmpfs = [\"/w\"]\nmounts = [{ source = \"repo\", target = \"/w\" }]"),
            vec!["config.toml:5: swarm[s].mounts[#1].target", "a second \"/w\", which tmpfs has, too"],
        ),
        (mount("{ source = \"/var/run/docker.sock\", target = \"/s\" }"), vec!["/var/run/docker.sock", engine]),
        (mount("{ source = \"/srv/gone/containerd.sock\", target = \"/s\" }"), vec!["containerd.sock", engine]),
        (mount("{ source = \"innocent\", target = \"/s\" }"), vec!["\"/h/innocent\"", "\"/run/docker.sock\"", engine]),
        (mount("{ source = \"held\", target = \"/s\" }"), vec!["\"/h/held\"", "\"/h/held/podman.sock\"", engine]),
        (mount("{ source = \"/var/run\", target = \"/s\" }"), vec!["\"/var/run\"", "docker.sock", engine]),
        (mount("{ source = \"/\", target = \"/host\", read_only = true }"), vec!["found \"/\"", engine]),
        (mount("{ source = \"/run/user/1000\", target = \"/s\" }"), vec!["\"/run/user/1000/docker.sock\"", engine]),
    ];
    for (keys, pieces) in cases {
        let problems = swarm(&keys).unwrap_err();
        assert_eq!(problems.len(), 1, "{keys}\n{problems:#?}");
        for piece in pieces {
            assert!(problems[0].contains(piece), "{piece:?} is not in {:?}", problems[0]);
        }
    }
}

#[test]
fn the_engine_is_where_the_file_says_else_the_variable_else_the_usual_place() {
    let socket = |text: &str, variables: &[(&str, &str)]| load_on(text, variables).unwrap().docker.socket;
    let said = "[docker]\nhost = \"unix:///srv/d.sock\"";
    let variable = [("DOCKER_HOST", "unix:///srv/v.sock")];
    assert_eq!(socket(said, &variable).as_deref(), Some(Path::new("/srv/d.sock")));
    assert_eq!(socket("", &variable).as_deref(), Some(Path::new("/srv/v.sock")));
    assert_eq!(socket("", &[("DOCKER_HOST", "")]).as_deref(), Some(Path::new("/var/run/docker.sock")));
    let over = [("HIVEKEEPER__DOCKER__HOST", "unix:///srv/h.sock")];
    assert_eq!(socket(said, &over).as_deref(), Some(Path::new("/srv/h.sock")));
    for bad in ["tcp://10.0.0.1:2375", "unix://srv/d.sock", "unix:///", "/var/run/docker.sock", "ssh://me@there"] {
        let problems = load_on(&format!("[docker]\nhost = \"{bad}\""), &[]).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        let found = format!("config.toml:2: docker.host: found \"{bad}\"; allowed: unix:// and the absolute path");
        assert!(problems[0].starts_with(&found), "{problems:?}");
    }
}

#[test]
fn a_variable_that_names_another_engine_matters_to_those_who_need_one() {
    let variable = [("DOCKER_HOST", "tcp://10.0.0.1:2376")];
    assert_eq!(load_on(&document("", ""), &variable).unwrap().docker.socket, None);
    let problems = load_on(&document("image = \"debian\"", ""), &variable).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].starts_with("variable DOCKER_HOST: docker.host: found \"tcp://10.0.0.1:2376\""),
        "{problems:?}"
    );
}

#[test]
fn the_engine_that_is_configured_is_never_mounted_whatever_it_is_called() {
    let text = |source: &str| {
        let keys = format!("image = \"debian\"\nmounts = [{{ source = \"{source}\", target = \"/s\" }}]");
        format!("{}[docker]\nhost = \"unix:///h/engine/s\"\n", document(&keys, ""))
    };
    for source in ["engine/s", "/h", "/srv/engine"] {
        let problems = load_on(&text(source), &[]).unwrap_err();
        assert!(problems[0].contains("the socket of an engine is never mounted"), "{source}: {problems:?}");
    }
    assert!(load_on(&text("repo"), &[]).is_ok());
}

#[test]
fn directories_for_documents_of_the_api_are_absolute() {
    let config = load_on("[docker]\nallow_mounts = [\"/srv/swarms/\", \"/data\"]", &[]).unwrap();
    assert_eq!(config.docker.allow_mounts, [Path::new("/srv/swarms"), Path::new("/data")]);
    assert!(load_on("", &[]).unwrap().docker.allow_mounts.is_empty());
    for bad in ["swarms", "/srv/../etc"] {
        let problems = load_on(&format!("[docker]\nallow_mounts = [\"{bad}\"]"), &[]).unwrap_err();
        assert!(problems[0].contains("docker.allow_mounts: found") && problems[0].contains(bad), "{problems:?}");
    }
}
