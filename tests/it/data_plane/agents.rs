//! The example agents, run as they are.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
};

use hivekeeper::{
    data_plane::PlaneLimits,
    model::{Drain, TelemetryKind},
};

use super::harness::{Plane, eventually};

/// A running example. Killed and reaped with the test.
struct Example(Child);

impl Example {
    fn start(plane: &Plane, name: &str, program: &str, script: &str) -> Self {
        let child = Command::new(program)
            .arg(format!("{}/examples/agents/{script}", env!("CARGO_MANIFEST_DIR")))
            .env("HIVEKEEPER_ADDR", plane.addr.to_string())
            .env("HIVEKEEPER_TOKEN", format!("t-{name}"))
            .env("HIVEKEEPER_AGENT", format!("s/{name}"))
            .env("HIVEKEEPER_INCARNATION", plane.house.incarnation.load(Ordering::Relaxed).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    fn ended(&mut self) -> Option<Option<i32>> {
        self.0.try_wait().unwrap().map(|status| status.code())
    }

    fn lines(&mut self) -> Vec<String> {
        BufReader::new(self.0.stdout.take().unwrap()).lines().map(Result::unwrap).collect()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Opens, beats with progress, comes back when the listener was restarted, drains with exit 0.
fn does_its_part(program: &str, script: &str) {
    let plane = Plane::start(PlaneLimits::default());
    let mut example = Example::start(&plane, "x", program, script);
    let progress = |n: u64| {
        let kinds = plane.sink.of("s/x");
        let told = format!("\"done\":{n}}}");
        let squeezed = |text: &str| text.replace(' ', "");
        kinds
            .iter()
            .any(|k| matches!(k, TelemetryKind::Heartbeat { progress: Some(p), .. } if squeezed(p).ends_with(&told)))
    };
    eventually("it tells its progress", || progress(2));
    plane.restart_listener();
    eventually("it comes back", || plane.sink.count("s/x", &TelemetryKind::SessionOpened) == 2);
    eventually("it goes on", || progress(4));
    plane.handle.drain(&"s/x".parse().unwrap(), 1);
    eventually("it ends", || example.ended().is_some());
    assert_eq!(example.ended(), Some(Some(0)));
    let lines = example.lines();
    assert_eq!((lines.first().unwrap().as_str(), lines.last().unwrap().as_str()), ("session open", "asked to finish"));
    eventually("its session is closed", || plane.stats().presence.connections == 0);
    assert!(plane.stats().refused.is_empty(), "{:?}", plane.stats().refused);

    // Of an incarnation that has ended, it must not hang on.
    let mut ghost = Example::start(&plane, "x", program, script);
    eventually("a ghost's first life", || plane.sink.count("s/x", &TelemetryKind::SessionOpened) == 3);
    plane.house.incarnation.store(2, Ordering::Relaxed);
    eventually("a ghost gives up", || ghost.ended().is_some());
    assert_eq!(ghost.ended(), Some(Some(1)));
}

#[test]
fn bash() {
    does_its_part("bash", "agent.sh");
}

#[test]
fn python() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: python3 is not installed, so examples/agents/agent.py was not run");
        return;
    }
    does_its_part("python3", "agent.py");
}
