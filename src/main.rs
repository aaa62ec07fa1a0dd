//! The `hivekeeper` executable.
fn main() {}
