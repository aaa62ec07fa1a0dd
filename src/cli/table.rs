//! Aligned columns.

/// Widest line of a table for people: what fits beside a margin on a common screen.
pub(super) const WIDTH: usize = 100;
const GAP: usize = 2;

/// One cell, and the colour of its text.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    colour: Option<Colour>,
    right: bool,
}

/// What a word means to the eye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Good,
    Doubtful,
    Bad,
    Quiet,
}

impl Colour {
    /// Of a state or a level.
    pub(super) fn of(word: &str) -> Self {
        match word {
            "running" | "healthy" | "completed" | "succeeded" | "closed" | "done" | "claimed" | "delivered" => {
                Self::Good
            }
            "failed" | "critical" | "stuck" | "dead" => Self::Bad,
            "stopped" | "paused" | "pending" | "cancelled" | "waiting" => Self::Quiet,
            _ => Self::Doubtful,
        }
    }

    /// The text between the escapes of ECMA-48, "select graphic rendition".
    pub(super) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Good => 32,
            Self::Doubtful => 33,
            Self::Bad => 31,
            Self::Quiet => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), colour: None, right: false }
    }

    /// A number: to the right.
    pub(super) fn number(text: impl ToString) -> Self {
        Self { right: true, ..Self::new(text.to_string()) }
    }

    pub(super) fn state(word: &str) -> Self {
        Self { colour: Some(Colour::of(word)), ..Self::new(word) }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// The lines of a table. With `width` the last column is cut so that none is longer.
pub(super) fn lines(header: &[&str], rows: &[Vec<Cell>], width: Option<usize>, colour: bool) -> Vec<String> {
    let mut widths: Vec<usize> = header.iter().map(|head| head.chars().count()).collect();
    for row in rows {
        for (wide, cell) in widths.iter_mut().zip(row) {
            *wide = (*wide).max(cell.width());
        }
    }
    let before: usize = widths.iter().rev().skip(1).map(|wide| wide + GAP).sum();
    let room = width.map(|width| width.saturating_sub(before).max(1));
    let numeric = |i: usize| rows.iter().any(|row| row.get(i).is_some_and(|cell| cell.right));
    let header = header.iter().enumerate().map(|(i, head)| Cell { right: numeric(i), ..Cell::new(*head) }).collect();
    let line = |cells: &Vec<Cell>| {
        let mut text = String::new();
        for (i, (cell, wide)) in cells.iter().zip(&widths).enumerate() {
            let last = i + 1 == widths.len();
            let shown = if last { cut(&cell.text, room) } else { cell.text.clone() };
            let pad = " ".repeat(wide.saturating_sub(cell.width()));
            let painted = cell.colour.filter(|_| colour).map_or(shown.clone(), |colour| colour.paint(&shown));
            match (cell.right, last) {
                (true, _) => text.extend([pad.as_str(), painted.as_str()]),
                (false, true) => text.push_str(&painted),
                (false, false) => text.extend([painted.as_str(), pad.as_str()]),
            }
            if !last {
                text.push_str(&" ".repeat(GAP));
            }
        }
        text.truncate(text.trim_end().len());
        text
    };
    std::iter::once(&header).chain(rows).map(line).collect()
}

fn cut(text: &str, room: Option<usize>) -> String {
    match room {
        Some(room) if text.chars().count() > room => text.chars().take(room - 1).chain(['…']).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_last_one_is_cut() {
        let rows = [
            vec![Cell::new("a/b"), Cell::number(7), Cell::new("short")],
            vec![Cell::new("long/name"), Cell::number(123), Cell::new("a text that is too long")],
        ];
        let expected = ["NAME         N  WHY", "a/b          7  short", "long/name  123  a text th…"];
        assert_eq!(lines(&["NAME", "N", "WHY"], &rows, Some(26), false), expected);
        assert!(lines(&["NAME", "N", "WHY"], &rows, None, false)[2].ends_with("too long"));
    }

    #[test]
    fn colour_does_not_move_columns() {
        let rows = [vec![Cell::state("running"), Cell::new("x")]];
        assert_eq!(lines(&["STATE", "B"], &rows, None, true)[1], "\x1b[32mrunning\x1b[0m  x");
    }
}
