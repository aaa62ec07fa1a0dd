//! One budget for what is kept on disk.

use std::{fs, path::Path};

use super::Disk;
use crate::hive::{Hive, until};

/// Writes some MiB of log and rests.
const AGENT: &str = r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "a"
command = ["sh", "-c", "i=0; while [ $i -lt 100 ]; do i=$((i+1)); head -c 40000 /dev/zero | tr '\\0' x | fold -w 1000; echo; sleep 0.03; done; exec sleep 1000"]
"#;

fn bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().flatten();
    entries
        .map(|entry| if entry.path().is_dir() { bytes(&entry.path()) } else { entry.metadata().unwrap().len() })
        .sum()
}

#[test]
fn log_books_give_way_when_the_disk_gets_low_and_health_says_so() {
    let Some(disk) = Disk::small() else { return };
    let limits = "[disk]\nfree_min = \"1MiB\"\n[log]\nagent_max = \"5MiB\"\n";
    let mut hive = Hive::prepare(&format!("{limits}{AGENT}"));
    std::os::unix::fs::symlink(disk.path(), hive.data()).unwrap();
    hive.boot();
    let logs = hive.data().join("logs");
    until("some log", || (bytes(&logs) > 3_500_000).then_some(()));
    // Some that were written before may still be on their way.
    let last = |hive: &Hive| hive.lines("s/a").last().unwrap()["number"].as_u64().unwrap();
    let before = last(&hive);
    disk.fill();
    until("the books give way", || (bytes(&logs) < 3_300_000).then_some(()));
    let degraded = until("health tells of it", || {
        let health = hive.get("/api/v1/health").body;
        let reasons = health["reasons"].as_array()?;
        reasons.iter().find(|reason| reason["code"] == "disk_low").cloned()
    });
    assert!(degraded["detail"].as_str().unwrap().contains("1.0 MiB should be"), "{degraded}");
    assert!(last(&hive) >= before, "the youngest lines stay");
    let metrics = hive.get("/metrics");
    let text = metrics.body.as_str().unwrap_or_default().to_owned();
    for family in
        ["hivekeeper_disk_used_bytes{part=\"logs\"}", "hivekeeper_disk_free_bytes", "hivekeeper_disk_max_bytes"]
    {
        assert!(text.contains(family), "no {family} in {text}");
    }
    disk.free();
    until("health is well", || (hive.get("/api/v1/health").body["reasons"].as_array()?.is_empty()).then_some(()));
}
