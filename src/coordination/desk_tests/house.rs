//! What the desk is told of the house: falls, deaths, pauses, removals and the end.

use super::*;

#[tokio::test]
async fn a_clerk_who_falls_comes_back_with_what_is_written_down() {
    let mut office = Office::open();
    let id = office.create(&["a"]).await[0];
    let claimed = office.claim("x").await.unwrap();
    office.desk.lock(ask("x", "a", WAIT)).await.unwrap();
    let waits = tokio::spawn({
        let desk = office.desk.clone();
        async move { desk.lock(ask("y", "a", WAIT)).await }
    });
    until_waiting(&office, 1).await;
    let fell = office.desk.call(|_, _| -> Result<(), Refused> { panic!("a rule is broken") }).await;
    assert_eq!(fell, Err(WorkError::Unavailable(StoreError::Busy)), "it may have been done");
    assert!((&mut office.clerk).await.unwrap_err().is_panic());
    // Nobody works now: what is asked for waits.
    let asked = tokio::spawn({
        let desk = office.desk.clone();
        async move { desk.call(move |cores, _| cores.board.get(&swarm(), id)).await }
    });
    office.clerk = tokio::spawn(office.successor.clone().run());
    assert_eq!(fence(&asked.await.unwrap().unwrap()), fence(&claimed));
    assert_eq!(waits.await.unwrap(), Err(WorkError::Unavailable(StoreError::Busy)));
    assert_eq!(locks(&office).await, (1, 0));
    assert!(office.complete(id, fence(&claimed)).await.is_ok());
}

#[tokio::test]
async fn who_has_died_while_nobody_looked_holds_nothing() {
    let office = Office::open();
    let ids = office.create(&["a", "b"]).await;
    office.claim("x").await.unwrap();
    office.claim("y").await.unwrap();
    let office = office.reopen_without(vec![party("x")]).await;
    let until = tokio::time::Instant::now() + WAIT;
    while office.desk.holders() != [party("y")] {
        assert!(tokio::time::Instant::now() < until, "{:?}", office.desk.holders());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(office.state(ids[0]).await, TaskState::Ready);
    assert_eq!((office.state(ids[1]).await, office.desk.holders()), (TaskState::Claimed, vec![party("y")]));
}

#[tokio::test(start_paused = true)]
async fn who_is_paused_keeps_what_he_has_whatever_is_read_anew_meanwhile() {
    let office = Office::in_memory();
    let ids = office.create(&["a", "b"]).await;
    office.claim("x").await.unwrap();
    office.desk.fate(&party("x"), Fate::Paused);
    // On its way when he was paused.
    office.desk.fate(&party("y"), Fate::Paused);
    office.claim("y").await.unwrap();
    *office.store.fails.lock() = Some(StoreError::Full);
    assert!(
        office
            .desk
            .call(|cores, now| cores.board.create(&mut cores.counter, &swarm(), None, vec![task("c")], None, now))
            .await
            .is_err()
    );
    *office.store.fails.lock() = None;
    tokio::time::sleep(LEASE * 3).await;
    assert_eq!((office.state(ids[0]).await, office.state(ids[1]).await), (TaskState::Claimed, TaskState::Claimed));
    office.desk.fate(&party("x"), Fate::Resumed);
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!((office.state(ids[0]).await, office.state(ids[1]).await), (TaskState::Ready, TaskState::Claimed));
}

#[tokio::test]
async fn nothing_is_kept_of_a_swarm_that_is_gone() {
    let office = Office::open();
    let id = office.create(&["a"]).await[0];
    office.claim("x").await.unwrap();
    office.desk.lock(ask("x", "a", WAIT)).await.unwrap();
    let gone = |office: &Office| {
        let desk = office.desk.clone();
        async move {
            matches!(
                desk.call(move |cores, _| cores.board.get(&swarm(), id)).await,
                Err(WorkError::Refused(Refused::UnknownTask(_)))
            )
        }
    };
    office.desk.know_swarms([swarm()]);
    assert!(!gone(&office).await);
    office.desk.forget_swarm(&swarm());
    assert!(gone(&office).await);
    assert_eq!(locks(&office).await, (0, 0));
    let again = office.create(&["b"]).await[0];
    // The daemon that was to remove it died over that.
    let office = office.reopen().await;
    assert_eq!(office.state(again).await, TaskState::Ready);
    office.desk.know_swarms(["another".parse().unwrap()]);
    assert!(matches!(
        office.desk.call(move |cores, _| cores.board.get(&swarm(), again)).await,
        Err(WorkError::Refused(_))
    ));
}

#[tokio::test]
async fn whoever_waits_is_told_that_the_daemon_ends() {
    let office = Office::open();
    office.desk.lock(ask("x", "a", WAIT)).await.unwrap();
    let waits = tokio::spawn({
        let desk = office.desk.clone();
        async move { desk.lock(ask("y", "a", WAIT)).await }
    });
    until_waiting(&office, 1).await;
    let mut bell = office.desk.listen(Bell::Work(swarm()));
    office.desk.close();
    assert_eq!(waits.await.unwrap(), Err(WorkError::Closed));
    assert!(bell.rings().now_or_never().is_some());
    assert_eq!(office.desk.call(|_, _| Ok(())).await, Err(WorkError::Closed));
    // What becomes of holders is still written down.
    office.desk.fate(&party("x"), Fate::Ended);
    let until = tokio::time::Instant::now() + WAIT;
    while !office.desk.holders().is_empty() {
        assert!(tokio::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
