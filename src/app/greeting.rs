//! What the operator sees on standard output: what was started, where to look, what to try.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
};

use super::tree::Sockets;
use crate::{config::Config, control_plane::recover::Takeover, model::HiveHealth, store::DataDir, view::words};

/// Names and addresses, as soon as they are bound.
pub(super) fn bound(config: &Config, data: &DataDir, sockets: &Sockets, takeover: Takeover) -> String {
    let mut text = format!("hivekeeper {}: hive {:?}\n", env!("CARGO_PKG_VERSION"), config.hive.name);
    line(&mut text, "api", &format!("http://{}", sockets.http_at));
    line(&mut text, "viewers", &format!("ws://{}/ws/hybrid-health", sockets.http_at));
    line(&mut text, "data plane", &sockets.data_plane_at.to_string());
    line(&mut text, "data", &data.path().display().to_string());
    match &config.file {
        Some(file) => line(&mut text, "configuration", &file.display().to_string()),
        None => line(&mut text, "configuration", "none found (--config FILE, or ./config.toml); the hive is empty"),
    }
    if takeover != Takeover::default() {
        let Takeover { taken_over, ended, unproven } = takeover;
        let mut found = format!("{taken_over} agents of the last daemon run on");
        if ended > 0 {
            let _ = write!(found, ", {ended} had ended or were ended");
        }
        if unproven > 0 {
            let _ = write!(found, ", {unproven} do not answer yet");
        }
        line(&mut text, "taken over", &found);
    }
    text
}

/// The agents as they are seen once the first pass has ended.
pub(super) fn agents(hive: &HiveHealth) -> String {
    let width = hive.agents.iter().map(|agent| agent.id.to_string().len()).max().unwrap_or_default();
    let mut text = String::new();
    for agent in &hive.agents {
        let (id, state) = (agent.id.to_string(), words::agent_state(agent.state));
        let pid = agent.pid.map(|pid| format!("pid {pid}, ")).unwrap_or_default();
        let _ = writeln!(text, "  {id:width$}  {state:12} {pid}incarnation {}", agent.incarnation);
    }
    text
}

/// Commands that show something, with agents that are there.
pub(super) fn hints(hive: &HiveHealth) -> String {
    let program = program();
    let Some(agent) = hive.agents.iter().find(|agent| agent.pid.is_some()) else {
        return format!("look:  {program} ps\n");
    };
    let (id, swarm) = (&agent.id, &agent.id.swarm);
    let pid = agent.pid.unwrap_or_default();
    format!(
        "look:  {program} ps | {program} logs -f {id} | {program} events -f | {program} tree\n\
         try:   kill -9 {pid}, then {program} ps -o wide | {program} restart {swarm} | kill -9 {}, then start it again\n\
         end:   Ctrl-C stops every agent in reverse order\n",
        std::process::id()
    )
}

/// As the user would type it.
fn program() -> String {
    let shown = || {
        let exe = std::env::current_exe().ok()?;
        let below = exe.strip_prefix(std::env::current_dir().ok()?).ok().map(Path::to_owned);
        Some(below.unwrap_or(exe).display().to_string())
    };
    shown().unwrap_or_else(|| "hivekeeper".to_owned())
}

fn line(text: &mut String, what: &str, value: &str) {
    let _ = writeln!(text, "  {what:14} {value}");
}

/// Nobody may be reading; that is no reason to end.
pub(super) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
