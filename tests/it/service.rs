//! What a service manager hears: a socket of ours in the place of systemd's.

use std::{os::unix::net::UnixDatagram, time::Duration};

use crate::hive::{Hive, until};

const AGENTS: &str = r#"
[[swarm]]
name = "s"
workdir = "."
[[swarm.agent]]
name = "a"
command = ["sh", "-c", "env > variables.new; mv variables.new variables; exec sleep 1000"]
"#;

struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    /// A hive whose daemon is told of it, and that its watch is 1.5 s long.
    fn of(hive: &mut Hive) -> Self {
        let path = hive.file("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let variables = format!("NOTIFY_SOCKET={}", path.display());
        // As the one word of the harness that is settled only at run time; a few bytes for each test.
        let words = vec!["env", &*variables.leak(), "WATCHDOG_USEC=1500000"];
        hive.through = words.leak();
        Self { socket, heard: Vec::new() }
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(read) = self.socket.recv(&mut buffer) {
            self.heard.extend(String::from_utf8_lossy(&buffer[..read]).lines().map(ToOwned::to_owned));
        }
    }

    /// Waits for a line that begins like this behind the first `skip` lines, and says where it is.
    #[track_caller]
    fn hears(&mut self, skip: usize, begin: &str) -> usize {
        until(begin, || {
            self.listen();
            self.heard.iter().skip(skip).position(|line| line.starts_with(begin)).map(|at| at + skip)
        })
    }
}

#[test]
fn a_service_manager_hears_of_readiness_of_turning_loops_and_of_the_end() {
    let mut hive = Hive::prepare(AGENTS);
    let mut manager = Manager::of(&mut hive);
    hive.boot();
    let ready = manager.hears(0, "READY=1");
    let first = manager.hears(ready, "WATCHDOG=1");
    manager.hears(first + 1, "WATCHDOG=1");
    manager.hears(ready, "STATUS=healthy; 1 of 1 agents run");
    let variables = until("the agent's variables", || std::fs::read_to_string(hive.file("variables")).ok());
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC"] {
        assert!(!variables.contains(name), "an agent could speak for its daemon: {variables}");
    }
    assert_eq!(hive.terminate().code(), Some(0));
    let stopping = manager.hears(ready, "STOPPING=1");
    assert_eq!(manager.heard[stopping + 1], "STATUS=stop");
    manager.hears(stopping, "EXTEND_TIMEOUT_USEC=");
    assert!(!manager.heard[stopping..].iter().any(|line| line == "WATCHDOG=1"), "{:?}", manager.heard);
}

#[test]
fn a_service_manager_that_restarts_the_daemon_loses_no_agent() {
    let mut hive = Hive::prepare(AGENTS);
    let mut manager = Manager::of(&mut hive);
    hive.boot();
    let pid = hive.agent_pid("s/a");
    let first = manager.hears(0, "READY=1");
    // `RestartKillSignal=` of the unit.
    hive.signal_daemon(libc::SIGUSR2);
    assert_eq!(hive.wait().code(), Some(0));
    let left = manager.hears(first, "STATUS=handover");
    hive.boot();
    manager.hears(left, "READY=1");
    assert_eq!(hive.agent_pid("s/a"), pid);
    assert_eq!(hive.agent("s/a")["restarts"], 0);
}

#[test]
fn the_unit_says_what_the_daemon_rests_on() {
    let unit = include_str!("../../examples/systemd/hivekeeper.service");
    for line in [
        "Type=notify",
        "NotifyAccess=main",
        "KillMode=process",
        "KillSignal=SIGTERM",
        "RestartKillSignal=SIGUSR2",
        "Restart=always",
        "RestartPreventExitStatus=2",
        "OOMPolicy=continue",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "StartLimitIntervalSec=0",
        // `ProtectSystem=strict` takes them away.
        "ReadWritePaths=/tmp /var/tmp",
    ] {
        assert!(unit.lines().any(|found| found == line), "the unit lacks {line}");
    }
    assert!(!unit.lines().any(|line| line.starts_with("PrivateTmp=")), "it empties /tmp under agents that live on");
    let seconds = |key: &str| -> u64 {
        let value = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap();
        value.parse().unwrap()
    };
    let defaults = include_str!("../../config.toml");
    let lease = defaults.lines().find_map(|line| line.strip_prefix("lease = \"")?.strip_suffix("s\"")).unwrap();
    // Leases are renewed thrice in their time. What is not taken here is the next daemon's, to start in.
    let left = lease.parse::<u64>().unwrap() * 2 / 3;
    let taken = seconds("WatchdogSec") + seconds("RestartSec");
    assert!(taken + 4 <= left, "a daemon that hangs is replaced after {taken} s, and its agents may have {left} s");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hivekeeper.service");
    let executable = unit.replace("/usr/local/bin/hivekeeper", env!("CARGO_BIN_EXE_hivekeeper"));
    std::fs::write(&path, executable.replace("User=hivekeeper\nGroup=hivekeeper\n", "")).unwrap();
    let Ok(checked) = std::process::Command::new("systemd-analyze").arg("verify").arg(&path).output() else {
        return crate::harness::skipped("needs systemd-analyze");
    };
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && !said.contains("Unknown"), "{said}");
}
