//! The launcher and the agent's loopback port.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use hivekeeper::wire::channel::{FromLauncher, RELAY_WINDOW, ToLauncher};

use crate::harness::{
    launcher::{Channel, EPOCH, Launcher},
    processes::PATIENCE,
};

const CONNECTIONS_MAX: usize = 16;

/// A launcher whose agent only waits, and the address that the agent sees.
fn launcher() -> (Launcher, String) {
    let mut launcher = Launcher::run("echo $HIVEKEEPER_ADDR; exec sleep 300");
    let address = launcher.channel.line();
    (launcher, address)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[track_caller]
fn opened(channel: &mut Channel) -> u32 {
    channel.until(|frame| match frame {
        FromLauncher::RelayOpen { conn } => Some(conn),
        _ => None,
    })
}

#[track_caller]
fn closed(channel: &mut Channel) -> u32 {
    channel.until(|frame| match frame {
        FromLauncher::RelayClose { conn } => Some(conn),
        _ => None,
    })
}

/// Bytes of one connection until there are `len`.
#[track_caller]
fn data(channel: &mut Channel, of: u32, len: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < len {
        channel.until(|frame| match frame {
            FromLauncher::RelayData { conn, bytes } if conn == of => {
                got.extend(bytes);
                Some(())
            }
            _ => None,
        });
    }
    got
}

#[test]
fn bytes_go_both_ways() {
    let (mut launcher, address) = launcher();
    let mut agent = connect(&address);
    let conn = opened(&mut launcher.channel);
    agent.write_all(b"ping\n").unwrap();
    assert_eq!(data(&mut launcher.channel, conn, 5), b"ping\n");
    launcher.channel.send(&ToLauncher::RelayData { conn, bytes: b"pong\n".to_vec() });
    let mut answer = [0; 5];
    agent.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong\n");
    let credit = launcher.channel.until(|frame| match frame {
        FromLauncher::RelayCredit { conn: of, bytes } if of == conn => Some(bytes),
        _ => None,
    });
    assert_eq!(credit, 5);
}

#[test]
fn either_side_may_close() {
    let (mut launcher, address) = launcher();
    let agent = connect(&address);
    let conn = opened(&mut launcher.channel);
    drop(agent);
    assert_eq!(closed(&mut launcher.channel), conn);

    let mut agent = connect(&address);
    let conn = opened(&mut launcher.channel);
    launcher.channel.send(&ToLauncher::RelayData { conn, bytes: b"bye".to_vec() });
    launcher.channel.send(&ToLauncher::RelayClose { conn });
    let mut rest = Vec::new();
    agent.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye");
}

#[test]
fn a_window_that_is_not_renewed_holds_one_connection_and_no_other() {
    let (mut launcher, address) = launcher();
    let mut greedy = connect(&address);
    let first = opened(&mut launcher.channel);
    // One byte by itself, so that the rest of the window is no whole number of portions.
    greedy.write_all(b"g").unwrap();
    assert_eq!(data(&mut launcher.channel, first, 1), b"g");
    let writer = std::thread::spawn(move || {
        greedy.write_all(&vec![b'g'; 3 * RELAY_WINDOW as usize]).unwrap();
        greedy
    });
    let rest = RELAY_WINDOW as usize - 1;
    assert_eq!(data(&mut launcher.channel, first, rest).len(), rest);

    let mut modest = connect(&address);
    let second = opened(&mut launcher.channel);
    modest.write_all(b"me too").unwrap();
    let got = launcher.channel.until(|frame| match frame {
        FromLauncher::RelayData { conn, bytes } => Some((conn, bytes)),
        _ => None,
    });
    assert_eq!(got, (second, b"me too".to_vec()), "nothing of the first one came meanwhile");

    for _ in 0..2 {
        launcher.channel.send(&ToLauncher::RelayCredit { conn: first, bytes: RELAY_WINDOW });
        assert_eq!(data(&mut launcher.channel, first, RELAY_WINDOW as usize).len(), RELAY_WINDOW as usize);
    }
    drop(writer.join().unwrap());
}

#[test]
fn an_agent_that_does_not_read_holds_one_window_of_the_launcher() {
    let (mut launcher, address) = launcher();
    let agent = connect(&address);
    let conn = opened(&mut launcher.channel);
    // Until the sockets are full no credit is missing; then it stays away, and whoever sends on breaks the rule.
    let mut window = u64::from(RELAY_WINDOW);
    let portion = ToLauncher::RelayData { conn, bytes: vec![b'x'; 16 * 1024] };
    loop {
        while window >= 16 * 1024 {
            launcher.channel.send(&portion);
            window -= 16 * 1024;
        }
        match launcher.channel.next_within(Duration::from_millis(500)) {
            Ok(Some(FromLauncher::RelayCredit { bytes, .. })) => window += u64::from(bytes),
            Ok(_) => {}
            Err(()) => break,
        }
    }
    for _ in 0..=window / (16 * 1024) {
        launcher.channel.send(&portion);
    }
    assert_eq!(closed(&mut launcher.channel), conn);
    drop(agent);
}

#[test]
fn connections_beyond_the_limit_are_closed() {
    let (mut launcher, address) = launcher();
    let mut agents = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        agents.push(connect(&address));
        opened(&mut launcher.channel);
    }
    let mut one_more = connect(&address);
    let end = one_more.read(&mut [0; 1]);
    assert!(matches!(&end, Ok(0)) || end.as_ref().is_err_and(|it| it.kind() == ErrorKind::ConnectionReset), "{end:?}");
    drop(agents.pop());
    closed(&mut launcher.channel);
    let _again = connect(&address);
    opened(&mut launcher.channel);
}

#[test]
fn a_new_daemon_finds_the_agent_at_the_same_port() {
    let (mut launcher, address) = launcher();
    let mut agent = connect(&address);
    opened(&mut launcher.channel);
    launcher.abandon();
    assert_eq!(agent.read(&mut [0; 1]).unwrap(), 0, "the old connection ends with the daemon");

    // Nobody leads: the connection waits, and what it says is not lost.
    let mut agent = connect(&address);
    agent.write_all(b"hello again").unwrap();
    let mut channel = launcher.attach(EPOCH + 1, 0);
    let conn = opened(&mut channel);
    assert_eq!(data(&mut channel, conn, 11), b"hello again");

    let mut third = launcher.attach(EPOCH + 2, 0);
    third.state();
    assert_eq!(agent.read(&mut [0; 1]).unwrap(), 0, "a take-over closes what the old daemon had");
}

#[test]
fn frames_for_a_connection_that_has_gone_are_passed_over() {
    let (mut launcher, address) = launcher();
    drop(connect(&address));
    let conn = closed(&mut launcher.channel);
    launcher.channel.send(&ToLauncher::RelayData { conn, bytes: b"late".to_vec() });
    launcher.channel.send(&ToLauncher::RelayCredit { conn, bytes: 4 });
    launcher.channel.send(&ToLauncher::RelayClose { conn });
    let mut agent = connect(&address);
    let conn = opened(&mut launcher.channel);
    agent.write_all(b"still here").unwrap();
    assert_eq!(data(&mut launcher.channel, conn, 10), b"still here");
}
