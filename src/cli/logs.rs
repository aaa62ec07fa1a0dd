//! `logs`: what an agent wrote.

use std::{io, ops::ControlFlow};

use super::{
    args::LogsArgs,
    client::Client,
    error::CliError,
    screen::Screen,
    shapes::{Gap, LogLine, LogPage},
    sse,
    words::clean,
};

/// Lines that are shown when nothing else is asked for: a few screenfuls.
const TAIL_DEFAULT: u64 = 100;
/// Lines of one request; the API's own bound.
const PAGE: u64 = 5000;

/// Shows lines; with `--follow` until Ctrl-C.
pub(super) fn logs(client: &Client, args: &LogsArgs, json: bool, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let path = format!("/api/v1/swarms/{}/agents/{}/logs", args.agent.swarm, args.agent.name);
    let since = args.since.map(|since| format!("&since={}ms", since.as_millis())).unwrap_or_default();
    let tail = args.tail.or_else(|| args.since.is_none().then_some(TAIL_DEFAULT));
    let tail = tail.map(|tail| format!("&tail={tail}")).unwrap_or_default();
    let mut printer = Printer { long: args.long, open: None };
    if args.follow {
        let first = format!("{path}?follow=true{since}{tail}");
        let later = format!("{path}?follow=true");
        return sse::follow(client, &first, &later, screen, |frame, screen| {
            if json {
                screen.json(&frame.data)?;
            } else {
                match frame.event.as_str() {
                    "line" => printer.print(&client.parse(&frame.data)?, screen)?,
                    "gap" => printer.gap(&client.parse(&frame.data)?, screen)?,
                    _ => {}
                }
            }
            screen.out.flush()?;
            Ok(if frame.event == "end" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
    }
    let limit = if tail.is_empty() { format!("&limit={PAGE}") } else { String::new() };
    let first = client.get(&format!("{path}?{}", format!("{since}{tail}{limit}").trim_start_matches('&')))?;
    if json {
        return Ok(screen.json(&first.text)?);
    }
    let mut page: LogPage = client.parse(&first.text)?;
    loop {
        for line in &page.lines {
            printer.print(line, screen)?;
        }
        // Where only an age was asked for there may be more lines than one answer holds.
        let more = page.lines.last().filter(|line| tail.is_empty() && line.number < page.last);
        let Some(after) = more.map(|line| line.number) else { break };
        page = client.get_as(&format!("{path}?after={after}&limit={PAGE}"))?.1;
    }
    Ok(printer.close(screen)?)
}

struct Printer {
    long: bool,
    /// The stream whose line was cut in pieces and goes on.
    open: Option<String>,
}

impl Printer {
    /// The text as the program wrote it, notes of Hivekeeper's own set off from it.
    fn print(&mut self, line: &LogLine, screen: &mut Screen<'_>) -> io::Result<()> {
        if self.long {
            let cut = if line.partial { " ..." } else { "" };
            let (number, incarnation, at) = (line.number, line.incarnation, clean(&line.at));
            let level = line.level.as_deref().map(|level| format!(" {}", clean(level))).unwrap_or_default();
            let stream = clean(&line.stream);
            return screen.line(&format!("{number} {at} #{incarnation} {stream}{level}: {}{cut}", line.text));
        }
        if self.open.as_ref().is_some_and(|open| *open != line.stream) {
            self.close(screen)?;
        }
        let text = if line.stream == "hivekeeper" { format!("-- {} --", line.text) } else { line.text.clone() };
        screen.out.write_all(text.as_bytes())?;
        self.open = line.partial.then(|| line.stream.clone());
        if !line.partial {
            screen.out.write_all(b"\n")?;
        }
        Ok(())
    }

    fn gap(&mut self, gap: &Gap, screen: &mut Screen<'_>) -> io::Result<()> {
        self.close(screen)?;
        screen.line(&format!(
            "-- lines {} to {} are no longer kept --",
            gap.after + 1,
            gap.first_kept.saturating_sub(1)
        ))
    }

    fn close(&mut self, screen: &mut Screen<'_>) -> io::Result<()> {
        match self.open.take() {
            Some(_) => screen.out.write_all(b"\n"),
            None => Ok(()),
        }
    }
}
