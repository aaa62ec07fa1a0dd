//! Places and deadlines.

use std::{io::Write, net::TcpStream, time::Duration};

use hivekeeper::{
    data_plane::PlaneLimits,
    model::{AgentId, RelaySink},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::{Client, Plane, eventually};

#[test]
fn a_thousand_connections_beside_a_good_session() {
    // Both ends of each are ours.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(4096)), hard).unwrap();
    let plane = Plane::start(PlaneLimits::default());
    let mut good = plane.open("good");
    let crowd: Vec<TcpStream> = (0..1000).map(|_| TcpStream::connect(plane.addr).unwrap()).collect();
    eventually("all are there", || plane.stats().presence.connections == 1001);
    good.is_well();
    for mut peer in &crowd {
        peer.write_all(b"x\n").unwrap();
    }
    good.is_well();
    eventually("each is answered", || plane.stats().refused.get(&-32700) == Some(&1000));
    drop(crowd);
    eventually("all are gone", || plane.stats().presence.connections == 1);
    good.is_well();
}

#[test]
fn a_full_house_turns_away_and_relayed_agents_have_places_of_their_own() {
    let plane = Plane::start(PlaneLimits { direct_max: 2, relayed_max: 1, ..PlaneLimits::default() });
    let mut first = plane.open("a");
    let second = plane.connect();
    eventually("both have a place", || plane.stats().presence.connections == 2);
    assert!(plane.connect().closed());
    assert_eq!(plane.stats().turned_away, 1);

    let (mut relayed, theirs) = tokio::io::duplex(512);
    let (mut no_place, late) = tokio::io::duplex(512);
    plane.handle.serve(agent_of("s/a"), 1, Box::new(theirs));
    plane.handle.serve(agent_of("s/a"), 1, Box::new(late));
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        relayed.write_all(b"x\n").await.unwrap();
        assert!(relayed.read(&mut [0; 64]).await.unwrap() > 0);
        assert_eq!(no_place.read(&mut [0; 64]).await.unwrap(), 0);
    });
    drop(relayed);
    assert_eq!(plane.stats().turned_away, 2);

    drop(second);
    eventually("a place is free", || plane.stats().presence.connections == 1);
    plane.open("b").is_well();
    first.is_well();
}

fn agent_of(id: &str) -> AgentId {
    id.parse().unwrap()
}

#[test]
fn who_does_not_open_in_time_is_closed_even_one_byte_at_a_time() {
    let plane = Plane::start(PlaneLimits { open_deadline: Duration::from_millis(400), ..PlaneLimits::default() });
    let mut good = plane.open("good");
    let mut idle = plane.connect();
    let slow = TcpStream::connect(plane.addr).unwrap();
    let dribble = std::thread::spawn(move || {
        let bytes = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hive/open\",\"params\":{}}".iter().cycle();
        for byte in bytes {
            if (&slow).write_all(&[*byte]).is_err() {
                return Client::new(slow);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        unreachable!("the bytes never end")
    });
    assert!(idle.closed());
    assert!(dribble.join().unwrap().closed());
    eventually("both are counted", || plane.stats().overdue == 2);
    good.is_well();
}

#[test]
fn a_silent_session_is_pinged_and_lives_while_it_answers() {
    let limits = PlaneLimits {
        ping_after: Duration::from_millis(100),
        silence_max: Duration::from_millis(1500),
        ..PlaneLimits::default()
    };
    let plane = Plane::start(limits);
    let (mut answers, mut mute) = (plane.open("a"), plane.open("b"));
    for _ in 0..20 {
        let ping = answers.line();
        assert_eq!(ping["method"], "hive/ping");
        answers.send(format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{}}}}\n", ping["id"]));
    }
    let mut pings = 0;
    while !mute.closed() {
        pings += 1;
        assert!(pings < 100, "never given up");
    }
    eventually("it is counted", || plane.stats().overdue == 1);
    answers.send("{\"jsonrpc\":\"2.0\",\"method\":\"hive/heartbeat\"}\n");
    eventually("only the mute one is gone", || plane.stats().presence.sessions == 1);
}
