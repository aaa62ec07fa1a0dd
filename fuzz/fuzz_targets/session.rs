//! The rules of one connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hivekeeper_fuzz::data_plane::session(data));
