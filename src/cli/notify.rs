//! `notify`: who is told when something is wrong, and whether that arrives.

use clap::Subcommand;
use serde::Deserialize;

use super::{
    client::Client,
    commands::fresh_key,
    error::CliError,
    screen::Screen,
    table::{self, Cell},
    words::clean,
};
use crate::model::NotifierName;

/// What is done with notifiers.
#[derive(Debug, Subcommand)]
pub(super) enum NotifyCommand {
    /// List who is told, and how that goes
    Ls,
    /// Send a message that says nothing; fails unless it arrived
    Test {
        /// The notifier's name
        #[arg(value_name = "NAME")]
        notifier: NotifierName,
    },
}

#[derive(Deserialize)]
struct List {
    notifiers: Vec<Notifier>,
}

#[derive(Deserialize)]
struct Notifier {
    name: String,
    kind: String,
    on: Vec<String>,
    swarms: Vec<String>,
    delivered: u64,
    summed_up: u64,
    lost: u64,
    waiting: u64,
    trouble: Option<String>,
}

#[derive(Deserialize)]
struct Tested {
    delivered: bool,
    error: Option<String>,
}

/// Lists or tries.
pub(super) fn notify(
    client: &Client,
    command: &NotifyCommand,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    match command {
        NotifyCommand::Ls => {
            let (answer, list): (_, List) = client.get_as("/api/v1/notifiers")?;
            if json {
                return Ok(screen.json(&answer.text)?);
            }
            if list.notifiers.is_empty() {
                screen.note("nobody is told: the configuration has no [[notify]]");
                return Ok(());
            }
            let rows: Vec<Vec<Cell>> = list.notifiers.iter().map(row).collect();
            let header = ["NAME", "KIND", "ON", "SWARMS", "DELIVERED", "SUMMED UP", "LOST", "WAITING"];
            for line in table::lines(&header, &rows, None, screen.colour) {
                screen.line(&line)?;
            }
            for Notifier { name, trouble, .. } in &list.notifiers {
                if let Some(why) = trouble {
                    screen.line(&clean(&format!("{name}: {why}")))?;
                }
            }
            Ok(())
        }
        NotifyCommand::Test { notifier } => {
            let answer = client.post(&format!("/api/v1/notifiers/{notifier}/test"), "{}", &fresh_key())?;
            let Tested { delivered, error } = client.parse(&answer.text)?;
            match (json, delivered) {
                (true, _) => screen.json(&answer.text)?,
                (false, true) => screen.line(&format!("{notifier} took the message"))?,
                (false, false) => {}
            }
            if delivered {
                return Ok(());
            }
            let why = clean(&error.unwrap_or_else(|| "the daemon does not say why".to_owned()));
            Err(CliError::Failed(format!("the message did not reach {notifier}: {why}")))
        }
    }
}

fn row(notifier: &Notifier) -> Vec<Cell> {
    let swarms = if notifier.swarms.is_empty() { "all".to_owned() } else { notifier.swarms.join(",") };
    vec![
        Cell::new(clean(&notifier.name)),
        Cell::new(clean(&notifier.kind)),
        Cell::new(clean(&notifier.on.join(","))),
        Cell::new(clean(&swarms)),
        Cell::number(notifier.delivered),
        Cell::number(notifier.summed_up),
        Cell::number(notifier.lost),
        Cell::number(notifier.waiting),
    ]
}
