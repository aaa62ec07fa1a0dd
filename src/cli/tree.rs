//! `tree`: who supervises whom.

use std::time::{Duration, SystemTime};

use super::{
    client::Client,
    error::CliError,
    screen::Screen,
    shapes::Node,
    table::Colour,
    words::{ago, clean, until},
};

/// Draws the tree.
pub(super) fn tree(client: &Client, json: bool, now: SystemTime, screen: &mut Screen<'_>) -> Result<(), CliError> {
    if json {
        return Ok(screen.json(&client.get("/api/v1/tree")?.text)?);
    }
    let (_, root): (_, Node) = client.get_as("/api/v1/tree")?;
    draw(&root, "", "", now, screen)
}

/// `first` stands before the node, `rest` before everything below it.
fn draw(node: &Node, first: &str, rest: &str, now: SystemTime, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let state = clean(&node.state);
    let state = if screen.colour { Colour::of(&state).paint(&state) } else { state };
    let what = match &node.strategy {
        Some(strategy) => clean(strategy),
        None => clean(&node.restart),
    };
    let mut line = format!("{first}{} [{what}] {state}", clean(&node.id));
    if node.kind != "supervisor" {
        line.push_str(&format!(", incarnation {}", node.incarnation));
    }
    if let Some(limit) = &node.limit {
        let period = humantime::format_duration(Duration::from_millis(limit.period_ms));
        line.push_str(&format!(", {} of {} restarts in {period}", limit.restarts_in_window, limit.intensity));
    }
    if node.restarts > 0 {
        line.push_str(&format!(", restarts {}", node.restarts));
    }
    if let Some(at) = &node.retry_at {
        line.push_str(&format!(", next try {}", until(at, now)));
    }
    if let Some(exit) = &node.last_exit {
        line.push_str(&format!(", last exit {}: {}", ago(&exit.at, now), clean(&exit.detail)));
    }
    screen.line(&line)?;
    for (i, child) in node.children.iter().enumerate() {
        let last = i + 1 == node.children.len();
        let (branch, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        draw(child, &format!("{rest}{branch}"), &format!("{rest}{below}"), now, screen)?;
    }
    Ok(())
}
