//! `reload`: lets the daemon read its configuration file again.

use serde::Deserialize;

use super::{
    args::WaitArgs,
    client::Client,
    commands::{each, fresh_key},
    error::CliError,
    progress::{self, Patience},
    screen::Screen,
    table::Colour,
    words::clean,
};

#[derive(Deserialize)]
struct Plan {
    #[serde(default)]
    file: Option<String>,
    changes: Vec<Change>,
    #[serde(default)]
    needs_restart: Vec<String>,
}

#[derive(Deserialize)]
struct Change {
    swarm: String,
    change: String,
    #[serde(default)]
    agents: Vec<AgentChange>,
    #[serde(default)]
    operation: Option<String>,
}

#[derive(Deserialize)]
struct AgentChange {
    agent: String,
    change: String,
}

/// Shows what the file changes, which is done unless it is only to be shown, and waits for what does it.
pub(super) fn reload(
    client: &Client,
    dry_run: bool,
    wait: &WaitArgs,
    patience: Patience<'_>,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let path = format!("/api/v1/reload?dry_run={dry_run}");
    let answer = client.post(&path, "{}", &fresh_key())?;
    let plan: Plan = client.parse(&answer.text)?;
    if patience.json {
        screen.json(&answer.text)?;
    } else {
        tell(&plan, dry_run, screen)?;
    }
    if wait.no_wait {
        return Ok(());
    }
    let begun = plan.changes.iter().filter_map(|change| Some((&change.swarm, change.operation.as_ref()?)));
    let begun = begun.map(|(swarm, id)| (clean(swarm), client.get(&format!("/api/v1/operations/{id}")))).collect();
    each(begun, screen, |operation, screen| progress::to_its_end(client, operation, patience, screen))
}

fn tell(plan: &Plan, dry_run: bool, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let file = plan.file.as_deref().map_or_else(|| "the configuration".to_owned(), clean);
    if plan.changes.iter().all(|change| change.change == "keep") {
        screen.line(&format!("{file} changes nothing"))?;
    } else {
        let what = if dry_run { "would change, and nothing is done" } else { "changes" };
        screen.line(&format!("what {file} {what}:"))?;
    }
    for change in plan.changes.iter().filter(|change| change.change != "keep") {
        show(change, screen)?;
    }
    if !plan.needs_restart.is_empty() {
        let keys: Vec<String> = plan.needs_restart.iter().map(|key| clean(key)).collect();
        let done = "`hivekeeper handover && hivekeeper serve` takes it up without losing an agent.";
        screen.note(&format!("Only a new daemon reads what changed in {}. {done}", keys.join(", ")));
    }
    Ok(())
}

fn show(change: &Change, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let (sign, colour) = match change.change.as_str() {
        "add" => ("+", Colour::Good),
        "remove" => ("-", Colour::Bad),
        _ => ("~", Colour::Doubtful),
    };
    let head = format!("{sign} {} swarm {}", clean(&change.change), clean(&change.swarm));
    screen.line(&if screen.colour { colour.paint(&head) } else { head })?;
    // The words differ in length; what they are about stands in one column.
    let width = change.agents.iter().map(|agent| agent.change.chars().count()).max().unwrap_or_default();
    for agent in &change.agents {
        screen.line(&format!("    {:width$} {}", clean(&agent.change), clean(&agent.agent)))?;
    }
    Ok(())
}
