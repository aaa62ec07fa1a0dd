//! An operation while it runs: its steps as they come, and how it ended.

use std::{
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use super::{
    client::{Answer, Client},
    error::CliError,
    interrupt::Interrupts,
    screen::Screen,
    shapes::{Operation, Step},
    words::clean,
};

/// First pause between two looks at the operation; a restart of one agent takes some milliseconds.
const LOOK_FIRST: Duration = Duration::from_millis(20);
/// Longest pause: what a person takes for "at once".
const LOOK_LONGEST: Duration = Duration::from_millis(500);
/// An operation that ends sooner needs no live line: it would only flicker.
const LIVE_AFTER: Duration = Duration::from_millis(300);

/// How an operation is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience<'a> {
    /// How long at most.
    pub(super) timeout: Duration,
    /// What may end the wait before.
    pub(super) interrupts: &'a Interrupts,
    /// The result is wanted as JSON.
    pub(super) json: bool,
}

/// Waits until an accepted operation has ended, shows its steps meanwhile, and returns what it came to.
pub(super) fn follow(
    client: &Client,
    accepted: Answer,
    patience: Patience<'_>,
    screen: &mut Screen<'_>,
) -> Result<(Answer, Operation), CliError> {
    let began = Instant::now();
    let deadline = began + patience.timeout;
    // One press is enough, and further ones must not make the listener wait.
    let (press, pressed) = sync_channel(1);
    patience.interrupts.listen(move |_| {
        let _ = press.try_send(());
    });
    let mut answer = accepted;
    let mut operation: Operation = client.parse(&answer.text)?;
    let look = format!("/api/v1/operations/{}", operation.id);
    let mut shown = Shown::default();
    let mut pause = LOOK_FIRST;
    loop {
        shown.tell(&operation, began.elapsed(), screen);
        if operation.ended() {
            shown.wipe(screen);
            return Ok((answer, operation));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            shown.wipe(screen);
            return Err(CliError::TimedOut {
                what: format!("operation {}", clean(&operation.id)),
                within: humantime::format_duration(patience.timeout).to_string(),
                hint: format!("It goes on. {}", goes_on(&operation.id)),
            });
        }
        match pressed.recv_timeout(pause.min(left)) {
            Ok(()) => {
                shown.wipe(screen);
                return Err(CliError::Left(format!(
                    "{} {} goes on as operation {}.\n{}",
                    clean(&operation.kind),
                    clean(&operation.target),
                    clean(&operation.id),
                    goes_on(&operation.id)
                )));
            }
            Err(RecvTimeoutError::Timeout) => {}
            // The listener lives as long as the process.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(pause.min(left)),
        }
        pause = (pause * 2).min(LOOK_LONGEST);
        (answer, operation) = client.get_as(&look).inspect_err(|_| {
            shown.wipe(screen);
            let what = "was accepted; what became of it is not known here";
            screen.note(&format!("hivekeeper: operation {} {what}", clean(&operation.id)));
        })?;
    }
}

/// Follows it to its end, prints how it ended, and ends as it ended.
pub(super) fn to_its_end(
    client: &Client,
    accepted: Answer,
    patience: Patience<'_>,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let (answer, operation) = follow(client, accepted, patience, screen)?;
    if patience.json {
        screen.json(&answer.text)?;
    } else {
        screen.line(&operation.describe())?;
    }
    match operation.state.as_str() {
        "succeeded" => Ok(()),
        _ => Err(CliError::Failed(format!(
            "{} {}\n`hivekeeper ps -o wide` shows the last exits and why.",
            clean(&operation.kind),
            clean(&operation.state)
        ))),
    }
}

/// What was accepted and is not waited for.
pub(super) fn accepted(client: &Client, answer: &Answer, json: bool, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let operation: Operation = client.parse(&answer.text)?;
    let line = format!("{} {}: accepted as operation {}", operation.kind, operation.target, operation.id);
    Ok(if json { screen.json(&answer.text) } else { screen.line(&clean(&line)) }?)
}

fn goes_on(id: &str) -> String {
    let id = clean(id);
    format!("`hivekeeper operations watch {id}` follows it, `hivekeeper operations cancel {id}` calls it off.")
}

/// What the eye has seen of it. All of it goes to standard error: standard output is for the result.
#[derive(Default)]
struct Shown {
    told: usize,
    live: bool,
}

impl Shown {
    fn tell(&mut self, operation: &Operation, took: Duration, screen: &mut Screen<'_>) {
        let fresh = operation.steps.get(self.told..).unwrap_or_default();
        let Some(width) = screen.live else {
            for step in fresh {
                screen.note(&format!("  {}", step.describe()));
            }
            self.told += fresh.len();
            return;
        };
        // On a terminal the latest step stands in one line that is written over; what failed stays to be read.
        for step in fresh.iter().filter(|step| !step.ok) {
            self.wipe(screen);
            screen.note(&format!("  {}", step.describe()));
        }
        self.told += fresh.len();
        if operation.ended() || took < LIVE_AFTER {
            return;
        }
        let head = format!("{} {}: {}", operation.kind, operation.target, operation.state);
        let count = operation.steps.len();
        let mut line = clean(&format!("{head}, {}s", took.as_secs()));
        if let Some(step) = operation.steps.last() {
            line.push_str(&format!(", {count} done; {}", step.describe()));
        }
        // One column stays free, else some terminals begin a new line.
        let line: String = line.chars().take(usize::from(width).saturating_sub(1)).collect();
        let _ = write!(screen.err, "\r\x1b[K{line}");
        let _ = screen.err.flush();
        self.live = true;
    }

    fn wipe(&mut self, screen: &mut Screen<'_>) {
        if std::mem::take(&mut self.live) {
            let _ = write!(screen.err, "\r\x1b[K");
            let _ = screen.err.flush();
        }
    }
}

impl Step {
    /// `demo/clock: running as pid 9`
    pub(super) fn describe(&self) -> String {
        let sign = if self.ok { "" } else { "failed: " };
        format!("{}: {sign}{}", clean(&self.agent), clean(&self.detail))
    }
}

impl Operation {
    /// Whether nothing more will happen.
    pub(super) fn ended(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "failed" | "cancelled")
    }

    /// `restart demo/clock: succeeded`
    pub(super) fn describe(&self) -> String {
        let error = self.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        clean(&format!("{} {}: {}{error}", self.kind, self.target, self.state))
    }
}
