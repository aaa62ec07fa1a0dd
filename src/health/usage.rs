//! What agents have used, summed from absolute totals. Pure.
//!
//! An agent reports what its incarnation has used *so far*, so the same report twice adds nothing, and one that is lost is made good by the next. A
//! program that starts over inside its incarnation (a wrapper that runs it again) starts its totals over, too: a report in which a count of tokens
//! is less than before begins a new run, and the sum of an incarnation is that of its runs. Money is the agent's reckoning and may be corrected
//! downwards; it tells a new run only where nothing else could. What one report leaves out stays as the last one had it.
//!
//! What is summed is journaled in the form of [`UsageTally`], so that the next daemon goes on from there: a report of the incarnation that was
//! counted last takes the place of its last word, whichever daemon heard that, so it is neither counted twice nor is what was missed in between lost.

use crate::model::{Usage, UsageTally};

/// By this part money may shrink without having started over: sums of floating-point numbers differ by their order.
const NOISE: f64 = 1e-9;

/// What the reports of one incarnation between two turns amount to, in order, at a fixed size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reports {
    /// The first one: it tells whether the run before goes on.
    first: Usage,
    /// The last word of the run that the first one belongs to.
    head: Usage,
    /// The runs that began since.
    since: Option<Since>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Since {
    /// The sum of those that are over.
    over: Usage,
    /// The last word of the one that is not.
    tail: Usage,
}

impl Reports {
    pub(super) fn one(report: Usage) -> Self {
        Self { first: report, head: report, since: None }
    }

    /// Adds what was reported later.
    pub(super) fn merge(&mut self, later: Self) {
        if !starts_over(self.last(), &later.first) {
            let last = self.since.as_mut().map_or(&mut self.head, |since| &mut since.tail);
            *last = updated(last, &later.head);
        } else {
            self.begin(Usage::default(), later.head);
        }
        if let Some(Since { over, tail }) = later.since {
            self.begin(over, tail);
        }
    }

    fn last(&self) -> &Usage {
        self.since.as_ref().map_or(&self.head, |since| &since.tail)
    }

    /// The last run is over, `over` came and went, `tail` is under way.
    fn begin(&mut self, over: Usage, tail: Usage) {
        let before = self.since.map_or(Usage::default(), |since| sum(&since.over, &since.tail));
        self.since = Some(Since { over: sum(&before, &over), tail });
    }
}

impl UsageTally {
    /// Takes what an incarnation reported. Returns whether it may: what comes late from one that another has followed is not added any more,
    /// since its last word is part of the sum already.
    pub(in crate::health) fn take(&mut self, incarnation: u64, reports: &Reports) -> bool {
        if incarnation < self.incarnation {
            return false;
        }
        if incarnation > self.incarnation || starts_over(&self.last, &reports.first) {
            self.over = sum(&self.over, &self.last);
            self.last = reports.head;
        } else {
            self.last = updated(&self.last, &reports.head);
        }
        self.incarnation = incarnation;
        if let Some(Since { over, tail }) = reports.since {
            self.over = sum(&sum(&self.over, &self.last), &over);
            self.last = tail;
        }
        true
    }

    pub(in crate::health) fn total(&self) -> Usage {
        sum(&self.over, &self.last)
    }
}

fn tokens(usage: &Usage) -> [Option<u64>; 5] {
    [
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
        usage.reasoning_output_tokens,
    ]
}

/// Whether a report can't belong to the run of the one before.
pub(crate) fn starts_over(last: &Usage, next: &Usage) -> bool {
    let mut both =
        tokens(last).into_iter().zip(tokens(next)).filter_map(|(last, next)| Some((last?, next?))).peekable();
    if both.peek().is_some() {
        return both.any(|(last, next)| next < last);
    }
    last.cost_usd.zip(next.cost_usd).is_some_and(|(last, next)| next < last - last * NOISE)
}

fn join(
    a: &Usage,
    b: &Usage,
    count: impl Fn(Option<u64>, Option<u64>) -> Option<u64>,
    money: impl Fn(Option<f64>, Option<f64>) -> Option<f64>,
) -> Usage {
    Usage {
        input_tokens: count(a.input_tokens, b.input_tokens),
        output_tokens: count(a.output_tokens, b.output_tokens),
        cache_read_input_tokens: count(a.cache_read_input_tokens, b.cache_read_input_tokens),
        cache_creation_input_tokens: count(a.cache_creation_input_tokens, b.cache_creation_input_tokens),
        reasoning_output_tokens: count(a.reasoning_output_tokens, b.reasoning_output_tokens),
        cost_usd: money(a.cost_usd, b.cost_usd),
    }
}

/// What was said last of each.
pub(crate) fn updated(last: &Usage, next: &Usage) -> Usage {
    join(last, next, |last, next| next.or(last), |last, next| next.or(last))
}

/// Of what nobody spoke there is no sum.
fn sum(a: &Usage, b: &Usage) -> Usage {
    let count = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (one, None) | (None, one) => one,
    };
    let money = |a: Option<f64>, b: Option<f64>| match (a, b) {
        // The sum of finite numbers may be too great for one.
        (Some(a), Some(b)) => Some((a + b).min(f64::MAX)),
        (one, None) | (None, one) => one,
    };
    join(a, b, count, money)
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
