//! The terminal, the keyboard, the streams and the commands under way.

use std::{
    io::{self, IsTerminal as _, Read},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};

use super::{
    draw,
    keys::{self, Effect},
    state::{Mode, Top},
};
use crate::{
    cli::{
        client::Client,
        commands::{fresh_key, path_of},
        error::CliError,
        interrupt::Interrupts,
        picture::{self, News},
        screen::Screen,
        shapes::{LogLine, Operation},
        sse::{self, Frames},
    },
    model::{AgentId, Target},
};

/// What waits to be taken in; the threads that read wait when there is more, and with them the daemon's streams.
const HEARD_MAX: usize = 256;
/// Between two drawings at least: ten a second are more than an eye reads.
const DRAW_PAUSE: Duration = Duration::from_millis(100);
/// Between two drawings at most: ages grow.
const DRAW_EVERY: Duration = Duration::from_secs(1);
/// Commands under way at most; who presses faster than they end is told so.
const COMMANDS_MAX: usize = 8;
/// How long the end of a command is waited for before it is left to itself.
const COMMAND_WAIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);

/// What the threads tell.
enum Heard {
    News(News),
    Key(Event),
    Line(u64, LogLine),
    LogEnd(u64, String),
    Told(String),
    Quit,
}

/// Runs until somebody quits.
pub(in crate::cli) fn top(
    client: &Client,
    now: fn() -> SystemTime,
    interrupts: &Interrupts,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    if json {
        let path = "/sse/hybrid-health?subscriptions=status,sessions";
        return sse::follow(client, path, path, |heard| {
            match heard {
                sse::Heard::Frame(frame) => screen.json(&frame.data)?,
                sse::Heard::Note(note) => screen.note(&format!("hivekeeper: {note}")),
            }
            screen.out.flush()?;
            Ok(ControlFlow::Continue(()))
        });
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let what = "top needs a terminal; `hivekeeper ps` is for files and pipes, `hivekeeper top --json` for programs";
        return Err(CliError::Usage(what.to_owned()));
    }
    let (to, heard) = sync_channel(HEARD_MAX);
    let quit = to.clone();
    interrupts.listen(move |_| {
        let quit = quit.clone();
        thread::spawn(move || {
            let _ = quit.send(Heard::Quit);
        });
    });
    picture::watch(client.clone(), None, to.clone(), Heard::News);
    // A daemon that can't be reached is told of before the screen is taken.
    let mut state = Top::new();
    match heard.recv_timeout(COMMAND_WAIT) {
        Ok(Heard::News(News::Refused(error))) => return Err(error),
        Ok(Heard::News(news)) => state.take(news),
        Ok(_) => return Ok(()),
        Err(_) => return Err(CliError::Failed("the daemon says nothing".to_owned())),
    }
    // It sets a hook that gives the terminal back before a panic is told of.
    let mut terminal = ratatui::try_init()?;
    read_keys(to.clone());
    let mut shell = Shell { client, to, log: None, logs: 0, commands: 0, now, colour: screen.colour };
    let outcome = shell.run(&mut state, &mut terminal, &heard);
    ratatui::try_restore()?;
    outcome
}

struct Shell<'a> {
    client: &'a Client,
    to: SyncSender<Heard>,
    /// Ends the thread that reads the log which is looked at.
    log: Option<Arc<AtomicBool>>,
    /// How many logs were opened: the number of the latest.
    logs: u64,
    commands: usize,
    now: fn() -> SystemTime,
    colour: bool,
}

impl Shell<'_> {
    fn run(
        &mut self,
        state: &mut Top,
        terminal: &mut DefaultTerminal,
        heard: &Receiver<Heard>,
    ) -> Result<(), CliError> {
        let mut drawn: Option<Instant> = None;
        let mut changed = true;
        loop {
            let pause = if changed { DRAW_PAUSE } else { DRAW_EVERY };
            let due = drawn.map(|drawn| drawn + pause);
            let left = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()));
            match if left.is_zero() { Err(RecvTimeoutError::Timeout) } else { heard.recv_timeout(left) } {
                Ok(heard) => {
                    changed = true;
                    if self.take(heard, state)?.is_break() {
                        return Ok(());
                    }
                }
                Err(_) => {
                    // Everything that is there is taken in before it is shown, or a flood would be shown piece by piece.
                    while let Ok(heard) = heard.try_recv() {
                        if self.take(heard, state)?.is_break() {
                            return Ok(());
                        }
                    }
                    let (now, colour) = ((self.now)(), self.colour);
                    terminal.draw(|frame| draw::draw(state, now, colour, frame.area(), frame.buffer_mut()))?;
                    (drawn, changed) = (Some(Instant::now()), false);
                }
            }
        }
    }

    fn take(&mut self, heard: Heard, state: &mut Top) -> Result<ControlFlow<()>, CliError> {
        match heard {
            Heard::Quit => return Ok(ControlFlow::Break(())),
            Heard::News(News::Refused(error)) => return Err(error),
            Heard::News(news) => state.take(news),
            Heard::Key(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                state.message = None;
                return self.perform(keys::key(state, key), state);
            }
            // A new size only has to be drawn.
            Heard::Key(_) => {}
            Heard::Line(log, line) if log == self.logs => state.log(&line),
            Heard::LogEnd(log, why) if log == self.logs => {
                if let Mode::Logs(view) = &mut state.mode {
                    view.end = Some(why);
                }
            }
            // Of a log that nobody looks at any more.
            Heard::Line(..) | Heard::LogEnd(..) => {}
            Heard::Told(what) => {
                self.commands = self.commands.saturating_sub(1);
                state.message = Some(what);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn perform(&mut self, effect: Effect, state: &mut Top) -> Result<ControlFlow<()>, CliError> {
        match effect {
            Effect::None => {}
            Effect::Quit => return Ok(ControlFlow::Break(())),
            Effect::CloseLog => self.close_log(),
            Effect::OpenLog(agent) => {
                self.close_log();
                self.logs += 1;
                let stop = Arc::new(AtomicBool::new(false));
                self.log = Some(Arc::clone(&stop));
                if let Ok(agent) = agent.parse::<AgentId>() {
                    read_log(self.client.clone(), agent, self.logs, stop, self.to.clone());
                }
            }
            Effect::Command(verb, agent) if self.commands >= COMMANDS_MAX => {
                state.message = Some(format!("{COMMANDS_MAX} commands are under way; not done: {verb} {agent}"));
            }
            Effect::Command(verb, agent) => {
                state.message = Some(format!("{verb} {agent} ..."));
                self.commands += 1;
                let (client, to) = (self.client.clone(), self.to.clone());
                thread::spawn(move || {
                    let told = command(&client, verb, &agent).unwrap_or_else(|error| {
                        // The first line says what, the others what to do in a shell.
                        let text = error.to_string();
                        format!("{verb} {agent}: {}", text.lines().next().unwrap_or_default())
                    });
                    let _ = to.send(Heard::Told(told));
                });
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn close_log(&mut self) {
        if let Some(stop) = self.log.take() {
            stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Hands it in and tells how it ended.
fn command(client: &Client, verb: &str, agent: &str) -> Result<String, CliError> {
    let target = agent.parse::<AgentId>().map_err(|error| CliError::Usage(error.to_string()))?;
    let answer = client.post(&format!("{}/{verb}", path_of(&Target::Agent(target))), "{}", &fresh_key())?;
    let mut operation: Operation = client.parse(&answer.text)?;
    let deadline = Instant::now() + COMMAND_WAIT;
    while !operation.ended() && Instant::now() < deadline {
        thread::sleep(LOOK);
        (_, operation) = client.get_as(&format!("/api/v1/operations/{}", operation.id))?;
    }
    Ok(operation.describe())
}

fn read_keys(to: SyncSender<Heard>) {
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if to.send(Heard::Key(event)).is_err() {
                return;
            }
        }
        // No keyboard any more: nobody could quit.
        let _ = to.send(Heard::Quit);
    });
}

/// A stream that ends when nobody wants it; the daemon's comments see to it that this is looked at.
struct Wanted<R> {
    stream: R,
    stop: Arc<AtomicBool>,
}

impl<R: Read> Read for Wanted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) { Ok(0) } else { self.stream.read(into) }
    }
}

fn read_log(client: Client, agent: AgentId, log: u64, stop: Arc<AtomicBool>, to: SyncSender<Heard>) {
    /// Lines to begin with: a few screens.
    const TAIL: u32 = 300;
    thread::spawn(move || {
        let path = format!("{}/logs?follow=true&tail={TAIL}", path_of(&Target::Agent(agent)));
        let stream = match client.stream(&path, None) {
            Ok(stream) => Wanted { stream, stop: Arc::clone(&stop) },
            Err(error) => {
                let why = error.to_string().lines().next().unwrap_or_default().to_owned();
                let _ = to.send(Heard::LogEnd(log, why));
                return;
            }
        };
        for frame in Frames::new(stream) {
            let Ok(line) = client.parse::<LogLine>(&frame.data) else { continue };
            if stop.load(Ordering::Relaxed) || to.send(Heard::Line(log, line)).is_err() {
                return;
            }
        }
        let _ = to.send(Heard::LogEnd(log, "the stream is over; q and Enter open it again".to_owned()));
    });
}
