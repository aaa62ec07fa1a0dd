//! `docs/problems.md` is what the daemon serves; with `HK_TEST_WRITE=yes` the test writes it.

use crate::http_support::{Setup, hive};

#[test]
fn docs_problems_is_what_the_daemon_serves() {
    let hive = hive(Setup { token: Some("s3cret"), ..Setup::default() });
    // Whoever was refused for want of a token may read why.
    let reply = hive.get("/api/v1/problems");
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/markdown; charset=utf-8"), "{reply:?}");
    super::written("docs/problems.md", &reply.body);
    let refusal = hive.get("/api/v1/health");
    let page = refusal.json()["type"].as_str().unwrap().to_owned();
    let (path, heading) = page.split_once('#').unwrap();
    assert_eq!(path, "/api/v1/problems");
    assert!(reply.body.contains(&format!("\n## {heading}\n")), "{page}");
}
