//! One launch, played on tokio's clock.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    runtime::Shared,
    script::{Script, Step},
};
use crate::{
    model::{ExitCause, ExitRecord, LaunchId},
    runtime::{AgentEvent, OutputLine},
    wire::channel::Stream,
};

pub(super) enum Order {
    Stop(Duration),
    Kill,
    Pause(bool),
    Detach,
    Attach(mpsc::Sender<AgentEvent>, u64),
    Step(Step),
}

/// One launch under way.
pub(super) struct Player {
    pub(super) shared: std::sync::Weak<Mutex<Shared>>,
    pub(super) launch_id: LaunchId,
    pub(super) incarnation: u64,
    pub(super) pid: u32,
    /// Of the daemon that leads it; orders of an older one are not obeyed.
    pub(super) epoch: u64,
    pub(super) started_at: Option<SystemTime>,
    /// `None` once it is detached.
    pub(super) events: Option<mpsc::Sender<AgentEvent>>,
    pub(super) lines: Vec<OutputLine>,
    pub(super) paused: bool,
    pub(super) kill_at: Option<Instant>,
    pub(super) ignores_stop: bool,
}

impl Player {
    pub(super) async fn play(mut self, script: Script, mut orders: mpsc::Receiver<(u64, Order)>) {
        if let Some(message) = script.start_failure {
            return self.end(None, None, ExitCause::StartFailed { message }).await;
        }
        let mut due = Instant::now() + script.alive_after;
        let mut steps = VecDeque::from([(due, Step::Alive)]);
        for (after, step) in script.steps {
            due += after;
            steps.push_back((due, step));
        }
        loop {
            let step_due = steps.front().map(|(due, _)| *due).filter(|_| !self.paused);
            let wake = step_due.into_iter().chain(self.kill_at).min();
            let timer = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let step = tokio::select! {
                biased;
                Some((epoch, order)) = orders.recv() => match epoch < self.epoch {
                    true => None,
                    false => self.obey(epoch, order).await,
                },
                () = timer => match step_due.filter(|due| *due <= Instant::now()) {
                    Some(_) => steps.pop_front().map(|(_, step)| step),
                    None => Some(stopped(libc::SIGKILL)),
                },
            };
            match step {
                None => {}
                Some(Step::End { code, signal, cause }) => return self.end(code, signal, cause).await,
                Some(Step::Fenced) => {
                    self.emit(AgentEvent::Fenced).await;
                    self.events = None;
                }
                Some(step) => self.show(step).await,
            }
        }
    }

    /// The step that follows from an order.
    async fn obey(&mut self, epoch: u64, order: Order) -> Option<Step> {
        match order {
            Order::Kill => return Some(stopped(libc::SIGKILL)),
            Order::Stop(_) if !self.ignores_stop => return Some(stopped(libc::SIGTERM)),
            Order::Stop(grace) => {
                let at = Instant::now() + grace;
                self.kill_at = Some(self.kill_at.map_or(at, |before| before.min(at)));
            }
            Order::Pause(paused) => {
                self.paused = paused;
                self.emit(AgentEvent::Paused(paused)).await;
            }
            Order::Detach => self.events = None,
            Order::Attach(events, last_seq) => {
                if epoch > self.epoch {
                    self.emit(AgentEvent::Fenced).await;
                    self.epoch = epoch;
                }
                self.events = Some(events);
                if let Some(at) = self.started_at {
                    self.emit(AgentEvent::Alive { pid: self.pid, at }).await;
                }
                if self.paused {
                    self.emit(AgentEvent::Paused(true)).await;
                }
                let missed: Vec<_> = self.lines.iter().filter(|line| line.seq > last_seq).cloned().collect();
                if !missed.is_empty() {
                    self.emit(AgentEvent::Output(missed)).await;
                }
            }
            Order::Step(step) => return Some(step),
        }
        None
    }

    async fn show(&mut self, step: Step) {
        let at = SystemTime::now();
        let event = match step {
            Step::Alive => {
                self.started_at = Some(at);
                AgentEvent::Alive { pid: self.pid, at }
            }
            Step::Line(text) => {
                let seq = self.lines.len() as u64 + 1;
                let line = OutputLine { seq, at, stream: Stream::Stdout, partial: false, text };
                self.lines.push(line.clone());
                AgentEvent::Output(vec![line])
            }
            Step::Sample { cpu_cores, memory_bytes } => {
                AgentEvent::Sample { at, cpu_cores: Some(cpu_cores), memory_bytes, processes: 1 }
            }
            Step::Lost { lines } => AgentEvent::Lost { lines, bytes: lines },
            Step::End { .. } | Step::Fenced => return,
        };
        self.emit(event).await;
    }

    async fn end(mut self, code: Option<i32>, signal: Option<i32>, cause: ExitCause) {
        let at = SystemTime::now();
        let record =
            ExitRecord { incarnation: self.incarnation, code, signal, oom: None, at, cause, last_lines: Vec::new() };
        if let Some(shared) = self.shared.upgrade()
            && let Some(entry) = shared.lock().launches.get_mut(&self.launch_id)
        {
            entry.ended = Some(record.clone());
        }
        self.emit(AgentEvent::Exited(record)).await;
    }

    async fn emit(&mut self, event: AgentEvent) {
        if let Some(events) = &self.events {
            let _ = events.send(event).await;
        }
    }
}

fn stopped(signal: i32) -> Step {
    Step::End { code: None, signal: Some(signal), cause: ExitCause::Stopped }
}
