//! Containers, images and events.

use std::time::SystemTime;

use hivekeeper::{
    model::HiveId,
    runtime::docker::engine::{
        ContainerError, CreateError, Engine, Happening, Incident, MountPlan, Network, Owner, PlanError, Until, label,
    },
};

use super::harness::{DEBIAN, SCRATCH, hive, order, probe, read, within};

#[tokio::test]
async fn a_container_is_made_listed_looked_at_and_removed() {
    let Some(hive) = hive().await else { return };
    hive.engine.ping().await.unwrap();
    let mut plan = hive.plan("whole-life", SCRATCH).await;
    plan.env.insert("LANG".to_owned(), "C.UTF-8".to_owned());
    plan.workdir = Some("/workspace".into());
    let before = SystemTime::now();
    let made = hive.engine.create_swarm_container(&plan).await.unwrap();
    let state = hive.engine.inspect(&plan.name).await.unwrap();
    assert_eq!((state.id.as_str(), state.name.as_str()), (made.id.as_str(), plan.name.as_str()));
    assert!(state.running && !state.paused && !state.oom_killed);
    assert_eq!((state.exit_code, state.working_dir.as_str(), state.user.as_str()), (None, "/workspace", "10001:10001"));
    assert!(state.started_at.is_some_and(|at| at > before));
    assert_eq!(state.env.get("LANG").map(String::as_str), Some("C.UTF-8"));
    assert_eq!(state.env.get("FROM_IMAGE").map(String::as_str), Some("yes"), "the image's environment stays");
    let labelled = |key| state.labels.get(key).map(String::as_str);
    assert_eq!(labelled(label::MANAGED_BY), Some(label::US));
    assert_eq!(labelled(label::HIVE), Some("test"));
    assert_eq!(labelled(label::SWARM), Some("whole-life"));
    assert_eq!(labelled(label::HIVE_ID), Some(hive.engine.owner().hive_id.to_string().as_str()));
    let listed = hive.engine.list_ours().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].running && listed[0].id == made.id && listed[0].swarm.as_ref() == Some(&plan.swarm));
    assert_eq!(listed[0].plan.as_deref(), labelled(label::PLAN));
    assert!(hive.engine.list_all_hives().await.unwrap().contains(&listed[0]));
    hive.engine.remove(&plan.name).await.unwrap();
    assert!(matches!(hive.engine.inspect(&made.id).await, Err(ContainerError::Missing)));
    hive.engine.remove(&plan.name).await.unwrap();
    assert!(hive.engine.list_ours().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_killed_container_tells_its_code_and_goes_by_itself() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("killed", SCRATCH).await;
    let (stopped, removed) = (hive.engine.wait(&id, Until::Stopped), hive.engine.wait(&id, Until::Removed));
    let kill = async {
        hive.engine.kill(&id).await.unwrap();
    };
    let (stopped, removed, ()) = within("the end of it", async { tokio::join!(stopped, removed, kill) }).await;
    assert_eq!(stopped.unwrap(), 137);
    assert!(matches!(removed, Ok(137) | Err(ContainerError::Missing)), "{removed:?}");
    within("its removal", async {
        while !matches!(hive.engine.inspect(&id).await, Err(ContainerError::Missing)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(matches!(hive.engine.kill(&id).await, Err(ContainerError::Missing)));
}

#[tokio::test]
async fn remove_after_kill_waits_for_the_engine_that_is_at_it() {
    let Some(hive) = hive().await else { return };
    for round in 0..5 {
        let plan = hive.plan("killed-removed", SCRATCH).await;
        hive.engine.create_swarm_container(&plan).await.unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        hive.engine.kill(&plan.name).await.unwrap();
        // The name is free again, so the next round can use it.
        hive.engine.remove(&plan.name).await.unwrap();
    }
}

#[tokio::test]
async fn pause_freezes_and_unpause_goes_on() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("paused", SCRATCH).await;
    hive.engine.pause(&id).await.unwrap();
    assert!(hive.engine.inspect(&id).await.unwrap().paused);
    assert!(hive.engine.list_ours().await.unwrap()[0].paused);
    assert!(matches!(hive.engine.pause(&id).await, Err(ContainerError::WrongState(_))));
    let refused = hive.engine.exec(&id, &order(&probe(&["echo", "x"]))).await.err().unwrap();
    assert!(matches!(refused, hivekeeper::runtime::docker::engine::ExecError::NotRunning(_)), "{refused:?}");
    hive.engine.unpause(&id).await.unwrap();
    assert!(!hive.engine.inspect(&id).await.unwrap().paused);
    assert_eq!(hive.says(&id, &["echo", "again"]).await, "again\n");
}

#[tokio::test]
async fn each_reason_not_to_start_has_its_name_and_leaves_nothing() {
    let Some(hive) = hive().await else { return };
    let good = hive.plan("reasons", SCRATCH).await;
    let fails = async |plan| hive.engine.create_swarm_container(&plan).await.err().unwrap();

    let mut plan = good.clone();
    plan.image = "hivekeeper-test:no-such-image".to_owned();
    let error = fails(plan).await;
    assert!(matches!(error, CreateError::ImageMissing(_)), "{error:?}");

    let mut plan = good.clone();
    plan.network = Network::Named("no-such-network".to_owned());
    let error = fails(plan).await;
    assert!(matches!(&error, CreateError::NotStarted(_)), "{error:?}");

    let mut plan = good.clone();
    let source = "/no/such/source".into();
    plan.mounts = vec![MountPlan { source, target: "/x".into(), read_only: true }];
    let error = fails(plan).await;
    assert!(matches!(&error, CreateError::Call(_)), "{error:?}");

    let mut plan = good.clone();
    plan.mounts = vec![MountPlan { source: "/run".into(), target: "/x".into(), read_only: true }];
    let error = fails(plan).await;
    assert!(matches!(&error, CreateError::Plan(PlanError::EngineSocket(_))), "{error:?}");
    assert!(hive.engine.list_ours().await.unwrap().is_empty());

    hive.engine.create_swarm_container(&good).await.unwrap();
    let error = fails(good).await;
    assert!(matches!(error, CreateError::NameTaken(_)), "{error:?}");
    assert_eq!(hive.engine.list_ours().await.unwrap().len(), 1);
}

/// The engine's init is there, so the start succeeds; the container's end tells.
#[tokio::test]
async fn an_entrypoint_that_is_missing_shows_as_the_containers_end() {
    let Some(hive) = hive().await else { return };
    let mut plan = hive.plan("no-entrypoint", SCRATCH).await;
    plan.entrypoint = vec!["/no/such/program".to_owned()];
    let mut events = hive.engine.events(SystemTime::now());
    let id = hive.engine.create_swarm_container(&plan).await.unwrap().id;
    within("its end", async {
        loop {
            match events.next().await.unwrap() {
                Happening::Container(event) if event.id == id && event.incident == Incident::Started => {}
                Happening::Container(event) if event.id == id => {
                    assert_eq!(event.incident, Incident::Died { code: Some(127) });
                    break;
                }
                Happening::Container(_) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_engine_socket_behind_a_link_is_found() {
    let Some(hive) = hive().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("innocent");
    std::os::unix::fs::symlink("/run", &link).unwrap();
    let mut plan = hive.plan("linked", SCRATCH).await;
    plan.mounts = vec![MountPlan { source: link, target: "/x".into(), read_only: true }];
    let error = hive.engine.create_swarm_container(&plan).await.err().unwrap();
    assert!(matches!(error, CreateError::Plan(PlanError::EngineSocket(_))), "{error:?}");
}

#[tokio::test]
async fn no_end_is_put_to_what_is_not_ours() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("foreign", SCRATCH).await;
    // The same hive's name under another id.
    let owner = Owner { hive_id: HiveId::mint(), hive: "test".to_owned() };
    let host = std::env::var("DOCKER_HOST").ok();
    let other = Engine::connect(host.as_deref(), owner).await.unwrap();
    assert!(matches!(other.kill(&id).await, Err(ContainerError::NotOurs)));
    assert!(matches!(other.remove(&id).await, Err(ContainerError::NotOurs)));
    assert!(matches!(other.pause(&id).await, Err(ContainerError::NotOurs)));
    assert!(other.list_ours().await.unwrap().is_empty());
    let seen = other.list_all_hives().await.unwrap();
    assert!(seen.iter().any(|found| found.id == id && found.hive.as_deref() == Some("test")));
    // A command may be started in it: sidecars are not ours.
    let exec = other.exec(&id, &order(&probe(&["echo", "hello"]))).await.unwrap();
    assert_eq!(read(exec).await.0, "hello\n");
    assert!(hive.engine.inspect(&id).await.unwrap().running);
}

#[tokio::test]
async fn the_plan_hash_follows_the_document_and_nothing_else() {
    let Some(hive) = hive().await else { return };
    let hash = async |plan: &_| {
        let made = hive.engine.create_swarm_container(plan).await.unwrap();
        let state = hive.engine.inspect(&made.id).await.unwrap();
        hive.engine.remove(&made.id).await.unwrap();
        state.labels.get(label::PLAN).unwrap().clone()
    };
    let plan = hive.plan("hashed", SCRATCH).await;
    let first = hash(&plan).await;
    assert_eq!(hash(&plan).await, first);
    let mut longer = plan.clone();
    longer.entrypoint.push("x".to_owned());
    longer.entrypoint.pop();
    assert_eq!(hash(&longer).await, first);
    let mut changed = plan.clone();
    changed.limits.pids = Some(33);
    assert_ne!(hash(&changed).await, first);
}

#[tokio::test]
async fn an_image_says_how_it_is_run() {
    let Some(hive) = hive().await else { return };
    let image = hive.engine.image(SCRATCH).await.unwrap().unwrap();
    assert!(image.id.starts_with("sha256:"));
    assert_eq!((image.user.as_str(), image.working_dir.as_str()), ("", "/work"));
    assert_eq!(image.env.get("FROM_IMAGE").map(String::as_str), Some("yes"));
    assert_eq!(hive.engine.image("hivekeeper-test:no-such-image").await.unwrap(), None);
    assert!(hive.engine.image("../containers/json?all=1").await.is_err());
    assert!(hive.engine.image(DEBIAN).await.unwrap().is_some());
}

#[tokio::test]
async fn events_tell_a_containers_life() {
    let Some(hive) = hive().await else { return };
    let plan = hive.plan("eventful", SCRATCH).await;
    let mut events = hive.engine.events(SystemTime::now());
    let id = hive.engine.create_swarm_container(&plan).await.unwrap().id;
    let exec = hive.engine.exec(&id, &order(&probe(&["exit", "3"]))).await.unwrap();
    let exec_id = exec.id.clone();
    read(exec).await;
    hive.engine.pause(&id).await.unwrap();
    hive.engine.unpause(&id).await.unwrap();
    hive.engine.kill(&id).await.unwrap();
    let mut seen = Vec::new();
    within("its destruction", async {
        while seen.last() != Some(&Incident::Destroyed) {
            match events.next().await.unwrap() {
                Happening::Container(event) if event.id == id => {
                    assert_eq!(event.hive_id, Some(hive.engine.owner().hive_id));
                    assert_eq!((event.name, event.swarm.as_ref()), (plan.name.clone(), Some(&plan.swarm)));
                    seen.push(event.incident);
                }
                // Other tests use the same engine.
                Happening::Container(_) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    let expected = [
        Incident::Started,
        Incident::ExecDied { exec: exec_id, code: Some(3) },
        Incident::Paused,
        Incident::Unpaused,
        Incident::Died { code: Some(137) },
        Incident::Destroyed,
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn events_since_a_time_close_the_gap_before_listening() {
    let Some(hive) = hive().await else { return };
    let since = SystemTime::now();
    let id = hive.container("gap", SCRATCH).await;
    // What it was started with is past by now.
    let mut events = hive.engine.events(since);
    let started = within("its start", async {
        loop {
            match events.next().await.unwrap() {
                Happening::Container(event) if event.id == id => break event,
                Happening::Container(_) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(started.await.incident, Incident::Started);
}
