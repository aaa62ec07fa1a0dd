//! Sums of usage: examples, and what holds for any reports in any turns.

use proptest::prelude::*;

use super::*;

fn said(input: u64, output: u64) -> Usage {
    Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() }
}

fn money(usd: f64) -> Usage {
    Usage { cost_usd: Some(usd), ..Usage::default() }
}

fn tally(reports: impl IntoIterator<Item = (u64, Usage)>) -> UsageTally {
    let mut tally = UsageTally::default();
    for (incarnation, report) in reports {
        tally.take(incarnation, &Reports::one(report));
    }
    tally
}

#[test]
fn nothing_said_is_nothing_summed() {
    assert_eq!(UsageTally::default().total(), Usage::default());
    assert_eq!(tally([(1, said(1, 0))]).total(), said(1, 0), "zero was said, the others were not");
}

#[test]
fn absolute_totals_are_not_added_up() {
    assert_eq!(tally([(1, said(100, 10)), (1, said(100, 10)), (1, said(250, 30))]).total(), said(250, 30));
}

#[test]
fn incarnations_add_up_and_what_is_late_adds_nothing() {
    let mut sum = tally([(1, said(100, 10)), (2, said(5, 1)), (4, said(7, 2))]);
    assert_eq!(sum.total(), said(112, 13));
    assert!(!sum.take(2, &Reports::one(said(900, 900))));
    assert_eq!(sum.total(), said(112, 13));
    // A restart after which more was used than before is a restart all the same.
    assert_eq!(tally([(1, said(10, 10)), (2, said(50, 50))]).total(), said(60, 60));
}

#[test]
fn a_total_that_goes_back_is_a_new_run_as_a_whole() {
    assert_eq!(tally([(1, said(100, 10)), (1, said(20, 3))]).total(), said(120, 13));
    assert_eq!(
        tally([(1, said(100, 10)), (1, said(20, 40))]).total(),
        said(120, 50),
        "what is greater starts over, too"
    );
}

#[test]
fn what_a_report_leaves_out_stays() {
    let output = Usage { output_tokens: Some(12), ..Usage::default() };
    assert_eq!(
        tally([(1, said(100, 10)), (1, output), (1, money(0.5))]).total(),
        Usage { cost_usd: Some(0.5), ..said(100, 12) }
    );
}

#[test]
fn money_that_shrinks_is_a_correction_unless_it_is_all_that_is_said() {
    let with = |tokens: u64, usd: f64| Usage { cost_usd: Some(usd), ..said(tokens, 0) };
    assert_eq!(tally([(1, with(100, 2.0)), (1, with(110, 1.5))]).total(), with(110, 1.5));
    assert_eq!(tally([(1, with(100, 2.0)), (1, with(10, 0.25))]).total(), with(110, 2.25));
    assert_eq!(tally([(1, money(2.0)), (1, money(0.5))]).total(), money(2.5));
    assert_eq!(tally([(1, money(0.1 + 0.2)), (1, money(0.3))]).total(), money(0.3), "noise");
}

#[test]
fn sums_have_no_end_and_do_not_wrap() {
    let all = tally([(1, said(u64::MAX, 1)), (2, said(u64::MAX, 1)), (3, money(f64::MAX)), (4, money(f64::MAX))]);
    assert_eq!((all.total().input_tokens, all.total().output_tokens), (Some(u64::MAX), Some(2)));
    assert_eq!(all.total().cost_usd, Some(f64::MAX));
}

/// Reports of one incarnation after the other; each names the same totals.
fn reports() -> impl Strategy<Value = Vec<(u64, Usage)>> {
    let report = (0u64..200, 0u64..200).prop_map(|(input, output)| said(input, output));
    proptest::collection::vec((0u64..10, report), 0..40).prop_map(|steps| {
        let mut incarnation = 1;
        steps
            .into_iter()
            .map(|(next, report)| {
                incarnation += u64::from(next == 0);
                (incarnation, report)
            })
            .collect()
    })
}

/// The definition: the last report of every run.
fn by_hand(reports: &[(u64, Usage)]) -> (u64, u64) {
    let mut total = (0, 0);
    for (at, (incarnation, report)) in reports.iter().enumerate() {
        let (input, output) = (report.input_tokens.unwrap_or(0), report.output_tokens.unwrap_or(0));
        let ends = reports.get(at + 1).is_none_or(|(follows, next)| {
            follows != incarnation || next.input_tokens < Some(input) || next.output_tokens < Some(output)
        });
        if ends {
            total = (total.0 + input, total.1 + output);
        }
    }
    total
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_sum_is_that_of_the_last_words_of_all_runs(reports in reports()) {
        let total = tally(reports.iter().copied()).total();
        let (input, output) = by_hand(&reports);
        prop_assert_eq!((total.input_tokens.unwrap_or(0), total.output_tokens.unwrap_or(0)), (input, output));
    }

    /// Turns end where they end: how many reports fall into one changes no sum.
    #[test]
    fn turns_change_no_sum(reports in reports(), cuts in proptest::collection::vec(any::<bool>(), 40)) {
        let mut sum = UsageTally::default();
        let mut turn: Option<(u64, Reports)> = None;
        for ((incarnation, report), cut) in reports.iter().copied().zip(cuts) {
            let next = Reports::one(report);
            turn = Some(match turn.take() {
                Some((same, mut all)) if same == incarnation && !cut => {
                    all.merge(next);
                    (same, all)
                }
                before => {
                    if let Some((incarnation, all)) = before {
                        prop_assert!(sum.take(incarnation, &all));
                    }
                    (incarnation, next)
                }
            });
        }
        if let Some((incarnation, all)) = turn {
            prop_assert!(sum.take(incarnation, &all));
        }
        prop_assert_eq!(sum.total(), tally(reports).total());
    }

    /// In whatever order bursts of bursts are made.
    #[test]
    fn merging_is_associative(a in reports(), b in reports(), c in reports()) {
        let all = |reports: &[(u64, Usage)]| {
            let mut all = reports.iter().map(|(_, report)| Reports::one(*report));
            let first = all.next()?;
            Some(all.fold(first, |mut sum, next| { sum.merge(next); sum }))
        };
        let (Some(a), Some(b), Some(c)) = (all(&a), all(&b), all(&c)) else { return Ok(()) };
        let (mut left, mut right, mut end) = (a, a, b);
        left.merge(b);
        left.merge(c);
        end.merge(c);
        right.merge(end);
        prop_assert_eq!(left, right);
    }

    /// Whatever is repeated, whoever restarts: a sum of tokens never shrinks, and a repetition adds nothing.
    #[test]
    fn a_sum_never_shrinks_and_a_repetition_adds_nothing(reports in reports()) {
        let mut sum = UsageTally::default();
        for (incarnation, report) in reports {
            let before = sum.total();
            sum.take(incarnation, &Reports::one(report));
            let after = sum.total();
            prop_assert!(tokens(&before).iter().zip(tokens(&after)).all(|(before, after)| *before <= after));
            sum.take(incarnation, &Reports::one(report));
            prop_assert_eq!(sum.total(), after);
        }
    }
}
