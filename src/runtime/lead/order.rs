//! An order as its launcher gets it, or why it can't work; and what a launcher says, in the contract's words. Pure.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use super::outbox::millis;
use crate::{
    model::{Epoch, ExitCause, ExitRecord},
    runtime::{AgentEvent, LaunchOrder, OutputLine},
    wire::channel::{Exit, ExitWhy, Launch, Output, Sample, VERSION},
};

/// Variables of ours: configuration, tokens, identities. The launcher sets those that an agent may see.
pub(in crate::runtime) const RESERVED: &str = "HIVEKEEPER_";
/// The kernel counts CPU time in ticks of 10 ms; over a shorter time than this a reading would be noise.
const CPU_INTERVAL_MS_MIN: u64 = 100;

/// What stands in the order as an operator wrote it, checked. `workdir` is for an order that names none.
///
/// # Errors
/// Why it can't work, for people.
pub(in crate::runtime) fn launch(
    order: &LaunchOrder,
    workdir: Option<&Path>,
    base: &[(String, String)],
    epoch: Epoch,
    run_dir: &str,
    ring_bytes: u32,
) -> Result<Launch, String> {
    if order.argv.first().is_none_or(String::is_empty) {
        return Err("empty command".to_owned());
    }
    if let Some(arg) = order.argv.iter().find(|arg| arg.contains('\0')) {
        return Err(format!("argument {arg:?} holds a NUL byte"));
    }
    for (key, value) in &order.env {
        if key.is_empty() || key.contains(['=', '\0']) {
            return Err(format!("{key:?} is no name of a variable"));
        }
        if key.starts_with(RESERVED) {
            return Err(format!("variable {key} is reserved"));
        }
        if value.contains('\0') {
            return Err(format!("value of variable {key} holds a NUL byte"));
        }
    }
    let workdir = order.workdir.as_deref().or(workdir).ok_or("no working directory")?;
    let cwd = workdir.to_str().filter(|path| !path.contains('\0'));
    let Some(cwd) = cwd.filter(|_| workdir.is_absolute()) else {
        return Err(format!("working directory {} is not an absolute path in UTF-8", workdir.display()));
    };
    let inherited = base.iter().filter(|(key, _)| !key.starts_with(RESERVED) && !order.env.contains_key(key));
    Ok(Launch {
        version: VERSION,
        epoch: epoch.0,
        launch_id: order.launch_id.to_string(),
        agent: order.agent.to_string(),
        incarnation: order.incarnation,
        argv: order.argv.clone(),
        env: inherited.cloned().chain(order.env.clone()).collect(),
        cwd: cwd.to_owned(),
        token: order.token.clone(),
        lease_ms: millis(order.lease),
        grace_ms: millis(order.grace),
        sample_interval_ms: millis(order.sample_interval),
        run_dir: run_dir.to_owned(),
        ring_bytes,
        forget: Vec::new(),
        in_container: false,
    })
}

/// How it ended, as its launcher recorded it.
pub(in crate::runtime) fn ended(exit: &Exit) -> ExitRecord {
    let cause = match (exit.why, exit.signal) {
        (ExitWhy::Asked, _) => ExitCause::Stopped,
        (ExitWhy::LeaseLost, _) => ExitCause::LeaseLost,
        (ExitWhy::Own, Some(_)) => ExitCause::Signalled,
        (ExitWhy::Own, None) => ExitCause::Exited,
    };
    ExitRecord {
        incarnation: exit.incarnation,
        code: exit.code,
        signal: exit.signal,
        oom: exit.oom,
        at: time(exit.at_ms),
        cause,
        last_lines: Vec::new(),
    }
}

pub(in crate::runtime) fn line(output: Output) -> OutputLine {
    let text = match String::from_utf8(output.bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    OutputLine { seq: output.seq, at: time(output.at_ms), stream: output.stream, partial: output.partial, text }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ms are 285,000 years")]
pub(in crate::runtime) fn sample(sample: Sample) -> AgentEvent {
    let cpu_cores =
        (sample.interval_ms >= CPU_INTERVAL_MS_MIN).then(|| sample.cpu_interval_ms as f64 / sample.interval_ms as f64);
    AgentEvent::Sample {
        at: time(sample.at_ms),
        cpu_cores,
        memory_bytes: sample.rss_bytes,
        processes: sample.processes,
    }
}

pub(in crate::runtime) fn time(unix_ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
    use super::*;
    use crate::{model::LaunchId, wire::channel::Stream};

    fn order() -> LaunchOrder {
        LaunchOrder {
            launch_id: LaunchId::mint(),
            agent: "review/coder-1".parse().unwrap(),
            incarnation: 3,
            argv: vec!["sh".to_owned()],
            env: [("B".to_owned(), "document".to_owned())].into(),
            workdir: Some("/tmp".into()),
            token: "secret".to_owned(),
            lease: Duration::from_secs(30),
            grace: Duration::from_secs(10),
            sample_interval: Duration::from_secs(1),
        }
    }

    fn made(order: &LaunchOrder) -> Result<Launch, String> {
        let base = [("A", "daemon"), ("B", "daemon"), ("HIVEKEEPER_API_TOKEN", "t"), ("HIVEKEEPER__HTTP__BIND", "b")];
        let base: Vec<_> = base.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        launch(order, None, &base, Epoch(7), "/run", 1024)
    }

    #[test]
    fn the_document_wins_and_our_own_variables_stay_here() {
        let launch = made(&order()).unwrap();
        let env: Vec<_> = launch.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(env, [("A", "daemon"), ("B", "document")]);
        assert_eq!((launch.epoch, launch.lease_ms, launch.incarnation), (7, 30_000, 3));
    }

    #[test]
    fn orders_that_cannot_work_are_refused() {
        let with = |change: &dyn Fn(&mut LaunchOrder)| {
            let mut order = order();
            change(&mut order);
            made(&order).unwrap_err()
        };
        assert_eq!(with(&|o| o.argv.clear()), "empty command");
        assert!(with(&|o| o.argv.push("a\0b".to_owned())).contains("NUL"));
        assert!(with(&|o| drop(o.env.insert("HIVEKEEPER_TOKEN".to_owned(), String::new()))).contains("reserved"));
        assert!(with(&|o| drop(o.env.insert("A=B".to_owned(), String::new()))).contains("no name"));
        assert!(with(&|o| drop(o.env.insert("A".to_owned(), "\0".to_owned()))).contains("NUL"));
        assert!(with(&|o| o.workdir = Some("relative".into())).contains("absolute"));
    }

    #[test]
    fn causes_follow_the_record() {
        let exit = |code, signal, why| {
            ended(&Exit {
                agent: "a/b".to_owned(),
                incarnation: 1,
                code,
                signal,
                why,
                oom: signal.map(|signal| signal == 9),
                at_ms: 5,
                swept: 0,
                unswept: 0,
                last_seq: 0,
            })
        };
        assert_eq!(exit(Some(3), None, ExitWhy::Own).cause, ExitCause::Exited);
        assert_eq!(exit(None, Some(9), ExitWhy::Own).cause, ExitCause::Signalled);
        assert_eq!(exit(None, Some(15), ExitWhy::Asked).cause, ExitCause::Stopped);
        assert_eq!(exit(Some(0), None, ExitWhy::LeaseLost).cause, ExitCause::LeaseLost);
        assert_eq!(exit(Some(0), None, ExitWhy::Own).at, time(5));
        assert_eq!([exit(None, Some(9), ExitWhy::Own).oom, exit(Some(1), None, ExitWhy::Own).oom], [Some(true), None]);
    }

    #[test]
    fn readings_too_close_together_say_nothing_of_cpu() {
        let reading = |interval_ms, cpu_interval_ms| {
            let reading = Sample { at_ms: 0, cpu_ms: 0, interval_ms, cpu_interval_ms, rss_bytes: 1, processes: 1 };
            let AgentEvent::Sample { cpu_cores, .. } = sample(reading) else { panic!() };
            cpu_cores
        };
        assert_eq!(reading(1000, 1500), Some(1.5));
        assert_eq!(reading(0, 0), None);
        assert_eq!(reading(99, 10), None);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let output = Output { seq: 1, at_ms: 0, stream: Stream::Stdout, partial: false, bytes: b"a\xffb".to_vec() };
        assert_eq!(line(output).text, "a\u{fffd}b");
    }
}
