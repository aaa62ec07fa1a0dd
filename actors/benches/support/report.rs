//! From what everybody said to a table with verdicts.

use super::{
    field::{ERLANG, Field, Figures, KAMEO, OURS, RACTOR},
    rows::{FEW, MANY, ROWS, Row, SCALE_MAX, Unit},
};

/// Against whom ratios are shown.
const MEASURES: [&str; 3] = [ERLANG, RACTOR, KAMEO];

pub fn print(field: &Field) {
    let mut head = vec!["".to_owned(), "unit".to_owned()];
    head.extend(field.lanes.iter().map(|lane| lane.name.to_owned()));
    head.extend(MEASURES.map(|peer| format!("/{peer}")));
    head.push("limit".to_owned());
    let rows: Vec<Vec<String>> = ROWS
        .iter()
        .filter(|row| field.lanes.iter().any(|lane| lane.figures.contains_key(named(row, lane.name))))
        .map(|row| line(field, row))
        .collect();
    println!("\nmedians of the rounds; /peer is the median of the rounds' ratios of ours to theirs");
    table(&head, &rows);
    scale(field);
}

/// What a lane calls the figure of a row.
fn named(row: &Row, lane: &str) -> &'static str {
    if lane == OURS { row.figure } else { row.theirs }
}

fn line(field: &Field, row: &Row) -> Vec<String> {
    let mut cells = vec![row.figure.to_owned(), unit(row.unit).to_owned()];
    cells.extend(field.lanes.iter().map(|lane| cell(row.unit, median(lane.figures.get(named(row, lane.name))))));
    let ratios = MEASURES.map(|peer| ratio(field, row, peer));
    cells.extend(ratios.map(|ratio| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))));
    let verdicts = [(row.to_erlang, ratios[0], ERLANG), (row.to_ractor, ratios[1], RACTOR)];
    let verdicts: Vec<String> =
        verdicts.into_iter().filter_map(|(limit, ratio, peer)| Some(verdict(row.unit, limit?, ratio, peer))).collect();
    cells.push(verdicts.join("; "));
    cells
}

fn verdict(unit: Unit, limit: f64, ratio: Option<f64>, peer: &str) -> String {
    let (sign, met) = match unit {
        Unit::PerSecond => (">=", ratio.map(|ratio| ratio >= limit)),
        _ => ("<=", ratio.map(|ratio| ratio <= limit)),
    };
    let word = met.map_or("not measured", |met| if met { "met" } else { "missed" });
    format!("{sign} {limit} {peer}: {word}")
}

/// The median of the rounds' ratios of ours to a peer's.
fn ratio(field: &Field, row: &Row, peer: &str) -> Option<f64> {
    let (ours, theirs) = (field.figures(OURS)?.get(row.figure)?, field.figures(peer)?.get(row.theirs)?);
    quantile(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect(), 0.5)
}

/// Whether ten times the children take ten times the time, for everybody.
fn scale(field: &Field) {
    for place in ["l", "x"] {
        let said: Vec<String> = field
            .lanes
            .iter()
            .filter_map(|lane| Some(format!("{} {}", lane.name, grown(&lane.figures, place)?)))
            .collect();
        if said.is_empty() {
            continue;
        }
        println!(
            "\nstart and stop of {MANY} to that of {FEW}, {place}, ratio of medians (quartiles of the rounds): {}",
            said.join(", ")
        );
        if let Some(Growth { ratio, low, high }) = field.figures(OURS).and_then(|ours| grown(ours, place)) {
            let noise = (high - low) / 2.0;
            let word = if ratio <= SCALE_MAX + noise { "met" } else { "missed" };
            println!("limit {SCALE_MAX} plus noise ({noise:.2}, half the distance of the quartiles): {word}");
        }
    }
}

struct Growth {
    ratio: f64,
    low: f64,
    high: f64,
}

impl std::fmt::Display for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2} to {:.2})", self.ratio, self.low, self.high)
    }
}

fn grown(figures: &Figures, place: &str) -> Option<Growth> {
    let both = |count: usize| -> Option<Vec<f64>> {
        let (starts, stops) =
            (figures.get(&format!("start {place} {count}"))?, figures.get(&format!("stop {place} {count}"))?);
        Some(starts.iter().zip(stops).map(|(start, stop)| start + stop).collect())
    };
    let (few, many) = (both(FEW)?, both(MANY)?);
    let rounds: Vec<f64> = many.iter().zip(&few).map(|(many, few)| many / few).collect();
    Some(Growth {
        ratio: quantile(many, 0.5)? / quantile(few, 0.5)?,
        low: quantile(rounds.clone(), 0.25)?,
        high: quantile(rounds, 0.75)?,
    })
}

fn median(values: Option<&Vec<f64>>) -> Option<f64> {
    quantile(values?.clone(), 0.5)
}

/// By nearest rank.
fn quantile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank among a few rounds")]
    values.get((last as f64 * share).round() as usize).copied()
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Micros => "us",
        Unit::Millis => "ms",
        Unit::PerSecond => "1000/s",
        Unit::Bytes => "B",
    }
}

fn cell(unit: Unit, value: Option<f64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    match unit {
        Unit::Micros => format!("{value:.1}"),
        Unit::Millis => format!("{:.1}", value / 1000.0),
        Unit::PerSecond => format!("{:.0}", value / 1000.0),
        Unit::Bytes => format!("{value:.0}"),
    }
}

/// The first and the last column to the left, the others to the right.
fn table(head: &[String], rows: &[Vec<String>]) {
    let width =
        |column: usize| rows.iter().map(Vec::as_slice).chain([head]).map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in [head].into_iter().chain(rows.iter().map(Vec::as_slice)) {
        let last = row.len() - 1;
        let cells: Vec<String> = (0..row.len())
            .map(|column| match column {
                0 => format!("{:<1$}", row[column], widths[column]),
                _ if column == last => row[column].clone(),
                _ => format!("{:>1$}", row[column], widths[column]),
            })
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
}
