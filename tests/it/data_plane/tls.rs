//! Agents on other hosts: the same protocol behind TLS.

use std::{net::TcpStream, sync::Arc, time::Duration};

use hivekeeper::{data_plane::PlaneLimits, tls::Tls};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use super::harness::{Client, Plane, SOON, eventually};

/// A data plane behind a fresh certificate, and a client's side that trusts it alone.
fn behind_tls(limits: PlaneLimits) -> (Plane, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let tls = Tls::read(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Plane::start_with(limits, Some(tls)), TlsConnector::from(Arc::new(client)))
}

#[test]
fn a_session_behind_tls_beside_peers_that_speak_none() {
    let limits = PlaneLimits { open_deadline: Duration::from_millis(500), ..PlaneLimits::default() };
    let (plane, connector) = behind_tls(limits);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let talk = async {
            let stream = tokio::net::TcpStream::connect(plane.addr).await.unwrap();
            let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
            let mut stream = BufReader::new(stream);
            let open = serde_json::json!({
                "jsonrpc": "2.0", "id": 1, "method": "hive/open", "params": plane.credentials("far"),
            });
            // More than one record of TLS behind it.
            let logs = "{\"jsonrpc\":\"2.0\",\"method\":\"hive/log\",\"params\":{\"line\":\"x\"}}\n".repeat(5000);
            stream.write_all(format!("{open}\n{logs}").as_bytes()).await.unwrap();
            stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"hive/heartbeat\"}\n").await.unwrap();
            stream.flush().await.unwrap();
            let mut answers = String::new();
            for _ in 0..2 {
                assert!(stream.read_line(&mut answers).await.unwrap() > 0);
            }
            assert!(answers.contains("\"session\"") && answers.contains("\"id\":2"), "{answers}");
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert!(rest.is_empty());
        };
        tokio::time::timeout(SOON, talk).await.unwrap();
    });
    assert_eq!(plane.sink.messages("s/far"), 5001);

    // Plain text, noise, and silence.
    let mut plain = Client::new(TcpStream::connect(plane.addr).unwrap());
    plain.send("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hive/open\",\"params\":{}}\n");
    let silent = TcpStream::connect(plane.addr).unwrap();
    eventually("both are counted and gone", || {
        plane.stats().handshakes_failed == 2 && plane.stats().presence.connections == 0
    });
    drop((plain, silent));
    assert_eq!(plane.stats().presence.sessions, 0);
}

#[test]
fn who_does_not_trust_the_certificate_learns_nothing_more() {
    let (plane, _) = behind_tls(PlaneLimits::default());
    let (_, stranger) = behind_tls(PlaneLimits::default());
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let stream = tokio::net::TcpStream::connect(plane.addr).await.unwrap();
        let refused = stranger.connect(ServerName::try_from("localhost").unwrap(), stream).await;
        assert!(refused.is_err());
    });
    eventually("it is counted", || plane.stats().handshakes_failed == 1);
}
