//! Somebody who keeps a queue of tasks.

pub(crate) trait Lane {
    fn name(&self) -> String;

    /// Puts so many tasks there; of those before nothing is left that could be claimed.
    fn fill(&mut self, tasks: usize) -> anyhow::Result<()>;

    /// Client `n`, counted from 1, with a connection of his own.
    fn client(&self, n: usize) -> anyhow::Result<Box<dyn Client>>;
}

pub(crate) trait Client: Send {
    /// Claims the next task, does it, and completes it. `false`: there is none.
    fn turn(&mut self, work: &Work) -> anyhow::Result<bool>;
}

/// What is done between claim and completion.
pub(crate) type Work = dyn Fn() -> anyhow::Result<()> + Sync;

/// What there is to be done, and what is said of it when it is done: a hundred bytes, and twenty.
pub(crate) const PAYLOAD: &str =
    r#"{"repository":"hive","branch":"main","file":"src/coordination/desk.rs","goal":"say what it does"}"#;
pub(crate) const RESULT: &str = r#"{"commit":"6773aef"}"#;
