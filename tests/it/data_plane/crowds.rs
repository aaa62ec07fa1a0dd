//! Many at once: none of them costs the others anything.

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use hivekeeper::{
    data_plane::PlaneLimits,
    model::{Lost, TelemetryKind},
};

use super::harness::{Plane, SOON, eventually};

const LOG: &str = "{\"jsonrpc\":\"2.0\",\"method\":\"hive/log\",\"params\":{\"line\":\"x\"}}\n";
const BEAT: &str = "{\"jsonrpc\":\"2.0\",\"method\":\"hive/heartbeat\",\"params\":{}}\n";

#[test]
fn a_storm_of_connects_is_taken_at_a_pace_and_counted() {
    let limits = PlaneLimits { accepts_per_second: 200, accepts_burst: 50, ..PlaneLimits::default() };
    let plane = Plane::start(limits);
    let mut good = plane.open("good");
    let began = Instant::now();
    let (stop, tried) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // One that finds the system's queue full would wait for a second; it is not what is tested.
                    let peer = TcpStream::connect_timeout(&plane.addr, Duration::from_millis(100));
                    tried.fetch_add(u64::from(peer.is_ok()), Ordering::Relaxed);
                }
            });
        }
        eventually("the crowd has to wait", || plane.stats().delayed > 100);
        for _ in 0..50 {
            good.is_well();
        }
        stop.store(true, Ordering::Relaxed);
    });
    // Each that was accepted is a session, a connection or was closed by its peer.
    let accepted = plane.stats().delayed;
    let most = began.elapsed().as_secs_f64() * 200.0 + 51.0;
    assert!((accepted as f64) < most, "{accepted} were accepted, {most} at most");
    assert!(tried.load(Ordering::Relaxed) > accepted, "there was no crowd");
    plane.open("late").is_well();
}

#[test]
fn who_only_holds_a_place_goes_for_who_comes() {
    let limits = PlaneLimits {
        unopened_max: 10,
        direct_max: 30,
        // Far off, so that nobody goes for having waited too long.
        open_deadline: Duration::from_secs(600),
        ..PlaneLimits::default()
    };
    let plane = Plane::start(limits);
    let mut good = plane.open("good");
    let mut idle: Vec<_> = (0..10).map(|_| plane.connect()).collect();
    eventually("they hold their places", || plane.stats().presence.connections == 11);
    // Whoever opens at once is never the oldest, however many hold places.
    for n in 0..10 {
        let mut agent = plane.open(&format!("a{n}"));
        agent.is_well();
    }
    assert!(idle[0].closed(), "the oldest went first");
    let displaced = plane.stats().displaced;
    assert!((1..=10).contains(&displaced), "{displaced} were displaced");
    good.is_well();
    assert_eq!(plane.stats().turned_away, 0);
}

#[test]
fn beyond_the_rate_of_all_records_go_and_heartbeats_never() {
    let limits = PlaneLimits { total_per_second: 100, total_burst: 100, ..PlaneLimits::default() };
    let plane = Plane::start(limits);
    let names = ["a", "b", "c"];
    let mut agents: Vec<_> = names.iter().map(|name| plane.open(name)).collect();
    for _ in 0..20 {
        for agent in &mut agents {
            agent.send(LOG.repeat(50) + BEAT);
        }
    }
    agents.iter_mut().for_each(super::harness::Client::is_well);
    let mut kept = 0;
    for name in names {
        let agent = format!("s/{name}");
        let (taken, lost) = (plane.sink.messages(&agent), plane.sink.lost(&agent));
        assert_eq!(taken + lost.total(), 20 * 51 + 1, "{agent}: {lost:?}");
        assert_eq!(lost, Lost { logs: lost.logs, ..Lost::default() });
        kept += taken - 21;
        let beats = plane.sink.of(&agent).into_iter().map(|kind| match kind {
            TelemetryKind::Heartbeat { .. } => 1,
            TelemetryKind::Counted(more) => more,
            _ => 0,
        });
        assert_eq!(beats.sum::<u64>(), 21, "{agent}");
    }
    assert!(kept < 1000, "{kept} of 3000 records were kept");
    assert_eq!(plane.stats().refused.len(), 0, "nothing was refused");
}

#[test]
fn a_flood_of_heartbeats_costs_others_no_record() {
    let limits = PlaneLimits {
        notifications_per_second: 100,
        notifications_burst: 100,
        total_per_second: 1000,
        total_burst: 1000,
        ..PlaneLimits::default()
    };
    let plane = Plane::start(limits);
    let (mut flood, mut quiet) = (plane.open("flood"), plane.open("quiet"));
    flood.send(BEAT.repeat(50_000));
    flood.is_well();
    quiet.send(LOG.repeat(90));
    quiet.is_well();
    assert_eq!((plane.sink.messages("s/quiet"), plane.sink.lost("s/quiet")), (91, Lost::default()));
    assert_eq!(plane.sink.messages("s/flood"), 50_001);
}

#[test]
fn a_hundred_peers_with_a_megabyte_each() {
    let plane = Plane::start(PlaneLimits::default());
    let mut good = plane.open("good");
    let mut peers: Vec<_> = (0..100).map(|n| plane.open(&format!("a{n}"))).collect();
    // A byte less than the longest line.
    let frame = "{\"jsonrpc\":\"2.0\",\"method\":\"hive/log\",\"params\":{\"line\":\"\"}}".len();
    let line = "x".repeat(1024 * 1024 - frame);
    let long = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"hive/log\",\"params\":{{\"line\":\"{line}\"}}}}\n");
    let halves = long.as_bytes().split_at(long.len() / 2);
    thread::scope(|scope| {
        for chunk in peers.chunks_mut(25) {
            scope.spawn(|| {
                // All hold half of it at the same time.
                chunk.iter_mut().for_each(|peer| peer.send(halves.0));
                chunk.iter_mut().for_each(|peer| peer.send(halves.1));
            });
        }
        for _ in 0..20 {
            good.is_well();
        }
    });
    peers.iter_mut().for_each(super::harness::Client::is_well);
    for n in 0..100 {
        assert_eq!(plane.sink.messages(&format!("s/a{n}")), 2);
    }
    assert_eq!(plane.stats().refused.len(), 0);
}

#[test]
fn cut_mid_line_and_half_open() {
    let plane = Plane::start(PlaneLimits::default());
    let mut good = plane.open("good");
    // Gone in the middle of a line, in order and by a reset.
    for n in 0..20 {
        let mut peer = plane.open(&format!("cut{n}"));
        peer.send(format!("{LOG}{}", &LOG[..30]));
        if n % 2 == 0 {
            peer.stream().shutdown(Shutdown::Both).unwrap();
        } else {
            let zero = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            nix::sys::socket::setsockopt(peer.stream(), nix::sys::socket::sockopt::Linger, &zero).unwrap();
        }
    }
    eventually("all are gone", || plane.stats().presence.connections == 1);
    for n in (0..20).step_by(2) {
        assert_eq!(plane.sink.messages(&format!("s/cut{n}")), 1, "the whole line counts, the half one does not");
    }
    assert!((10..=20).contains(&plane.stats().refused[&-32700]));

    // A peer that has ended its side gets its answers all the same.
    let mut half = plane.open("half");
    half.send("{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"hive/heartbeat\"}\n");
    half.half_close();
    assert_eq!(half.line()["id"], 9);
    assert!(half.closed());
    good.is_well();
}

#[test]
fn one_byte_at_a_time_is_a_session_like_any_other() {
    let plane = Plane::start(PlaneLimits::default());
    let (mut good, slow) = (plane.open("good"), plane.open("slow"));
    let began = Instant::now();
    for byte in LOG.repeat(3).bytes() {
        (&mut slow.stream()).write_all(&[byte]).unwrap();
        good.is_well();
        assert!(began.elapsed() < SOON);
    }
    eventually("its lines came", || plane.sink.messages("s/slow") == 3);
}
