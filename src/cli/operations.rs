//! `operations`: what was accepted, where it stands, and calling it off.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::{
    args::OperationsCommand,
    client::Client,
    commands::fresh_key,
    error::CliError,
    progress::{self, Patience},
    screen::Screen,
    shapes::Operation,
    table::{self, Cell},
    words::{ago, clean},
};

/// Operations that are listed when no number is asked for: a screenful.
const LIST_DEFAULT: u32 = 50;
/// Operations of one request; the API's own bound.
const PAGE: u32 = 500;
const HEADER: [&str; 7] = ["ID", "KIND", "TARGET", "STATE", "ASKED", "BY", "WHY"];

#[derive(Deserialize)]
struct Page {
    operations: Vec<Operation>,
}

/// Lists, shows, follows or cancels.
pub(super) fn operations<'a>(
    client: &Client,
    command: &OperationsCommand,
    patience: impl Fn(Duration) -> Patience<'a>,
    now: SystemTime,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let json = patience(Duration::ZERO).json;
    match command {
        OperationsCommand::Ls { limit } => {
            let limit = limit.unwrap_or(LIST_DEFAULT).min(PAGE);
            let answer = client.get(&format!("/api/v1/operations?limit={limit}"))?;
            if json {
                return Ok(screen.json(&answer.text)?);
            }
            let page: Page = client.parse(&answer.text)?;
            let rows: Vec<Vec<Cell>> = page.operations.iter().map(|operation| row(operation, now)).collect();
            for line in table::lines(&HEADER, &rows, None, screen.colour) {
                screen.line(&line)?;
            }
            Ok(())
        }
        OperationsCommand::Show { id } => {
            let answer = client.get(&format!("/api/v1/operations/{id}"))?;
            if json {
                return Ok(screen.json(&answer.text)?);
            }
            show(&client.parse(&answer.text)?, now, screen)
        }
        OperationsCommand::Watch { id, timeout } => {
            let answer = client.get(&format!("/api/v1/operations/{id}"))?;
            progress::to_its_end(client, answer, patience(*timeout), screen)
        }
        OperationsCommand::Cancel { id } => {
            let answer = client.post(&format!("/api/v1/operations/{id}/cancel"), "{}", &fresh_key())?;
            if json {
                return Ok(screen.json(&answer.text)?);
            }
            let operation: Operation = client.parse(&answer.text)?;
            Ok(screen.line(&operation.describe())?)
        }
    }
}

fn row(operation: &Operation, now: SystemTime) -> Vec<Cell> {
    vec![
        Cell::new(clean(&operation.id)),
        Cell::new(clean(&operation.kind)),
        Cell::new(clean(&operation.target)),
        Cell::state(&clean(&operation.state)),
        Cell::number(ago(&operation.requested_at, now)),
        Cell::new(clean(&operation.requested_by)),
        Cell::new(operation.error.as_deref().map_or_else(|| "-".to_owned(), clean)),
    ]
}

fn show(operation: &Operation, now: SystemTime, screen: &mut Screen<'_>) -> Result<(), CliError> {
    screen.line(&operation.describe())?;
    let ended = operation.ended_at.as_deref().map(|at| format!(", ended {}", ago(at, now))).unwrap_or_default();
    let (by, asked) = (clean(&operation.requested_by), ago(&operation.requested_at, now));
    screen.line(&format!("asked by {by} {asked}{ended}"))?;
    for step in &operation.steps {
        screen.line(&format!("  {}", step.describe()))?;
    }
    Ok(())
}
