//! What is executed: path, arguments and environment of the agent, worked out before the fork.
//!
//! The environment is the launcher's own, which is the container's or empty, with the order's laid over it. What is about the launcher itself
//! stays behind.

use std::{
    collections::BTreeSet,
    ffi::{CString, OsStr, OsString},
    fs, io,
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
};

use super::sys::{self, Failure, Program};
use crate::wire::channel::Launch;

/// Where programs are looked for.
const PATH: &str = "PATH";
/// Where a program is looked for when its environment has no PATH: what POSIX shells take, and where people install.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";
/// Added to the launcher's own `oom_score_adj`, so that the kernel takes the agent first and the launcher lives to tell.
const OOM_SCORE_MORE: i32 = 500;
/// The kernel's limit.
const OOM_SCORE_MAX: i32 = 1000;

/// The variable that names the launch in the environment of a launcher, its agent and everything below.
pub(super) const MARKER: &str = "HIVEKEEPER_LAUNCH";
/// Begins the names of variables that are ours to give.
const RESERVED: &[u8] = b"HIVEKEEPER_";

/// Works out the program, with `inherited` below the order's environment. `Err` is a sentence for people.
pub(super) fn program(
    launch: &Launch,
    relay: SocketAddr,
    inherited: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Program, String> {
    let name = launch.argv.first().filter(|name| !name.is_empty()).ok_or("the command is empty")?;
    let added = [
        ("HIVEKEEPER_ADDR", relay.to_string()),
        ("HIVEKEEPER_TOKEN", launch.token.clone()),
        ("HIVEKEEPER_AGENT", launch.agent.clone()),
        ("HIVEKEEPER_INCARNATION", launch.incarnation.to_string()),
        (MARKER, launch.launch_id.clone()),
    ];
    let ours = |name: &str| added.iter().any(|(added, _)| *added == name);
    let ordered: BTreeSet<&[u8]> = launch.env.iter().map(|(name, _)| name.as_bytes()).collect();
    let below: Vec<(OsString, OsString)> = inherited
        .filter(|(name, _)| !name.as_bytes().starts_with(RESERVED) && !ordered.contains(name.as_bytes()))
        .collect();
    let theirs = launch.env.iter().filter(|(name, _)| !ours(name)).map(|(name, value)| format!("{name}={value}"));
    let above = theirs.chain(added.iter().map(|(name, value)| format!("{name}={value}")));
    let env = below
        .iter()
        .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
        .chain(above.map(String::into_bytes))
        .map(|pair| text(pair, "the environment"))
        .collect::<Result<_, _>>()?;
    let path = launch.env.iter().rev().find(|(name, _)| name == PATH).map(|(_, value)| value.as_bytes());
    let path = path.or_else(|| below.iter().find(|(name, _)| name == PATH).map(|(_, value)| value.as_bytes()));
    Ok(Program {
        paths: paths(name, path.unwrap_or(PATH_DEFAULT.as_bytes()))?,
        argv: launch.argv.iter().map(|word| text(word.as_str(), "an argument")).collect::<Result<_, _>>()?,
        env,
        cwd: text(launch.cwd.as_str(), "the working directory")?,
        oom_score_adj: (oom_score_adj() + OOM_SCORE_MORE).min(OOM_SCORE_MAX).to_string(),
    })
}

/// What to tell about a child that did not come to exec.
pub(super) fn describe(failure: Failure, program: &Program) -> String {
    let error = io::Error::from_raw_os_error(failure.errno);
    let show = |text: &CString| OsStr::from_bytes(text.as_bytes()).display().to_string();
    let Some(path) = failure.path.and_then(|index| program.paths.get(index)) else {
        return format!("cannot enter the directory {}: {error}", show(&program.cwd));
    };
    let missing = failure.errno == libc::ENOENT || failure.errno == libc::ENOTDIR;
    // A relative path begins at the agent's working directory, not at ours.
    if missing && path.as_bytes().starts_with(b"/") && sys::exists(path) {
        return format!("cannot execute {}: the interpreter that it names is missing: {error}", show(path));
    }
    match program.argv.first() {
        Some(name) if missing && !name.as_bytes().contains(&b'/') => {
            let tried: Vec<String> = program.paths.iter().map(show).collect();
            format!("cannot find {} in PATH, tried {}: {error}", show(name), tried.join(", "))
        }
        _ => format!("cannot execute {}: {error}", show(path)),
    }
}

/// As execvp, with the PATH that the agent will see.
fn paths(name: &str, path: &[u8]) -> Result<Vec<CString>, String> {
    if name.contains('/') {
        return Ok(vec![text(name, "the command")?]);
    }
    path.split(|byte| *byte == b':')
        .map(|directory| {
            // An empty entry is the working directory.
            let between: &[u8] = if directory.is_empty() { b"" } else { b"/" };
            text([directory, between, name.as_bytes()].concat(), "the command")
        })
        .collect()
}

fn text(text: impl Into<Vec<u8>>, what: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{what} has a NUL byte"))
}

fn oom_score_adj() -> i32 {
    fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn launch(argv: &[&str], env: &[(&str, &str)]) -> Launch {
        Launch {
            version: 1,
            epoch: 1,
            launch_id: "id".into(),
            agent: "s/a".into(),
            incarnation: 3,
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            cwd: "/".into(),
            token: "secret".into(),
            lease_ms: 1,
            grace_ms: 1,
            sample_interval_ms: 1,
            run_dir: "/".into(),
            ring_bytes: 1,
            forget: Vec::new(),
            in_container: false,
        }
    }

    fn program(launch: &Launch, relay: SocketAddr) -> Result<Program, String> {
        super::program(launch, relay, std::iter::empty())
    }

    fn over(inherited: &[(&[u8], &[u8])], launch: &Launch) -> Program {
        let own = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        super::program(launch, relay(), inherited.iter().map(|(name, value)| (own(name), own(value)))).unwrap()
    }

    #[test]
    fn the_order_lies_over_what_the_launcher_has() {
        let inherited: [(&[u8], &[u8]); 4] =
            [(b"LANG", b"image"), (b"HOME", b"/home/\xff"), (b"HIVEKEEPER_LAUNCH", b"id"), (b"HIVEKEEPER_X", b"y")];
        let program = over(&inherited, &launch(&["/x"], &[("LANG", "order"), ("A", "b")]));
        let env: Vec<&[u8]> = program.env.iter().map(|pair| pair.as_bytes()).collect();
        assert_eq!(env[..3], [&b"HOME=/home/\xff"[..], b"LANG=order", b"A=b"]);
        assert_eq!(env.len(), 3 + 5, "of what begins with HIVEKEEPER_ only the new ones");
    }

    #[test]
    fn a_path_of_the_launcher_holds_where_the_order_has_none() {
        let inherited: [(&[u8], &[u8]); 1] = [(b"PATH", b"/image")];
        assert_eq!(over(&inherited, &launch(&["tool"], &[])).paths, [c"/image/tool".to_owned()]);
        assert_eq!(over(&inherited, &launch(&["tool"], &[("PATH", "/a")])).paths, [c"/a/tool".to_owned()]);
    }

    fn relay() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 4000))
    }

    #[test]
    fn a_name_is_looked_for_in_the_path_that_the_agent_sees() {
        let program = program(&launch(&["tool"], &[("PATH", "/a::/b")]), relay()).unwrap();
        assert_eq!(program.paths, [c"/a/tool".to_owned(), c"tool".to_owned(), c"/b/tool".to_owned()]);
    }

    #[test]
    fn without_a_path_there_is_a_default_one() {
        let program = program(&launch(&["tool"], &[]), relay()).unwrap();
        assert_eq!(program.paths.first().unwrap(), c"/usr/local/bin/tool");
    }

    #[test]
    fn our_variables_win_over_the_document() {
        let program = program(&launch(&["/x"], &[("HIVEKEEPER_TOKEN", "forged"), ("A", "b")]), relay()).unwrap();
        let env: Vec<&str> = program.env.iter().map(|pair| pair.to_str().unwrap()).collect();
        assert_eq!(
            env,
            [
                "A=b",
                "HIVEKEEPER_ADDR=127.0.0.1:4000",
                "HIVEKEEPER_TOKEN=secret",
                "HIVEKEEPER_AGENT=s/a",
                "HIVEKEEPER_INCARNATION=3",
                "HIVEKEEPER_LAUNCH=id"
            ]
        );
    }

    #[test]
    fn what_can_not_be_executed_is_said_before_the_fork() {
        assert_eq!(program(&launch(&[], &[]), relay()).err().unwrap(), "the command is empty");
        assert_eq!(program(&launch(&["/x", "a\0b"], &[]), relay()).err().unwrap(), "an argument has a NUL byte");
    }
}
