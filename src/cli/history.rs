//! `history`: what was measured over time, as lines to look at and as numbers.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use crate::model::{AgentId, Target};

use super::{
    args::{duration, target},
    client::Client,
    error::CliError,
    screen::Screen,
    table::{self, Cell},
    words::{bytes, clean},
};

/// Columns of a curve: it fits into a table's width beside its name and its numbers.
const CURVE_WIDTH: usize = 60;
/// Points below the curves when not all are asked for: half a screenful of the latest.
const POINTS_SHOWN: usize = 12;

/// `history TARGET`
#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// A swarm, or SWARM/NAME
    #[arg(value_parser = target)]
    target: Target,
    /// How far back, at most 24h
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h")]
    since: Duration,
    /// Time of one point: 10s (kept for an hour), 1m (6 hours), 10m (24 hours), or the finest that reaches back
    #[arg(long, value_name = "SPAN", value_parser = ["10s", "1m", "10m", "auto"], default_value = "auto")]
    resolution: String,
    /// Show every point, not only the latest
    #[arg(short, long)]
    long: bool,
}

#[derive(Deserialize)]
struct Page {
    resolution: String,
    since: String,
    until: String,
    points: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    at: String,
    cpu: Option<Spread<f64>>,
    memory: Option<Spread<u64>>,
    heartbeat_latency_ms: Option<Max>,
    tokens: Option<Tokens>,
    restarts: Option<u64>,
}

#[derive(Deserialize)]
struct Spread<T> {
    mean: T,
    max: T,
}

#[derive(Deserialize)]
struct Max {
    max: u64,
}

#[derive(Deserialize)]
struct Tokens {
    input: Option<u64>,
    output: Option<u64>,
}

/// Draws the curves, and a table of the points below them.
pub(super) fn history(
    client: &Client,
    args: &HistoryArgs,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let of = match &args.target {
        Target::Swarm(swarm) => swarm.to_string(),
        Target::Agent(AgentId { swarm, name }) => format!("{swarm}/agents/{name}"),
    };
    let path = format!("/api/v1/swarms/{of}/history?since={}ms&resolution={}", args.since.as_millis(), args.resolution);
    let (answer, page): (_, Page) = client.get_as(&path)?;
    if json {
        return Ok(screen.json(&answer.text)?);
    }
    let (since, until, resolution) = (clean(&page.since), clean(&page.until), clean(&page.resolution));
    screen.line(&format!("{}, {since} to {until}, a point for each {resolution}", args.target))?;
    for line in curves(&page.points) {
        screen.line(&line)?;
    }
    screen.line("")?;
    let left_out = if args.long { 0 } else { page.points.len().saturating_sub(POINTS_SHOWN) };
    let rows: Vec<Vec<Cell>> = page.points[left_out..].iter().map(row).collect();
    let header = ["AT", "CPU", "CPU MAX", "MEMORY", "MEMORY MAX", "LATENCY MAX", "TOKENS IN", "OUT", "RESTARTS"];
    for line in table::lines(&header, &rows, None, screen.colour) {
        screen.line(&line)?;
    }
    if left_out > 0 {
        screen.note(&format!("{left_out} earlier points are left out; --long shows them."));
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "heights of a curve and means for the eye")]
fn curves(points: &[Point]) -> Vec<String> {
    let all = |value: &dyn Fn(&Point) -> Option<f64>| points.iter().map(value).collect::<Vec<_>>();
    let cores = |cores: f64| format!("{cores:.2}");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a count of bytes before")]
    let size = |count: f64| bytes(count.round() as u64);
    let millis = |ms: f64| format!("{ms:.0}ms");
    let count = |n: f64| format!("{n:.0}");
    let tokens = |point: &Point| {
        let tokens = point.tokens.as_ref()?;
        Some(tokens.input.unwrap_or(0) as f64 + tokens.output.unwrap_or(0) as f64)
    };
    vec![
        curve("cpu", &all(&|point| Some(point.cpu.as_ref()?.max)), cores),
        curve("memory", &all(&|point| Some(point.memory.as_ref()?.max as f64)), size),
        curve("latency", &all(&|point| Some(point.heartbeat_latency_ms.as_ref()?.max as f64)), millis),
        curve("tokens", &all(&tokens), count),
        curve("restarts", &all(&|point| Some(point.restarts? as f64)), count),
    ]
}

/// A name, a curve from zero to the highest value, and that value. What was not measured is a dot, and nothing measured is said in words.
fn curve(name: &str, values: &[Option<f64>], show: impl Fn(f64) -> String) -> String {
    let Some(top) = values.iter().flatten().copied().reduce(f64::max) else {
        return format!("{name:9} not measured");
    };
    format!("{name:9} {}  max {}", sparks(values, top), show(top))
}

/// One column for each point or, where there are more than columns, for the highest of some neighbours.
fn sparks(values: &[Option<f64>], top: f64) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let each = values.len().div_ceil(CURVE_WIDTH).max(1);
    let highest = |group: &[Option<f64>]| group.iter().flatten().copied().reduce(f64::max);
    let column = |value: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 7, at most 7")]
        let height = if top > 0.0 { (value / top * 7.0).ceil() as usize } else { 0 };
        HEIGHTS[height.min(7)]
    };
    values.chunks(each).map(|group| highest(group).map_or('·', column)).collect()
}

fn row(point: &Point) -> Vec<Cell> {
    let or_dash = |text: Option<String>| Cell::number(text.unwrap_or_else(|| "-".to_owned()));
    let count = |n: Option<u64>| or_dash(n.map(|n| n.to_string()));
    let (cpu, memory, tokens) = (point.cpu.as_ref(), point.memory.as_ref(), point.tokens.as_ref());
    vec![
        Cell::new(clean(&point.at)),
        or_dash(cpu.map(|cpu| format!("{:.2}", cpu.mean))),
        or_dash(cpu.map(|cpu| format!("{:.2}", cpu.max))),
        or_dash(memory.map(|memory| bytes(memory.mean))),
        or_dash(memory.map(|memory| bytes(memory.max))),
        or_dash(point.heartbeat_latency_ms.as_ref().map(|latency| format!("{}ms", latency.max))),
        count(tokens.and_then(|tokens| tokens.input)),
        count(tokens.and_then(|tokens| tokens.output)),
        count(point.restarts),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_start_at_zero_show_holes_and_fit() {
        let show = |n: f64| format!("{n:.1}");
        let values = [Some(0.0), Some(1.0), None, Some(4.0), Some(8.0)];
        assert_eq!(curve("cpu", &values, show), "cpu       ▁▂·▅█  max 8.0");
        assert_eq!(curve("cpu", &[None, None], show), "cpu       not measured");
        assert_eq!(curve("restarts", &[Some(0.0)], show), "restarts  ▁  max 0.0", "a zero is no hole");
        let many: Vec<Option<f64>> = (0..361).map(|i| Some(f64::from(i))).collect();
        assert!(sparks(&many, 360.0).chars().count() <= CURVE_WIDTH);
        assert!(sparks(&many, 360.0).ends_with('█'), "the highest of the neighbours is shown, not the first");
    }
}
