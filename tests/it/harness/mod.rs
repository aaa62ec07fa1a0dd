//! What the tests share.

pub(crate) mod launcher;
pub(crate) mod processes;
