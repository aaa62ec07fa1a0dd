//! What is shared out, as documents: tasks, locks and messages.

mod brief;
mod lock;
mod message;
mod progress;
mod task;
mod words;

pub use brief::{LockBriefView, MessageBriefView, TaskBriefView, lock_brief, message_brief, task_brief};
pub use lock::{InTheWayView, LockPageView, LockView, ReleasedView, in_the_way, lock, lock_seen};
pub use message::{
    MessagePageView, MessageStateView, MessageView, MessagesView, SentView, envelope, message, message_state, names,
};
pub use progress::{
    BlockerView, EdgeView, GraphView, GroupView, HealthView, NodeView, ProgressReportView, ReportView, blocker, node,
};
pub use task::{
    BequestView, CreatedTasksView, CreatedView, HeldView, PartyView, TaskPageView, TaskView, TasksView, brief, created,
    ms, task,
};
pub use words::{
    AttemptEndWord, Id, Json, LockIdText, LockModeWord, MessageIdText, OnDependencyFailureWord, PriorityWord,
    TaskIdText, TaskStateWord, Word, Words,
};
