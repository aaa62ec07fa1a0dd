//! One fails, it and those after it are restarted: for children of which each needs those before it.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    BoxError, Child, ChildRef, ChildSpec, EventKind, EventSink, Root, Strategy, SupervisionEvent, SupervisorFlags,
};

/// How long anything may take: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(10);

/// One stage of a pipeline. It was started when those before it were ready, and relies on what they were then.
struct Stage;

impl Actor for Stage {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Ready;

impl Handler<Ready> for Stage {
    type Result = ();

    fn handle(&mut self, _: Ready, _: &mut Context<Self>) {}
}

/// Remembers starts and exits.
#[derive(Default)]
struct Diary(Mutex<Vec<String>>);

impl EventSink for Diary {
    fn event(&self, event: SupervisionEvent) {
        println!("{} #{}: {:?}", event.id, event.incarnation, event.kind);
        let Ok(mut lines) = self.0.lock() else { return };
        match event.kind {
            EventKind::Started { .. } => lines.push(format!("+{}", event.id)),
            EventKind::Exited { .. } => lines.push(format!("-{}", event.id)),
            _ => {}
        }
    }
}

async fn run() -> Result<(), BoxError> {
    let (mut pipeline, mut stages): (Vec<Child>, Vec<ChildRef<Stage>>) = Default::default();
    for name in ["store", "index", "search"] {
        let (child, stage) = Child::actor(ChildSpec::new(name), |_| Ok(Stage));
        pipeline.push(child);
        stages.push(stage);
    }
    let diary = Arc::new(Diary::default());
    let root = Root::start(SupervisorFlags::new(Strategy::RestForOne), pipeline, Arc::clone(&diary) as _)?;
    root.started().await?;

    // The index crashes. The search was built on it and goes, too; the store was there before and stays.
    stages[1].run(|_, _| panic!("a torn page"))?;
    while stages[2].incarnation() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for stage in &stages {
        stage.ask(Ready, PATIENCE).await?;
    }
    assert_eq!(stages.iter().map(ChildRef::incarnation).collect::<Vec<_>>(), [1, 2, 2]);
    root.shutdown().await?;

    let lines = diary.0.lock().map_err(|_| "the diary is torn")?.join(" ");
    assert_eq!(lines, "+store +index +search -index -search +index +search -search -index -store");
    Ok(())
}

fn main() -> Result<(), BoxError> {
    System::new().block_on(async { tokio::time::timeout(PATIENCE, run()).await? })
}

#[test]
fn runs() {
    main().unwrap();
}
