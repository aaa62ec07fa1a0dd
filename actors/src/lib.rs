//! Supervision trees in the manner of OTP for unmodified actix actors.
//!
//! actix by itself restarts nothing after a panic: the actor's task dies, its mailbox closes, its messages are lost and nobody is told.
//! Here any `Actor<Context = Context<Self>>` can be a [`Child`] of a supervisor, which notices every end, names its reason, and decides
//! what follows.
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
//! # Concepts
//!
//! - **[`Child`]**: a [`ChildSpec`] (name, when to restart, how to stop) and a factory that makes each incarnation. A child is an actor
//!   or a supervisor with children of its own, to any depth. The first supervisor is held by a [`Root`].
//! - **Incarnation**: the nth start of a child. At most one lives at a time, and its number only grows.
//! - **[`ChildRef`]**: the handle on a child, valid across restarts. Messages wait in an inbox that belongs to the child: what a crash
//!   leaves behind is handled by the next incarnation, unless [`OnRestart`] says otherwise. The inbox is bounded ([`Overflow`]), and a
//!   flood of it does not starve the neighbours. The message in the handler that crashed is lost, unless it was sent by
//!   [`tell_redeliver`](ChildRef::tell_redeliver); who asked is told the reason ([`AskError`]).
//! - **[`ExitReason`]**: every incarnation ends with one. A panic is caught and carries its text and place; an actor may also
//!   [`fail`](ChildCtx::fail) without a panic, or end normally with `ctx.stop()`.
//! - **Restart**: [`RestartType`] says after which exits. [`Backoff`] says after which delay; children that depend on one thing outside
//!   share one ([`backoff_group`](ChildSpec::backoff_group)). [`Strategy`] says who goes along:
//!
//!   | strategy | a failure restarts | for children that | in `examples/` |
//!   |---|---|---|---|
//!   | one_for_one | the child | don't need each other | `one_for_one.rs` |
//!   | one_for_all | all of them | share what none can have alone | `one_for_all.rs` |
//!   | rest_for_one | it and those after it | need those before them | `rest_for_one.rs` |
//!   | simple_one_for_one | the child | come and go ([`Child::dynamic`]) | `simple_one_for_one.rs` |
//!
//! - **Limits**: [`Intensity`] is a number of automatic restarts within a sliding window. A child may have one of its own; when it
//!   needs more, it is `failed` ([`OnExceeded`]) and its siblings go on. A supervisor has one for all its children; when they need more,
//!   it stops them and gives up, and its own supervisor decides what follows ([`Meltdown`]; `escalation.rs`). What the levels allow
//!   multiplies. A restart that somebody asks for spends nothing, and neither does one after a [loss](ChildCtx::lose).
//! - **Order**: children start in order, each when the one before is [ready](Ready) or has failed to start, and stop in reverse, each
//!   within its [`Shutdown`] deadline (`shutdown.rs`). A stop is `ctx.stop()`; an actor whose `stopping()` returns `Running::Continue` may
//!   wind down and stop itself later (its `stopping()` is called again then, and whenever a stop is asked for). After the deadline it is
//!   dropped. No child outlives its supervisor. A supervisor may end with its children, too ([`AutoShutdown`]).
//! - **Threads**: supervisors live on the thread of the root, children on a few others ([`Placement`]). What becomes of a child is decided
//!   on its own thread, so that a restart waits for no other to wake up, and what is asked of a supervisor on the thread of whoever asks, if that
//!   is one of these and nothing is asked or heard already; otherwise it is a message to the supervisor. A thread that a handler blocks is
//!   found out and left behind: what lived on it ends as [`Stuck`](ExitReason::Stuck) and is made anew elsewhere ([`Settings`]). Tasks that
//!   an incarnation [spawns](ChildCtx::spawn_task) end with it.
//! - **To look at**: an [`EventSink`] hears everything that happens to any child, in order, and of blocked threads ([`ThreadEvent`];
//!   [`Broadcast`] has many listeners), and so does the log (`tracing`, rationed). [`SupervisorRef::snapshot`] shows the tree as data,
//!   [`Root::stats`] the threads, [`ChildRef::stats`] one inbox, [`Root::dead_letters`] what was taken and never handled, [`Registry`] who
//!   has a name.
//!
//! # OTP's words
//!
//! | OTP | here |
//! |---|---|
//! | `init/1`, static children | [`Child::supervisor`]; [`Child::supervisor_with`] decides anew at each start |
//! | `simple_one_for_one`, Elixir's `DynamicSupervisor` | [`Child::dynamic`], [`Template`], [`DynamicRef`] |
//! | `strategy`, `intensity` and `period`, `auto_shutdown` | [`SupervisorFlags`]: [`Strategy`], [`Intensity`], [`AutoShutdown`] |
//! | `id`, `restart`, `significant`, `type` | [`ChildSpec::id`], [`RestartType`], [`ChildSpec::significant`], [`ChildKind`] |
//! | `start` (module, function, arguments) | the factory; it runs at each start, on the thread where the incarnation will live |
//! | `shutdown`: `brutal_kill`, milliseconds, `infinity` | [`Shutdown`]: `Brutal`, `Deadline` (5 s by default), `Infinity` (supervisors) |
//! | `ignore` | [`Ignore`] as the error of the factory |
//! | exits `normal`, `shutdown`, `killed`, any other | [`ExitReason`]: `Normal`, `Shutdown`, `Killed`, any other |
//! | `start_child`, `terminate_child`, `restart_child`, `delete_child` | the same, on [`SupervisorRef`], with the same results |
//! | `which_children`, `count_children`, `get_childspec`, `check_childspecs` | the same; [`check_childspecs`] is a function |
//! | `code_change` | [`SupervisorRef::change`] |
//! | `supervisor:stop` of the first one, its end | [`Root::shutdown`], [`Root::done`] |
//! | a registered name, `whereis` | [`ChildSpec::register`], [`Registry::whereis`] |
//! | supervisor and crash reports | [`SupervisionEvent`] |
//!
//! # What is different, and why
//!
//! | | OTP | here | why |
//! |---|---|---|---|
//! | delay before a restart | none | [`Backoff`]: at once, then growing, with jitter; starts over after a good run | asked for in OTP and refused; a restart at once into a provider that is down spends the intensity for nothing |
//! | a child in its delay | (forks lose it or count it twice) | shown as `restarting`; one failure is one restart; any order gets in between | the two bugs that the forks with delays had |
//! | default intensity | 1 in 5 s | 3 in 5 s ([`Intensity::SUPERVISOR`], Elixir's) | one unlucky coincidence should not end a tree |
//! | whose intensity | the supervisor's | the supervisor's and, if it has one, the child's; both must allow | one bad agent should not use up its siblings' restarts |
//! | the window | whole seconds | exact | nothing is gained by less |
//! | intensity exceeded | the supervisor ends with `shutdown` | it ends with [`GaveUp`](ExitReason::GaveUp), which is abnormal; or stays ([`Meltdown::Contain`]) | under OTP a transient supervisor that gives up is not restarted, a known trap |
//! | first start fails | the supervisor stops what it has started and fails | an exit like any other: back-off, limits, and under one_for_one the order goes on. With intensity 0 it is as in OTP | what is down when the program starts should not keep everything else from starting |
//! | a start that never ends | waited for | stopped after [`start_timeout`](ChildSpec::start_timeout), 30 s by default | it would hold up all that come after it |
//! | group restart | starts every sibling, one that was stopped by hand, too | starts those that lived | what somebody stopped stays stopped |
//! | ends that are nobody's fault | counted | [`Lost`](ExitReason::Lost) is restarted and not counted | a machine that is gone says nothing about who was on it |
//! | restart by hand | terminate, then restart | that, or [`force_restart`](SupervisorRef::force_restart), [`start_existing`](SupervisorRef::start_existing), `restart_all`: a clean record, spends nothing | who repairs something should not have to wait |
//! | forget a child | terminate, then delete | that, or [`remove_child`](SupervisorRef::remove_child) | the two steps race with whoever starts it between them |
//! | add a child | `start_child` discards one whose start fails | that, or [`add_child`](SupervisorRef::add_child): as if it had been there from the start | a swarm whose agent is down at first is still that swarm |
//! | temporary child that has ended | forgotten | forgotten, unless it is to be [retained](ChildSpec::retain) | somebody may want to see how it ended |
//! | the mailbox | dies with the process | outlives the incarnation ([`OnRestart`] to choose) | senders need not know of a restart |
//! | the handle | a pid, stale after a restart | [`ChildRef`], good for every incarnation; the number tells them apart | the same |
//! | bound of the mailbox | none | [`inbox_capacity`](ChildSpec::inbox_capacity), 1024 by default, and [`Overflow`] | a queue without a bound is a leak |
//! | to kill | at any instruction | at the next await; a handler that blocks is left behind with its thread | a thread can't be killed. See Limits |
//! | names of dynamic children | their pids | minted ids, such as `session-7` | there are no pids |
//! | stop of dynamic children | one timer for all | all side by side, each within its own deadline | one slow child should not cost the others their time |
//! | order of `which_children` | newest first | start order | it is the order that means something |
//! | order after `code_change` | that of the new list | children keep their places, new ones come last | a place says who was started before whom |
//! | the template of dynamic children | replaced by `code_change` | stays | it belongs to its handle |
//! | links and monitors among actors | yes | no; events instead | a child is its supervisor's |
//! | `{ok, Pid, Extra}`, `{shutdown, Term}`, hibernation, `get_callback_module` | yes | no | nothing here corresponds to them |
//!
//! # Limits
//!
//! - The process must unwind on panic; with `panic = "abort"` the crate does not compile. Two panics at once on one stack, such as in the
//!   destructor of a value while its handler unwinds, abort the process whoever catches.
//! - Panics are caught in handlers, hooks, `ctx.spawn`, `ctx.wait`, `run_later`, `ResponseActFuture` and the factory, and in tasks of
//!   [`ChildCtx::spawn_task`]. A `ResponseFuture`, or a task given to the runtime, runs outside the actor: its panic is not the actor's end.
//! - A handler that blocks its thread cannot be killed. It is fenced and its thread leaked, up to [`Settings::leaked_max`]. On the thread of
//!   the supervisors nobody can help: children [beside their supervisor](Placement::WithSupervisor) must never block.
//! - Messages sent through actix's own `ctx.address()` go past the inbox: they die with the incarnation, have no bound, and keep their
//!   thread until the last is handled. [`ChildCtx::self_ref`] sends through the inbox.
//! - A message is handled at most once. One that is [to be redelivered](ChildRef::tell_redeliver) is handled again after each crash on it, as
//!   often as its sender allows.
//! - What several children share stays as a crash left it, half-done or poisoned, and so do the thread-locals of its thread.
//! - `System::stop` drops everything at once and in no order: the tree must be through before ([`Root::shutdown_system`]).
//!
//! # Map
//!
//! `spec`, `flags` what a supervisor knows in advance · `exit`, `event`, `snapshot`, `log`, `broadcast` what it tells · [`tree`] the pure core
//! that decides, `window` its arithmetic · `supervisor` what is around it: a lock, and an actor for its clock, `admin` and `supervisor_ref` its requests, `init` and `dynamic`
//! what it starts with · `cell` one incarnation as a task, `pump` its messages, `tasks` its tasks, `panics` the hook · `inbox`, `letter`,
//! `dead_letters` the messages · `child`, `child_ref`, `recipient`, `registry`, `root` what a program holds · `pool`, `keeper`, `watch`,
//! `settings` the threads.

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
pub use event::{EventKind, EventSink, Limit, LimitFollows, SupervisionEvent, ThreadEvent};
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
    Backoff, ChildId, ChildSpec, INBOX_CAPACITY_DEFAULT, MAX_RESTARTS_LIMIT, Named, OnRestart, Overflow, Placement,
    Ready, RestartType, Seed, SeedState, Shutdown, SpecError,
};
pub use supervisor_ref::{SupervisorError, SupervisorRef};
pub use tasks::{TASKS_MAX, TaskError};
pub use tree::KILL_WAIT;
pub use window::Window;
