//! Peers that send what nobody should. Each is answered or closed by code and counted; a good session beside them notices nothing.

use std::{io::Write, net::TcpStream};

use hivekeeper::{
    data_plane::PlaneLimits,
    model::{Lost, TelemetryKind},
};
use serde_json::json;

use super::harness::{Client, Plane, SOON, eventually};

/// Runs a rowdy peer beside a good session, and checks the books.
fn beside_a_good_session(counted: &[(i64, u64)], rowdy: impl FnOnce(&Plane, &mut Client)) {
    let plane = Plane::start(PlaneLimits::default());
    let mut good = plane.open("good");
    good.is_well();
    let mut peer = plane.connect();
    rowdy(&plane, &mut peer);
    good.is_well();
    drop(peer);
    eventually("the rowdy one is gone", || plane.stats().presence.connections == 1);
    good.is_well();
    let refused: Vec<(i64, u64)> = plane.stats().refused.into_iter().collect();
    assert_eq!(refused, counted);
    assert_eq!(plane.stats().presence.sessions, 1);
    let told: Vec<i64> = plane.sink.refused.lock().unwrap().iter().map(|(_, code)| *code).collect();
    assert_eq!(told.len() as u64, counted.iter().map(|(_, n)| n).sum::<u64>());
}

#[test]
fn garbage() {
    beside_a_good_session(&[(-32700, 4)], |_, peer| {
        for noise in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01\x02\x00\xff\n",
            b"{\"jsonrpc\":\"2.0\",\n",
            b"\xf0\x28\x8c\x28\n",
        ] {
            peer.send(noise);
            assert_eq!(peer.code(), -32700);
        }
    });
}

#[test]
fn half_a_line_and_gone() {
    beside_a_good_session(&[(-32700, 1)], |_, peer| {
        peer.send("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hive/op");
        peer.half_close();
        assert!(peer.closed());
    });
}

#[test]
fn deep_json() {
    beside_a_good_session(&[(-32700, 2)], |plane, peer| {
        let mut deep = vec![b'['; 60_000];
        deep.push(b'\n');
        peer.send(&deep);
        assert_eq!(peer.code(), -32700);
        let mut open = plane.open("deep");
        let brackets = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        open.send(format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"hive/heartbeat\",\"params\":{{\"progress\":{brackets}}}}}\n"
        ));
        assert_eq!(open.code(), -32700);
        open.is_well();
    });
}

#[test]
fn two_megabytes_in_a_line_before_and_after_open() {
    let mut long = vec![b'x'; 2 * 1024 * 1024];
    long.push(b'\n');
    beside_a_good_session(&[(1006, 2)], |plane, peer| {
        peer.send(&long);
        assert_eq!(peer.code(), 1006);
        let answer = peer.ask("hive/open", plane.credentials("long"));
        assert!(answer["result"].is_object(), "{answer}");
        peer.send(&long);
        assert_eq!(peer.code(), 1006);
        peer.is_well();
    });
}

#[test]
fn nobody_unknown_makes_us_hold_a_long_line() {
    beside_a_good_session(&[(1006, 1)], |plane, peer| {
        let mut open = plane.credentials("a");
        open["capabilities"] = json!({"padding": "x".repeat(64 * 1024)});
        peer.send(format!("{}\n", json!({"jsonrpc": "2.0", "id": 1, "method": "hive/open", "params": open})));
        assert_eq!(peer.code(), 1006);
        open["capabilities"] = json!({"padding": "x".repeat(60 * 1024)});
        assert!(peer.ask("hive/open", open)["result"].is_object());
    });
}

#[test]
fn a_megabyte_is_taken() {
    beside_a_good_session(&[], |plane, peer| {
        peer.ask("hive/open", plane.credentials("big"));
        let line = "x".repeat(1024 * 1024 - 200);
        let answer = peer.ask("hive/log", json!({"line": line}));
        assert_eq!(answer["result"], json!({}), "{answer}");
        let pieces = plane.sink.of("s/big").into_iter().find_map(|kind| match kind {
            TelemetryKind::Logs(records) => Some((records.len(), records.iter().count())),
            _ => None,
        });
        assert!(pieces.is_some_and(|(records, pieces)| records == 1 && pieces > 60), "{pieces:?}");
    });
}

#[test]
fn arrays_and_other_json() {
    beside_a_good_session(&[(-32600, 5)], |_, peer| {
        for json in ["[]", "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hive/open\"}]", "7", "\"x\"", "{}"] {
            peer.send(format!("{json}\n"));
            let line = peer.line();
            assert_eq!((&line["id"], &line["error"]["code"]), (&json!(null), &json!(-32600)));
        }
    });
}

#[test]
fn wrong_tokens_are_closed_with_their_answer() {
    beside_a_good_session(&[(1002, 20)], |plane, _| {
        for n in 0..20 {
            let mut peer = plane.connect();
            let open = json!({"token": format!("guess-{n}"), "agent": "s/good", "incarnation": 1, "protocol": 1});
            let line = format!("{}\n", json!({"jsonrpc": "2.0", "id": n, "method": "hive/open", "params": open}));
            // More than one read behind it: what was not read must not cost the peer its answer.
            peer.send(line + &"{\"jsonrpc\":\"2.0\",\"method\":\"hive/heartbeat\"}\n".repeat(1000));
            assert_eq!(peer.code(), 1002);
            assert!(peer.closed_in_order());
        }
    });
}

#[test]
fn old_incarnations_and_other_protocols() {
    beside_a_good_session(&[(1003, 1), (1004, 1)], |plane, peer| {
        let mut open = plane.credentials("a");
        open["protocol"] = json!(7);
        assert_eq!(peer.ask("hive/open", open)["error"]["code"], 1004);
        let mut open = plane.credentials("a");
        open["incarnation"] = json!(0);
        assert_eq!(peer.ask("hive/open", open)["error"]["code"], 1003);
        assert!(peer.closed());
    });
}

#[test]
fn a_notification_first_is_counted_and_open_still_works() {
    beside_a_good_session(&[(1001, 2)], |plane, peer| {
        peer.notify("notifications/initialized", json!({}));
        assert_eq!(peer.ask("initialize", json!({}))["error"]["code"], 1001);
        assert!(peer.ask("hive/open", plane.credentials("late"))["result"].is_object());
        peer.is_well();
    });
}

#[test]
fn a_flood_is_limited_and_counted_and_others_are_served() {
    let limits = PlaneLimits { notifications_burst: 50, notifications_per_second: 1, ..PlaneLimits::default() };
    let plane = Plane::start(limits);
    let (mut good, mut flood) = (plane.open("good"), plane.open("flood"));
    let line = "{\"jsonrpc\":\"2.0\",\"method\":\"hive/log\",\"params\":{\"line\":\"x\"}}\n";
    for _ in 0..20 {
        flood.send(line.repeat(1000));
        good.is_well();
    }
    flood.is_well();
    let (taken, refused) = (plane.sink.messages("s/flood"), plane.stats().refused[&1005]);
    // The last heartbeat, and every log record in one book or the other.
    assert_eq!(taken - 1 + refused, 20_000);
    assert!(taken < 200, "{taken} were taken");
    assert_eq!(plane.sink.lost("s/flood"), Lost { logs: refused, ..Lost::default() });
}

#[test]
fn a_reader_that_never_reads_is_dropped_and_costs_a_buffer() {
    let limits = PlaneLimits { write_deadline: std::time::Duration::from_millis(300), ..PlaneLimits::default() };
    let plane = Plane::start(limits);
    let mut good = plane.open("good");
    let deaf = TcpStream::connect(plane.addr).unwrap();
    deaf.set_write_timeout(Some(SOON)).unwrap();
    let asks = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hive/heartbeat\"}\n".repeat(1000);
    // Ends when the daemon has closed: the pipe breaks.
    let deadline = std::time::Instant::now() + SOON;
    while (&deaf).write_all(asks.as_bytes()).is_ok() {
        assert!(std::time::Instant::now() < deadline, "it was never dropped");
    }
    good.is_well();
    eventually("it is counted and gone", || {
        let stats = plane.stats();
        stats.overdue == 1 && stats.presence.connections == 1
    });
}
