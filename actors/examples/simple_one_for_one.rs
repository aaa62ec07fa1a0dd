//! Children that come and go: one template, any number of them, each with arguments of its own.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    BoxError, Child, ChildCtx, ChildSpec, EventSink, RestartType, Root, Strategy, SupervisionEvent, SupervisorFlags,
    Template,
};

/// How long anything may take: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(10);

struct Session {
    user: String,
}

impl Actor for Session {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "String")]
struct Hello;

impl Handler<Hello> for Session {
    type Result = String;

    fn handle(&mut self, _: Hello, _: &mut Context<Self>) -> String {
        format!("hello, {}", self.user)
    }
}

struct Print;

impl EventSink for Print {
    fn event(&self, event: SupervisionEvent) {
        println!("{} #{}: {:?}", event.id, event.incarnation, event.kind);
    }
}

async fn run() -> Result<(), BoxError> {
    // A session that fails is restarted for its user, one that ends is done.
    let spec = ChildSpec { restart: RestartType::Transient, ..ChildSpec::new("session") };
    let template = Template::new(spec, |_: ChildCtx<Session>, user: String| Ok(Session { user }));
    let flags = SupervisorFlags::new(Strategy::SimpleOneForOne);
    let (child, sessions) = Child::dynamic(ChildSpec::new("sessions"), flags, template);
    let root = Root::start(SupervisorFlags::default(), vec![child], Arc::new(Print))?;

    let (_, ann) = sessions.start("Ann".into()).await?;
    let (ben_id, ben) = sessions.start("Ben".into()).await?;
    let (cid_id, cid) = sessions.start("Cid".into()).await?;
    assert_eq!((ben_id.as_str(), sessions.count_children().await?.active), ("session-2", 3));

    // One crashes: it comes back with its argument.
    ann.run(|_, _| panic!("a bad frame"))?;
    assert_eq!(ann.ask(Hello, PATIENCE).await?, "hello, Ann");
    assert_eq!(ann.incarnation(), 2);

    // One leaves, one is sent away: both are forgotten.
    ben.run(|_, context| context.stop())?;
    while ben.tell(Hello).is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sessions.terminate(&cid_id).await?;
    assert!(cid.tell(Hello).is_err());
    let left: Vec<_> = sessions.which_children().await?.into_iter().map(|child| child.id.to_string()).collect();
    assert_eq!(left, ["session-1"]);

    root.shutdown().await?;
    Ok(())
}

fn main() -> Result<(), BoxError> {
    System::new().block_on(async { tokio::time::timeout(PATIENCE, run()).await? })
}

#[test]
fn runs() {
    main().unwrap();
}
