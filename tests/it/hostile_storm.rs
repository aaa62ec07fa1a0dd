//! Ten thousand connects a second on the data plane's port, against the whole daemon: who stays is answered, nobody else is disturbed, nothing is left.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, SocketAddrV4, TcpStream},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt},
};
use serde_json::{Value, json};

use crate::{
    hive::{Hive, PATIENCE, until},
    soak::{Session, files, long, resident},
};

/// Threads that connect. More would only take turns with the daemon on two cores.
const STORMERS: u32 = 2;
/// Connects of each of them in a millisecond: ten thousand a second together.
const CONNECTS: u32 = 5;
const STORM: Duration = Duration::from_secs(3);
/// What the daemon may have kept of it: the allocator's, not the storm's.
const BYTES_KEPT_MAX: u64 = 24 * 1024 * 1024;
/// Descriptors that come and go in any daemon.
const FILES_KEPT_MAX: usize = 10;

/// What became of connects.
#[derive(Default)]
struct Storm {
    tried: u64,
    /// Taken by the system on the daemon's behalf.
    taken: u64,
}

#[test]
fn ten_thousand_connects_a_second_disturb_nobody() {
    let swarm = "[[swarm]]\nname = \"s\"\n[[swarm.agent]]\nname = \"a\"\ncommand = [\"sleep\", \"infinity\"]\n";
    let hive = Hive::start(swarm);
    let pid = hive.agent_pid("s/a");
    let mut session = Session::open(&hive.data_plane, "s/a", u64::try_from(pid).unwrap());
    session.settle();
    // Once round, so that what the first connections of a daemon make for good is there.
    witness(&hive.data_plane);
    assert_eq!(hive.get("/livez").status, 200);
    let (files_before, bytes_before) = (files(hive.pid), resident(hive.pid));

    let over = AtomicBool::new(false);
    let began = Instant::now();
    let mut slowest = (Duration::ZERO, Duration::ZERO);
    let (storm, witnesses) = thread::scope(|scope| {
        let stormers: Vec<_> = (0..STORMERS).map(|_| scope.spawn(|| storm(&hive.data_plane, began))).collect();
        let witnesses = scope.spawn(|| {
            let mut waits = Vec::new();
            while !over.load(Ordering::Relaxed) {
                waits.push(witness(&hive.data_plane));
                thread::sleep(Duration::from_millis(50));
            }
            waits
        });
        while stormers.iter().any(|stormer| !stormer.is_finished()) {
            let asked = Instant::now();
            session.settle();
            slowest.0 = slowest.0.max(asked.elapsed());
            let asked = Instant::now();
            assert_eq!(hive.get("/livez").status, 200);
            slowest.1 = slowest.1.max(asked.elapsed());
            thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        let storms = stormers.into_iter().map(|stormer| stormer.join().unwrap());
        let storm = storms
            .fold(Storm::default(), |sum, one| Storm { tried: sum.tried + one.tried, taken: sum.taken + one.taken });
        (storm, witnesses.join().unwrap())
    });
    let rate = storm.tried * 1000 / u64::try_from(STORM.as_millis()).unwrap();

    let health = until("the storm has passed", || {
        let health = hive.get("/api/v1/health").body;
        (files(hive.pid) <= files_before + FILES_KEPT_MAX).then_some(health)
    });
    assert_eq!(health["data_plane"]["sessions"], 1, "{health:#}");
    session.settle();
    let agent =
        hive.agent_until("s/a", "has all its heartbeats", |agent| agent["telemetry"]["received"] == session.sent);
    assert_eq!((&agent["state"], &agent["pid"], &agent["restarts"]), (&json!("running"), &json!(pid), &json!(0)));
    assert_eq!(agent["dropped"], 0);
    let kept = resident(hive.pid).saturating_sub(bytes_before);
    let last = witness(&hive.data_plane);
    eprintln!(
        "storm: {rate} connects a second, {} of {} found a place; {} heartbeats in it, at most {:?}; /livez at most {:?}; of {} peers that stayed \
         each was answered or refused within {:?}, afterwards {last:?}; {} KiB kept",
        storm.taken,
        storm.tried,
        session.sent,
        slowest.0,
        slowest.1,
        witnesses.len(),
        witnesses.iter().max().unwrap(),
        kept >> 10
    );
    assert!(kept < BYTES_KEPT_MAX, "{kept} bytes kept");
    assert!(storm.taken > 1000, "there was no storm");
    // A debug build, or a machine that does other work, has a lesser storm.
    if long() && !cfg!(debug_assertions) {
        assert!(rate > 9_000, "{rate} connects a second");
        assert!(storm.taken * 10 > storm.tried * 9, "{} of {} found a place", storm.taken, storm.tried);
    }
}

#[test]
fn a_daemon_without_descriptors_serves_who_is_there_and_says_so_once() {
    let talker = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/agents/agent.sh");
    let agents = format!(
        "[[swarm.agent]]\nname = \"talks\"\ncommand = [\"bash\", \"{talker}\"]\n[[swarm.agent]]\nname = \"a\"\ncommand = [\"sleep\", \"infinity\"]\n"
    );
    let hive = Hive::start(&format!("[[swarm]]\nname = \"s\"\n{agents}"));
    let pid = hive.agent_pid("s/a");
    let mut session = Session::open(&hive.data_plane, "s/a", u64::try_from(pid).unwrap());
    session.settle();
    // A connection that is kept, as a browser's is.
    let http = ureq::Agent::new_with_defaults();
    let talks = || -> u64 {
        let mut answer = http.get(format!("http://{}/api/v1/swarms/s/agents/talks", hive.http)).call().unwrap();
        let agent: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        agent["progress"]["value"]["done"].as_u64().unwrap_or(0)
    };
    until("the other tells its progress", || (talks() > 0).then_some(()));

    let errors = || {
        let text = hive.get("/metrics").body.as_str().unwrap().to_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("hivekeeper_data_plane_accept_errors_total "));
        line.unwrap().parse::<f64>().unwrap()
    };
    assert!(errors() < 1.0);
    let whole = limit_files(hive.pid, None);
    limit_files(hive.pid, Some(3));
    let address = hive.data_plane.clone();
    let late = thread::spawn(move || witness(&address));
    let done = talks();
    until("the relayed session goes on", || {
        session.settle();
        (talks() >= done + 3).then_some(())
    });
    assert!(!late.is_finished(), "there was a descriptor after all");
    limit_files(hive.pid, Some(whole));
    assert!(late.join().unwrap() >= Duration::from_secs(1));
    let failed = until("the API answers again", || (hive.get("/livez").status == 200).then(errors));
    assert!(failed >= 5.0, "{failed} accepts failed");
    let told = hive.log().lines().filter(|line| line.contains("could not be accepted")).count();
    assert_eq!(told, 1, "{}", hive.log());
    witness(&hive.data_plane);
    assert_eq!(hive.agent_pid("s/a"), pid);
}

/// Sets the number of files that a process may have open, if one is given; what is open stays so. Returns the one before.
fn limit_files(pid: u32, soft: Option<u64>) -> u64 {
    let pid = i32::try_from(pid).unwrap();
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills in one limit that lives until the call returns.
    assert_eq!(unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut old) }, 0);
    if let Some(soft) = soft {
        let new = libc::rlimit { rlim_cur: soft, ..old };
        // SAFETY: the kernel reads one limit that lives until the call returns.
        assert_eq!(unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const new, std::ptr::null_mut()) }, 0);
    }
    old.rlim_cur
}

/// Connects at its pace and goes at once by a reset, so that neither this process nor the system keeps anything.
fn storm(address: &str, began: Instant) -> Storm {
    let SocketAddr::V4(address) = address.parse().unwrap() else { panic!("{address}") };
    let mut storm = Storm::default();
    let mut slot = 0;
    while began.elapsed() < STORM {
        for _ in 0..CONNECTS {
            storm.tried += 1;
            storm.taken += u64::from(strike(address));
        }
        slot += 1;
        thread::sleep((began + slot * Duration::from_millis(1)).saturating_duration_since(Instant::now()));
    }
    storm
}

/// One connect. Whether there was a place for it at once: without one the system would try again in a second.
fn strike(address: SocketAddrV4) -> bool {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let peer: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    setsockopt(&peer, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    // On the loopback the handshake is done when this returns, or not for a second.
    let _ = connect(peer.as_raw_fd(), &SockaddrIn::from(address));
    let mut ready = [PollFd::new(peer.as_fd(), PollFlags::POLLOUT)];
    poll(&mut ready, PollTimeout::ZERO).unwrap() == 1 && !ready[0].revents().unwrap().contains(PollFlags::POLLERR)
}

/// A peer without a session that stays: its line is answered, or it is turned away. How long that took.
fn witness(address: &str) -> Duration {
    let began = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    let answered = stream.write_all(b"no JSON\n").and_then(|()| BufReader::new(&stream).read_line(&mut answer));
    match answered {
        Ok(0) => {}
        Ok(_) => assert!(answer.contains("-32700"), "{answer}"),
        Err(why) => assert!(why.kind() != std::io::ErrorKind::WouldBlock, "no answer: {why}"),
    }
    began.elapsed()
}
