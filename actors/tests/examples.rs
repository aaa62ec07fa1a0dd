//! Runs the examples: each asserts what it claims.

#[path = "../examples/escalation.rs"]
mod escalation;
#[path = "../examples/one_for_all.rs"]
mod one_for_all;
#[path = "../examples/one_for_one.rs"]
mod one_for_one;
#[path = "../examples/rest_for_one.rs"]
mod rest_for_one;
#[path = "../examples/shutdown.rs"]
mod shutdown;
#[path = "../examples/simple_one_for_one.rs"]
mod simple_one_for_one;
