//! The API behind TLS: a certificate that is read anew, and nothing that speaks without it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use hivekeeper::{
    http::Limits,
    tls::{Tls, TlsFiles},
};
use rcgen::{CertifiedKey, KeyPair};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring, pki_types::ServerName,
};

use crate::{
    hive::until,
    http_support::{Hive, SOON, Setup, hive},
};

type Stream = StreamOwned<ClientConnection, TcpStream>;

struct Ground {
    hive: Hive,
    files: TlsFiles,
    _dir: tempfile::TempDir,
}

fn made() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

fn behind_tls(first: &CertifiedKey<KeyPair>, limits: Limits) -> Ground {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let (cert_text, key_text) = (first.cert.pem(), first.signing_key.serialize_pem());
    std::fs::write(&certificate, &cert_text).unwrap();
    std::fs::write(&key, &key_text).unwrap();
    let files = TlsFiles { tls: Tls::read(&cert_text, &key_text).unwrap(), certificate, key };
    let hive = hive(Setup { tls: Some(files.clone()), limits, ..Setup::default() });
    Ground { hive, files, _dir: dir }
}

/// A connection that trusts one certificate alone; why there is none.
fn connect(hive: &Hive, trusted: &CertifiedKey<KeyPair>) -> Result<Stream, String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, hive.connect());
    stream.flush().map_err(|error| error.to_string())?;
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).map_err(|error| error.to_string())?;
    }
    Ok(stream)
}

/// One request on a connection that goes on; the head of the answer.
fn ask(stream: &mut Stream, hive: &Hive, path: &str, headers: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost:{}\r\n{headers}\r\n", hive.address.port()).unwrap();
    let mut text = String::new();
    while !text.contains("\r\n\r\n") {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).unwrap();
        assert_ne!(read, 0, "{text}");
        text += &String::from_utf8_lossy(&bytes[..read]);
    }
    text
}

#[test]
fn the_api_speaks_https_and_nothing_else() {
    let certificate = made();
    let Ground { hive, .. } = &behind_tls(&certificate, Limits::default());
    let mut stream = connect(hive, &certificate).unwrap();
    assert_eq!(stream.conn.protocol_version().unwrap().as_str(), Some("TLSv1_3"));
    let own = format!("Origin: https://localhost:{}\r\n", hive.address.port());
    assert!(ask(&mut stream, hive, "/api/v1/swarms", &own).starts_with("HTTP/1.1 200 "));
    for foreign in
        [format!("Origin: http://localhost:{}\r\n", hive.address.port()), "Origin: https://evil\r\n".to_owned()]
    {
        assert!(ask(&mut connect(hive, &certificate).unwrap(), hive, "/livez", &foreign).contains("origin_refused"));
    }
    let mut stream = connect(hive, &certificate).unwrap();
    assert!(ask(&mut stream, hive, "/api/v1/events", "Accept: text/event-stream\r\n").contains("text/event-stream"));
    let stream = connect(hive, &certificate).unwrap();
    let url = format!("ws://localhost:{}/ws/echo", hive.address.port());
    let (mut socket, _) = tungstenite::client(url, stream).unwrap();
    socket.send("hello".into()).unwrap();
    assert_eq!(socket.read().unwrap().to_text().unwrap(), "hello");
    assert!(connect(hive, &made()).is_err(), "a client that trusts another");

    let mut plain = hive.connect();
    plain.write_all(format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", hive.address).as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/"), "{answer:?}");
}

#[test]
fn who_never_shakes_hands_is_cut() {
    let certificate = made();
    let limits = Limits { head_deadline: Duration::from_millis(500), ..Limits::default() };
    let Ground { hive, .. } = &behind_tls(&certificate, limits);
    for said in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut silent = hive.connect();
        silent.write_all(said).unwrap();
        let begun = Instant::now();
        // An end or a reset; a read that runs into its own deadline is neither.
        let ended = silent.read(&mut [0; 64]);
        assert!(begun.elapsed() < SOON / 2, "{ended:?}");
    }
    assert!(ask(&mut connect(hive, &certificate).unwrap(), hive, "/livez", "").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_new_certificate_is_taken_up_and_a_bad_one_is_not() {
    let (first, second) = (made(), made());
    let Ground { hive, files, .. } = &behind_tls(&first, Limits::default());
    let mut old = connect(hive, &first).unwrap();
    assert!(ask(&mut old, hive, "/livez", "").starts_with("HTTP/1.1 200 "));
    // The key follows its certificate after a while, as tools that renew them do it.
    std::fs::write(&files.certificate, second.cert.pem()).unwrap();
    assert!(connect(hive, &first).is_ok(), "half of a pair is none");
    std::fs::write(&files.key, second.signing_key.serialize_pem()).unwrap();
    until("the new certificate is shown", || connect(hive, &second).ok());
    assert!(connect(hive, &first).is_err());
    assert!(ask(&mut old, hive, "/livez", "").starts_with("HTTP/1.1 200 "), "the old connection goes on");
}
