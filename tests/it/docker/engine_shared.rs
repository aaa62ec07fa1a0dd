//! The volume that brings the launcher into any image.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc, time::Duration};

use hivekeeper::{
    model::HiveId,
    runtime::docker::engine::{CreateError, Engine, LAUNCHER_PATH, LauncherVolume, Owner, VolumeError},
};

use super::harness::{DEBIAN, SCRATCH, hive, order, probe_file, read, within};

async fn another_hive() -> Engine {
    let host = std::env::var("DOCKER_HOST").ok();
    let owner = Owner { hive_id: HiveId::mint(), hive: "other".to_owned() };
    Engine::connect(host.as_deref(), owner).await.unwrap()
}

/// The real executable runs as the launcher where there is no libc, no shell and nothing to write to.
#[tokio::test]
async fn our_executable_runs_in_an_empty_image() {
    let Some(hive) = hive().await else { return };
    let exe = Arc::new(File::open(env!("CARGO_BIN_EXE_hivekeeper")).unwrap());
    let launcher = hive.engine.ensure_launcher_volume(SCRATCH, &exe, &hive.digest()).await.unwrap();
    let mut plan = hive.plan("real", SCRATCH).await;
    plan.launcher = launcher;
    plan.entrypoint = vec!["/probe".to_owned(), "sleep".to_owned()];
    let id = hive.engine.create_swarm_container(&plan).await.unwrap().id;
    let exec = hive.engine.exec(&id, &order(&[LAUNCHER_PATH.to_owned(), "--help".to_owned()])).await.unwrap();
    let (out, err) = read(exec).await;
    assert!(out.contains("hivekeeper"), "{out:?} {err:?}");
}

#[tokio::test]
async fn two_daemons_fill_one_volume_at_the_same_time() {
    let Some(hive) = hive().await else { return };
    let other = another_hive().await;
    let digest = hive.digest();
    let probe = probe_file();
    let (one, two, again) = tokio::join!(
        hive.engine.ensure_launcher_volume(SCRATCH, &probe, &digest),
        other.ensure_launcher_volume(DEBIAN, &probe, &digest),
        hive.engine.ensure_launcher_volume(SCRATCH, &probe, &digest),
    );
    let volume = one.unwrap();
    assert_eq!((&volume, &volume), (&two.unwrap(), &again.unwrap()));
    assert!(volume.name().starts_with("hivekeeper-launcher-"));
    assert!(other.list_ours().await.unwrap().is_empty(), "the filling container stayed");
    let mut plan = hive.plan("filled-once", SCRATCH).await;
    plan.launcher = volume;
    let id = hive.engine.create_swarm_container(&plan).await.unwrap().id;
    assert_eq!(hive.says(&id, &["list", "/.hivekeeper"]).await, "[\"complete\", \"hivekeeper\"]\n");
}

/// The name of the container through which it is filled is the lock.
#[tokio::test]
async fn one_daemon_waits_for_another_that_fills() {
    let (Some(hive), Some(other)) = (hive().await, super::harness::hive().await) else { return };
    let digest = hive.digest();
    let mut plan = other.plan("holder", SCRATCH).await;
    plan.name = format!("{}-fill", LauncherVolume::of(&digest).unwrap().name());
    other.engine.create_swarm_container(&plan).await.unwrap();
    let probe = probe_file();
    let filling = hive.engine.ensure_launcher_volume(SCRATCH, &probe, &digest);
    tokio::pin!(filling);
    // Ten times what a filling takes; too short a wait on a slow machine could only make this pass.
    assert!(tokio::time::timeout(Duration::from_secs(1), filling.as_mut()).await.is_err(), "it did not wait");
    other.engine.remove(&plan.name).await.unwrap();
    within("its turn", filling).await.unwrap();
}

/// What a daemon of this hive left behind when it died holds nobody up.
#[tokio::test]
async fn an_earlier_daemon_of_the_same_hive_is_not_waited_for() {
    let Some(hive) = hive().await else { return };
    let mut plan = hive.plan("holder", SCRATCH).await;
    let digest = hive.digest();
    plan.name = format!("{}-fill", LauncherVolume::of(&digest).unwrap().name());
    hive.engine.create_swarm_container(&plan).await.unwrap();
    let probe = probe_file();
    within("the volume", hive.engine.ensure_launcher_volume(SCRATCH, &probe, &digest)).await.unwrap();
    assert!(hive.engine.list_ours().await.unwrap().is_empty());
}

/// An executable that can't be read to its end leaves a volume that nobody takes for whole, and that the next one fills.
#[tokio::test]
async fn a_filling_that_broke_off_is_not_taken_for_whole() {
    let Some(hive) = hive().await else { return };
    let whole = probe_file();
    let mut start = vec![0; 100_000];
    whole.read_exact_at(&mut start, 0).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("half");
    std::fs::write(&path, &start).unwrap();
    // Opened for writing only, so that it has a length and can't be read.
    let unreadable = Arc::new(File::options().append(true).open(&path).unwrap());
    let digest = hive.digest();
    let error = hive.engine.ensure_launcher_volume(SCRATCH, &unreadable, &digest).await.err().unwrap();
    assert!(matches!(error, VolumeError::Read(_)), "{error:?}");
    assert!(hive.engine.list_ours().await.unwrap().is_empty());
    let mut plan = hive.plan("half-filled", SCRATCH).await;
    plan.launcher = LauncherVolume::of(&digest).unwrap();
    let error = hive.engine.create_swarm_container(&plan).await.err().unwrap();
    assert!(matches!(error, CreateError::LauncherMissing(_)), "{error:?}");
    assert!(hive.engine.list_ours().await.unwrap().is_empty());
    hive.engine.ensure_launcher_volume(SCRATCH, &whole, &digest).await.unwrap();
    hive.engine.create_swarm_container(&plan).await.unwrap();
}

/// Somebody removed the volume, and the engine made an empty one in its place when the container was made.
#[tokio::test]
async fn a_volume_that_went_away_is_noticed_and_filled_again() {
    let Some(hive) = hive().await else { return };
    let digest = hive.digest();
    hive.engine.ensure_launcher_volume(SCRATCH, &probe_file(), &digest).await.unwrap();
    let plan = hive.plan("went-away", SCRATCH).await;
    hive.engine.remove_launcher_volume(&plan.launcher).await.unwrap();
    hive.engine.remove_launcher_volume(&plan.launcher).await.unwrap();
    let error = hive.engine.create_swarm_container(&plan).await.err().unwrap();
    assert!(matches!(error, CreateError::LauncherMissing(_)), "{error:?}");
    let refilled = hive.engine.ensure_launcher_volume(SCRATCH, &probe_file(), &digest).await.unwrap();
    assert_eq!(refilled, plan.launcher);
    let id = hive.engine.create_swarm_container(&plan).await.unwrap().id;
    assert_eq!(hive.says(&id, &["echo", "back"]).await, "back\n");
    assert!(hive.engine.remove_launcher_volume(&plan.launcher).await.is_err(), "a volume in use");
}

#[tokio::test]
async fn what_can_not_work_is_refused() {
    let Some(hive) = hive().await else { return };
    let probe = probe_file();
    let bad = hive.engine.ensure_launcher_volume(SCRATCH, &probe, "abc").await.err().unwrap();
    assert!(matches!(bad, VolumeError::Digest(_)), "{bad:?}");
    let digest = hive.digest();
    let missing = hive.engine.ensure_launcher_volume("hivekeeper-test:no-such-image", &probe, &digest).await;
    assert!(matches!(missing, Err(VolumeError::ImageMissing(_))), "{missing:?}");
}
