//! Commands in containers.

use hivekeeper::runtime::docker::engine::{ExecEnd, ExecError, ExecOrder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::{DEBIAN, SCRATCH, hive, order, probe, read, within};

#[tokio::test]
async fn stdout_stderr_and_code_come_back() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("exec", SCRATCH).await;
    let exec = hive.engine.exec(&id, &order(&probe(&["both", "to out", "to err"]))).await.unwrap();
    let exec_id = exec.id.clone();
    assert_eq!(read(exec).await, ("to out".to_owned(), "to err".to_owned()));
    let ended = async |id| {
        within("the code", async {
            loop {
                let end = hive.engine.exec_end(id).await.unwrap();
                if !end.running {
                    break end;
                }
            }
        })
        .await
    };
    assert_eq!(ended(&exec_id).await, ExecEnd { running: false, code: Some(0) });
    let exec = hive.engine.exec(&id, &order(&probe(&["exit", "7"]))).await.unwrap();
    let exec_id = exec.id.clone();
    read(exec).await;
    assert_eq!(ended(&exec_id).await.code, Some(7));
}

#[tokio::test]
async fn shutdown_of_stdin_is_its_end_and_stdout_goes_on() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("half", SCRATCH).await;
    let mut exec = hive.engine.exec(&id, &order(&probe(&["cat"]))).await.unwrap();
    exec.stdin.write_all(b"first\n").await.unwrap();
    let mut first = [0; 6];
    within("an echo", exec.stdout.read_exact(&mut first)).await.unwrap();
    exec.stdin.write_all(b"last").await.unwrap();
    exec.stdin.shutdown().await.unwrap();
    assert_eq!(read(exec).await.0, "last");
}

#[tokio::test]
async fn dropping_all_halves_is_the_end_of_its_stdin() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("dropped", SCRATCH).await;
    let mut exec = hive.engine.exec(&id, &order(&probe(&["until-eof"]))).await.unwrap();
    let mut line = [0; 8];
    within("its first line", exec.stdout.read_exact(&mut line)).await.unwrap();
    let exec_id = exec.id.clone();
    assert!(hive.engine.exec_end(&exec_id).await.unwrap().running);
    drop(exec);
    within("its end", async {
        while hive.engine.exec_end(&exec_id).await.unwrap().running {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn environment_and_user_are_the_orders() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("as-told", SCRATCH).await;
    let order = |words: &[&str]| ExecOrder {
        argv: probe(words),
        env: [("COLOUR".to_owned(), "a=b c".to_owned())].into(),
        user: Some("20002:20003".to_owned()),
    };
    let exec = hive.engine.exec(&id, &order(&["env", "COLOUR"])).await.unwrap();
    assert_eq!(read(exec).await.0, "a=b c\n");
    let exec = hive.engine.exec(&id, &order(&["env", "FROM_IMAGE"])).await.unwrap();
    assert_eq!(read(exec).await.0, "yes\n");
    let exec = hive.engine.exec(&id, &order(&["status"])).await.unwrap();
    let status = read(exec).await.0;
    assert!(status.contains("Uid:\t20002\t") && status.contains("Gid:\t20003\t"), "{status}");
    assert_eq!(hive.says(&id, &["pwd"]).await, "/work\n");
}

#[tokio::test]
async fn a_container_that_is_not_there_or_does_not_run_is_told_apart() {
    let Some(hive) = hive().await else { return };
    let echo = order(&probe(&["echo", "x"]));
    let missing = hive.engine.exec("hivekeeper-test-no-such-container", &echo).await.err().unwrap();
    assert!(matches!(missing, ExecError::ContainerMissing), "{missing:?}");
    let bad = hive.engine.exec("../images", &echo).await.err().unwrap();
    assert!(matches!(bad, ExecError::Call(_)), "{bad:?}");
    assert!(matches!(hive.engine.exec_end(&"0".repeat(64)).await, Err(ExecError::ContainerMissing)));
}

/// The engine answers 101 and only then tries: the program's first bytes never come, what comes is a text for people, and the code is 126 or 127.
#[tokio::test]
async fn a_start_that_fails_shows_as_text_and_code() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("start-errors", DEBIAN).await;
    let good = ExecOrder { argv: vec!["/bin/true".to_owned()], ..Default::default() };
    let missing = ExecOrder { argv: vec!["/no/such/program".to_owned()], ..good.clone() };
    let not_executable = ExecOrder { argv: vec!["/etc/passwd".to_owned()], ..good.clone() };
    let bad_user = ExecOrder { user: Some("nobody-of-that-name".to_owned()), ..good.clone() };
    for (order, word) in
        [(missing, "no such file"), (not_executable, "permission denied"), (bad_user, "unable to find user")]
    {
        let exec = hive.engine.exec(&id, &order).await.unwrap();
        let exec_id = exec.id.clone();
        let (out, err) = read(exec).await;
        assert!((out.clone() + &err).contains(word), "{order:?}: {out:?} {err:?}");
        let end = hive.engine.exec_end(&exec_id).await.unwrap();
        assert!(matches!(end, ExecEnd { running: false, code: Some(126 | 127) }), "{order:?}: {end:?}");
    }
}

#[tokio::test]
async fn a_killed_container_ends_the_stream() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("killed-under", SCRATCH).await;
    let mut exec = hive.engine.exec(&id, &order(&probe(&["until-eof"]))).await.unwrap();
    let mut line = [0; 8];
    within("its first line", exec.stdout.read_exact(&mut line)).await.unwrap();
    hive.engine.kill(&id).await.unwrap();
    assert_eq!(read(exec).await.0, "");
}

#[tokio::test]
async fn a_flood_comes_whole_and_in_bounded_memory() {
    const MIB: usize = 64;
    let Some(hive) = hive().await else { return };
    let id = hive.container("flood", SCRATCH).await;
    let mut exec = hive.engine.exec(&id, &order(&probe(&["flood", &MIB.to_string()]))).await.unwrap();
    let mut total = 0;
    let mut bytes = vec![0; 65_536];
    loop {
        let read = within("more of the flood", exec.stdout.read(&mut bytes)).await.unwrap();
        if read == 0 {
            break;
        }
        assert!(bytes[..read].iter().all(|byte| *byte == b'x'));
        total += read;
    }
    assert_eq!(total, MIB << 20);
}

#[tokio::test]
async fn many_starts_at_once_all_come() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("crowd", SCRATCH).await;
    let echoes = (0..12).map(|n| {
        let (engine, id) = (hive.engine.clone(), id.clone());
        async move {
            let exec = engine.exec(&id, &order(&probe(&["echo", &n.to_string()]))).await.unwrap();
            assert_eq!(read(exec).await.0, format!("{n}\n"));
        }
    });
    futures_util::future::join_all(echoes).await;
}

/// A command that says nothing gives its turn up after a while, so that the next one can start.
#[tokio::test]
async fn a_silent_command_does_not_hold_up_the_next() {
    let Some(hive) = hive().await else { return };
    let id = hive.container("silent", SCRATCH).await;
    let mut silent = hive.engine.exec(&id, &order(&probe(&["sleep"]))).await.unwrap();
    let mut byte = [0];
    let next = hive.says(&id, &["echo", "next"]);
    tokio::select! {
        read = silent.stdout.read(&mut byte) => panic!("it said something: {read:?}"),
        next = within("the next one", next) => assert_eq!(next, "next\n"),
    }
}
