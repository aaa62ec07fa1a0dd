//! OTP's own supervisor_SUITE (OTP 25.2.3, 88 cases) as behaviours of this crate: one test for every case, under its name.
//!
//! Each test checks what the case checks, on real actors under a real supervisor, as far as it has a counterpart here; where we decided
//! otherwise, what we decided is asserted and a comment says why. Processes become incarnations, `kill` becomes a panic, `{shutdown, Term}`
//! has no counterpart of its own. Time is simulated, see `harness`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::io::Write;

#[path = "otp/harness.rs"]
mod harness;

#[path = "otp/dynamic.rs"]
mod dynamic;
#[path = "otp/forget.rs"]
mod forget;
#[path = "otp/hang.rs"]
mod hang;
#[path = "otp/logs.rs"]
mod logs;
#[path = "otp/many.rs"]
mod many;
#[path = "otp/names.rs"]
mod names;
#[path = "otp/requests.rs"]
mod requests;
#[path = "otp/restart_types.rs"]
mod restart_types;
#[path = "otp/significant.rs"]
mod significant;
#[path = "otp/specs.rs"]
mod specs;
#[path = "otp/start.rs"]
mod start;
#[path = "otp/stop.rs"]
mod stop;
#[path = "otp/strategies.rs"]
mod strategies;
#[path = "otp/trees.rs"]
mod trees;
#[path = "otp/upgrade.rs"]
mod upgrade;
#[path = "otp/upgrade_significant.rs"]
mod upgrade_significant;

/// What `all()` of the suite runs, in its order.
const CASES: [&str; 88] = [
    "sup_start_normal",
    "sup_start_ignore_init",
    "sup_start_ignore_child",
    "sup_start_ignore_temporary_child",
    "sup_start_ignore_temporary_child_start_child",
    "sup_start_ignore_temporary_child_start_child_simple",
    "sup_start_ignore_permanent_child_start_child_simple",
    "sup_start_error_return",
    "sup_start_fail",
    "sup_start_child_returns_error",
    "sup_start_restart_child_returns_error",
    "sup_start_child_returns_error_simple",
    "sup_start_map",
    "sup_start_map_simple",
    "sup_start_map_faulty_specs",
    "sup_stop_infinity",
    "sup_stop_timeout",
    "sup_stop_timeout_dynamic",
    "sup_stop_brutal_kill",
    "sup_stop_brutal_kill_dynamic",
    "sup_stop_race",
    "sup_stop_non_shutdown_exit_dynamic",
    "child_adm",
    "child_adm_simple",
    "extra_return",
    "child_specs",
    "child_specs_map",
    "sup_flags",
    "multiple_restarts",
    "one_for_one",
    "one_for_one_escalation",
    "one_for_all",
    "one_for_all_escalation",
    "one_for_all_other_child_fails_restart",
    "simple_one_for_one",
    "simple_one_for_one_shutdown",
    "simple_one_for_one_extra",
    "simple_one_for_one_escalation",
    "simple_one_for_one_corruption",
    "rest_for_one",
    "rest_for_one_escalation",
    "rest_for_one_other_child_fails_restart",
    "permanent_normal",
    "transient_normal",
    "temporary_normal",
    "permanent_shutdown",
    "transient_shutdown",
    "temporary_shutdown",
    "faulty_application_shutdown",
    "permanent_abnormal",
    "transient_abnormal",
    "temporary_abnormal",
    "child_unlink",
    "tree",
    "nonsignificant_temporary",
    "nonsignificant_transient",
    "significant_temporary",
    "significant_transient",
    "significant_simple",
    "significant_bystander",
    "significant_escalation",
    "significant_upgrade_never_any",
    "significant_upgrade_any_never",
    "significant_upgrade_never_all",
    "significant_upgrade_all_never",
    "significant_upgrade_any_all",
    "significant_upgrade_all_any",
    "significant_upgrade_child",
    "count_children",
    "count_children_supervisor",
    "count_restarting_children",
    "get_callback_module",
    "do_not_save_start_parameters_for_temporary_children",
    "do_not_save_child_specs_for_temporary_children",
    "simple_one_for_one_scale_many_temporary_children",
    "temporary_bystander",
    "simple_global_supervisor",
    "hanging_restart_loop",
    "hanging_restart_loop_rest_for_one",
    "hanging_restart_loop_simple",
    "code_change",
    "code_change_map",
    "code_change_simple",
    "code_change_simple_map",
    "order_of_children",
    "scale_start_stop_many_children",
    "format_log_1",
    "format_log_2",
];

/// Cases without a counterpart, and why.
const SKIPPED: [(&str, &str); 1] = [(
    "get_callback_module",
    "a supervisor here has no callback module: what it starts with is data or a closure, and neither has a name",
)];

/// The files that hold the tests.
const FILES: [&str; 16] = [
    include_str!("otp/dynamic.rs"),
    include_str!("otp/forget.rs"),
    include_str!("otp/hang.rs"),
    include_str!("otp/logs.rs"),
    include_str!("otp/many.rs"),
    include_str!("otp/names.rs"),
    include_str!("otp/requests.rs"),
    include_str!("otp/restart_types.rs"),
    include_str!("otp/significant.rs"),
    include_str!("otp/specs.rs"),
    include_str!("otp/start.rs"),
    include_str!("otp/stop.rs"),
    include_str!("otp/strategies.rs"),
    include_str!("otp/trees.rs"),
    include_str!("otp/upgrade.rs"),
    include_str!("otp/upgrade_significant.rs"),
];

/// Every case of the suite is a test here or is skipped for a reason, and none is ignored.
#[test]
fn count() {
    let mut ported: Vec<&str> = FILES.iter().flat_map(|file| tests_in(file)).collect();
    let skipped = SKIPPED.map(|(case, _)| case);
    let missing: Vec<_> = CASES.iter().filter(|case| !ported.contains(case) && !skipped.contains(case)).collect();
    assert!(missing.is_empty(), "no test for {missing:?}");
    let unknown: Vec<_> = ported.iter().chain(&skipped).filter(|name| !CASES.contains(name)).collect();
    assert!(unknown.is_empty(), "no such case: {unknown:?}");
    let (tests, cases) = (ported.len(), CASES.len());
    ported.sort_unstable();
    ported.dedup();
    assert_eq!((ported.len(), ported.len() + skipped.len()), (tests, cases), "a case is there twice");
    assert!(!FILES.iter().any(|file| file.contains("#[ignore")), "a case is ignored");
    // Past the test harness, which shows nothing of what a test that passes prints.
    let _ = writeln!(std::io::stderr(), "otp: {} cases ported, {} skipped of {cases}", ported.len(), skipped.len());
}

/// The names of the functions that follow a `#[test]`.
fn tests_in(file: &str) -> Vec<&str> {
    let name = |text: &'static str, rest: &str| rest.find(text).unwrap_or(rest.len());
    file.split("#[test]\n").skip(1).map(|rest| &rest[name("fn ", rest) + 3..name("(", rest)]).collect()
}
