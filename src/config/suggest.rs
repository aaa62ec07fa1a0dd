//! Did you mean.

/// The word nearest to `found`, when it is near enough to be a slip: at most one edit in three letters.
pub fn nearest<'a>(found: &str, words: &[&'a str]) -> Option<&'a str> {
    let limit = found.chars().count().div_ceil(3);
    words.iter().map(|word| (distance(found, word), *word)).filter(|(d, _)| *d <= limit).min().map(|(_, word)| word)
}

/// Edits (insert, delete, replace, swap of neighbours) from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_seen_and_strangers_are_not() {
        let words = ["bind", "token_file", "hosts"];
        for (found, meant) in [
            ("bnid", Some("bind")),
            ("tokenfile", Some("token_file")),
            ("host", Some("hosts")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(found, &words), meant, "{found}");
        }
    }
}
