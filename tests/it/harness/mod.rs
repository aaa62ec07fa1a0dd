//! What the tests share.

pub(crate) mod crowd;
pub(crate) mod launcher;
pub(crate) mod outside;
pub(crate) mod processes;
pub(crate) mod web_page;

use std::{fs::OpenOptions, io::Write};

/// Says past the test harness, which shows nothing of a test that passes, that this test is left out, and where `tests/run` collects it. `needs` goes
/// on behind the test's name.
pub(crate) fn skipped(needs: &str) {
    let line = format!("skipped: {} {needs}\n", std::thread::current().name().unwrap_or("a test"));
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Ok(path) = std::env::var("HK_TEST_SKIPPED") {
        OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }
}
