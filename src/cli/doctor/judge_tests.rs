//! A machine on which everything is good, and what each thing that is not is judged as.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    super::{
        engine::EngineFacts,
        look::{Clock, DataDir, Disk, Holder, Kernel, Limits},
    },
    *,
};

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}

/// Everything is good, and no daemon runs.
fn good() -> Facts {
    Facts {
        config: Ok(ConfigFacts {
            file: Some(PathBuf::from("/h/config.toml")),
            swarms: 1,
            agents: 10,
            needs_engine: true,
            connections_max: 1000,
            bytes_max: 1 << 30,
            free_min: 1 << 28,
            token_file: Some((PathBuf::from("/h/token"), 0o100_600)),
        }),
        daemon: Daemon::Answers {
            url: "http://127.0.0.1:8080".to_owned(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            level: "healthy".to_owned(),
            last_error: None,
        },
        engine_socket: PathBuf::from("/var/run/docker.sock"),
        engine: Ok(EngineFacts { version: "20.10".to_owned(), ahead_ms: Some(-3), ..EngineFacts::default() }),
        limits: Limits { of: Some(7), files: Some(1 << 20), processes: Some(u64::MAX), threads: Some(1 << 16) },
        data_dir: DataDir {
            path: PathBuf::from("/h/data"),
            mode: Some(0o700),
            owner: Some(1000),
            user: 1000,
            writable: true,
            holder: Some(Holder {
                pid: 7,
                locked: true,
                touched_ago: Some(Duration::from_secs(1)),
                ..Holder::default()
            }),
            schema: Some((3, 3)),
        },
        disk: Ok(Disk { free: 1 << 34, total: 1 << 35, free_files: 1 << 20, read_only: false, used: 1 << 27 }),
        clock: Clock { now: SystemTime::UNIX_EPOCH + NEVER_SET * 2, jumped_ms: 1, kept: Some(true) },
        ports: vec![Port {
            key: "http.bind",
            address: address(),
            held: Held::By(Some(Process { pid: 7, name: "hivekeeper".to_owned() })),
            ours: true,
        }],
        kernel: Kernel { release: "6.1".to_owned(), subreaper: true, pidfd: true, cgroup: Some(2) },
    }
}

/// The one thing that is not good any more.
fn spoilt(spoil: impl FnOnce(&mut Facts)) -> (&'static str, Verdict, String) {
    let mut facts = good();
    spoil(&mut facts);
    let mut bad: Vec<Check> = judge(&facts).into_iter().filter(|check| check.verdict != Verdict::Ok).collect();
    assert_eq!(bad.len(), 1, "{bad:#?}");
    let Check { check, verdict, found, mend } = bad.remove(0);
    (check, verdict, format!("{found} -> {}", mend.unwrap_or_default()))
}

fn wish(facts: &mut Facts) -> &mut ConfigFacts {
    match &mut facts.config {
        Ok(wishes) => wishes,
        Err(problems) => panic!("{problems:?}"),
    }
}

#[test]
fn a_good_machine_has_nothing_to_mend() {
    for check in judge(&good()) {
        assert_eq!((check.verdict, &check.mend), (Verdict::Ok, &None), "{check:?}");
    }
    let names: Vec<&str> = judge(&good()).iter().map(|check| check.check).collect();
    assert_eq!(names.len(), 14, "{names:?}");
}

#[test]
fn each_thing_that_is_wrong_is_told_alone_and_with_its_mend() {
    use Verdict::{Fail, Warn};
    type Case = (Box<dyn FnOnce(&mut Facts)>, &'static str, Verdict, &'static str);
    let daemon = |daemon: Daemon| Box::new(move |facts: &mut Facts| facts.daemon = daemon);
    let answers = |version: &str, error: Option<&str>| Daemon::Answers {
        url: "u".to_owned(),
        version: Some(version.to_owned()),
        level: "critical".to_owned(),
        last_error: error.map(str::to_owned),
    };
    let cases: Vec<Case> = vec![
        (Box::new(|f| wish(f).file = None), "configuration", Warn, "hivekeeper init"),
        (daemon(answers("9.9.9", None)), "versions", Warn, "daemon is 9.9.9"),
        (daemon(answers(env!("CARGO_PKG_VERSION"), Some("gone"))), "daemon", Warn, "cut off: gone"),
        (
            daemon(Daemon::Refuses("no token\nSay --token-file.".to_owned())),
            "daemon",
            Warn,
            "no token -> Say --token-file.",
        ),
        (daemon(Daemon::Silent("refused\nmore".to_owned())), "daemon", Fail, "process 7 holds the data directory"),
        (Box::new(|f| f.data_dir.writable = false), "data directory", Fail, "can't be written by user 1000"),
        (Box::new(|f| f.data_dir.owner = Some(0)), "data directory", Warn, "belongs to user 0"),
        (Box::new(|f| f.data_dir.mode = Some(0o755)), "data directory", Warn, "chmod 700 /h/data"),
        (
            Box::new(|f| f.data_dir.holder.iter_mut().for_each(|h| h.touched_ago = Some(Duration::from_secs(60)))),
            "data directory",
            Fail,
            "has not moved for 1m",
        ),
        (Box::new(|f| f.data_dir.schema = Some((4, 3))), "journal", Fail, "schema is 4"),
        (
            Box::new(|f| f.disk = Ok(Disk { free: 1 << 20, ..f.disk.clone().unwrap_or_default() })),
            "disk",
            Fail,
            "Make room",
        ),
        (
            Box::new(|f| f.disk = Ok(Disk { free: 1 << 29, ..f.disk.clone().unwrap_or_default() })),
            "disk",
            Warn,
            "has 128.0MiB and may grow to 1.0GiB ([disk] max), and 256.0MiB must stay free",
        ),
        (
            Box::new(|f| f.disk = Ok(Disk { free: (1 << 28) - 1, ..f.disk.clone().unwrap_or_default() })),
            "disk",
            Warn,
            "256.0MiB must stay free ([disk] free_min): make room. Until then",
        ),
        (Box::new(|f| f.disk = Ok(Disk { read_only: true, ..Disk::default() })), "disk", Fail, "read-only"),
        (
            Box::new(|f| f.disk = Ok(Disk { free_files: 5, ..f.disk.clone().unwrap_or_default() })),
            "disk",
            Warn,
            "small files",
        ),
        (Box::new(|f| f.ports[0].ours = false), "http.bind", Fail, "process 7 (hivekeeper), which is not the daemon"),
        (
            Box::new(|f| f.ports[0].held = Held::Impossible("no such address".to_owned())),
            "http.bind",
            Fail,
            "no such address",
        ),
        (Box::new(|f| f.limits.files = Some(64)), "open files", Fail, "10 agents need 94 -> Raise"),
        (Box::new(|f| f.limits.files = Some(1000)), "open files", Warn, "lower connections_max"),
        (Box::new(|f| f.limits.processes = Some(20)), "processes", Warn, "20 allowed"),
        (Box::new(|f| f.engine = Err("Permission denied".to_owned())), "engine", Fail, "usermod"),
        (Box::new(|f| f.engine = Err("No such file".to_owned())), "engine", Fail, "Start the engine"),
        (
            Box::new(|f| {
                f.engine.iter_mut().for_each(|e| e.warnings = vec!["WARNING: No memory limit support".to_owned()])
            }),
            "engine",
            Warn,
            "Limits of swarms",
        ),
        (Box::new(|f| f.engine.iter_mut().for_each(|e| e.ahead_ms = Some(61_000))), "engine's clock", Warn, "1m ahead"),
        (Box::new(|f| f.clock.now = SystemTime::UNIX_EPOCH), "clock", Fail, "never set"),
        (Box::new(|f| f.clock.jumped_ms = -9_000), "clock", Warn, "jumped by -9000ms"),
        (Box::new(|f| f.clock.kept = Some(false)), "clock", Warn, "nobody keeps it"),
        (Box::new(|f| f.kernel.subreaper = false), "kernel", Fail, "no subreaper"),
        (Box::new(|f| f.kernel.cgroup = None), "kernel", Warn, "mount /sys/fs/cgroup"),
        (Box::new(|f| wish(f).token_file = Some((PathBuf::from("/t"), 0o644))), "token file", Warn, "chmod 600 /t"),
    ];
    for (spoil, name, verdict, piece) in cases {
        let (found, how, text) = spoilt(spoil);
        assert_eq!((found, how), (name, verdict), "{text}");
        assert!(text.contains(piece), "{piece:?} is not in {text:?}");
    }
}

#[test]
fn what_no_swarm_needs_is_no_fault() {
    let mut facts = good();
    wish(&mut facts).needs_engine = false;
    facts.engine = Err("No such file".to_owned());
    facts.kernel.cgroup = None;
    facts.data_dir = DataDir { path: PathBuf::from("/h/new"), user: 1000, writable: true, ..DataDir::default() };
    facts.ports[0].held = Held::Free;
    assert!(judge(&facts).iter().all(|check| check.verdict == Verdict::Ok), "{:#?}", judge(&facts));
    facts.daemon = Daemon::Silent("refused".to_owned());
    let bad: Vec<Check> = judge(&facts).into_iter().filter(|check| check.verdict != Verdict::Ok).collect();
    assert_eq!(bad.len(), 1);
    assert!(bad[0].verdict == Verdict::Warn && bad[0].mend.as_deref() == Some("`hivekeeper serve` starts one."));
}

#[test]
fn what_the_data_directory_has_already_need_not_be_free() {
    let mut facts = good();
    let just = (1 << 28) + (1 << 30) - (1 << 27);
    for (free, verdict) in [(just, Verdict::Ok), (just - 1, Verdict::Warn)] {
        facts.disk = Ok(Disk { free, ..facts.disk.unwrap_or_default() });
        assert_eq!(disk(&facts).verdict, verdict, "{free}");
    }
}

#[test]
fn a_wrong_configuration_is_told_and_the_rest_is_looked_at_all_the_same() {
    let (name, verdict, text) =
        spoilt(|facts| facts.config = Err(vec!["c.toml:3: log.level: x".to_owned(), "y".to_owned()]));
    assert_eq!((name, verdict), ("configuration", Verdict::Fail));
    assert!(text.contains("2 mistakes, the first: c.toml:3: log.level: x"), "{text}");
}
