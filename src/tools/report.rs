//! A report on tasks, for people: Markdown from documents.

use std::{
    collections::BTreeMap,
    fmt::Write,
    time::{Duration, SystemTime},
};

use crate::{
    coordination::progress::{Progress, is_stuck},
    model::{AttemptEnd, SwarmName, Task, TaskState},
    view::Rfc3339,
};

/// Tasks that one section names; it says how many more there are.
const NAMED_MAX: usize = 200;

/// Writes the report. Tasks come in the order of their numbers.
pub(super) fn markdown(
    swarm: &SwarmName,
    group: Option<&str>,
    tasks: &[&Task],
    groups: &[Progress],
    now: SystemTime,
) -> String {
    let mut text = Text(String::new());
    let of = group.map(|group| format!(", group {}", plain(group))).unwrap_or_default();
    text.line(format_args!("# Tasks of {swarm}{of}\n\nAs of {}.", Rfc3339(now)));
    summary(&mut text, tasks);
    progress(&mut text, groups);
    finished(&mut text, tasks);
    under_way(&mut text, tasks, now);
    blocked(&mut text, tasks);
    given_up(&mut text, tasks);
    lost(&mut text, tasks);
    text.0
}

/// Bytes from which on a report names nothing more.
const BYTES_MAX: usize = 256 * 1024;

struct Text(String);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string can't fail.
        let _ = writeln!(self.0, "{line}");
    }

    /// A section with a line for each, the first ones; none without any.
    fn section<T>(&mut self, title: &str, table: Option<&str>, all: &[T], line: impl Fn(&T) -> String) {
        if all.is_empty() {
            return;
        }
        self.line(format_args!("\n## {title} ({})\n", all.len()));
        if let Some(head) = table {
            let rule = "|---".repeat(head.matches('|').count().saturating_sub(1));
            self.line(format_args!("{head}\n{rule}|"));
        }
        let mut named = 0;
        while named < NAMED_MAX.min(all.len()) && self.0.len() < BYTES_MAX {
            self.line(format_args!("{}", line(&all[named])));
            named += 1;
        }
        if all.len() > named {
            self.line(format_args!("\nand {} more.", all.len() - named));
        }
    }
}

fn summary(text: &mut Text, tasks: &[&Task]) {
    if tasks.is_empty() {
        return text.line(format_args!("\nThere are no tasks."));
    }
    let counts = TaskState::ALL.map(|state| (state.word(), tasks.iter().filter(|task| task.state == state).count()));
    let counts: Vec<String> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(word, count)| format!("{count} {word}")).collect();
    let all = if tasks.len() == 1 { "1 task".to_owned() } else { format!("{} tasks", tasks.len()) };
    text.line(format_args!("\n{all}: {}.", counts.join(", ")));
}

fn progress(text: &mut Text, groups: &[Progress]) {
    let line = |one: &Progress| {
        let name = one.group.as_deref().map_or_else(|| "(none)".to_owned(), plain);
        let rate = one.done_per_hour.map_or_else(|| "unknown".to_owned(), |rate| format!("{rate:.1}"));
        let rest = one.remaining.map_or_else(|| "unknown".to_owned(), span);
        let rest = if one.done() == one.total { "nothing".to_owned() } else { rest };
        format!("| {name} | {} of {} | {rate} | {rest} |", one.done(), one.total)
    };
    text.section("Progress by group", Some("| group | done | done per hour | left to do takes |"), groups, line);
}

fn finished(text: &mut Text, tasks: &[&Task]) {
    let mut done: Vec<&Task> = of(tasks, |task| task.state == TaskState::Done);
    done.sort_by_key(|task| (std::cmp::Reverse(task.since), std::cmp::Reverse(task.number)));
    let mut by: BTreeMap<String, usize> = BTreeMap::new();
    for task in &done {
        let name = completed(task).map_or_else(|| "unknown".to_owned(), |attempt| attempt.holder.id.name.to_string());
        *by.entry(name).or_default() += 1;
    }
    let line = |task: &&Task| {
        let attempt = completed(task);
        let who = attempt.map_or_else(|| "unknown".to_owned(), |attempt| who(&attempt.holder));
        let took = attempt.and_then(|attempt| attempt.until.duration_since(attempt.since).ok());
        let took = took.map_or_else(|| "unknown".to_owned(), span);
        format!("| {} | {who} | {took} | {} | {} |", name(task), task.failures + task.losses, Rfc3339(task.since))
    };
    text.section("Finished", Some("| task | by | took | attempts before | at |"), &done, line);
    let by: Vec<(String, usize)> = by.into_iter().collect();
    text.section("Finished by", None, &by, |(who, count)| format!("- {who}: {count}"));
}

fn under_way(text: &mut Text, tasks: &[&Task], now: SystemTime) {
    let held = of(tasks, |task| task.state.held());
    text.section("Under way", None, &held, |task| {
        let mut line = format!("- {}", name(task));
        if let Some(claim) = &task.claim {
            let since = now.duration_since(claim.since).unwrap_or_default();
            let _ = write!(line, ", by {} for {}", who(&claim.holder), span(since));
        }
        if let Some(progress) = &task.progress {
            let percent = progress.percent.map(|percent| format!(" {percent} %")).unwrap_or_default();
            let note = progress.note.as_deref().map(|note| format!(" {}", plain(note))).unwrap_or_default();
            let _ = write!(line, ":{percent}{note}");
        }
        line
    });
}

fn blocked(text: &mut Text, tasks: &[&Task]) {
    let stuck = of(tasks, is_stuck);
    let waits = of(tasks, |task| task.state == TaskState::Blocked && !is_stuck(task));
    let line = |task: &&Task| format!("- {}: {}", name(task), why(task));
    text.section("Blocked until somebody intervenes", None, &stuck, line);
    text.section("Waiting for others", None, &waits, line);
}

fn given_up(text: &mut Text, tasks: &[&Task]) {
    // Not those that the task remembers, of which the oldest are let go.
    let attempts = |task: &Task| task.failures + task.losses;
    let line = |task: &&Task| format!("- {}, after {} attempts: {}", name(task), attempts(task), why(task));
    text.section("Failed", None, &of(tasks, |task| task.state == TaskState::Failed), line);
    let line = |task: &&Task| format!("- {}: {}", name(task), why(task));
    text.section("Cancelled", None, &of(tasks, |task| task.state == TaskState::Cancelled), line);
}

fn lost(text: &mut Text, tasks: &[&Task]) {
    let lost: Vec<_> = tasks
        .iter()
        .flat_map(|task| task.attempts.iter().map(move |attempt| (task, attempt)))
        .filter(|(_, attempt)| {
            matches!(attempt.end, AttemptEnd::HolderEnded | AttemptEnd::LeaseExpired | AttemptEnd::DeadlinePassed)
        })
        .collect();
    text.section("Attempts lost", None, &lost, |(task, attempt)| {
        let how = match attempt.end {
            AttemptEnd::HolderEnded => "ended with the task in hand",
            AttemptEnd::LeaseExpired => "was not heard of in time",
            _ => "took too long",
        };
        let after = span(attempt.until.duration_since(attempt.since).unwrap_or_default());
        format!("- {}: {} {how}, after {after}", name(task), who(&attempt.holder))
    });
}

fn of<'a>(tasks: &[&'a Task], which: impl Fn(&Task) -> bool) -> Vec<&'a Task> {
    tasks.iter().copied().filter(|task| which(task)).collect()
}

fn completed(task: &Task) -> Option<&crate::model::Attempt> {
    task.attempts.iter().rev().find(|attempt| attempt.end == AttemptEnd::Completed)
}

fn name(task: &Task) -> String {
    plain(&task.spec.title)
}

fn who(party: &crate::model::Party) -> String {
    match party.incarnation {
        Some(incarnation) => format!("{} (incarnation {incarnation})", party.id.name),
        None => party.id.name.to_string(),
    }
}

fn why(task: &Task) -> String {
    let said = |reason: &String| match reason.split_once(": ") {
        Some((code, detail)) => format!("{}: {}", code.replace('_', " "), plain(detail)),
        None => plain(reason),
    };
    let reasons: Vec<String> = task.reasons.iter().map(said).collect();
    if reasons.is_empty() { "no reason was given".to_owned() } else { reasons.join("; ") }
}

/// A time in the two units that tell most.
fn span(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Text that Markdown takes for nothing but text, in one line.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    // What begins a line, or what comes behind the mark of a list, may be a mark itself.
    let (mut first, mut digits) = (true, true);
    for c in text.chars() {
        match c {
            c if c.is_control() => plain.push(' '),
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '&' => plain.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' => plain.extend(['\\', c]),
            '-' | '+' | '#' | '=' if first => plain.extend(['\\', c]),
            '.' | ')' if digits && !first => plain.extend(['\\', c]),
            c => plain.push(c),
        }
        digits &= c.is_ascii_digit();
        first = false;
    }
    plain
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{sync::Arc, time::UNIX_EPOCH};

    use super::*;
    use crate::{
        coordination::{
            Counter,
            board::{Asking, Board, Dependency, NewTask},
            progress,
            testing::{LEASE, fence, party, swarm, task},
        },
        model::{Retry, TaskId},
    };

    fn at(s: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_233_600 + s)
    }

    struct Story {
        board: Board,
        counter: Counter,
    }

    impl Story {
        fn new() -> Self {
            Self { board: Board::default(), counter: Counter::behind(0) }
        }

        fn create(&mut self, title: &str, group: &str, behind: &[TaskId]) -> TaskId {
            let mut new = task(title);
            new.spec.group = Some(group.into());
            let depends_on = behind.iter().copied().map(Dependency::Task).collect();
            let new = NewTask { depends_on, ..new };
            self.board.create(&mut self.counter, &swarm(), None, vec![new], None, at(0)).unwrap()[0].id
        }

        fn take(&mut self, id: TaskId, who: &str, incarnation: u64, s: u64) -> Arc<Task> {
            let asking = Asking { party: party(who, incarnation), categories: Vec::new(), max: 1, lease: LEASE * 1000 };
            self.board.claim_this(&mut self.counter, id, &asking, at(s)).unwrap()
        }

        fn written(&self, s: u64) -> String {
            let tasks: Vec<_> = self.board.list(&swarm(), 0).cloned().collect();
            let groups = progress::of_tasks(&tasks, at(s));
            let tasks: Vec<&Task> = tasks.iter().map(|task| &**task).collect();
            markdown(&swarm(), None, &tasks, &groups, at(s))
        }
    }

    #[test]
    fn a_report_tells_what_was_finished_and_by_whom_and_what_is_blocked_and_why() {
        let mut story = Story::new();
        let parser = story.create("Mend the parser", "api", &[]);
        let lexer = story.create("Mend the [lexer](http://x) | <b>now</b>", "api", &[]);
        let docs = story.create("Write docs", "docs", &[]);
        let site = story.create("Publish the site", "docs", &[docs]);
        story.create("Tell the world", "docs", &[parser, site]);
        story.create("Release", "api", &[parser, lexer]);
        let old = story.create("Old idea", "api", &[]);
        story.take(parser, "coder-1", 1, 10);
        story.board.holder_ended(&party("coder-1", 1), at(40));
        let held = story.take(parser, "coder-1", 2, 60);
        story.board.complete(&swarm(), parser, fence(&held), None, at(760)).unwrap();
        let held = story.take(docs, "coder-2", 1, 10);
        story.board.fail(&swarm(), docs, fence(&held), "no *network*\nat all".into(), at(12)).unwrap();
        let held = story.take(lexer, "coder-3", 1, 700);
        story.board.progress(&swarm(), lexer, fence(&held), Some(40), Some("half".into()), at(750)).unwrap();
        story.board.cancel(&swarm(), old, Some("not needed".into()), at(5)).unwrap();
        let golden = "\
# Tasks of review

As of 2026-11-21T04:13:20.000Z.

7 tasks: 3 blocked, 1 running, 1 done, 1 failed, 1 cancelled.

## Progress by group (2)

| group | done | done per hour | left to do takes |
|---|---|---|---|
| api | 1 of 3 | unknown | unknown |
| docs | 0 of 3 | unknown | unknown |

## Finished (1)

| task | by | took | attempts before | at |
|---|---|---|---|---|
| Mend the parser | coder-1 (incarnation 2) | 11 min 40 s | 1 | 2026-11-21T04:12:40.000Z |

## Finished by (1)

- coder-1: 1

## Under way (1)

- Mend the \\[lexer\\](http://x) \\| &lt;b&gt;now&lt;/b&gt;, by coder-3 (incarnation 1) for 1 min 40 s: 40 % half

## Blocked until somebody intervenes (2)

- Publish the site: dependency failed: ID (Write docs)
- Tell the world: dependency blocked: ID (Publish the site)

## Waiting for others (1)

- Release: waiting: for 1 of 2 tasks

## Failed (1)

- Write docs, after 1 attempts: attempt failed: no \\*network\\* at all

## Cancelled (1)

- Old idea: cancelled: not needed

## Attempts lost (1)

- Mend the parser: coder-1 (incarnation 1) ended with the task in hand, after 30 s
";
        let mut written = story.written(800);
        for id in [docs, site] {
            written = written.replace(&id.to_string(), "ID");
        }
        assert_eq!(written, golden);
    }

    #[test]
    fn a_report_on_nothing_says_so_and_one_on_very_much_says_how_much_it_leaves_out() {
        let mut story = Story::new();
        assert!(story.written(0).ends_with("There are no tasks.\n"));
        for n in 0..NAMED_MAX + 5 {
            let id = story.create(&format!("t{n}"), "g", &[]);
            story.board.cancel(&swarm(), id, None, at(1)).unwrap();
        }
        assert!(story.written(2).ends_with("\n- t199: no reason was given\n\nand 5 more.\n"));
    }

    #[test]
    fn titles_are_nothing_but_text() {
        for (text, told) in [
            ("- a", "\\- a"),
            ("a - b", "a - b"),
            ("# a", "\\# a"),
            ("12. a", "12\\. a"),
            ("v1.2", "v1.2"),
            ("1.5) a", "1\\.5) a"),
            ("_a_ `b` ~c~ \\", "\\_a\\_ \\`b\\` \\~c\\~ \\\\"),
            ("a\r\n## b", "a  ## b"),
        ] {
            assert_eq!(plain(text), told);
        }
    }

    #[test]
    fn a_report_has_an_end_even_if_every_reason_is_long() {
        let mut story = Story::new();
        for _ in 0..NAMED_MAX {
            let id = story.create("t", "g", &[]);
            story.board.cancel(&swarm(), id, Some("*".repeat(2000).into()), at(1)).unwrap();
        }
        let written = story.written(2);
        assert!(written.len() > BYTES_MAX && written.len() < BYTES_MAX + 10_000, "{}", written.len());
        assert!(written.ends_with(" more.\n"));
    }

    #[test]
    fn attempts_that_a_task_no_longer_remembers_count() {
        const RETRIES: u32 = 20;
        let mut story = Story::new();
        let mut new = task("t");
        new.spec.retry = Retry { retries: RETRIES, backoff: LEASE, backoff_max: LEASE };
        let id = story.board.create(&mut story.counter, &swarm(), None, vec![new], None, at(0)).unwrap()[0].id;
        for n in 0..=u64::from(RETRIES) {
            let now = 10_000 * (n + 1);
            story.board.tick(at(now));
            let held = story.take(id, "coder-1", 1, now);
            story.board.fail(&swarm(), id, fence(&held), "no".into(), at(now)).unwrap();
        }
        let written = story.written(1_000_000);
        assert!(written.contains("- t, after 21 attempts: "), "{written}");
    }

    #[test]
    fn times_are_told_in_two_units() {
        let told = |ms: u64| span(Duration::from_millis(ms));
        assert_eq!(
            [told(7), told(59_999), told(61_000), told(3_660_000), told(90_000_000)],
            ["7 ms", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]
        );
    }
}
