//! One integration binary; a module for each capability.

mod house;
mod http;
mod http_desk;
mod http_guard;
mod http_streams;
mod http_support;
