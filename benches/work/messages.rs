//! From the beginning of a sending until the recipient, who waits for it, has it.

use std::{sync::mpsc, time::Duration};

use anyhow::{Context, ensure};

use crate::support::{
    clock,
    figures::{Samples, verdict},
};

/// What the issue asks for, p99.
pub(crate) const GOAL: Duration = Duration::from_millis(5);
/// Between two messages: the recipient has acknowledged and waits again.
const PAUSE: Duration = Duration::from_millis(2);

pub(crate) trait Writer {
    fn send(&mut self, to: &str, body: &str) -> anyhow::Result<()>;
}

pub(crate) trait Reader: Send {
    /// Waits for a message.
    fn receive(&mut self) -> anyhow::Result<String>;
    /// Acknowledges what was received.
    fn acknowledge(&mut self) -> anyhow::Result<()>;
}

/// One row of so many messages for the reader, whose name is `to`.
pub(crate) fn row(
    name: &str,
    writer: &mut dyn Writer,
    mut reader: Box<dyn Reader>,
    to: &str,
    count: usize,
) -> anyhow::Result<Vec<String>> {
    let (sender, received) = mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || -> anyhow::Result<()> {
        for _ in 0..count {
            let body = reader.receive()?;
            sender.send((body, clock::now()))?;
            reader.acknowledge()?;
        }
        Ok(())
    });
    let mut samples = Vec::with_capacity(count);
    for at in 0..count {
        std::thread::sleep(PAUSE);
        let body = format!("{at}");
        let began = clock::now();
        writer.send(to, &body)?;
        let (found, when) = received.recv_timeout(Duration::from_secs(10)).context("a message does not come")?;
        ensure!(found == body, "{found} came instead of {body}");
        samples.push(when.saturating_sub(began));
    }
    thread.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    let samples = Samples::from(samples);
    let p99 = samples.percentile(99).context("no sample")?;
    let mut row = vec![name.to_owned()];
    row.extend(samples.cells());
    row.push(verdict(p99 < GOAL).to_owned());
    Ok(row)
}
