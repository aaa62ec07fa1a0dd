//! Paths in a container, and what of the machine is seen there.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use crate::model::{Mount, secret::is_below};

use super::{
    fields::Fields,
    home::{Author, Machine},
    problem::Complaint,
    read,
    tree::{Node, Value, quoted},
};

type Read<T> = Result<T, Complaint>;

/// Where the launcher and its sockets are in every container of ours.
const OURS: [&str; 2] = ["/.hivekeeper", "/run/hivekeeper"];

/// What the kernel shows of itself and of devices. A file in its place would lie to every program, and engines refuse most of it only at the start.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];
/// The one place there that is made to be filled, with memory.
const SHARED_MEMORY: &str = "/dev/shm";

/// The directory that agents start in.
pub(super) fn workdir(node: &Node) -> Read<PathBuf> {
    let text = read::text(node)?;
    inside(&text, "an absolute path in the container without \"..\", such as \"/workspace\"")
}

/// Directories of memory.
pub(super) fn tmpfs(node: &Node) -> Read<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    for text in read::strings(node)? {
        let path = place(&text)?;
        if !path.starts_with(SHARED_MEMORY) {
            is_kernels(&text, &path)?;
        }
        let path = path.to_string_lossy().into_owned();
        if found.contains(&path) {
            return Err(Complaint::allowed(format!("a second {}", quoted(&path)), "each path once"));
        }
        found.push(path);
    }
    Ok(found)
}

/// The `mounts` of a swarm. `taken` says which places in the container are something else already, and what.
pub(super) fn mounts(
    fields: &mut Fields<'_>,
    machine: Machine<'_>,
    taken: &mut BTreeMap<PathBuf, &'static str>,
) -> Vec<Mount> {
    let Some(node) = fields.node("mounts") else { return Vec::new() };
    let Value::Array(nodes) = node.value else {
        let allowed = "an array of tables, such as [{ source = \"./repo\", target = \"/workspace\" }]";
        fields.complain(node.place, "mounts", Complaint::allowed(node.value.describe(), allowed));
        return Vec::new();
    };
    let mut found = Vec::new();
    for (i, node) in nodes.into_iter().enumerate() {
        let path = fields.path(&format!("mounts[#{}]", i + 1));
        let Some(below) = fields.open_below(node, path) else { continue };
        found.extend(mount(below, machine, taken));
    }
    found
}

fn mount(mut fields: Fields<'_>, machine: Machine<'_>, taken: &mut BTreeMap<PathBuf, &'static str>) -> Option<Mount> {
    let source = fields.required("source", |node| source(node, machine));
    let target = fields.required("target", |node| {
        let text = read::text(node)?;
        let path = place(&text)?;
        is_kernels(&text, &path).map(|()| path)
    });
    let read_only = fields.get("read_only", read::boolean).is_none_or(|said| said.value);
    if let Some(target) = &target
        && let Some(what) = taken.insert(target.value.clone(), "mounts")
    {
        let found = format!("a second {}, which {what} has, too", quoted(&target.value.to_string_lossy()));
        fields.complain(target.place.clone(), "target", Complaint::allowed(found, "each path once"));
    }
    fields.finish();
    Some(Mount { source: source?.value, target: target?.value, read_only })
}

/// A file or directory of the machine, resolved, which shows nobody the socket of an engine.
fn source(node: &Node, machine: Machine<'_>) -> Read<PathBuf> {
    let said = machine.path(node)?;
    let said = said.ok_or_else(|| Complaint::allowed("\"\"", "the path of a file or directory"))?;
    let shown = quoted(&said.to_string_lossy());
    // What it is called is looked at, too: the link may lead elsewhere tomorrow.
    let refuse = |path: &Path| match machine.sockets.seen_through(path, machine.resolve) {
        None => Ok(()),
        Some(socket) => Err(Complaint::rule(
            format!("{shown}, through which the swarm would see {}", quoted(&socket.to_string_lossy())),
            "the socket of an engine is never mounted: whoever can write to it is root on this machine",
        )),
    };
    refuse(&said)?;
    let resolved = (machine.resolve)(&said).map_err(|error| {
        let rule =
            "allowed: an existing file or directory; a daemon that runs in a container must see it under the same path";
        Complaint::rule(format!("{shown}, which can't be found: {error}"), rule)
    })?;
    refuse(&resolved)?;
    if let Author::Api(rights) = machine.author {
        // The path that is mounted is the resolved one, and that is what is asked about.
        let allowed: Vec<PathBuf> = rights.mounts.iter().filter_map(|dir| (machine.resolve)(dir).ok()).collect();
        if !allowed.contains(&resolved) && !is_below(&resolved, &allowed) {
            let listed = rights.mounts.iter().map(|dir| quoted(&dir.to_string_lossy())).collect::<Vec<_>>().join(", ");
            let rule =
                format!("documents sent to the API may mount only below [docker] allow_mounts, which is [{listed}]");
            return Err(Complaint::rule(shown, rule));
        }
    }
    Ok(resolved)
}

/// A place in the container that is the document's to fill.
fn place(text: &str) -> Read<PathBuf> {
    const ALLOWED: &str = "an absolute path in the container without \"..\" and ':', such as \"/workspace\"; not \"/\"";
    let path = inside(text, ALLOWED)?;
    if path == Path::new("/") || text.contains(':') {
        return Err(Complaint::allowed(quoted(text), ALLOWED));
    }
    if OURS.iter().any(|ours| path.starts_with(ours)) {
        let rule = format!("{} and {} are Hivekeeper's own; {ALLOWED}", quoted(OURS[0]), quoted(OURS[1]));
        return Err(Complaint::rule(quoted(text), rule));
    }
    Ok(path)
}

/// Refuses what is the kernel's to fill.
fn is_kernels(text: &str, path: &Path) -> Read<()> {
    let Some(theirs) = KERNELS.iter().find(|theirs| path.starts_with(theirs)) else { return Ok(()) };
    let rule =
        format!("{} is the kernel's; allowed: an absolute path outside of {}", quoted(theirs), KERNELS.join(", "));
    Err(Complaint::rule(quoted(text), rule))
}

fn inside(text: &str, allowed: &str) -> Read<PathBuf> {
    let path: PathBuf = Path::new(text).components().collect();
    if is_plain(&path) { Ok(path) } else { Err(Complaint::allowed(quoted(text), allowed)) }
}

/// Absolute, and means the same whatever links there are.
pub(super) fn is_plain(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    path.is_absolute() && !text.contains(&0) && path.components().all(|part| part != Component::ParentDir)
}
