//! What a supervisor says to the log. OTP formats its reports when they are read, with limits that the reader sets; ours are `tracing` events
//! whose texts are limited where they are written.

use std::cell::RefCell;
use std::fmt;
use std::sync::Once;

use hivekeeper_actors::Strategy;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::harness::*;

/// One line of the log: its level and its fields in order.
type Line = (Level, Vec<(&'static str, String)>);

thread_local! {
    /// The lines of the test that runs on this thread, if it listens.
    static LINES: RefCell<Option<Vec<Line>>> = const { RefCell::new(None) };
}

/// Hears the lines of this crate on threads that listen; the others write none, and so leave the ration of lines alone. It is the one of
/// the whole process, because what a scoped one is told depends on which thread came first to a line.
struct Ear;

impl Subscriber for Ear {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "hivekeeper_actors" && LINES.with_borrow(Option::is_some)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = (*event.metadata().level(), fields.0);
        LINES.with_borrow_mut(|lines| lines.get_or_insert_default().push(line));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What was written on this thread while `test` ran.
fn heard(test: impl FnOnce()) -> Log {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(Ear).unwrap();
        tracing::callsite::rebuild_interest_cache();
    });
    LINES.set(Some(Vec::new()));
    test();
    Log(LINES.take().unwrap_or_default())
}

/// The lines of one run.
struct Log(Vec<Line>);

#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }
}

impl Log {
    /// What this field says in the line of this kind about `child1`.
    fn field(&self, kind: &str, field: &str) -> Option<String> {
        let has = |fields: &Vec<(&str, String)>, name, value: &str| fields.contains(&(name, value.to_owned()));
        let of_child = |(_, fields): &&Line| has(fields, "kind", kind) && has(fields, "path", "root/child1");
        let (_, fields) = self.0.iter().find(of_child)?;
        fields.iter().find(|(name, _)| *name == field).map(|(_, value)| value.clone())
    }

    fn level(&self, kind: &str) -> Option<Level> {
        let of_kind = |(_, fields): &&Line| fields.contains(&("kind", kind.to_owned()));
        self.0.iter().find(of_kind).map(|(level, _)| *level)
    }
}

/// What is written of a child that ends with a failure of this text, and is restarted.
fn failure(text: &'static str, check: impl FnOnce(&Log)) {
    let run = async {
        let (child1, failing) = worker(spec("child1"));
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![child1]).await;
        failing.run(move |worker, context| worker.fail(context, text)).unwrap();
        quiet().await;
        assert_eq!(sup.which().await, [("child1".into(), Is(2))]);
        sup.stop().await;
    };
    let log = heard(|| system(run));
    check(&log);
}

/// Of a failure: who, what and why, in fields of their own. Of progress: who, and how many times so far.
#[test]
fn format_log_1() {
    failure("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]", |log| {
        let reason = "failed: [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]";
        assert_eq!(log.field("exited", "reason").as_deref(), Some(reason));
        assert_eq!(log.field("exited", "incarnation").as_deref(), Some("1"));
        assert_eq!(log.level("exited"), Some(Level::WARN));
        assert_eq!(log.level("started"), Some(Level::DEBUG));
        assert_eq!(log.field("started", "reason"), None);
        assert_eq!(log.field("started", "message").as_deref(), Some("child started"));
        assert_eq!(log.field("backing_off", "attempt").as_deref(), Some("1"));
    });
    // Beyond the limit a text is cut, and says so.
    let long: &'static str = "0123456789".repeat(1000).leak();
    failure(long, |log| {
        let reason = log.field("exited", "reason").unwrap();
        assert!(reason.starts_with("failed: 0123456789") && reason.ends_with('…'), "{reason}");
        assert!(reason.chars().count() < 1000, "{} characters", reason.chars().count());
    });
}

/// Every text is on a single line, however many it had, and cut or not.
#[test]
fn format_log_2() {
    failure("first\nsecond\r\n\tthird\u{1b}[31m", |log| {
        let reason = log.field("exited", "reason").unwrap();
        assert_eq!(reason, "failed: first second   third [31m");
    });
    let many: &'static str = "a line\n".repeat(1000).leak();
    failure(many, |log| {
        let reason = log.field("exited", "reason").unwrap();
        assert!(reason.starts_with("failed: a line a line"), "{reason}");
        assert!(!reason.contains('\n') && reason.ends_with('…') && reason.chars().count() < 1000, "{reason}");
    });
}
