//! What a swarm's container keeps in, looked at from inside, in an image with nothing and in one with a shell.

use std::time::SystemTime;

use hivekeeper::runtime::docker::engine::{
    ContainerPlan, Happening, Incident, LAUNCHER_DIR, MountPlan, Network, RUN_DIR,
};

use super::harness::{DEBIAN, Hive, SCRATCH, hive, open_dir, order, probe, read, within};

const EACCES: &str = "13\n";
const EROFS: &str = "30\n";

async fn started(hive: &Hive, plan: &ContainerPlan) -> String {
    let made = hive.engine.create_swarm_container(plan).await.unwrap();
    assert!(made.warnings.iter().all(|warning| warning.contains("swap")), "{:?}", made.warnings);
    made.id
}

#[tokio::test]
async fn rights_are_gone() {
    let Some(hive) = hive().await else { return };
    for (name, image) in [("rights-scratch", SCRATCH), ("rights-debian", DEBIAN)] {
        let id = hive.container(name, image).await;
        let status = hive.says(&id, &["status"]).await;
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), 0, "{set} in {image}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2");
        assert_eq!(field("Uid:"), "10001\t10001\t10001\t10001");
        assert_eq!(field("Gid:"), "10001\t10001\t10001\t10001");
        let limits = hive.says(&id, &["limits"]).await;
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    }
}

#[tokio::test]
async fn what_is_given_back_is_given_back_and_no_more() {
    let Some(hive) = hive().await else { return };
    let mut plan = hive.plan("cap-add", SCRATCH).await;
    plan.cap_add = vec!["NET_RAW".to_owned()];
    let id = started(&hive, &plan).await;
    let status = hive.says(&id, &["status"]).await;
    let bound = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(bound, 16).unwrap(), 1 << 13);
}

#[tokio::test]
async fn only_memory_can_be_written_to() {
    let Some(hive) = hive().await else { return };
    for (name, image) in [("files-scratch", SCRATCH), ("files-debian", DEBIAN)] {
        let id = hive.container(name, image).await;
        assert_eq!(hive.says(&id, &["write", "/x"]).await, EROFS);
        assert_eq!(hive.says(&id, &["write", &format!("{LAUNCHER_DIR}/hivekeeper")]).await, EROFS);
        assert_eq!(hive.says(&id, &["write", &format!("{LAUNCHER_DIR}/more")]).await, EROFS);
        assert_eq!(hive.says(&id, &["write", "/tmp/x"]).await, "written\n");
        assert_eq!(hive.says(&id, &["write", &format!("{RUN_DIR}/x")]).await, "written\n");
        assert_eq!(hive.says(&id, &["run", "/tmp/x"]).await, EACCES);
        let mounts = hive.says(&id, &["mounts"]).await;
        let options = |target: &str| {
            mounts
                .lines()
                .find(|line| line.split(' ').nth(4) == Some(target))
                .unwrap_or_else(|| panic!("{target}: {mounts}"))
        };
        for target in ["/tmp", RUN_DIR] {
            for option in ["noexec", "nosuid", "nodev"] {
                assert!(options(target).contains(option), "{}", options(target));
            }
        }
        assert!(options(RUN_DIR).contains("size=4096k"), "{}", options(RUN_DIR));
        assert!(options(LAUNCHER_DIR).split(' ').nth(5).unwrap().starts_with("ro"), "{}", options(LAUNCHER_DIR));
    }
}

#[tokio::test]
async fn a_writable_root_is_writable_for_its_owner_only() {
    let Some(hive) = hive().await else { return };
    let mut plan = hive.plan("writable", SCRATCH).await;
    plan.read_only_root = false;
    let id = started(&hive, &plan).await;
    assert_eq!(hive.says(&id, &["write", "/x"]).await, EACCES);
    assert_eq!(hive.says(&id, &["write", &format!("{LAUNCHER_DIR}/more")]).await, EROFS);
}

#[tokio::test]
async fn mounts_are_as_told() {
    let Some(hive) = hive().await else { return };
    let (open, closed) = (open_dir(), open_dir());
    let mount = |dir: &tempfile::TempDir, target: &str, read_only| MountPlan {
        source: dir.path().to_owned(),
        target: target.into(),
        read_only,
    };
    let mut plan = hive.plan("mounts", SCRATCH).await;
    plan.mounts = vec![mount(&open, "/workspace", false), mount(&closed, "/reference", true)];
    let id = started(&hive, &plan).await;
    assert_eq!(hive.says(&id, &["write", "/workspace/x"]).await, "written\n");
    assert_eq!(std::fs::read(open.path().join("x")).unwrap(), b"x");
    assert_eq!(hive.says(&id, &["write", "/reference/x"]).await, EROFS);
    assert!(!closed.path().join("x").exists());
}

#[tokio::test]
async fn without_a_network_there_is_its_own_loopback_and_nothing_else() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("alone", SCRATCH).await;
    assert_eq!(interfaces(&hive, &id).await, ["lo"]);
}

#[tokio::test]
async fn a_swarm_network_is_made_once_joined_and_removed() {
    let Some(hive) = hive().await else { return };
    let mut plan = hive.plan("networked", SCRATCH).await;
    let (one, two) = tokio::join!(hive.engine.ensure_network(&plan.swarm), hive.engine.ensure_network(&plan.swarm));
    let network = one.unwrap();
    assert_eq!(
        (two.unwrap(), hive.engine.ensure_network(&plan.swarm).await.unwrap()),
        (network.clone(), network.clone())
    );
    let ours = hive.engine.list_our_networks().await.unwrap();
    assert_eq!(ours.len(), 1, "{ours:?}");
    assert_eq!((&ours[0].name, ours[0].swarm.as_ref()), (&network, Some(&plan.swarm)));
    plan.network = Network::Named(network);
    let id = started(&hive, &plan).await;
    assert_eq!(interfaces(&hive, &id).await, ["eth0", "lo"]);
    assert!(hive.engine.remove_network(&plan.swarm).await.is_err(), "a network in use");
    hive.engine.remove(&id).await.unwrap();
    hive.engine.remove_network(&plan.swarm).await.unwrap();
    hive.engine.remove_network(&plan.swarm).await.unwrap();
    assert!(hive.engine.list_our_networks().await.unwrap().is_empty());
}

async fn interfaces(hive: &Hive, id: &str) -> Vec<String> {
    let text = hive.says(id, &["interfaces"]).await;
    // Tunnels that this kernel puts into every network namespace, not connected to anything.
    let idle = ["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"];
    let mut names: Vec<String> =
        text.lines().skip(2).map(|line| line.split_once(':').unwrap().0.trim().to_owned()).collect();
    names.retain(|name| !idle.contains(&name.as_str()));
    names.sort();
    names
}

#[tokio::test]
async fn the_process_limit_bites() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("forks", SCRATCH).await;
    let started: u32 = hive.says(&id, &["fork", "64"]).await.trim().parse().unwrap();
    // 32 less the init, the command that holds the container and the one that forks.
    assert!((20..32).contains(&started), "{started}");
}

#[tokio::test]
async fn the_memory_limit_kills_and_is_told_as_such() {
    let Some(hive) = hive().await else { return };
    let plan = hive.plan("hungry", SCRATCH).await;
    let mut events = hive.engine.events(SystemTime::now());
    let id = started(&hive, &plan).await;
    let exec = hive.engine.exec(&id, &order(&probe(&["eat", "128"]))).await.unwrap();
    let (said, _) = read(exec).await;
    assert_eq!(said, "eating\n", "it ended before it had eaten");
    within("the engine's word", async {
        loop {
            match events.next().await.unwrap() {
                Happening::Container(event) if event.id == id && event.incident == Incident::OutOfMemory => break,
                Happening::Container(_) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    assert!(hive.engine.inspect(&id).await.unwrap().running, "its container lives on");
}
