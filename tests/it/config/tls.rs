//! `data_plane.tls_cert_file` and `tls_key_file`: what was found in them, and what is allowed.

use super::load_with;

/// A certificate and its key.
fn made() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn named(certificate: &str, key: &str) -> String {
    format!("[data_plane]\ntls_cert_file = \"{certificate}\"\ntls_key_file = \"{key}\"\n")
}

/// Of a machine with these files beside its configuration.
fn problems(config: &str, files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<_> = [("config.toml", config)].iter().chain(files).copied().collect();
    load_with(&files, &[], Vec::new()).expect_err("the files can't be used")
}

/// One problem, of this line and key, which holds all the pieces.
#[track_caller]
fn refused(config: &str, files: &[(&str, &str)], begin: &str, pieces: &[&str]) {
    let problems = problems(config, files);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].contains(begin), "{begin} is not in {}", problems[0]);
    for piece in pieces {
        assert!(problems[0].contains(piece), "{piece} is not in {}", problems[0]);
    }
}

const CERTIFICATE: &str = "config.toml:2: data_plane.tls_cert_file: found ";
const KEY: &str = "config.toml:3: data_plane.tls_key_file: found ";

#[test]
fn a_certificate_and_its_key_are_taken_from_beside_the_file() {
    let (certificate, key) = made();
    let config = named("tls/cert.pem", "tls/key.pem");
    let files = [("config.toml", &*config), ("tls/cert.pem", &*certificate), ("tls/key.pem", &*key)];
    assert!(load_with(&files, &[], Vec::new()).unwrap().data_plane.tls.is_some());
    let both = format!("{certificate}{key}");
    let config = named("both.pem", "both.pem");
    let files = [("config.toml", &*config), ("both.pem", &*both)];
    assert!(load_with(&files, &[], Vec::new()).unwrap().data_plane.tls.is_some());
    let config = named("", "");
    assert_eq!(load_with(&[("config.toml", &*config)], &[], Vec::new()).unwrap().data_plane.tls, None);
}

#[test]
fn a_file_that_can_not_be_read_is_named_with_the_systems_word() {
    let (certificate, key) = made();
    let config = named("cert.pem", "key.pem");
    let readable = "allowed: a readable file with PEM text";
    let missing = ["\"/h/cert.pem\"", "can't be read", "not found", readable];
    refused(&config, &[("key.pem", &key)], CERTIFICATE, &missing);
    let denied = ["\"/h/key.pem\"", "can't be read", "permission denied", readable];
    refused(&config, &[("cert.pem", &certificate), ("key.pem", "DENIED")], KEY, &denied);
    let both = problems(&config, &[]);
    assert_eq!(both.len(), 2, "{both:#?}");
    assert!(both[0].contains(CERTIFICATE) && both[1].contains(KEY), "{both:#?}");
}

#[test]
fn a_file_without_what_it_is_named_for_is_refused_in_words() {
    let (certificate, key) = made();
    let config = named("cert.pem", "key.pem");
    let of_certificate = |text: &str, found: &str| {
        let pieces = ["\"/h/cert.pem\"", found, "allowed: a file with the certificate", "those that vouch for it"];
        refused(&config, &[("cert.pem", text), ("key.pem", &key)], CERTIFICATE, &pieces);
    };
    of_certificate("", "no certificate is in it");
    of_certificate("hello", "-----BEGIN CERTIFICATE-----");
    of_certificate(&key, "no certificate is in it");
    of_certificate(&certificate[..certificate.len() / 2], "the certificate can't be read");
    let of_key = |text: &str, found: &str| {
        let pieces = ["\"/h/key.pem\"", found, "allowed: the key of \"/h/cert.pem\""];
        refused(&config, &[("cert.pem", &certificate), ("key.pem", text)], KEY, &pieces);
    };
    of_key("", "no private key is in it");
    of_key(&certificate, "-----BEGIN PRIVATE KEY-----");
    of_key(&key[..key.len() / 2], "the private key can't be read");
    of_key(&made().1, "does not fit the certificate");
}

/// The private key is a secret, and a message is read by many.
#[test]
fn no_message_shows_what_a_key_file_holds() {
    let (certificate, key) = made();
    let config = named("cert.pem", "key.pem");
    let body = key.lines().nth(1).unwrap();
    for (certificate, key) in [(&*key, &*key), (&*certificate, &key[..key.len() - 30]), (&*certificate, &*made().1)] {
        let said = problems(&config, &[("cert.pem", certificate), ("key.pem", key)]).join("\n");
        assert!(!said.contains(body) && !said.contains(key.lines().nth(1).unwrap()), "{said}");
    }
}

#[test]
fn one_without_the_other_is_refused_where_the_one_was_said() {
    let (certificate, key) = made();
    let files = [("cert.pem", &*certificate), ("key.pem", &*key)];
    let alone = |line: &str| format!("[data_plane]\n{line}\n");
    let wants_key = ["found \"/h/cert.pem\" without its private key", "both or neither", "set data_plane.tls_key_file"];
    for config in [alone("tls_cert_file = \"cert.pem\""), named("cert.pem", "")] {
        refused(&config, &files, CERTIFICATE, &wants_key);
    }
    let wants_certificate = ["found \"/h/key.pem\" without its certificate", "set data_plane.tls_cert_file"];
    refused(
        &alone("tls_key_file = \"key.pem\""),
        &files,
        "config.toml:2: data_plane.tls_key_file: found ",
        &wants_certificate,
    );
    refused(&named("", "key.pem"), &files, KEY, &wants_certificate);
}
