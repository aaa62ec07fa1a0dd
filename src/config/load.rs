//! The layers, one over the other.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::model::RuntimeKind;

use super::{
    api::Documents,
    check,
    draft::{Arrays, Draft},
    engine::{self, Sockets},
    home::{ApiRights, Author, Machine},
    notify,
    problem::{Complaint, ConfigErrors, Place, Problem},
    settings::{Config, DataPlaneConfig, DockerConfig, HttpConfig},
    source,
    suggest::nearest,
    swarm::{self, Ground},
    tree::{self, Entry, Node, Value},
};

/// The first layer: every key, its default and one sentence.
pub const COMPILED_IN: &str = include_str!("../../config.toml");
/// The user's file where `--config` names none.
pub const FILE_NAME: &str = "config.toml";
/// What the variables of the third layer begin with.
const VARIABLE_PREFIX: &str = "HIVEKEEPER__";
/// Largest configuration file that is read: thousands of swarms fit, a device or a log given by mistake does not.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A key that a flag of the command line sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagValue {
    /// `--data-dir`
    pub flag: &'static str,
    /// `hive`
    pub table: &'static str,
    /// `data_dir`
    pub key: &'static str,
    /// As it was typed.
    pub value: String,
}

/// Everything that a configuration is made of. Nothing else is looked at.
pub struct LoadArgs<'a> {
    /// `--config FILE`; without it `config.toml` in `cwd`, if it is there.
    pub file: Option<PathBuf>,
    /// The absolute working directory.
    pub cwd: PathBuf,
    /// The environment.
    pub env: &'a BTreeMap<String, String>,
    /// The last layer.
    pub flags: Vec<FlagValue>,
    /// Reads a file; [`read_file`] outside tests.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
    /// Resolves the symbolic links of a path that must exist; [`resolve_path`] outside tests.
    pub resolve: &'a dyn Fn(&Path) -> io::Result<PathBuf>,
}

/// Loads a configuration anew, from where it was loaded first.
pub type Loader = Box<dyn Fn() -> Result<Config, ConfigErrors> + Send + Sync>;

/// Reads a file of at most 16 MiB.
///
/// # Errors
/// What the system says, or that it is too large or not UTF-8.
pub fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    if file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)? as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("larger than 16 MiB"));
    }
    Ok(text)
}

/// The absolute path without symbolic links.
///
/// # Errors
/// What the system says, above all that there is nothing.
pub fn resolve_path(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize()
}

impl Config {
    /// Lays the layers over one another and checks the whole.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(args: &LoadArgs<'_>) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        let Layers { draft, arrays, file } = Layers::gather(args, &mut problems);
        check::whole(&draft, &mut problems);
        let token = check::token(&draft, args.read, &mut problems);
        let http_tls = draft.http_tls.files("http", args.read, &mut problems);
        let tls = draft.data_plane.tls(args.read, &mut problems);
        let sample_interval = draft.sample_interval.as_ref().map(|said| said.value).unwrap_or_default();
        let base = file.as_deref().and_then(Path::parent).unwrap_or(&args.cwd);
        let engine = engine::socket(&draft, args.env);
        let sockets = Sockets::new(engine.as_deref().ok(), args.resolve);
        let machine = Machine { base: Some(base), resolve: args.resolve, sockets: &sockets, author: Author::File };
        let ground = Ground { machine, swarm: &draft.swarm_defaults, agent: &draft.agent_defaults, sample_interval };
        let swarms = arrays.swarms.map(|node| swarm::swarms(node, &ground, &mut problems)).unwrap_or_default();
        let sources = arrays.sources.map(|node| source::sources(node, &mut problems)).unwrap_or_default();
        let told = notify::Ground { base, read: args.read };
        let notifiers = arrays.notifiers.map(|node| notify::notifiers(node, &told, &mut problems)).unwrap_or_default();
        let needs_engine = swarms.iter().any(|swarm| swarm.runtime() == RuntimeKind::Docker);
        let socket = match engine {
            Ok(path) => Some(path),
            // A hive of processes has nothing to do with a variable that is meant for others.
            Err((place, complaint)) => {
                problems.extend(needs_engine.then(|| complaint.at(place, "docker.host".to_owned())));
                None
            }
        };
        if !problems.is_empty() {
            return Err(ConfigErrors::new(problems));
        }
        let config = || {
            Some(Self {
                file: file.clone(),
                hive: draft.hive()?,
                http: HttpConfig { token, tls: http_tls, ..draft.http()? },
                data_plane: DataPlaneConfig { tls, ..draft.data_plane.config()? },
                runtime: draft.runtime()?,
                docker: DockerConfig { socket: socket.clone(), ..draft.docker()? },
                secrets: draft.secrets()?,
                journal: draft.journal()?,
                coordination: draft.coordination()?,
                history: draft.history()?,
                disk: draft.disk()?,
                log: draft.log()?,
                documents: Documents {
                    swarm: draft.swarm_defaults.clone(),
                    agent: draft.agent_defaults.clone(),
                    sample_interval,
                    engine: socket.clone(),
                    rights: ApiRights { mounts: draft.docker()?.allow_mounts, secrets: draft.secrets()? },
                },
                swarms,
                sources,
                notifiers,
            })
        };
        config().ok_or_else(|| {
            let complaint = Complaint::rule("a key without a default", "this is our mistake; please report it");
            ConfigErrors::new(vec![complaint.at(Place::WholeFile(compiled_in_name()), "compiled in".to_owned())])
        })
    }

    /// The data directory alone, for a client that looks for its daemon: what is wrong elsewhere doesn't keep it from asking.
    pub fn data_dir(args: &LoadArgs<'_>) -> Option<PathBuf> {
        Layers::gather(args, &mut Vec::new()).draft.data_dir?.value
    }

    /// The file with the API's token alone, for the same reason.
    pub fn token_file(args: &LoadArgs<'_>) -> Option<PathBuf> {
        Layers::gather(args, &mut Vec::new()).draft.token_file?.value
    }

    /// The file with the API's certificate alone, for the same reason.
    pub fn certificate_file(args: &LoadArgs<'_>) -> Option<PathBuf> {
        Layers::gather(args, &mut Vec::new()).draft.http_tls.certificate_file()
    }
}

struct Layers {
    draft: Draft,
    /// The arrays of the user's file.
    arrays: Arrays,
    /// The user's file, absolute.
    file: Option<PathBuf>,
}

impl Layers {
    fn gather(args: &LoadArgs<'_>, problems: &mut Vec<Problem>) -> Self {
        let mut draft = Draft::default();
        match tree::parse(&compiled_in_name(), COMPILED_IN) {
            // Its swarms are the demonstration and do not count here.
            Ok(root) => drop(draft.lay(root, &args.cwd, problems)),
            Err(errors) => problems.extend(errors),
        }
        let named = args.file.is_some();
        let shown = args.file.clone().unwrap_or_else(|| PathBuf::from(FILE_NAME));
        let path = args.cwd.join(&shown);
        let name: Arc<str> = Arc::from(shown.to_string_lossy());
        let mut arrays = Arrays::default();
        let mut file = None;
        match (args.read)(&path) {
            Ok(text) => {
                let base = path.parent().unwrap_or(&args.cwd).to_owned();
                match tree::parse(&name, &text) {
                    Ok(root) => arrays = draft.lay(root, &base, problems),
                    Err(errors) => problems.extend(errors),
                }
                file = Some(path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !named => {}
            Err(error) => {
                let complaint = Complaint::rule(format!("can't be read: {error}"), "allowed: a readable TOML file");
                problems.push(complaint.at(Place::WholeFile(name), String::new()));
            }
        }
        for root in [variables(args.env, problems), flags(&args.flags)] {
            draft.lay(root, &args.cwd, problems);
        }
        Self { draft, arrays, file }
    }
}

fn compiled_in_name() -> Arc<str> {
    Arc::from("config.toml (compiled in)")
}

/// The layer of the `HIVEKEEPER__TABLE__KEY` variables. What an agent finds in its environment (`HIVEKEEPER_ADDR` ...) is none of them.
fn variables(env: &BTreeMap<String, String>, problems: &mut Vec<Problem>) -> Node {
    const TABLES: [&str; 11] = [
        "hive",
        "http",
        "data_plane",
        "runtime",
        "docker",
        "supervision",
        "health",
        "journal",
        "disk",
        "history",
        "log",
    ];
    let mut root = Vec::new();
    for (name, text) in env {
        let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else { continue };
        let place = Place::Variable(name.clone());
        let parts: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
        match parts.as_slice() {
            [table, key] if TABLES.contains(&table.as_str()) && !key.is_empty() => {
                put(&mut root, table, key, place, text)
            }
            [table, ..] => {
                let hint = nearest(table, &TABLES).map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
                let tables = TABLES.join(", ");
                let rule = format!(
                    "{hint}allowed: HIVEKEEPER__TABLE__KEY with one of the tables {tables}; swarms come from the file"
                );
                problems.push(
                    Complaint::rule(format!("the name {name}"), rule)
                        .at(place, rest.to_ascii_lowercase().replace("__", ".")),
                );
            }
            [] => {}
        }
    }
    Node { place: Place::WholeFile(Arc::from("environment")), value: Value::Table(root) }
}

fn flags(flags: &[FlagValue]) -> Node {
    let mut root = Vec::new();
    for flag in flags {
        put(&mut root, flag.table, flag.key, Place::Flag(flag.flag), &flag.value);
    }
    Node { place: Place::WholeFile(Arc::from("command line")), value: Value::Table(root) }
}

fn put(root: &mut Vec<Entry>, table: &str, key: &str, place: Place, text: &str) {
    let node = Node { place: place.clone(), value: Value::Raw(text.to_owned()) };
    let entry = Entry { key: key.to_owned(), place: place.clone(), node };
    match root.iter_mut().find(|entry| entry.key == table) {
        Some(Entry { node: Node { value: Value::Table(entries), .. }, .. }) => entries.push(entry),
        _ => {
            let node = Node { place: place.clone(), value: Value::Table(vec![entry]) };
            root.push(Entry { key: table.to_owned(), place, node });
        }
    }
}
