//! What every harness that lives in real time needs: a system to run in, and waits that end.

use std::future::Future;
use std::time::Duration;

use actix::System;

/// Far beyond anything a healthy run needs: only a hang gets here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const MS: Duration = Duration::from_millis(1);

/// Runs a test inside an actix system; a hang is a failure.
pub(crate) fn system<F: Future<Output = ()>>(test: F) {
    System::new().block_on(async { tokio::time::timeout(PATIENCE * 2, test).await.expect("the test hangs") });
}

/// Waits until `met` holds.
pub(crate) async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !met() {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(MS).await;
    }
}
