//! Tools for locks.

use super::*;

#[tokio::test]
async fn a_lock_is_held_changed_kept_checked_and_given_back_by_its_token() {
    let bench = Bench::new();
    let (id, fence) = bench.lock(ME, "read", "src/").await;
    let (other, _) = bench.lock(OTHER, "read", "src/a.rs").await;
    let (code, message) = bench.refused(ME, "lock_change", json!({ "id": id, "fence": fence, "mode": "write" })).await;
    assert_eq!((code, message.as_str()), ("lock_timed_out", "not given within 0 ms: held by review/coder-2#1"));
    let listed = bench.ok(OTHER, "lock_list", json!({ "resource": "src/a.rs", "holder": OTHER })).await;
    let others = listed["locks"][0]["fence"].as_u64().unwrap();
    assert_eq!(
        bench.ok(OTHER, "lock_release", json!({ "id": other, "fence": others })).await,
        json!({ "id": other, "released": true })
    );
    assert_eq!(
        bench.ok(OTHER, "lock_release", json!({ "id": other, "fence": others })).await["released"],
        true,
        "once more is as good as once"
    );
    let changed = bench.ok(ME, "lock_change", json!({ "id": id, "fence": fence, "mode": "write" })).await;
    let newer = changed["fence"].as_u64().unwrap();
    assert!(newer > fence && changed["mode"] == "write");
    assert_eq!(bench.refused(ME, "lock_renew", json!({ "id": id, "fence": fence })).await.0, "stale_token");
    assert_eq!(bench.ok(ME, "lock_renew", json!({ "id": id, "fence": newer })).await["id"], id);
    let may = bench.ok(OTHER, "lock_check", json!({ "resource": "src/deep/b.rs", "fence": newer })).await;
    assert_eq!(may["holder"]["agent"], ME);
    for (resource, shown) in [("src/deep/b.rs", fence), ("tests/", newer)] {
        let (code, _) = bench.refused(OTHER, "lock_check", json!({ "resource": resource, "fence": shown })).await;
        assert_eq!(code, "stale_token");
    }
    bench.ok(ME, "lock_release", json!({ "id": id, "fence": newer })).await;
    assert_eq!(
        bench.refused(OTHER, "lock_check", json!({ "resource": "src/a.rs", "fence": newer })).await.0,
        "stale_token"
    );
    let nil = NIL;
    assert_eq!(bench.refused(ME, "lock_renew", json!({ "id": nil, "fence": 1 })).await.0, "unknown_lock");
}

#[tokio::test]
async fn nobody_acts_on_the_lock_of_another_save_an_operator_who_gives_it_back() {
    let bench = Bench::new();
    let (id, fence) = bench.lock(ME, "write", "a").await;
    for (tool, arguments) in [
        ("lock_change", json!({ "id": id, "fence": fence, "mode": "read" })),
        ("lock_renew", json!({ "id": id, "fence": fence })),
        ("lock_release", json!({ "id": id, "fence": fence })),
    ] {
        let (code, message) = bench.refused(OTHER, tool, arguments).await;
        assert_eq!(code, "stale_token", "{tool}");
        assert!(message.ends_with("it is a lock of review/coder-1#1, not of review/coder-2#1"), "{message}");
    }
    let back = json!({ "swarm": "review", "id": id, "fence": fence });
    assert_eq!(bench.call(&operator(), "lock_release", back).await.unwrap()["released"], true);
    bench.lock(OTHER, "write", "a").await;
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_waited_for_and_the_youngest_of_a_circle_is_refused() {
    let bench = Bench::new();
    let (a, fence) = bench.lock(ME, "write", "a").await;
    bench.lock(OTHER, "exclusive", "b").await;
    let waits =
        bench.ok(OTHER, "lock_acquire", json!({ "resources": ["a", "c"], "wait_ms": 60_000, "note": "for a test" }));
    let circle = async {
        until_waiting(&bench, 1).await;
        let listed = bench.ok(ME, "lock_list", json!({ "held": false })).await;
        let (code, message) = bench.refused(ME, "lock_acquire", json!({ "resources": ["b"], "wait_ms": 60_000 })).await;
        assert_eq!(code, "deadlock");
        assert!(message.ends_with("this is the youngest attempt"), "{message}");
        bench.ok(ME, "lock_release", json!({ "id": a, "fence": fence })).await;
        listed
    };
    let (given, listed) = tokio::join!(waits, circle);
    assert_eq!((&given["resources"], &given["note"]), (&json!(["a", "c"]), &json!("for a test")));
    let waited = &listed["locks"][0];
    assert_eq!((&waited["wants"], &waited["fence"]), (&json!("write"), &Value::Null));
    assert_eq!(waited["behind"], json!([{ "holder": { "agent": ME, "incarnation": 1 }, "lock": a, "waits": false }]));
}

#[tokio::test]
async fn the_locks_of_the_dead_go_at_once_and_lists_go_on_where_they_have_stopped() {
    let bench = Bench::new();
    for n in 0..5 {
        bench.lock(ME, "write", &format!("f{n}")).await;
    }
    let first = bench.ok(OTHER, "lock_list", json!({ "limit": 3 })).await;
    let second = bench.ok(OTHER, "lock_list", json!({ "limit": 3, "after": first["next"] })).await;
    assert_eq!((first["locks"].as_array().unwrap().len(), second["locks"].as_array().unwrap().len()), (3, 2));
    assert_eq!(second["next"], Value::Null);
    bench.dies(ME, 1);
    bench.lock(OTHER, "write", "f0").await;
    assert_eq!(bench.ok(OTHER, "lock_list", json!({})).await["locks"].as_array().unwrap().len(), 1);
}
