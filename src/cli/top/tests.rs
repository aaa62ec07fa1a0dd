#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant, SystemTime};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};
use serde_json::{Value, json};

use super::{
    draw,
    keys::{Effect, key},
    state::{Mode, Sort, Top},
};
use crate::cli::picture::News;

fn now() -> SystemTime {
    humantime::parse_rfc3339("2026-11-21T04:00:00Z").unwrap()
}

fn agent(name: &str, state: &str, cpu: Option<f64>, restarts: u64) -> Value {
    let absent = json!({ "value": null, "reason": "never_observed" });
    let cpu = cpu.map_or(absent.clone(), |cpu| json!({ "value": cpu, "source": "launcher" }));
    json!({
        "swarm": "demo", "name": name, "state": state, "since": "2026-11-21T03:57:00.000Z", "reasons": [],
        "desired": "running", "incarnation": 1, "pid": 4711, "restarts": restarts, "restarts_in_window": 0,
        "cpu": cpu, "memory": { "value": 3_565_158, "source": "launcher" },
        "last_heartbeat": { "value": "2026-11-21T03:59:57.000Z", "source": "agent" },
        "progress": { "value": { "done": 3, "of": 10 }, "source": "agent" }
    })
}

fn news(agents: &[Value]) -> News {
    let hive = json!({
        "hive": "lab", "level": "degraded", "since": "2026-11-21T03:00:00.000Z",
        "control_plane": { "reachable": true },
        "data_plane": { "listening": true, "sessions": 0, "dropped": 0, "refused": 0 }, "agents": agents
    });
    News::Whole(serde_json::from_value(hive).unwrap())
}

fn sample() -> Top {
    let mut top = Top::new();
    let mut dead = agent("dead", "failed", None, 6);
    dead["pid"] = Value::Null;
    dead["progress"] = json!({ "value": null, "reason": "never_observed" });
    dead["reasons"] = json!([{ "code": "gave_up", "detail": "exited with code 3" }]);
    top.take(news(&[agent("busy", "running", Some(1.5), 0), agent("calm", "running", Some(0.02), 1), dead]));
    top.arrange(10);
    top
}

fn screen(top: &mut Top, width: u16, height: u16, colour: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(top, now(), colour, frame.area(), frame.buffer_mut())).unwrap();
    terminal
}

fn lines(terminal: &Terminal<TestBackend>) -> Vec<String> {
    let buffer = terminal.backend().buffer();
    let row = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..buffer.area.height).map(row).collect()
}

fn press(top: &mut Top, code: KeyCode) -> Effect {
    let effect = key(top, KeyEvent::new(code, KeyModifiers::NONE));
    top.arrange(10);
    effect
}

fn type_in(top: &mut Top, text: &str) {
    for c in text.chars() {
        assert_eq!(press(top, KeyCode::Char(c)), Effect::None);
    }
}

fn names(top: &Top) -> Vec<&str> {
    top.rows.iter().map(|id| id.trim_start_matches("demo/")).collect()
}

#[test]
fn agents_are_shown_with_what_was_measured() {
    let shown = lines(&screen(&mut sample(), 100, 7, true));
    let expected = [
        "lab is degraded  agents: 1 failed, 2 running  by name",
        "AGENT                    STATE          CPU     MEMORY RESTARTS      PID  HEARD PROGRESS",
        "demo/busy                running       1.50     3.4MiB        0     4711     3s 3/10",
        "demo/calm                running       0.02     3.4MiB        1     4711     3s 3/10",
        "demo/dead                failed           -     3.4MiB        6        -     3s gave_up: exited wit…",
        "",
        "q quit  ? help  / filter  n s c m r b sort  i invert  Enter logs  R restart  S stop  U start",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn colours_are_used_where_they_may_be_and_the_selected_row_is_seen_without() {
    for colour in [true, false] {
        let terminal = screen(&mut sample(), 100, 7, colour);
        let buffer = terminal.backend().buffer();
        let fg = |y| buffer[(25, y)].fg;
        let expected = if colour { [Color::Green, Color::Red] } else { [Color::Reset; 2] };
        assert_eq!([fg(2), fg(4)], expected);
        let reversed = |y| buffer[(90, y)].modifier.contains(Modifier::REVERSED);
        assert_eq!([reversed(2), reversed(3)], [true, false]);
    }
}

#[test]
fn small_windows_keep_what_matters_and_none_is_too_small() {
    let shown = lines(&screen(&mut sample(), 40, 5, true));
    assert_eq!(shown[2], "demo/busy             running       1.50");
    assert_eq!(shown[3], "demo/calm             running       0.02", "{shown:?}");
    for (width, height) in [(0, 0), (1, 1), (3, 2), (10, 3), (200, 1), (1, 50), (17, 4)] {
        for mode in [Mode::List, Mode::Help, Mode::Filter, Mode::Logs(super::state::LogView::default())] {
            let mut top = sample();
            top.mode = mode;
            drop(screen(&mut top, width, height, true));
        }
    }
}

#[test]
fn rows_are_sorted_and_what_was_not_measured_comes_last() {
    let mut top = sample();
    for (code, order) in [
        ('c', ["busy", "calm", "dead"]),
        ('c', ["calm", "busy", "dead"]),
        ('r', ["dead", "calm", "busy"]),
        ('s', ["dead", "busy", "calm"]),
        ('n', ["busy", "calm", "dead"]),
        ('i', ["dead", "calm", "busy"]),
    ] {
        assert_eq!(press(&mut top, KeyCode::Char(code)), Effect::None);
        assert_eq!(names(&top), order, "{code}");
    }
    assert_eq!((top.sort, top.reversed), (Sort::Name, true));
}

#[test]
fn the_selection_stays_with_its_agent() {
    let mut top = sample();
    assert_eq!(press(&mut top, KeyCode::Down), Effect::None);
    assert_eq!(top.selected.as_deref(), Some("demo/calm"));
    assert_eq!(press(&mut top, KeyCode::Char('r')), Effect::None);
    assert_eq!((names(&top)[1], top.selected.as_deref()), ("calm", Some("demo/calm")));
    for (code, id) in [
        (KeyCode::End, "demo/busy"),
        (KeyCode::Down, "demo/busy"),
        (KeyCode::Home, "demo/dead"),
        (KeyCode::Up, "demo/dead"),
        (KeyCode::PageDown, "demo/busy"),
    ] {
        assert_eq!(press(&mut top, code), Effect::None);
        assert_eq!(top.selected.as_deref(), Some(id), "{code:?}");
    }
    top.take(news(&[agent("calm", "running", None, 0)]));
    top.arrange(10);
    assert_eq!(top.selected.as_deref(), Some("demo/calm"), "one that is gone can't be chosen");
}

#[test]
fn a_filter_is_typed_kept_and_taken_away() {
    let mut top = sample();
    type_in(&mut top, "/fail");
    assert_eq!(lines(&screen(&mut top, 80, 6, true))[5], "/fail_   Enter keeps it, Esc takes it away");
    assert_eq!(names(&top), ["dead"]);
    assert_eq!(press(&mut top, KeyCode::Enter), Effect::None);
    assert!(lines(&screen(&mut top, 100, 6, true))[0].ends_with("filter \"fail\": 1 of 3"));
    type_in(&mut top, "/x");
    assert_eq!(lines(&screen(&mut top, 80, 6, true))[2], "no agent fits the filter");
    assert_eq!(press(&mut top, KeyCode::Backspace), Effect::None);
    assert_eq!(press(&mut top, KeyCode::Enter), Effect::None);
    assert_eq!(names(&top), ["dead"]);
    assert_eq!(press(&mut top, KeyCode::Esc), Effect::None);
    assert_eq!(names(&top).len(), 3);
}

#[test]
fn what_ends_an_agent_is_asked_for_first() {
    let mut top = sample();
    for (code, verb) in [('R', "restart"), ('S', "stop")] {
        assert_eq!(press(&mut top, KeyCode::Char(code)), Effect::None);
        assert_eq!(lines(&screen(&mut top, 80, 7, true))[6], format!("{verb} demo/busy? y / n"));
        assert_eq!(press(&mut top, KeyCode::Char('n')), Effect::None);
        assert_eq!(top.mode, Mode::List);
        assert_eq!(press(&mut top, KeyCode::Char(code)), Effect::None);
        assert_eq!(press(&mut top, KeyCode::Char('y')), Effect::Command(verb, "demo/busy".to_owned()));
    }
    assert_eq!(press(&mut top, KeyCode::Char('U')), Effect::Command("start", "demo/busy".to_owned()));
    assert_eq!(press(&mut Top::new(), KeyCode::Char('U')), Effect::None, "nobody is chosen");
}

#[test]
fn logs_follow_the_end_and_stay_where_somebody_reads() {
    let mut top = sample();
    assert_eq!(press(&mut top, KeyCode::Enter), Effect::OpenLog("demo/busy".to_owned()));
    let line = |number: u64| {
        let line = json!({
            "number": number, "incarnation": 1, "at": "2026-11-21T03:59:59.000Z", "stream": "stdout",
            "text": format!("tick\t{number}\u{1b}")
        });
        serde_json::from_value(line).unwrap()
    };
    for number in 1..=9 {
        top.log(&line(number));
    }
    let shown = lines(&screen(&mut top, 80, 5, true));
    assert_eq!(
        shown[1..],
        [
            "03:59:59 tick    7\\u{1b}",
            "03:59:59 tick    8\\u{1b}",
            "03:59:59 tick    9\\u{1b}",
            "log of demo/busy  following  q back"
        ]
    );
    assert_eq!(press(&mut top, KeyCode::Up), Effect::None);
    top.log(&line(10));
    let shown = lines(&screen(&mut top, 80, 5, true));
    assert_eq!(
        (shown[3].as_str(), shown[4].as_str()),
        ("03:59:59 tick    8\\u{1b}", "log of demo/busy  2 lines back; End follows  q back")
    );
    for number in 11..=5000 {
        top.log(&line(number));
    }
    let Mode::Logs(view) = &top.mode else { panic!() };
    assert_eq!((view.lines.len(), view.back), (2000, 2000), "what is read falls out at last");
    drop(screen(&mut top, 80, 5, true));
    assert_eq!(press(&mut top, KeyCode::Char('q')), Effect::CloseLog);
    assert_eq!(top.mode, Mode::List);
}

#[test]
fn help_quitting_and_a_broken_stream() {
    let mut top = sample();
    type_in(&mut top, "?");
    let shown = lines(&screen(&mut top, 100, 24, true));
    assert!(shown.iter().any(|line| line.contains("R  restart the agent")), "{shown:?}");
    assert_eq!(press(&mut top, KeyCode::Char('q')), Effect::None, "any key goes back");
    top.take(News::Broken);
    assert!(lines(&screen(&mut top, 100, 5, true))[0].contains("CONNECTION BROKEN"));
    assert_eq!(press(&mut top, KeyCode::Char('q')), Effect::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    top.mode = Mode::Filter;
    assert_eq!(key(&mut top, interrupt), Effect::Quit);
}

#[test]
fn five_thousand_agents_are_drawn_in_a_fraction_of_the_pause_between_two_drawings() {
    let agents: Vec<Value> =
        (0..5000_u32).map(|n| agent(&format!("a-{n}"), "running", Some(f64::from(n % 97)), u64::from(n % 7))).collect();
    let mut top = Top::new();
    top.take(news(&agents));
    top.sort = Sort::Cpu;
    let began = Instant::now();
    for _ in 0..5 {
        top.outdate();
        drop(screen(&mut top, 200, 60, true));
    }
    // Without optimisation, on a machine that builds beside it: what is guarded against is work for each agent squared.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(top.rows.len(), 5000);
}
