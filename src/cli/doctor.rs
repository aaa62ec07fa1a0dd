//! `doctor`: looks at everything that a daemon needs of its machine, and says what is wrong and the mend. It changes nothing.
//!
//! [`look`] collects what can be seen, [`engine`] asks the container engine, [`judge`] decides what it means and looks at nothing itself.

mod engine;
mod judge;
mod look;

use serde::Serialize;

use super::{error::CliError, screen::Screen, table::Colour, words::clean};

pub(super) use look::Ground;

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    fn colour(self) -> Colour {
        match self {
            Self::Ok => Colour::Good,
            Self::Warn => Colour::Doubtful,
            Self::Fail => Colour::Bad,
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    /// What was measured or found.
    found: String,
    /// What to do about it; nothing where nothing is to be done.
    mend: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    verdict: Verdict,
    checks: &'a [Check],
}

/// Looks, judges, and tells.
pub(super) fn doctor(ground: &Ground<'_>, json: bool, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let checks = judge::judge(&look::look(ground));
    let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
    if json {
        let report = serde_json::to_string(&Report { verdict, checks: &checks });
        screen.json(&report.map_err(|error| CliError::Failed(error.to_string()))?)?;
    } else {
        show(&checks, screen)?;
    }
    match checks.iter().filter(|check| check.verdict == Verdict::Fail).count() {
        0 => Ok(()),
        1 => Err(CliError::Failed("1 thing is wrong; its mend stands below it".to_owned())),
        n => Err(CliError::Failed(format!("{n} things are wrong; each one's mend stands below it"))),
    }
}

fn show(checks: &[Check], screen: &mut Screen<'_>) -> Result<(), CliError> {
    let width = checks.iter().map(|check| check.check.len()).max().unwrap_or_default();
    for check in checks {
        let word = format!("{:4}", check.verdict.word());
        let word = if screen.colour { check.verdict.colour().paint(&word) } else { word };
        screen.line(&format!("{word}  {:width$}  {}", check.check, clean(&check.found)))?;
        if let Some(mend) = &check.mend {
            screen.line(&format!("      {:width$}  -> {}", "", clean(mend)))?;
        }
    }
    Ok(())
}
