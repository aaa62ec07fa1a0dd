//! Tools for tasks: how they come into being, who works on them, and where they stand.

mod create;
mod look;
mod work;

pub(super) use create::TOOLS as CREATING;
pub(super) use look::{Sought, TOOLS as LOOKING};
pub(super) use work::TOOLS as WORKING;
