//! What is measured, and what it has to be.

/// One measurement that everybody does.
pub struct Job {
    pub what: &'static str,
    /// `l` is one thread, `x` across threads, `t` together on a thread of the pool.
    pub place: &'static str,
    pub count: usize,
}

const fn job(what: &'static str, place: &'static str, count: usize) -> Job {
    Job { what, place, count }
}

/// In the order in which they are done. The counts make each last from a tenth of a second to a few seconds.
pub const JOBS: [Job; 14] = [
    job("restart", "l", 300),
    job("restart", "x", 300),
    job("restart", "t", 300),
    job("tell", "l", 1_000_000),
    job("tell", "x", 1_000_000),
    job("ask", "l", 100_000),
    job("ask", "x", 50_000),
    job("ask", "t", 50_000),
    job("ask64", "l", 512_000),
    job("ask64", "x", 512_000),
    job("start", "l", 10_000),
    job("start", "x", 10_000),
    job("start", "l", 100_000),
    job("start", "x", 100_000),
];

impl Job {
    /// Only ours places children: everybody else's `x` stands beside it.
    pub fn is_ours_alone(&self) -> bool {
        self.place == "t"
    }

    /// The name of one of its figures.
    pub fn figure(&self, name: &str) -> String {
        match self.what {
            "start" => format!("{name} {} {}", self.place, self.count),
            _ => format!("{name} {}", self.place),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Unit {
    Micros,
    /// Shown in ms, measured in us.
    Millis,
    PerSecond,
    Bytes,
}

/// One row of the table.
pub struct Row {
    pub figure: &'static str,
    /// The figure of the peers that stands beside it.
    pub theirs: &'static str,
    pub unit: Unit,
    /// How many times Erlang's figure ours may be at most, or, for a rate, has to be at least.
    pub to_erlang: Option<f64>,
    pub to_ractor: Option<f64>,
}

const fn row(figure: &'static str, unit: Unit, to_erlang: Option<f64>, to_ractor: Option<f64>) -> Row {
    Row { figure, theirs: figure, unit, to_erlang, to_ractor }
}

const fn together(figure: &'static str, theirs: &'static str, unit: Unit, to_erlang: Option<f64>) -> Row {
    Row { figure, theirs, unit, to_erlang, to_ractor: None }
}

pub const ROWS: [Row; 27] = [
    row("restart l", Unit::Micros, Some(0.7), None),
    row("restart x", Unit::Micros, Some(0.9), None),
    together("restart t", "restart x", Unit::Micros, Some(0.9)),
    row("restart_p99 l", Unit::Micros, None, None),
    row("restart_p99 x", Unit::Micros, None, None),
    together("restart_p99 t", "restart_p99 x", Unit::Micros, None),
    row("tell l", Unit::PerSecond, Some(3.0), None),
    row("tell x", Unit::PerSecond, Some(1.5), None),
    row("ask l", Unit::PerSecond, None, None),
    row("ask x", Unit::PerSecond, None, None),
    together("ask t", "ask x", Unit::PerSecond, None),
    row("ask64 l", Unit::PerSecond, None, None),
    row("ask64 x", Unit::PerSecond, Some(2.0), None),
    row("start l 10000", Unit::Millis, None, None),
    row("start x 10000", Unit::Millis, None, None),
    row("start l 100000", Unit::Millis, Some(0.5), None),
    row("start x 100000", Unit::Millis, None, None),
    row("stop l 10000", Unit::Millis, None, None),
    row("stop x 10000", Unit::Millis, None, None),
    row("stop l 100000", Unit::Millis, Some(0.3), None),
    row("stop x 100000", Unit::Millis, Some(0.3), None),
    row("memory l 10000", Unit::Bytes, None, None),
    row("memory x 10000", Unit::Bytes, None, None),
    row("memory l 100000", Unit::Bytes, Some(0.6), Some(0.25)),
    row("memory x 100000", Unit::Bytes, Some(0.6), Some(0.25)),
    row("vm_memory l 100000", Unit::Bytes, None, None),
    row("vm_memory x 100000", Unit::Bytes, None, None),
];

/// Start and stop of ten times the children take at most this many times as long, plus noise.
pub const SCALE_MAX: f64 = 10.0;
pub const FEW: usize = 10_000;
pub const MANY: usize = 100_000;
