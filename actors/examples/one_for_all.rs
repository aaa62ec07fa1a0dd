//! One fails, all are restarted: for children that share something none of them can have alone.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    BoxError, Child, ChildRef, ChildSpec, EventKind, EventSink, Root, Strategy, SupervisionEvent, SupervisorFlags,
};

/// How long anything may take: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(10);

/// One of a team that talks about one plan. Whoever forgets it has to be told from the start, and so have the others.
#[derive(Default)]
struct Member {
    steps: u32,
}

impl Actor for Member {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u32")]
struct Step;

impl Handler<Step> for Member {
    type Result = u32;

    fn handle(&mut self, _: Step, _: &mut Context<Self>) -> u32 {
        self.steps += 1;
        self.steps
    }
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
    let (mut team, mut members): (Vec<Child>, Vec<ChildRef<Member>>) = Default::default();
    for name in ["planner", "coder", "tester"] {
        let (child, member) = Child::actor(ChildSpec::new(name), |_| Ok(Member::default()));
        team.push(child);
        members.push(member);
    }
    let diary = Arc::new(Diary::default());
    let root = Root::start(SupervisorFlags::new(Strategy::OneForAll), team, Arc::clone(&diary) as _)?;
    root.started().await?;
    for member in &members {
        assert_eq!(member.ask(Step, PATIENCE).await, Ok(1));
    }

    // The coder crashes. The others are stopped, last first, and all start again in order: none of them has a step behind it.
    members[1].run(|_, _| panic!("lost the thread"))?;
    while members.iter().any(|member| member.incarnation() < 2) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for member in &members {
        assert_eq!(member.ask(Step, PATIENCE).await, Ok(1));
    }
    root.shutdown().await?;

    let lines = diary.0.lock().map_err(|_| "the diary is torn")?.join(" ");
    assert_eq!(
        lines,
        "+planner +coder +tester -coder -tester -planner +planner +coder +tester -tester -coder -planner"
    );
    Ok(())
}

fn main() -> Result<(), BoxError> {
    System::new().block_on(async { tokio::time::timeout(PATIENCE, run()).await? })
}

#[test]
fn runs() {
    main().unwrap();
}
