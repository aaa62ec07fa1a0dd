//! A stray container in front of a whole daemon. What comes of it when its grace is over, the runtime's own tests see.

use serde_json::{Value, json};

use super::harness::{Case, SCRATCH, sleeper, swarm};

#[test]
fn a_stray_container_is_listed_and_left_for_its_grace() {
    let Some(case) = Case::start(&swarm("", &[sleeper("a", "")])) else { return };
    let (a, own) = (case.outside("s/a"), case.container("s"));
    let hive = format!("dev.hivekeeper.hive-id={}", case.hive_id());
    let managed = "dev.hivekeeper.managed-by=hivekeeper";
    let labels = ["--label", managed, "--label", hive.as_str(), "--label", "dev.hivekeeper.swarm=left"];
    let stray = case.ask(&[&["run", "-d"], &labels[..], &[SCRATCH, "/probe", "sleep"]].concat());
    let name = case.ask(&["inspect", "-f", "{{.Name}}", &stray]);
    // Also by what is no dry run.
    for dry_run in [true, false] {
        let answer = case.post(&format!("/api/v1/reconcile?dry_run={dry_run}"), json!({}));
        assert_eq!((answer.status, &answer.body["dry_run"]), (200, &json!(dry_run)), "{answer:?}");
        let findings: Vec<&Value> = answer.body["findings"].as_array().unwrap().iter().collect();
        // Hives of other tests are of the same name.
        let ours: Vec<_> = findings.into_iter().filter(|finding| finding["fate"] != "reported").collect();
        let [finding] = ours[..] else { panic!("{:#}", answer.body) };
        let what = (&finding["kind"], &finding["name"], &finding["swarm"], &finding["fate"]);
        assert_eq!(what, (&json!("container"), &json!(name.trim_start_matches('/')), &json!("left"), &json!("waits")));
        let left = finding["removed_in_ms"].as_u64().unwrap();
        assert!((30_000..=90_000).contains(&left), "{finding:#}");
        assert_eq!(case.ask(&["inspect", "-f", "{{.State.Running}}", &stray]), "true");
    }
    assert_eq!((case.outside("s/a"), case.container("s")), (a, own));
    case.ask(&["rm", "-f", &stray]);
    case.end();
}
