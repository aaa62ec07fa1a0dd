//! Tools that show how far the work is.

use super::*;

#[tokio::test]
async fn progress_is_told_of_each_group_and_names_what_holds_others_up() {
    let bench = Bench::new();
    let ids = bench
        .create(json!([
            { "title": "a", "group": "api" },
            { "title": "b", "group": "api", "depends_on": [0] },
            { "title": "c", "group": "api", "depends_on": [1] },
            { "title": "d" }
        ]))
        .await;
    let held = bench.ok(ME, "task_take", json!({ "id": ids[0] })).await;
    let failed = json!({ "id": ids[0], "fence": held["claim"]["fence"], "reason": "no network" });
    bench.ok(ME, "task_fail", failed).await;
    let told = bench.ok(ME, "progress_report", json!({})).await;
    let api = json!({
        "blockers": [{ "holds_up": 2, "id": ids[0], "reasons": [{ "code": "attempt_failed", "detail": "no network" }], "state": "failed", "title": "a" }],
        "done": 0, "done_per_hour": null, "group": "api", "recently_done": 0, "remaining_ms": null,
        "states": { "blocked": 2, "failed": 1 }, "total": 3
    });
    let none = json!({
        "blockers": [], "done": 0, "done_per_hour": null, "group": null, "recently_done": 0, "remaining_ms": null,
        "states": { "ready": 1 }, "total": 1
    });
    assert_eq!(told, json!({ "groups": [none, api], "more": false }));
    assert_eq!(
        bench.ok(ME, "progress_report", json!({ "group": "api" })).await,
        json!({ "groups": [api], "more": false })
    );
}

#[tokio::test]
async fn the_report_is_of_one_group_if_one_is_named() {
    let bench = Bench::new();
    bench.create(json!([{ "title": "a", "group": "api" }, { "title": "other" }])).await;
    let whole = text(&bench.ok(ME, "report", json!({})).await["markdown"]);
    assert!(whole.contains("2 tasks: 2 ready."), "{whole}");
    let part = text(&bench.ok(ME, "report", json!({ "group": "api" })).await["markdown"]);
    assert!(part.starts_with("# Tasks of review, group api\n") && part.contains("1 task: 1 ready."), "{part}");
}

#[tokio::test]
async fn health_is_of_all_or_of_one_swarm_with_its_agents() {
    let bench = Bench::new();
    let own = bench.ok(ME, "health", json!({})).await;
    assert_eq!((&own["swarm"]["name"], &own["agents"][0]["name"]), (&json!("review"), &json!("coder-2")));
    assert!(own.get("hive").is_none());
    let whole = bench.call(&operator(), "health", json!({})).await.unwrap();
    assert_eq!((&whole["hive"]["hive"], whole.get("swarm")), (&json!("laptop"), None));
    let one = bench.call(&operator(), "health", json!({ "swarm": "review" })).await.unwrap();
    assert_eq!(one, own);
}
