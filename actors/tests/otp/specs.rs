//! What is refused before anything starts. Of OTP's faulty fields most don't compile here; each of ours that can be wrong is tried.

use std::time::Duration;

use hivekeeper_actors::{
    AutoShutdown, Child, ChildSpec, Intensity, MAX_RESTARTS_LIMIT, RestartType, Seed, SeedState, Shutdown, SpecError,
    Strategy, SupervisorError, SupervisorFlags, Template, check_childspecs,
};

use crate::harness::*;

const RESTART_TYPES: [RestartType; 3] = [RestartType::Permanent, RestartType::Transient, RestartType::Temporary];
const SHUTDOWNS: [Shutdown; 4] = [
    Shutdown::Deadline(Duration::ZERO),
    Shutdown::Deadline(Duration::from_secs(1)),
    Shutdown::Infinity,
    Shutdown::Brutal,
];

/// Each way in which a specification can be wrong by itself.
fn faulty() -> Vec<ChildSpec> {
    let child = || spec("child");
    let (zero, one) = (Duration::ZERO, Duration::from_secs(1));
    let mut specs = vec![
        spec(""),
        spec("a/b"),
        ChildSpec { intensity: Some(Intensity { max_restarts: 1, period: zero }), ..child() },
        ChildSpec { intensity: Some(Intensity { max_restarts: MAX_RESTARTS_LIMIT + 1, period: one }), ..child() },
        ChildSpec { inbox_capacity: 0, ..child() },
        ChildSpec { start_timeout: Some(zero), ..child() },
        ChildSpec { seed: Seed { state: SeedState::Running, ..Seed::default() }, ..child() },
        ChildSpec { significant: true, ..child() },
    ];
    for (factor, jitter) in
        [(0.5, 0.0), (f64::NAN, 0.0), (f64::INFINITY, 0.0), (1.0, -0.1), (1.0, 1.1), (1.0, f64::NAN)]
    {
        let mut spec = child();
        (spec.backoff.factor, spec.backoff.jitter) = (factor, jitter);
        specs.push(spec);
    }
    specs
}

/// A worker or a supervisor of this specification.
fn children(spec: &ChildSpec) -> [Child; 2] {
    [worker(spec.clone()).0, Child::supervisor(spec.clone(), SupervisorFlags::default(), vec![]).0]
}

/// Whether a duplicate is what two children of one name are refused for.
fn is_duplicate(result: Result<(), SpecError>) -> bool {
    result == Err(SpecError::Duplicate { id: "child".into() })
}

#[test]
fn child_specs() {
    system(async {
        let one_for_one = flags(Strategy::OneForOne, 2);
        let sup = Sup::start(one_for_one.clone(), vec![]).await;
        for spec in faulty() {
            let error = spec.validate().expect_err("it is faulty");
            let child = || worker(spec.clone()).0;
            // What holds no number can be compared; a NaN is not equal to itself.
            let same = |other: &SpecError| other.to_string() == error.to_string();
            let Err(SupervisorError::Invalid(refused)) = sup.start_child(child()).await else { panic!("{error}") };
            assert!(same(&refused), "{refused}");
            assert!(same(&check_childspecs(&one_for_one, &[child()]).unwrap_err()));
            assert!(same(&Sup::refused(one_for_one.clone(), vec![child()])), "nothing starts with it");
            let supervisor = Child::supervisor(crate::harness::spec("sup"), one_for_one.clone(), vec![child()]).0;
            assert!(same(&Sup::refused(one_for_one.clone(), vec![supervisor])), "at any depth");
        }
        assert_eq!(sup.which().await, []);
        for restart in RESTART_TYPES {
            for shutdown in SHUTDOWNS {
                for child in children(&ChildSpec { shutdown, ..of_type("child", restart) }) {
                    assert_eq!(check_childspecs(&one_for_one, &[child]), Ok(()));
                }
            }
        }
        let [worker, supervisor] = children(&spec("child"));
        assert!(is_duplicate(check_childspecs(&one_for_one, &[worker.clone(), supervisor.clone()])));
        assert!(is_duplicate(Err(Sup::refused(one_for_one, vec![worker.clone(), supervisor]))));
        sup.stop().await;

        // simple_one_for_one has exactly one specification: its template's. No other is taken at the start.
        let simple = flags(Strategy::SimpleOneForOne, 2);
        assert_eq!(Sup::refused(simple, vec![worker]), SpecError::Static { id: "child".into() });
        for spec in faulty() {
            let error = spec.validate().expect_err("it is faulty").to_string();
            let template = Template::new(spec, |child, ()| Worker::make(child, Role::default()));
            let (pool, _) = Child::dynamic(crate::harness::spec("pool"), SupervisorFlags::default(), template);
            assert_eq!(Sup::refused(SupervisorFlags::default(), vec![pool]).to_string(), error);
        }
    });
}

/// What may be significant: not a permanent child, and nobody under a supervisor that doesn't shut down by itself.
#[test]
fn child_specs_map() {
    system(async {
        let (permanent, never) =
            (SpecError::Significant { id: "child".into() }, SpecError::AutoShutdown { id: "child".into() });
        for auto_shutdown in [AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
            let flags = auto(auto_shutdown);
            let sup = Sup::start(flags.clone(), vec![]).await;
            for restart in RESTART_TYPES {
                for significant in [true, false] {
                    let expected = match (significant, restart, auto_shutdown) {
                        (true, RestartType::Permanent, _) => Err(permanent.clone()),
                        (true, _, AutoShutdown::Never) => Err(never.clone()),
                        _ => Ok(()),
                    };
                    for shutdown in SHUTDOWNS {
                        for child in children(&ChildSpec { significant, shutdown, ..of_type("child", restart) }) {
                            assert_eq!(check_childspecs(&flags, std::slice::from_ref(&child)), expected);
                            let Err(error) = &expected else { continue };
                            let refused = sup.start_child(child.clone()).await;
                            assert_eq!(refused, Err(SupervisorError::Invalid(error.clone())));
                            assert_eq!(Sup::refused(flags.clone(), vec![child]), *error);
                        }
                    }
                }
            }
            let children = children(&spec("child"));
            assert!(is_duplicate(check_childspecs(&flags, &children)));
            assert_eq!(sup.which().await, []);
            sup.stop().await;
        }
    });
}

/// A strategy or an auto_shutdown that is none does not compile; a limit that is none is refused.
#[test]
fn sup_flags() {
    system(async {
        let second = Duration::from_secs(1);
        for (max_restarts, period) in [(2, Duration::ZERO), (MAX_RESTARTS_LIMIT + 1, second), (u32::MAX, second)] {
            let faulty = limited(Strategy::OneForOne, max_restarts, period);
            let limit = SpecError::Limit { intensity: Intensity { max_restarts, period } };
            assert_eq!(check_childspecs(&faulty, &[]), Err(limit.clone()));
            let inner = Child::supervisor(spec("inner"), faulty.clone(), vec![]).0;
            assert_eq!(Sup::refused(flags(Strategy::OneForOne, 2), vec![inner]), limit);
            assert_eq!(Sup::refused(faulty, vec![]), limit);
        }
        for (max_restarts, period) in [(0, second), (MAX_RESTARTS_LIMIT, second), (2, Duration::MAX)] {
            Sup::start(limited(Strategy::OneForOne, max_restarts, period), vec![]).await.stop().await;
        }
        Sup::start(SupervisorFlags::unlimited(Strategy::OneForOne), vec![]).await.stop().await;
    });
}
