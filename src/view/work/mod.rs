//! What is shared out, as documents: tasks, locks and messages.

mod task;

pub use task::{PartyView, TaskView, TasksView, task};
