//! How it looks.

use std::{collections::BTreeMap, time::SystemTime};

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
};
use serde_json::Value;

use super::state::{LogView, Mode, Top};
use crate::cli::{
    shapes::{Agent, Measured},
    table::Colour,
    words::{bytes, clean, measured, reasons, span},
};

/// Lines that are not rows: the hive, the headings, the keys.
const FRAME_LINES: u16 = 3;
/// Room that a name gets before columns are left out for it.
const NAME_MIN: u16 = 16;
/// More than this a name does not need while other columns want room.
const NAME_MAX: u16 = 60;

/// A column beside the name: heading, width, and whether it is a number.
struct Column {
    head: &'static str,
    width: u16,
    number: bool,
    show: fn(&Agent, SystemTime) -> String,
}

/// In the order in which they are shown, and from the back left out where there is no room.
const COLUMNS: [Column; 7] = [
    Column { head: "STATE", width: 11, number: false, show: |agent, _| clean(&agent.state) },
    Column {
        head: "CPU",
        width: 6,
        number: true,
        show: |agent, _| measured(&agent.cpu, |cores| format!("{cores:.2}")),
    },
    Column { head: "MEMORY", width: 10, number: true, show: |agent, _| measured(&agent.memory, |count| bytes(*count)) },
    Column { head: "RESTARTS", width: 8, number: true, show: |agent, _| agent.restarts.to_string() },
    Column {
        head: "PID",
        width: 8,
        number: true,
        show: |agent, _| agent.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
    },
    Column { head: "HEARD", width: 6, number: true, show: |agent, now| heard(&agent.last_heartbeat, now) },
    Column { head: "PROGRESS", width: 20, number: false, show: |agent, _| progress(agent) },
];

const KEYS: &str = "q quit  ? help  / filter  n s c m r b sort  i invert  Enter logs  R restart  S stop  U start";

const HELP: [&str; 19] = [
    "Up Down k j       move            PgUp PgDn Home End  move far",
    "",
    "n  by name        s  by state, what needs somebody first",
    "c  by CPU         m  by memory",
    "r  by restarts    b  by heartbeat, the oldest first",
    "i  invert; the same key twice does so, too",
    "",
    "/  filter by name or state; Enter keeps it, Esc takes it away",
    "",
    "l  or Enter: the agent's log; there Up and Down look back, End follows, q goes back",
    "R  restart the agent (asks first)",
    "S  stop it (asks first); it stays stopped until it is started",
    "U  start it",
    "",
    "q  or Ctrl-C: quit; agents go on",
    "",
    "CPU in cores, of the agent's whole process tree. What was not measured is `-`, or the reason why",
    "there is no value. HEARD: how long ago its last heartbeat came.",
    "Any key goes back.",
];

/// Draws everything. `colour` is whether colours may be used; what matters is never said by colour alone.
pub(super) fn draw(top: &mut Top, now: SystemTime, colour: bool, area: Rect, buffer: &mut Buffer) {
    top.arrange(usize::from(area.height.saturating_sub(FRAME_LINES)));
    if area.height == 0 || area.width == 0 {
        return;
    }
    let brush = Brush { area, colour };
    brush.line(buffer, 0, &head(top), Style::new().add_modifier(Modifier::BOLD));
    match &top.mode {
        Mode::Help => {
            for (at, line) in (1..area.height).zip(HELP) {
                brush.line(buffer, at, line, Style::new());
            }
        }
        Mode::Logs(view) => logs(view, &brush, buffer),
        Mode::List | Mode::Filter | Mode::Confirm(..) => list(top, now, &brush, buffer),
    }
    if area.height > 1 && top.mode != Mode::Help {
        let (text, style) = foot(top);
        brush.line(buffer, area.height - 1, &text, style);
    }
}

struct Brush {
    area: Rect,
    colour: bool,
}

impl Brush {
    fn line(&self, buffer: &mut Buffer, at: u16, text: &str, style: Style) {
        if at < self.area.height {
            buffer.set_stringn(self.area.x, self.area.y + at, text, usize::from(self.area.width), style);
        }
    }

    fn style(&self, colour: Colour) -> Style {
        let style = Style::new();
        match colour {
            _ if !self.colour => style,
            Colour::Good => style.fg(Color::Green),
            Colour::Doubtful => style.fg(Color::Yellow),
            Colour::Bad => style.fg(Color::Red),
            Colour::Quiet => style.add_modifier(Modifier::DIM),
        }
    }
}

fn head(top: &Top) -> String {
    let Some((name, level)) = &top.picture.hive else { return "waiting for the daemon".to_owned() };
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for agent in top.picture.agents.values() {
        *states.entry(agent.state.as_str()).or_default() += 1;
    }
    let counts: Vec<String> = states.iter().map(|(state, count)| format!("{count} {}", clean(state))).collect();
    let order = if top.reversed { ", inverted" } else { "" };
    let filter = match top.filter.as_str() {
        "" => String::new(),
        filter => format!("  filter {filter:?}: {} of {}", top.rows.len(), top.picture.agents.len()),
    };
    // What is shown then is the past, and must not look like now.
    let stale = if top.picture.is_stale { "  CONNECTION BROKEN, trying again every second" } else { "" };
    let (name, level, sort) = (clean(name), clean(level), top.sort.word());
    format!("{name} is {level}{stale}  agents: {}  by {sort}{order}{filter}", counts.join(", "))
}

fn foot(top: &Top) -> (String, Style) {
    let plain = Style::new();
    match &top.mode {
        Mode::Filter => (format!("/{}_   Enter keeps it, Esc takes it away", top.filter), plain),
        Mode::Confirm(verb, agent) => {
            (format!("{verb} {}? y / n", clean(agent)), plain.add_modifier(Modifier::REVERSED))
        }
        Mode::Logs(view) => {
            let place = match (&view.end, view.back) {
                (Some(end), _) => format!("ended: {}", clean(end)),
                (None, 0) => "following".to_owned(),
                (None, back) => format!("{back} lines back; End follows"),
            };
            (format!("log of {}  {place}  q back", clean(&view.agent)), plain)
        }
        _ => match &top.message {
            Some(message) => (clean(message), plain.add_modifier(Modifier::BOLD)),
            None => (KEYS.to_owned(), plain),
        },
    }
}

fn logs(view: &LogView, brush: &Brush, buffer: &mut Buffer) {
    let room = usize::from(brush.area.height.saturating_sub(2));
    let end = view.lines.len().saturating_sub(view.back);
    let lines = view.lines.range(end.saturating_sub(room)..end);
    for (at, line) in (1..).zip(lines) {
        brush.line(buffer, at, line, Style::new());
    }
}

fn list(top: &Top, now: SystemTime, brush: &Brush, buffer: &mut Buffer) {
    let (name_width, columns) = fit(brush.area.width);
    let mut x = brush.area.x;
    let underlined = Style::new().add_modifier(Modifier::UNDERLINED);
    let put = |buffer: &mut Buffer, x: &mut u16, at: u16, text: &str, width: u16, number: bool, style: Style| {
        let text = cut(text, width);
        let pad = if number { width.saturating_sub(u16::try_from(text.chars().count()).unwrap_or(width)) } else { 0 };
        buffer.set_stringn(*x + pad, brush.area.y + at, &text, usize::from(width - pad), style);
        *x += width + 1;
    };
    if brush.area.height > 2 {
        put(buffer, &mut x, 1, "AGENT", name_width, false, underlined);
        for column in columns {
            put(buffer, &mut x, 1, column.head, column.width, column.number, underlined);
        }
    }
    let rows = top.rows.iter().skip(top.offset).take(usize::from(brush.area.height.saturating_sub(FRAME_LINES)));
    for (at, id) in (2..).zip(rows) {
        let Some(agent) = top.picture.agents.get(id) else { continue };
        let chosen = top.selected.as_ref() == Some(id);
        let over = if chosen { Modifier::REVERSED } else { Modifier::empty() };
        if chosen {
            let line = Rect { x: brush.area.x, y: brush.area.y + at, width: brush.area.width, height: 1 };
            buffer.set_style(line, Style::new().add_modifier(over));
        }
        let mut x = brush.area.x;
        put(buffer, &mut x, at, &clean(id), name_width, false, Style::new().add_modifier(over));
        for column in columns {
            let style = match column.head {
                "STATE" => brush.style(Colour::of(&agent.state)),
                _ => Style::new(),
            };
            put(buffer, &mut x, at, &(column.show)(agent, now), column.width, column.number, style.add_modifier(over));
        }
    }
    if top.rows.is_empty() && top.picture.hive.is_some() {
        let why = if top.filter.is_empty() { "there is no agent" } else { "no agent fits the filter" };
        brush.line(buffer, 2, why, Style::new());
    }
}

/// How wide the name is and which columns stand beside it.
fn fit(width: u16) -> (u16, &'static [Column]) {
    let mut count = COLUMNS.len();
    loop {
        let taken: u16 = COLUMNS[..count].iter().map(|column| column.width + 1).sum();
        let left = width.saturating_sub(taken);
        if left >= NAME_MIN || count == 0 {
            let name = if count == COLUMNS.len() { left.min(NAME_MAX) } else { left };
            return (name, &COLUMNS[..count]);
        }
        count -= 1;
    }
}

fn cut(text: &str, width: u16) -> String {
    let width = usize::from(width);
    match text.chars().count() > width {
        true => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

fn heard(at: &Measured<String>, now: SystemTime) -> String {
    measured(at, |at| match humantime::parse_rfc3339(at) {
        // A clock that is a little behind the daemon's says "now".
        Ok(then) => span(now.duration_since(then).unwrap_or_default()),
        Err(_) => clean(at),
    })
}

/// What it has said of its work; where it said nothing, why it is not as it should be.
fn progress(agent: &Agent) -> String {
    let said = agent.progress.as_ref().and_then(|progress| progress.value.as_ref()).filter(|value| !value.is_null());
    match said {
        Some(Value::String(text)) => clean(text),
        Some(Value::Object(object)) => match (object.get("done"), object.get("of")) {
            (Some(done), Some(of)) => clean(&format!("{done}/{of}")),
            _ => clean(&Value::Object(object.clone()).to_string()),
        },
        Some(other) => clean(&other.to_string()),
        None if agent.reasons.is_empty() => "-".to_owned(),
        None => reasons(&agent.reasons),
    }
}
