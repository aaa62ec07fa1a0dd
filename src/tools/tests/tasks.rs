//! Tools for tasks.

use super::*;

#[tokio::test]
async fn tasks_are_created_together_behind_each_other_and_behind_what_is_there() {
    let bench = Bench::new();
    let first = bench.create(json!([{ "title": "first" }])).await.remove(0);
    let made = bench
        .ok(ME, "task_create", json!({ "tasks": [{ "title": "last", "depends_on": [1, first] }, { "title": "middle", "depends_on": [first] }] }))
        .await;
    let (last, middle) = (&made["tasks"][0], &made["tasks"][1]);
    assert_eq!((&last["state"], &middle["state"]), (&json!("blocked"), &json!("blocked")));
    let shown = bench.ok(ME, "task_show", json!({ "id": last["id"] })).await;
    assert_eq!(shown["depends_on"], json!([middle["id"], first]));
    assert_eq!(shown["created_by"], json!({ "agent": ME, "incarnation": 1 }));
    let circle = json!({ "tasks": [{ "title": "a", "depends_on": [1] }, { "title": "b", "depends_on": [0] }] });
    let (code, message) = bench.refused(ME, "task_create", circle).await;
    assert_eq!(
        (code, message.as_str()),
        ("dependency_cycle", "the dependencies go in a circle: tasks[0] -> tasks[1] -> tasks[0]")
    );
    let nowhere = json!({ "tasks": [{ "title": "a", "depends_on": [NIL] }] });
    assert_eq!(bench.refused(ME, "task_create", nowhere).await.0, "unknown_task");
    let by_operator = json!({ "swarm": "review", "tasks": [{ "title": "of an operator" }] });
    let made = bench.call(&operator(), "task_create", by_operator).await.unwrap();
    let shown = bench.ok(ME, "task_show", json!({ "id": made["tasks"][0]["id"] })).await;
    assert_eq!(shown["created_by"], Value::Null);
}

#[tokio::test]
async fn the_same_call_under_the_same_key_creates_once() {
    let bench = Bench::new();
    let call = json!({ "tasks": [{ "title": "a", "payload": { "n": 1 } }], "key": "monday" });
    let once = bench.ok(ME, "task_create", call.clone()).await;
    assert_eq!(bench.ok(OTHER, "task_create", call).await, once);
    let other = json!({ "tasks": [{ "title": "b" }], "key": "monday" });
    assert_eq!(bench.refused(ME, "task_create", other).await.0, "key_reused");
}

#[tokio::test]
async fn what_is_created_is_claimed_worked_on_and_done_under_one_token() {
    let bench = Bench::new();
    let ids = bench.create(json!([{ "title": "a", "category": "docs" }, { "title": "b", "priority": "high", "payload": { "file": "b.rs" } }])).await;
    let claimed = bench.ok(ME, "task_claim", json!({})).await;
    let held = &claimed["tasks"][0];
    assert_eq!((text(&held["id"]), &held["payload"]), (ids[1].clone(), &json!({ "file": "b.rs" })));
    let fence = &held["claim"]["fence"];
    let under = json!({ "id": ids[1], "fence": fence });
    assert_eq!(bench.ok(ME, "task_renew", under.clone()).await["state"], "running");
    let told =
        bench.ok(ME, "task_progress", json!({ "id": ids[1], "fence": fence, "percent": 40, "note": "half" })).await;
    assert_eq!((&told["progress"]["percent"], &told["progress"]["note"]), (&json!(40), &json!("half")));
    let too_much = json!({ "id": ids[1], "fence": fence, "percent": 101 });
    assert_eq!(bench.refused(ME, "task_progress", too_much).await.1, "percent: found 101, allowed 0 to 100");
    let done = json!({ "id": ids[1], "fence": fence, "result": { "lines": 3 } });
    let answer = bench.ok(ME, "task_complete", done.clone()).await;
    assert_eq!(answer["state"], "done");
    assert_eq!(bench.ok(ME, "task_complete", done).await, answer, "said again it is the same");
    let shown = bench.ok(OTHER, "task_show", json!({ "id": ids[1] })).await;
    assert_eq!((&shown["result"], &shown["attempts"][0]["end"]), (&json!({ "lines": 3 }), &json!("completed")));
    assert_eq!(bench.refused(ME, "task_renew", under.clone()).await.0, "stale_token");
    assert_eq!(bench.ok(OTHER, "task_claim", json!({ "categories": ["code"] })).await, json!({ "tasks": [] }));
    let docs = bench.ok(OTHER, "task_claim", json!({ "categories": ["code", "docs"], "max": 5 })).await;
    assert_eq!(docs["tasks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn nobody_works_under_the_token_of_another() {
    let bench = Bench::new();
    let (id, fence) = bench.hold(ME).await;
    for tool in ["task_renew", "task_progress", "task_complete", "task_fail", "task_release"] {
        let mut arguments = json!({ "id": id, "fence": fence });
        if tool == "task_fail" {
            arguments["reason"] = json!("no");
        }
        let (code, message) = bench.refused(OTHER, tool, arguments).await;
        assert_eq!(code, "stale_token", "{tool}");
        assert!(
            message.ends_with("it is the token of a claim of review/coder-1#1, not of review/coder-2#1"),
            "{message}"
        );
    }
    bench.ok(ME, "task_complete", json!({ "id": id, "fence": fence })).await;
    assert_eq!(bench.refused(OTHER, "task_complete", json!({ "id": id, "fence": fence })).await.0, "stale_token");
    let (id, fence) = bench.hold(ME).await;
    let operator_gives_back = json!({ "swarm": "review", "id": id, "fence": fence });
    let freed = bench.call(&operator(), "task_release", operator_gives_back).await.unwrap();
    assert_eq!(freed["state"], "ready", "an operator can give back what a client has forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_is_tried_again_after_a_pause_and_then_holds_up_others() {
    let bench = Bench::new();
    let ids = bench
        .create(json!([{ "title": "a", "retries": 1, "backoff_ms": 5000 }, { "title": "b", "depends_on": [0] }, { "title": "c", "depends_on": [0], "on_dependency_failure": "continue" }]))
        .await;
    let fail = async |wait_ms: u64| {
        let claimed = bench.ok(ME, "task_claim", json!({ "wait_ms": wait_ms })).await;
        let held = &claimed["tasks"][0];
        let failed = json!({ "id": held["id"], "fence": held["claim"]["fence"], "reason": "no compiler" });
        let answer = bench.ok(ME, "task_fail", failed.clone()).await;
        assert_eq!(bench.ok(ME, "task_fail", failed).await, answer);
        answer
    };
    let first = fail(0).await;
    assert_eq!(
        (&first["state"], &first["failures"], &first["reasons"][0]["code"]),
        (&json!("blocked"), &json!(1), &json!("backing_off"))
    );
    let began = tokio::time::Instant::now();
    let second = fail(60_000).await;
    assert_eq!(began.elapsed().as_secs(), 5, "the pause is waited for");
    assert_eq!(
        (&second["state"], &second["reasons"][0]),
        (&json!("failed"), &json!({ "code": "attempt_failed", "detail": "no compiler" }))
    );
    let states = async || {
        bench.ok(ME, "task_list", json!({})).await["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|task| text(&task["state"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(states().await, ["failed", "blocked", "ready"]);
    assert_eq!(bench.ok(ME, "task_retry", json!({ "id": ids[0] })).await["state"], "ready");
    assert_eq!(states().await, ["ready", "blocked", "blocked"]);
    assert_eq!(bench.refused(ME, "task_retry", json!({ "id": ids[0] })).await.0, "wrong_state");
}

#[tokio::test]
async fn a_task_is_taken_given_back_put_behind_others_and_called_off() {
    let bench = Bench::new();
    let ids = bench.create(json!([{ "title": "a" }, { "title": "b" }])).await;
    let held = bench.ok(ME, "task_take", json!({ "id": ids[1], "lease_ms": 5000 })).await;
    assert_eq!(
        (&held["claim"]["lease_ms"], &held["claim"]["holder"]),
        (&json!(5000), &json!({ "agent": ME, "incarnation": 1 }))
    );
    let (code, message) = bench.refused(OTHER, "task_take", json!({ "id": ids[1] })).await;
    assert_eq!((code, scrubbed(&message).as_str()), ("wrong_state", "task id-1 is claimed; allowed are ready"));
    assert_eq!(
        bench.refused(OTHER, "task_depend", json!({ "id": ids[1], "depends_on": [ids[0]] })).await.0,
        "wrong_state"
    );
    let back = json!({ "id": ids[1], "fence": held["claim"]["fence"] });
    assert_eq!(bench.ok(ME, "task_release", back).await["state"], "ready");
    let behind = bench.ok(OTHER, "task_depend", json!({ "id": ids[1], "depends_on": [ids[0]] })).await;
    assert_eq!(behind["state"], "blocked");
    let circle = bench.refused(OTHER, "task_depend", json!({ "id": ids[0], "depends_on": [ids[1]] })).await;
    assert_eq!(
        (circle.0, scrubbed(&circle.1).as_str()),
        ("dependency_cycle", "the dependencies go in a circle: id-1 -> id-2 -> id-1")
    );
    let cancelled = bench.ok(OTHER, "task_cancel", json!({ "id": ids[0], "reason": "not needed" })).await;
    assert_eq!((&cancelled["state"], &cancelled["reasons"][0]["detail"]), (&json!("cancelled"), &json!("not needed")));
    assert_eq!(bench.ok(OTHER, "task_cancel", json!({ "id": ids[0] })).await, cancelled);
    let waits = bench.ok(ME, "task_show", json!({ "id": ids[1] })).await;
    assert_eq!(waits["reasons"][0]["code"], "dependency_cancelled");
}

#[tokio::test]
async fn lists_are_filtered_and_go_on_where_they_have_stopped() {
    let bench = Bench::new();
    let tasks: Vec<Value> = (0..7).map(|n| json!({ "title": format!("t{n}"), "category": if n % 2 == 0 { "even" } else { "odd" }, "group": if n < 4 { json!("early") } else { Value::Null } })).collect();
    let ids = bench.create(json!(tasks)).await;
    bench.ok(ME, "task_take", json!({ "id": ids[0] })).await;
    let titles = async |arguments: Value| {
        let page = bench.ok(ME, "task_list", arguments).await;
        let titles: Vec<String> = page["tasks"].as_array().unwrap().iter().map(|task| text(&task["title"])).collect();
        (titles.join(" "), page["next"].as_u64())
    };
    assert_eq!(titles(json!({})).await, ("t0 t1 t2 t3 t4 t5 t6".to_owned(), None));
    assert_eq!(titles(json!({ "category": "odd" })).await.0, "t1 t3 t5");
    assert_eq!(titles(json!({ "group": "early", "state": ["ready", "done"] })).await.0, "t1 t2 t3");
    assert_eq!(titles(json!({ "state": ["claimed"] })).await.0, "t0");
    let (first, next) = titles(json!({ "limit": 3 })).await;
    let (second, end) = titles(json!({ "limit": 4, "after": next })).await;
    assert_eq!((first.as_str(), second.as_str()), ("t0 t1 t2", "t3 t4 t5 t6"));
    assert_eq!(end, None);
    let brief = bench.ok(ME, "task_list", json!({ "limit": 1 })).await;
    assert!(brief["tasks"][0].get("payload").is_none());
    let full = bench.ok(ME, "task_list", json!({ "limit": 1, "full": true })).await;
    assert!(full["tasks"][0].get("payload").is_some() && full["tasks"][0].get("attempts").is_some());
}

#[tokio::test]
async fn an_answer_has_no_more_than_a_line_can_hold_and_nothing_is_left_out() {
    let bench = Bench::new();
    let payload = "x".repeat(60_000);
    let tasks: Vec<Value> = (0..20).map(|n| json!({ "title": format!("t{n}"), "payload": payload })).collect();
    bench.create(json!(tasks)).await;
    let (mut seen, mut after) = (0, 0);
    for _ in 0..10 {
        let page = bench.ok(ME, "task_list", json!({ "full": true, "after": after })).await;
        assert!(page.to_string().len() < 600_000);
        seen += page["tasks"].as_array().unwrap().len();
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(seen, 20);
    let claimed = bench.ok(ME, "task_claim", json!({ "max": 100 })).await;
    assert_eq!(claimed["tasks"].as_array().unwrap().len(), 8);
    let rest = bench.ok(ME, "task_list", json!({ "state": ["ready"] })).await;
    assert_eq!(rest["tasks"].as_array().unwrap().len(), 12, "what had no room is not claimed");
}

#[tokio::test]
async fn what_is_held_and_what_waits_for_what_fits_into_one_answer_too() {
    let bench = Bench::new();
    let title = "x".repeat(200);
    bench.create(json!(vec![json!({ "title": title }); 1000])).await;
    let whole = bench.ok(ME, "task_graph", json!({ "limit": 2000, "mermaid": true })).await;
    let nodes = whole["nodes"].as_array().unwrap().len();
    assert!(nodes > 500 && nodes < 1000 && whole["more"] == true, "{nodes}");
    assert!(whole.to_string().len() < 600_000);
    for _ in 0..5 {
        bench.ok(ME, "task_claim", json!({ "max": 100 })).await;
    }
    bench.dies(ME, 1);
    bench.begins(ME, 2);
    let again = Caller::Agent(testing::party(ME, 2));
    for _ in 0..5 {
        bench.call(&again, "task_claim", json!({ "max": 100 })).await.unwrap();
    }
    let held = bench.call(&again, "task_held", json!({})).await.unwrap();
    assert!(held["more"] == true && held.to_string().len() < 600_000);
    assert!(["tasks", "predecessor"].iter().all(|which| held[which].as_array().unwrap().len() > 100));
}

#[tokio::test]
async fn a_long_list_lets_others_have_their_turns() {
    let bench = Bench::new();
    for _ in 0..5 {
        let tasks: Vec<Value> = (0..1000)
            .map(|n| json!({ "title": format!("t{n}"), "category": if n == 999 { "last" } else { "other" } }))
            .collect();
        bench.create(json!(tasks)).await;
    }
    let listed = bench.ok(ME, "task_list", json!({ "category": "last" })).await;
    assert_eq!((listed["tasks"].as_array().unwrap().len(), &listed["next"]), (5, &Value::Null));
    let mut list = Box::pin(bench.ok(ME, "task_list", json!({ "category": "none" })));
    let mut turns = 0;
    let mut between = Box::pin(async {
        loop {
            bench.ok(OTHER, "task_held", json!({})).await;
            turns += 1;
        }
    });
    tokio::select! {
        biased;
        () = &mut between => unreachable!(),
        listed = &mut list => assert_eq!(listed["next"], Value::Null),
    }
    drop(between);
    assert!(turns >= 2, "{turns}");
}

#[tokio::test]
async fn a_successor_learns_what_its_predecessor_held_and_that_it_is_its_own_no_more() {
    let bench = Bench::new();
    let (kept, fence) = bench.hold(ME).await;
    let (lost, _) = bench.hold(ME).await;
    bench.lock(ME, "read", "src/").await;
    let held = bench.ok(ME, "task_held", json!({})).await;
    assert_eq!(held["more"], false);
    assert_eq!((held["tasks"].as_array().unwrap().len(), held["locks"].as_array().unwrap().len()), (2, 1));
    assert_eq!(held["predecessor"], json!([]));
    bench.ok(ME, "task_complete", json!({ "id": kept, "fence": fence })).await;
    bench.dies(ME, 1);
    bench.begins(ME, 2);
    let again = Caller::Agent(testing::party(ME, 2));
    let held = bench.call(&again, "task_held", json!({})).await.unwrap();
    assert_eq!((&held["tasks"], &held["locks"]), (&json!([]), &json!([])));
    let before = held["predecessor"].as_array().unwrap();
    assert_eq!(before.len(), 1);
    assert_eq!((text(&before[0]["task"]["id"]), &before[0]["still_yours"]), (lost.clone(), &json!(false)));
    assert_eq!(before[0]["task"]["state"], "ready");
    bench.ok(OTHER, "task_take", json!({ "id": lost })).await;
    let held = bench.call(&again, "task_held", json!({})).await.unwrap();
    assert_eq!(held["predecessor"][0]["task"]["claim"]["holder"]["agent"], OTHER);
}

#[tokio::test]
async fn the_graph_has_edges_between_what_it_shows_and_titles_that_can_not_break_it() {
    let bench = Bench::new();
    let ids = bench
        .create(json!([
            { "title": "say \"hi\"; <b>#1</b>", "group": "g" },
            { "title": "b", "depends_on": [0], "group": "g" },
            { "title": "c", "depends_on": [0, 1] }
        ]))
        .await;
    let graph = bench.ok(ME, "task_graph", json!({ "mermaid": true })).await;
    assert_eq!(
        document(&graph),
        document(&json!({
            "edges": [
                { "depends_on": ids[0], "task": ids[1] },
                { "depends_on": ids[0], "task": ids[2] },
                { "depends_on": ids[1], "task": ids[2] }
            ],
            "mermaid": concat!(
                "flowchart TD\n",
                "    t0[\"say #34;hi#34;#59; #60;b#62;#35;1#60;/b#62;\"]:::ready\n",
                "    t1[\"b\"]:::blocked\n",
                "    t2[\"c\"]:::blocked\n",
                "    t0 --> t1\n",
                "    t0 --> t2\n",
                "    t1 --> t2\n",
            ),
            "more": false,
            "nodes": [
                { "id": ids[0], "state": "ready", "stuck": false, "title": "say \"hi\"; <b>#1</b>", "unblocks": 2 },
                { "id": ids[1], "state": "blocked", "stuck": false, "title": "b", "unblocks": 1 },
                { "id": ids[2], "state": "blocked", "stuck": false, "title": "c", "unblocks": 0 }
            ]
        }))
    );
    bench.ok(ME, "task_cancel", json!({ "id": ids[0] })).await;
    let graph = bench.ok(ME, "task_graph", json!({ "group": "g", "state": ["blocked"] })).await;
    assert_eq!(
        (graph["nodes"].as_array().unwrap().len(), &graph["nodes"][0]["stuck"], &graph["edges"]),
        (1, &json!(true), &json!([]))
    );
    let cut = bench.ok(ME, "task_graph", json!({ "limit": 2 })).await;
    assert_eq!((cut["nodes"].as_array().unwrap().len(), &cut["more"]), (2, &json!(true)));
}
