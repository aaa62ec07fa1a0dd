//! `health` and `ready`.

use std::time::SystemTime;

use super::{
    client::Client,
    error::CliError,
    screen::Screen,
    shapes::Hive,
    table::Colour,
    words::{ago, clean, reasons},
};

/// How the hive is, what it follows from, and how its two planes are.
pub(super) fn health(client: &Client, json: bool, now: SystemTime, screen: &mut Screen<'_>) -> Result<(), CliError> {
    if json {
        return Ok(screen.json(&client.get("/api/v1/health")?.text)?);
    }
    let (_, hive): (_, Hive) = client.get_as("/api/v1/health")?;
    let level = |word: &str, colour: bool| {
        let word = clean(word);
        if colour { Colour::of(&word).paint(&word) } else { word }
    };
    let colour = screen.colour;
    let why = |text: String| if text.is_empty() { text } else { format!(": {text}") };
    let since = ago(&hive.since, now);
    let head = format!("hive {} is {}, since {since}", clean(&hive.hive), level(&hive.level, colour));
    screen.line(&format!("{head}{}", why(reasons(&hive.reasons))))?;
    let plane = if hive.control_plane.reachable { "reachable" } else { "not reachable" };
    let error = hive.control_plane.last_error.as_deref().map(|error| format!(", last error: {}", clean(error)));
    screen.line(&format!("control plane {plane}{}", error.unwrap_or_default()))?;
    let data = &hive.data_plane;
    let listening = if data.listening { "listening" } else { "not listening" };
    screen.line(&format!(
        "data plane {listening}; sessions {}, messages dropped {}, refused {}",
        data.sessions, data.dropped, data.refused
    ))?;
    for swarm in &hive.swarms {
        let head = format!("swarm {} is {}", clean(&swarm.name), level(&swarm.level, colour));
        screen.line(&format!("{head}{}", why(reasons(&swarm.reasons))))?;
    }
    Ok(())
}

/// Whether the daemon is ready, whatever its agents do.
pub(super) fn ready(client: &Client, json: bool, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let answer = client.get("/readyz?verbose")?;
    if json {
        // The probe speaks in lines, `[+]journal ok`, for those who look at it with curl.
        let check = |line: &str| {
            let (ok, rest) = match (line.strip_prefix("[+]"), line.strip_prefix("[-]")) {
                (Some(rest), _) => (true, rest),
                (None, rest) => (false, rest?),
            };
            let (name, detail) = rest.split_once(' ').unwrap_or((rest, ""));
            Some(serde_json::json!({ "name": name, "ok": ok, "detail": detail }))
        };
        let checks: Vec<_> = answer.text.lines().filter_map(check).collect();
        screen.json(&serde_json::json!({ "ready": answer.status == 200, "checks": checks }).to_string())?;
    }
    let text: Vec<String> = answer.text.lines().map(clean).collect();
    match (answer.status, json) {
        (200, true) => return Ok(()),
        (200, false) => return Ok(screen.line(&text.join("\n"))?),
        _ => {}
    }
    Err(CliError::Failed(format!("the daemon is not ready\n{}", text.join("\n"))))
}
