//! Bytes on a socket of the real server, before the scripted control plane of the tests. Whatever they are: each answer is HTTP, none is a fault of the
//! server, and a plain request is served afterwards.
#![no_main]
#![allow(dead_code, unused_imports, reason = "the server of the tests brings more than is used here")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    num::NonZeroU32,
    sync::OnceLock,
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/it/http_desk.rs"]
mod http_desk;
#[path = "../../tests/it/http_support.rs"]
mod http_support;

use http_support::{Hive, Setup, hive};

/// How long the server may leave an open connection without a byte: what is open then is a stream, or waits for more of a request.
const SILENCE: Duration = Duration::from_millis(20);
/// How long one input may take.
const WHOLE: Duration = Duration::from_secs(5);

static HIVE: OnceLock<Server> = OnceLock::new();

/// Shared by all inputs; its address is all that they use.
struct Server(Hive);

// SAFETY: nothing but the address, which never changes, is read of it from the one thread that feeds inputs.
unsafe impl Sync for Server {}
// SAFETY: it is made and kept on one thread.
unsafe impl Send for Server {}

fn server() -> &'static Hive {
    let made = HIVE.get_or_init(|| {
        // A run of hours is not forgotten.
        let mut setup = Setup { life: Some(Duration::from_secs(24 * 60 * 60)), ..Setup::default() };
        setup.limits.rates.reads_per_second = NonZeroU32::MAX;
        setup.limits.rates.commands_per_second = NonZeroU32::MAX;
        Server(hive(setup))
    });
    &made.0
}

/// What comes back until the server closes or falls silent.
fn answer(stream: &mut TcpStream, silence: Duration) -> Vec<u8> {
    stream.set_read_timeout(Some(silence)).expect("a deadline");
    let deadline = Instant::now() + WHOLE;
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    while Instant::now() < deadline {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => all.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    all
}

/// In the inputs `HOST` stands for the server's own name, so that they get beyond the guard.
fn with_host(data: &[u8], host: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + host.len());
    let mut rest = data;
    while let Some(at) = rest.windows(4).position(|four| four == b"HOST") {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(host.as_bytes());
        rest = &rest[at + 4..];
    }
    out.extend_from_slice(rest);
    out
}

fuzz_target!(|data: &[u8]| {
    let address = server().address;
    let mut stream = TcpStream::connect(address).expect("the server takes connections");
    let sent = stream.write_all(&with_host(data, &address.to_string()));
    if sent.is_ok() {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let said = answer(&mut stream, SILENCE);
    if !said.is_empty() {
        assert!(said.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&said));
        for fault in [&b"HTTP/1.1 500"[..], b"HTTP/1.0 500"] {
            assert!(!said.starts_with(fault), "{:?}", String::from_utf8_lossy(&said));
        }
    }
    drop(stream);
    let mut plain = TcpStream::connect(address).expect("the server takes connections");
    let request = format!("GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    plain.write_all(request.as_bytes()).expect("it reads");
    assert!(answer(&mut plain, WHOLE).starts_with(b"HTTP/1.1 200"), "it serves who comes next");
});
