//! What is known, and where the eye is.

use std::{
    cmp::{Ordering, Reverse},
    collections::VecDeque,
};

use crate::cli::{
    picture::{News, Picture},
    shapes::{Agent, LogLine},
    words::clean,
};

/// Lines of a log that are kept to look back at: some tens of screens.
const LOG_LINES_MAX: usize = 2000;

/// What rows are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Name,
    State,
    Cpu,
    Memory,
    Restarts,
    Heartbeat,
}

impl Sort {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::State => "state",
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::Restarts => "restarts",
            Self::Heartbeat => "heartbeat",
        }
    }
}

/// What keys do at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    List,
    /// A filter is being typed.
    Filter,
    /// A command waits for a yes.
    Confirm(&'static str, String),
    Help,
    Logs(LogView),
}

/// The log of one agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LogView {
    pub(super) agent: String,
    pub(super) lines: VecDeque<String>,
    /// Lines between the end and the last one shown; 0 follows the end.
    pub(super) back: usize,
    /// Why no more comes.
    pub(super) end: Option<String>,
}

/// The whole of it.
#[derive(Debug)]
pub(super) struct Top {
    pub(super) picture: Picture,
    pub(super) mode: Mode,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    pub(super) filter: String,
    /// Ids of the rows in their order.
    pub(super) rows: Vec<String>,
    /// The row that commands are aimed at; it stays with its agent, wherever that goes.
    pub(super) selected: Option<String>,
    /// First row on the screen.
    pub(super) offset: usize,
    /// Rows that fit.
    pub(super) page: usize,
    /// What came of the last command.
    pub(super) message: Option<String>,
    outdated: bool,
}

impl Top {
    pub(super) fn new() -> Self {
        Self {
            picture: Picture::default(),
            mode: Mode::List,
            sort: Sort::Name,
            reversed: false,
            filter: String::new(),
            rows: Vec::new(),
            selected: None,
            offset: 0,
            page: 1,
            message: None,
            outdated: true,
        }
    }

    /// Takes what the stream tells.
    pub(super) fn take(&mut self, news: News) {
        self.picture.take(news);
        self.outdated = true;
    }

    /// Order or filter have changed.
    pub(super) fn outdate(&mut self) {
        self.outdated = true;
    }

    /// Takes a line of the log that is looked at.
    pub(super) fn log(&mut self, line: &LogLine) {
        let Mode::Logs(view) = &mut self.mode else { return };
        let at = line.at.get(11..19).unwrap_or_default();
        let stream = if line.stream == "stdout" { String::new() } else { format!("{}: ", clean(&line.stream)) };
        view.lines.push_back(format!("{} {stream}{}", clean(at), clean(&line.text.replace('\t', "    "))));
        if view.back > 0 {
            // What is being read stays where it is.
            view.back += 1;
        }
        if view.lines.len() > LOG_LINES_MAX {
            view.lines.pop_front();
        }
        view.back = view.back.min(view.lines.len());
    }

    /// Puts the rows in order, if anything has changed, and keeps the selected one on the screen. `page` is how many rows fit.
    pub(super) fn arrange(&mut self, page: usize) {
        self.page = page.max(1);
        if std::mem::take(&mut self.outdated) {
            let needle = self.filter.to_lowercase();
            let fits = |agent: &Agent| {
                needle.is_empty() || agent.id().contains(&needle) || agent.state.contains(needle.as_str())
            };
            let mut rows: Vec<(&String, &Agent)> =
                self.picture.agents.iter().filter(|(_, agent)| fits(agent)).collect();
            let (sort, reversed) = (self.sort, self.reversed);
            // What is equal stays in the order of names.
            rows.sort_by(|(_, a), (_, b)| compare(sort, reversed, a, b));
            if sort == Sort::Name && reversed {
                rows.reverse();
            }
            self.rows = rows.into_iter().map(|(id, _)| id.clone()).collect();
        }
        let at = self.position().unwrap_or(0);
        self.selected = self.rows.get(at).cloned();
        if at < self.offset {
            self.offset = at;
        } else if at >= self.offset + self.page {
            self.offset = at + 1 - self.page;
        }
        self.offset = self.offset.min(self.rows.len().saturating_sub(self.page));
    }

    /// Where the selected row is.
    pub(super) fn position(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.rows.iter().position(|row| row == selected)
    }

    /// Moves the selection by so many rows.
    pub(super) fn move_by(&mut self, rows: isize) {
        let last = self.rows.len().saturating_sub(1);
        let at = self.position().unwrap_or(0).saturating_add_signed(rows).min(last);
        self.selected = self.rows.get(at).cloned();
    }
}

/// The most first, as one looks for it; what was not measured comes last either way.
fn compare(sort: Sort, reversed: bool, a: &Agent, b: &Agent) -> Ordering {
    fn known<T: PartialOrd>(a: Option<T>, b: Option<T>, reversed: bool) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) => {
                let order = b.partial_cmp(&a).unwrap_or(Ordering::Equal);
                if reversed { order.reverse() } else { order }
            }
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
    }
    match sort {
        Sort::Name => Ordering::Equal,
        Sort::State => {
            let order = urgency(&a.state).cmp(&urgency(&b.state));
            if reversed { order.reverse() } else { order }
        }
        Sort::Cpu => known(a.cpu.value, b.cpu.value, reversed),
        Sort::Memory => known(a.memory.value, b.memory.value, reversed),
        Sort::Restarts => known(Some(a.restarts), Some(b.restarts), reversed),
        // The oldest first: it is what one looks for.
        Sort::Heartbeat => {
            known(a.last_heartbeat.value.as_ref().map(Reverse), b.last_heartbeat.value.as_ref().map(Reverse), reversed)
        }
    }
}

/// What needs somebody comes first.
fn urgency(state: &str) -> u8 {
    match state {
        "failed" => 0,
        "stuck" => 1,
        "backing_off" => 2,
        "degraded" | "unknown" => 3,
        "starting" | "stopping" | "pending" => 4,
        "paused" => 5,
        "running" => 6,
        _ => 7,
    }
}
