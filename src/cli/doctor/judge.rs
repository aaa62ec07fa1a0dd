//! What the facts mean. Looks at nothing itself.

use std::time::{Duration, SystemTime};

use super::{
    super::{
        ports::{Held, Process},
        words::{bytes, span},
    },
    Check, Verdict,
    look::{ConfigFacts, Daemon, Facts, Port},
};

/// Below this a journal can't be kept going for long.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Below this files run out before the bytes do: an agent's log book alone has eight.
const FREE_FILES_MIN: u64 = 10_000;
/// Files that a daemon has open of itself: database, logs, listeners, pipes of its threads.
const FILES_OF_THE_DAEMON: u64 = 64;
/// Two for an agent's launcher, and one for a session over TCP.
const FILES_OF_AN_AGENT: u64 = 3;
/// A launcher, its agent, and some that the agent starts.
const PROCESSES_OF_AN_AGENT: u64 = 4;
/// A difference that a slow answer can make.
const CLOCKS_APART_MAX_MS: u64 = 2_000;
/// A jump within a tenth of a second that no slow machine makes.
const JUMP_MAX_MS: u64 = 500;
/// Seconds from 1970 to 2025: a clock before that was never set.
const NEVER_SET: Duration = Duration::from_secs(1_735_689_600);
/// A holder touches its lock every second.
const TOUCHED_MAX: Duration = Duration::from_secs(15);

/// A line for each thing, in the order in which a daemon needs them.
pub(super) fn judge(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![config(facts), daemon(facts), versions(facts), data_dir(facts), journal(facts), disk(facts)];
    checks.extend(facts.ports.iter().map(|port| self::port(port, facts)));
    checks.extend([
        files(facts),
        processes(facts),
        engine(facts),
        clock(facts),
        engine_clock(facts),
        kernel(facts),
        token(facts),
    ]);
    checks.into_iter().filter(|check| !check.found.is_empty()).collect()
}

fn check(check: &'static str, verdict: Verdict, found: impl Into<String>, mend: &str) -> Check {
    let mend = (verdict != Verdict::Ok && !mend.is_empty()).then(|| mend.to_owned());
    Check { check, verdict, found: found.into(), mend }
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    check(name, Verdict::Ok, found, "")
}

fn warn(name: &'static str, found: impl Into<String>, mend: &str) -> Check {
    check(name, Verdict::Warn, found, mend)
}

fn fail(name: &'static str, found: impl Into<String>, mend: &str) -> Check {
    check(name, Verdict::Fail, found, mend)
}

/// Nothing to say.
fn nothing(name: &'static str) -> Check {
    ok(name, "")
}

/// What the configuration wants; where it is wrong, what the defaults want.
fn wanted(facts: &Facts) -> ConfigFacts {
    facts.config.clone().unwrap_or_default()
}

fn config(facts: &Facts) -> Check {
    const NAME: &str = "configuration";
    match &facts.config {
        Ok(ConfigFacts { file: None, .. }) => warn(
            NAME,
            "no file; the defaults are good, and there is no swarm",
            "`hivekeeper init` writes one, --config FILE names one.",
        ),
        Ok(ConfigFacts { file: Some(file), swarms, agents, .. }) => {
            ok(NAME, format!("{} is good; swarms: {swarms}, agents: {agents}", file.display()))
        }
        Err(problems) => {
            let first = problems.first().map(String::as_str).unwrap_or_default();
            fail(
                NAME,
                format!("{} mistakes, the first: {first}", problems.len()),
                "`hivekeeper check` shows all of them.",
            )
        }
    }
}

fn daemon(facts: &Facts) -> Check {
    const NAME: &str = "daemon";
    let held = facts.data_dir.holder.as_ref().filter(|holder| holder.locked);
    match (&facts.daemon, held) {
        (Daemon::Answers { url, level, last_error: None, .. }, _) => {
            ok(NAME, format!("answers at {url}; the hive is {level}"))
        }
        (Daemon::Answers { url, level, last_error: Some(error), .. }, _) => {
            let found = format!("answers at {url}; the hive is {level}, and its control plane is cut off: {error}");
            warn(NAME, found, "See `engine` below, and `hivekeeper health`.")
        }
        (Daemon::Refuses(why), _) => warn(NAME, format!("answers, and refuses us: {}", line(why)), rest(why)),
        (Daemon::Silent(why), Some(holder)) => {
            let found = format!("process {} holds the data directory and does not answer: {}", holder.pid, line(why));
            fail(NAME, found, "Look at its log; `hivekeeper serve` in its place takes its agents over once it is gone.")
        }
        (Daemon::Silent(why), None) => {
            warn(NAME, format!("none answers: {}", line(why)), "`hivekeeper serve` starts one.")
        }
    }
}

/// The first line of an error, and what follows it.
fn line(error: &str) -> &str {
    error.lines().next().unwrap_or_default()
}

fn rest(error: &str) -> &str {
    error.split_once('\n').map_or("", |(_, rest)| rest)
}

fn versions(facts: &Facts) -> Check {
    const NAME: &str = "versions";
    let ours = env!("CARGO_PKG_VERSION");
    match &facts.daemon {
        Daemon::Answers { version: Some(theirs), .. } if theirs == ours => {
            ok(NAME, format!("daemon and command line are {ours}"))
        }
        Daemon::Answers { version: Some(theirs), .. } => warn(
            NAME,
            format!("the daemon is {theirs}, this command line {ours}"),
            "Use the program that the daemon was started from, or upgrade it: `hivekeeper handover && hivekeeper serve`.",
        ),
        Daemon::Answers { version: None, .. } => {
            warn(NAME, format!("the daemon does not say, this command line is {ours}"), "")
        }
        Daemon::Refuses(_) | Daemon::Silent(_) => ok(NAME, format!("this command line is {ours}")),
    }
}

fn data_dir(facts: &Facts) -> Check {
    const NAME: &str = "data directory";
    let dir = &facts.data_dir;
    let path = dir.path.display();
    let owner = dir.owner.unwrap_or(dir.user);
    if !dir.writable {
        let what = if dir.mode.is_some() { "can't be written" } else { "is not there and can't be made" };
        let mend = format!("Give it to user {}, or name another with --data-dir or [hive] data_dir.", dir.user);
        return fail(NAME, format!("{path} {what} by user {}", dir.user), &mend);
    }
    if owner != dir.user {
        let mend = format!("Run the daemon as user {owner}, or `chown -R {} {path}`.", dir.user);
        return warn(NAME, format!("{path} belongs to user {owner}, and this is user {}", dir.user), &mend);
    }
    if let Some(mode) = dir.mode.filter(|mode| mode & 0o077 != 0) {
        let mend = format!("`chmod 700 {path}`; a daemon does it when it starts.");
        return warn(NAME, format!("{path} has mode {mode:o}: others may look into it"), &mend);
    }
    match &dir.holder {
        Some(holder) if holder.locked && holder.touched_ago.is_some_and(|ago| ago > TOUCHED_MAX) => {
            let ago = holder.touched_ago.map(span).unwrap_or_default();
            let found = format!("{path} is held by process {}, which has not moved for {ago}", holder.pid);
            fail(
                NAME,
                found,
                "It is stopped or hangs. A new daemon (`hivekeeper serve`) takes the directory and the agents over.",
            )
        }
        Some(holder) if holder.locked => {
            ok(NAME, format!("{path}, held by process {} since {}", holder.pid, holder.since))
        }
        _ if dir.mode.is_none() => ok(NAME, format!("{path} is not there yet, and can be made")),
        _ => ok(NAME, format!("{path}, held by nobody")),
    }
}

fn journal(facts: &Facts) -> Check {
    const NAME: &str = "journal";
    match facts.data_dir.schema {
        None => nothing(NAME),
        Some((found, known)) if found > known => {
            let found = format!("its schema is {found}, and this version knows {known} and older");
            fail(NAME, found, "Use the version that wrote it, or a younger one; or another data directory.")
        }
        Some((found, known)) if found < known => {
            ok(NAME, format!("schema {found}; a daemon of this version brings it to {known}"))
        }
        Some((found, _)) => ok(NAME, format!("schema {found}, which this version writes")),
    }
}

fn disk(facts: &Facts) -> Check {
    const NAME: &str = "disk";
    let disk = match &facts.disk {
        Ok(disk) => disk,
        Err(error) => return warn(NAME, format!("can't be asked: {error}"), ""),
    };
    let found = format!("{} of {} free, {} files", bytes(disk.free), bytes(disk.total), disk.free_files);
    let ConfigFacts { bytes_max, free_min, .. } = wanted(facts);
    let growth = bytes_max.saturating_sub(disk.used);
    if disk.read_only {
        fail(
            NAME,
            "its file system is mounted read-only",
            "Mount it writable, or name another directory with --data-dir.",
        )
    } else if disk.free < FREE_BYTES_MIN {
        fail(NAME, found, "Make room: without it nothing is journaled, and commands are refused.")
    } else if disk.free < free_min {
        let mend = format!(
            "{} must stay free ([disk] free_min): make room. Until then the hive is degraded, and the oldest log lines go.",
            bytes(free_min)
        );
        warn(NAME, found, &mend)
    } else if disk.free - free_min < growth {
        let mend = format!(
            "The data directory has {} and may grow to {} ([disk] max), and {} must stay free ([disk] free_min): make room, or lower max.",
            bytes(disk.used),
            bytes(bytes_max),
            bytes(free_min)
        );
        warn(NAME, found, &mend)
    } else if disk.free_files > 0 && disk.free_files < FREE_FILES_MIN {
        warn(NAME, found, "Remove small files: the file system runs out of them before its bytes do.")
    } else {
        ok(NAME, found)
    }
}

fn port(port: &Port, facts: &Facts) -> Check {
    let name = port.key;
    let at = port.address;
    let mend = format!("Stop it, or say another address in the configuration's {name}; port 0 takes a free one.");
    let answers = matches!(&facts.daemon, Daemon::Answers { .. } | Daemon::Refuses(_));
    match &port.held {
        Held::Free => ok(name, format!("{at} is free")),
        Held::By(Some(process)) if port.ours => {
            ok(name, format!("{at} is held by our daemon, process {}", process.pid))
        }
        Held::By(None) if answers => {
            ok(name, format!("{at} is held by a process that can't be looked at, and the daemon answers"))
        }
        Held::By(Some(Process { pid, name: program })) => fail(
            name,
            format!("{at} is held by process {pid} ({program}), which is not the daemon of this data directory"),
            &mend,
        ),
        Held::By(None) => fail(name, format!("{at} is held by a process of another user"), &mend),
        Held::Impossible(error) => fail(
            name,
            format!("{at} can't be bound: {error}"),
            "Name an address of this machine, and a port that you may bind.",
        ),
    }
}

fn whose(facts: &Facts) -> String {
    facts.limits.of.map_or_else(|| "here".to_owned(), |pid| format!("for the daemon, process {pid}"))
}

fn count(n: u64) -> String {
    if n == u64::MAX { "any number".to_owned() } else { n.to_string() }
}

fn files(facts: &Facts) -> Check {
    const NAME: &str = "open files";
    let Some(files) = facts.limits.files else { return nothing(NAME) };
    let wanted = wanted(facts);
    let needed = FILES_OF_THE_DAEMON + FILES_OF_AN_AGENT * wanted.agents;
    let found = format!("{} allowed {}, {} agents need {needed}", count(files), whose(facts), wanted.agents);
    let mend = "Raise the hard limit: `ulimit -Hn` in a shell, LimitNOFILE= in a systemd unit, --ulimit nofile= for a container.";
    if files < needed {
        fail(NAME, found, mend)
    } else if files < needed.saturating_add(wanted.connections_max) {
        let found = format!("{found}, and [data_plane] connections_max allows {} more", wanted.connections_max);
        warn(NAME, found, &format!("{mend} Or lower connections_max."))
    } else {
        ok(NAME, found)
    }
}

fn processes(facts: &Facts) -> Check {
    const NAME: &str = "processes";
    let all = [facts.limits.processes, facts.limits.threads];
    let Some(allowed) = all.into_iter().flatten().min() else { return nothing(NAME) };
    let wanted = wanted(facts);
    let needed = PROCESSES_OF_AN_AGENT * wanted.agents;
    let found = format!("{} allowed {}, {} agents take some {needed}", count(allowed), whose(facts), wanted.agents);
    let mend =
        "Raise it: `ulimit -Hu`, TasksMax= in a systemd unit, --pids-limit for a container, sysctl kernel.threads-max.";
    if allowed < needed { warn(NAME, found, mend) } else { ok(NAME, found) }
}

fn engine(facts: &Facts) -> Check {
    const NAME: &str = "engine";
    let socket = facts.engine_socket.display();
    match &facts.engine {
        Ok(engine) => {
            let or_unknown = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
            let found = format!(
                "{} at {socket}, cgroup {}, storage {} in {}",
                or_unknown(&engine.version),
                or_unknown(&engine.cgroup),
                or_unknown(&engine.storage),
                or_unknown(&engine.root)
            );
            match engine
                .warnings
                .iter()
                .find(|warning| warning.contains("memory limit") || warning.contains("pids limit"))
            {
                Some(warning) => warn(
                    NAME,
                    format!("{found}; it says: {warning}"),
                    "Limits of swarms do not hold there until its cgroups allow them.",
                ),
                None => ok(NAME, found),
            }
        }
        Err(error) if wanted(facts).needs_engine => {
            let mend = match error {
                error if error.contains("ermission denied") => {
                    "Add the daemon's user to the group of the socket (`usermod -aG docker USER`), or run it as root."
                }
                error if error.contains("No such file") => {
                    "Start the engine, or name its socket in [docker] host or DOCKER_HOST."
                }
                _ => "See whether the engine runs: `docker info`.",
            };
            fail(NAME, format!("{socket} does not answer, and swarms of the configuration need it: {error}"), mend)
        }
        Err(error) => ok(NAME, format!("none at {socket} ({error}), and no swarm of the configuration needs one")),
    }
}

fn clock(facts: &Facts) -> Check {
    const NAME: &str = "clock";
    let clock = &facts.clock;
    let now = humantime::format_rfc3339_seconds(clock.now);
    if clock.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() < NEVER_SET {
        return fail(NAME, format!("{now}: it was never set"), "Set it, and let chrony or systemd-timesyncd keep it.");
    }
    if clock.jumped_ms.unsigned_abs() > JUMP_MAX_MS {
        let found = format!("{now}; it jumped by {}ms while it was watched", clock.jumped_ms);
        return warn(
            NAME,
            found,
            "Let it be kept by slewing (chrony, systemd-timesyncd); ages and history show every jump.",
        );
    }
    match clock.kept {
        Some(false) => warn(
            NAME,
            format!("{now}; the kernel says that nobody keeps it"),
            "Run chrony or systemd-timesyncd; in a container or a virtual machine its host may do it, and this be harmless.",
        ),
        Some(true) => ok(NAME, format!("{now}, kept, and as fast as the monotonic clock")),
        None => ok(NAME, format!("{now}, as fast as the monotonic clock")),
    }
}

fn engine_clock(facts: &Facts) -> Check {
    const NAME: &str = "engine's clock";
    match facts.engine.as_ref().ok().and_then(|engine| engine.ahead_ms) {
        None => nothing(NAME),
        Some(ahead) if ahead.unsigned_abs() > CLOCKS_APART_MAX_MS => {
            let word = if ahead > 0 { "ahead" } else { "behind" };
            let found = format!("{} {word} of this machine's", span(Duration::from_millis(ahead.unsigned_abs())));
            warn(NAME, found, "Let one time service keep both machines; times that agents tell are theirs.")
        }
        Some(ahead) => ok(NAME, format!("within {}ms of this machine's", ahead.unsigned_abs().max(1))),
    }
}

fn kernel(facts: &Facts) -> Check {
    const NAME: &str = "kernel";
    let kernel = &facts.kernel;
    let cgroup = kernel.cgroup.map_or_else(|| "no cgroup".to_owned(), |version| format!("cgroup {version}"));
    let word = |there: bool, what: &str| if there { what.to_owned() } else { format!("no {what}") };
    let found = format!(
        "{}, {}, {}, {cgroup}",
        kernel.release,
        word(kernel.subreaper, "subreaper"),
        word(kernel.pidfd, "pidfd")
    );
    if !kernel.subreaper || !kernel.pidfd {
        return fail(
            NAME,
            found,
            "Linux 5.3 or younger is needed, and a sandbox that allows prctl(2) and pidfd_open(2).",
        );
    }
    match kernel.cgroup {
        None if wanted(facts).needs_engine => {
            warn(NAME, found, "Limits of swarms in containers need cgroups; mount /sys/fs/cgroup.")
        }
        _ => ok(NAME, found),
    }
}

fn token(facts: &Facts) -> Check {
    const NAME: &str = "token file";
    match wanted(facts).token_file {
        None => nothing(NAME),
        Some((path, mode)) if mode & 0o077 != 0 => {
            let path = path.display();
            warn(
                NAME,
                format!("{path} has mode {:o}: others may read it", mode & 0o777),
                &format!("`chmod 600 {path}`"),
            )
        }
        Some((path, _)) => ok(NAME, format!("{} is readable by its owner alone", path.display())),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
