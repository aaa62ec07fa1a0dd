//! What is written down of an incarnation while it is led: the sign of life, the output, what of it was lost.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    child::AgentDeps,
    contract::{AgentControl, OutputLine},
};
use crate::{
    model::{AgentId, LaunchId, Observation},
    store::{NewLine, StoreError},
    wire::channel::Stream,
};

/// How long output may take to be kept once some was not; enough for a disk that works again.
const LOSING_WAIT: Duration = Duration::from_millis(250);

/// Only history reads it; the launcher itself is asked at a take-over.
pub(super) async fn keep_sign(deps: Arc<AgentDeps>, agent: AgentId, launch_id: LaunchId, pid: u32, at: SystemTime) {
    if let Err(error) = deps.journal.mark_alive(launch_id, pid, at).await {
        tracing::warn!(%agent, %error, "failed to journal the sign of life");
    }
}

/// Output into its book, and the launcher told that it may let go of it.
pub async fn keep_lines(
    deps: Arc<AgentDeps>,
    agent: AgentId,
    incarnation: u64,
    lines: Vec<OutputLine>,
    control: Arc<dyn AgentControl>,
) {
    let Some(last) = lines.last() else { return };
    let (seq, at, count) = (last.seq, last.at, lines.len() as u64);
    let bytes = lines.iter().map(|line| line.text.len() as u64).sum();
    let slot = deps.registry.slot(&agent);
    let veil = slot.veil();
    let new = lines.into_iter().map(|line| NewLine {
        seq: Some(line.seq),
        at: line.at,
        stream: match line.stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        },
        level: None,
        partial: line.partial,
        text: veil.as_ref().and_then(|veil| veil.line(line.stream, &line.text, line.partial)).unwrap_or(line.text),
    });
    let append = deps.logs.append(&agent, incarnation, new.collect());
    let kept = if slot.keeps_output() {
        append.await
    } else {
        // A disk that hung is not waited for at length again and again: an end would show only behind all that waits here.
        tokio::time::timeout(LOSING_WAIT, append).await.unwrap_or(Err(StoreError::Busy))
    };
    deps.witness.saw(&agent, incarnation, Observation::Output { at, lines: count });
    if matches!(kept, Err(StoreError::Fenced)) {
        // They are the younger daemon's to keep: what is not acknowledged, the launcher still holds.
        return (deps.fenced)();
    }
    // Said once and counted always: an agent that talks must not fill the daemon's log with what its own log has no room for.
    match &kept {
        Ok(_) if slot.set_keeps_output(true) => tracing::info!(%agent, "output is kept again"),
        Err(error) if slot.set_keeps_output(false) => tracing::warn!(%agent, %error, "failed to keep output"),
        _ => {}
    }
    if let Err(error) = kept {
        // They can't be kept; holding them would only hide the exit that comes behind them. The log book notes the gap once it can write again.
        tracing::debug!(%agent, %error, lines = count, "output is lost");
        deps.witness.saw(&agent, incarnation, Observation::Lost { lines: count, bytes });
    }
    control.ack(seq);
}

/// A note in the book where output is missing.
pub async fn keep_loss(deps: Arc<AgentDeps>, agent: AgentId, incarnation: u64, lines: u64, bytes: u64) {
    let text = match bytes {
        // How long they were, only the launcher knew.
        0 => format!("{lines} lines of output were lost here: they went with the launcher that held them"),
        _ => {
            format!("{lines} lines ({bytes} bytes) of output were lost here: they came faster than they could be kept")
        }
    };
    let note = NewLine::note(SystemTime::now(), text);
    if let Err(error) = deps.logs.append(&agent, incarnation, vec![note]).await {
        tracing::warn!(%agent, %error, "failed to note lost output");
    }
}
