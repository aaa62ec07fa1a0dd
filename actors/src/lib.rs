//! Supervision trees in the manner of OTP for unmodified actix actors.
//!
//! actix by itself restarts nothing after a panic: the actor's task dies, its mailbox closes, its messages are lost and nobody is told.
//! Here any `Actor<Context = Context<Self>>` can be a [`Child`] of a supervisor, which notices every end, names its reason, and decides
//! what follows.
//!
//! # Concepts
//!
//! - **[`Child`]**: a [`ChildSpec`] (name, when to restart, how to stop) and a factory that makes each incarnation. A child is an actor
//!   or a supervisor with children of its own.
//! - **Incarnation**: the nth start of a child. At most one lives at a time, and its number only grows.
//! - **[`ChildRef`]**: the handle on a child, valid across restarts. Messages wait in an inbox that belongs to the child: what a crash
//!   leaves behind is handled by the next incarnation. The inbox is bounded, and a flood of it does not starve the neighbours.
//! - **[`ExitReason`]**: every incarnation ends with one. A panic is caught and carries its text and place; an actor may also
//!   [`fail`](ChildCtx::fail) without a panic, or end normally with `ctx.stop()`.
//! - **Restart**: [`RestartType`] says after which exits, [`Backoff`] after which delay, [`Intensity`] how often within a sliding
//!   window. Under one_for_one each child has a window of its own; the exit that would exceed it makes that child `failed`, its siblings
//!   go on. A restart that somebody asks for spends nothing, and neither does one after a [loss](ChildCtx::lose).
//! - **Order**: children start in order, each when the one before is ready or has failed to start, and stop in reverse, each within its
//!   [`Shutdown`] deadline. A stop is `ctx.stop()`; an actor whose `stopping()` returns `Running::Continue` may wind down and stop
//!   itself later (its `stopping()` is called again then, and whenever a stop is asked for). After the deadline it is dropped.
//! - **[`Placement`]**: supervisors live on the thread of the [`Root`], children on a few threads of their own, or on one each.
//! - **[`Registry`]**: names for children, each bound while an incarnation lives.
//! - **Tasks**: [`ChildCtx::spawn_task`] runs a future that ends with the incarnation at the latest.
//! - **[`EventSink`]**: hears everything that happens to any child, in order; a [`Broadcast`] is one with any number of listeners. The log
//!   (`tracing`, target `hivekeeper_actors`) has the same in bounded lines at a bounded rate. [`SupervisorRef::snapshot`] shows the tree as data.
//!
//! # Limits
//!
//! - The process must unwind on panic; with `panic = "abort"` the crate does not compile.
//! - Panics are caught in handlers, hooks, `ctx.spawn`, `ctx.wait`, `run_later`, `ResponseActFuture` and the factory. A `ResponseFuture`
//!   or a task given to the runtime runs outside the actor: its panic is not the actor's end.
//! - A handler that blocks its thread cannot be killed. Its thread is found out after [`Settings::stuck_after`] and leaked; what lived there ends
//!   as [`ExitReason::Stuck`] and is made anew elsewhere, with its queue. Before that, whoever waits for the child may be told
//!   [`SupervisorError::Unresponsive`]. A blocked thread of the supervisors themselves is only reported.
//! - Messages sent through actix's own `ctx.address()` die with the incarnation; [`ChildCtx::self_ref`] sends through the inbox.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use actix::prelude::*;
//! use hivekeeper_actors::{Child, ChildSpec, EventSink, Root, SupervisionEvent, SupervisorFlags};
//!
//! struct Counter(u32);
//! impl Actor for Counter {
//!     type Context = Context<Self>;
//! }
//!
//! #[derive(Message)]
//! #[rtype(result = "u32")]
//! struct Add(u32);
//! impl Handler<Add> for Counter {
//!     type Result = u32;
//!     fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> u32 {
//!         assert!(n < 100, "{n} is too much for me");
//!         self.0 += n;
//!         self.0
//!     }
//! }
//!
//! struct Print;
//! impl EventSink for Print {
//!     fn event(&self, event: SupervisionEvent) {
//!         println!("{} #{}: {:?}", event.path, event.incarnation, event.kind);
//!     }
//! }
//!
//! actix::System::new().block_on(async {
//!     let (child, counter) = Child::actor(ChildSpec::new("counter"), |_| Ok(Counter(0)));
//!     let root = Root::start(SupervisorFlags::default(), vec![child], Arc::new(Print)).unwrap();
//!
//!     counter.tell(Add(1000)).unwrap(); // panics, the supervisor restarts the counter
//!     let sum = counter.ask(Add(5), Duration::from_secs(10)).await.unwrap();
//!     assert_eq!((sum, counter.incarnation()), (5, 2));
//!
//!     root.shutdown().await.unwrap();
//! });
//! ```
//!
//! # Map
//!
//! `spec` what a supervisor knows of a child · `exit`, `event`, `snapshot` what it tells · [`tree`] the pure core that decides, `window`
//! its arithmetic · `supervisor` the actor around it (`look` what it shows, `hear` what it hears, `change` the live change) · `init` what it
//! starts with · `dynamic` children from a template · `broadcast`, `log` who is told of events · `cell` one incarnation as a task, `inbox` the messages, `panics` the hook ·
//! `child`, `child_ref`, `supervisor_ref`, `admin` (OTP's requests), `root` what a program holds · `pool` the threads, `watch` who of
//! them is blocked, `keeper` the thread that asks them · `registry` names, `tasks` futures beside the actor.

#[cfg(not(panic = "unwind"))]
compile_error!("panic isolation rests on unwinding: build with panic = \"unwind\"");

mod admin;
mod broadcast;
mod cell;
mod child;
mod child_ref;
mod dead_letters;
mod dynamic;
mod event;
mod exit;
mod flags;
mod inbox;
mod init;
mod keeper;
mod letter;
mod log;
mod panics;
mod pool;
mod pump;
mod recipient;
mod registry;
mod root;
mod settings;
mod snapshot;
mod spec;
mod supervisor;
mod supervisor_ref;
mod tasks;
pub mod tree;
mod watch;
mod window;

pub use admin::{ChildInfo, Presence, Started};
pub use broadcast::{Broadcast, Heard, Listener};
pub use child::{BoxError, Child, ChildCtx, Ignore};
pub use child_ref::{AskError, ChildRef};
pub use dead_letters::{DEAD_LETTERS_KEPT, DeadLetter, DeadLetters, DeadReason};
pub use dynamic::{DynamicRef, Template};
pub use event::{EventKind, EventSink, Limit, LimitFollows, SupervisionEvent};
pub use exit::ExitReason;
pub use flags::{AutoShutdown, Intensity, Meltdown, OnExceeded, Strategy, SupervisorFlags};
pub use inbox::{ChildStats, TellError};
pub use init::{SupervisorCtx, check_childspecs};
pub use recipient::TellRef;
pub use registry::{Binding, Registry};
pub use root::{Root, ShutdownError, StartError};
pub use settings::{Settings, TreeStats};
pub use snapshot::{ChildKind, ChildState, Counts, LastExit, Supervision, TreeNode};
pub use spec::{
    Backoff, ChildId, ChildSpec, INBOX_CAPACITY_DEFAULT, MAX_RESTARTS_LIMIT, OnRestart, Overflow, Placement, Ready,
    RestartType, Seed, SeedState, Shutdown, SpecError,
};
pub use supervisor_ref::{SupervisorError, SupervisorRef};
pub use tree::KILL_WAIT;
pub use window::Window;
