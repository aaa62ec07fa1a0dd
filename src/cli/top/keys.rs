//! What a key does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::state::{LogView, Mode, Sort, Top};

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(super) enum Effect {
    None,
    Quit,
    /// A verb, and the agent that it is aimed at.
    Command(&'static str, String),
    /// Follow the log of this agent.
    OpenLog(String),
    CloseLog,
}

/// Longest filter: longer than any name.
const FILTER_LEN_MAX: usize = 130;

/// Takes a key.
pub(super) fn key(top: &mut Top, key: KeyEvent) -> Effect {
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        return Effect::Quit;
    }
    match &mut top.mode {
        Mode::List => list(top, key.code),
        Mode::Filter => {
            filter(top, key.code);
            Effect::None
        }
        Mode::Confirm(verb, agent) => {
            let command = Effect::Command(verb, std::mem::take(agent));
            top.mode = Mode::List;
            match key.code {
                KeyCode::Char('y' | 'Y') | KeyCode::Enter => command,
                _ => Effect::None,
            }
        }
        Mode::Help => {
            top.mode = Mode::List;
            Effect::None
        }
        Mode::Logs(view) => {
            let page = top.page.max(1);
            match key.code {
                KeyCode::Up | KeyCode::Char('k') => view.scroll(1),
                KeyCode::Down | KeyCode::Char('j') => view.back = view.back.saturating_sub(1),
                KeyCode::PageUp => view.scroll(page),
                KeyCode::PageDown | KeyCode::Char(' ') => view.back = view.back.saturating_sub(page),
                KeyCode::Home | KeyCode::Char('g') => view.scroll(usize::MAX / 2),
                KeyCode::End | KeyCode::Char('G') => view.back = 0,
                KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | 'l') => {
                    top.mode = Mode::List;
                    return Effect::CloseLog;
                }
                _ => {}
            }
            Effect::None
        }
    }
}

impl LogView {
    fn scroll(&mut self, lines: usize) {
        self.back = (self.back + lines).min(self.lines.len().saturating_sub(1));
    }
}

fn list(top: &mut Top, code: KeyCode) -> Effect {
    let page = isize::try_from(top.page).unwrap_or(isize::MAX);
    match code {
        KeyCode::Char('q') => return Effect::Quit,
        // A filter is taken away first: who presses Esc wants to get out of something.
        KeyCode::Esc if !top.filter.is_empty() => {
            top.filter.clear();
            top.outdate();
        }
        KeyCode::Up | KeyCode::Char('k') => top.move_by(-1),
        KeyCode::Down | KeyCode::Char('j') => top.move_by(1),
        KeyCode::PageUp => top.move_by(-page),
        KeyCode::PageDown | KeyCode::Char(' ') => top.move_by(page),
        KeyCode::Home | KeyCode::Char('g') => top.move_by(isize::MIN),
        KeyCode::End | KeyCode::Char('G') => top.move_by(isize::MAX),
        KeyCode::Char('n') => sort(top, Sort::Name),
        KeyCode::Char('s') => sort(top, Sort::State),
        KeyCode::Char('c') => sort(top, Sort::Cpu),
        KeyCode::Char('m') => sort(top, Sort::Memory),
        KeyCode::Char('r') => sort(top, Sort::Restarts),
        KeyCode::Char('b') => sort(top, Sort::Heartbeat),
        KeyCode::Char('i') => {
            top.reversed = !top.reversed;
            top.outdate();
        }
        KeyCode::Char('/') => top.mode = Mode::Filter,
        KeyCode::Char('?' | 'h') => top.mode = Mode::Help,
        KeyCode::Char('R') => ask(top, "restart"),
        KeyCode::Char('S') => ask(top, "stop"),
        // Nothing is lost by a start, so it is not asked for twice.
        KeyCode::Char('U') => {
            return top.selected.clone().map_or(Effect::None, |agent| Effect::Command("start", agent));
        }
        KeyCode::Char('l') | KeyCode::Enter => {
            if let Some(agent) = top.selected.clone() {
                top.mode = Mode::Logs(LogView { agent: agent.clone(), ..LogView::default() });
                return Effect::OpenLog(agent);
            }
        }
        _ => {}
    }
    Effect::None
}

/// The same key again turns the order round.
fn sort(top: &mut Top, by: Sort) {
    top.reversed = top.sort == by && !top.reversed;
    top.sort = by;
    top.outdate();
}

fn ask(top: &mut Top, verb: &'static str) {
    if let Some(agent) = top.selected.clone() {
        top.mode = Mode::Confirm(verb, agent);
    }
}

fn filter(top: &mut Top, code: KeyCode) {
    match code {
        KeyCode::Enter => top.mode = Mode::List,
        KeyCode::Esc => {
            top.filter.clear();
            top.mode = Mode::List;
        }
        KeyCode::Backspace => {
            top.filter.pop();
        }
        KeyCode::Char(c) if top.filter.len() < FILTER_LEN_MAX && !c.is_control() => top.filter.push(c),
        _ => return,
    }
    top.outdate();
}
