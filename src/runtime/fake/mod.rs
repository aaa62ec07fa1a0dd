//! An erring runtime without processes, for the tests of the rooms above: each launch plays a script on tokio's clock, every call is recorded.

mod player;
mod runtime;
mod script;

pub use runtime::{Answer, Call, FakeRuntime};
pub use script::Script;
