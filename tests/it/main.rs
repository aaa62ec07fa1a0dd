//! One integration binary; a module for each capability.

mod house;
mod stream;
