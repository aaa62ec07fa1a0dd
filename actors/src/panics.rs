//! Panics of supervised actors: caught, named, counted, never printed twice.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, Location, PanicHookInfo, catch_unwind, resume_unwind};
use std::sync::{Arc, Once};

use crate::exit::ExitReason;
use crate::log;

thread_local! {
    /// `Some` while this thread polls a supervised actor; holds where the latest panic of that poll happened: earlier ones
    /// were caught by the actor itself.
    static WATCHED: RefCell<Option<Option<Arc<str>>>> = const { RefCell::new(None) };
}

/// Wraps the panic hook of the process: a panic inside a supervised actor is recorded, any other goes to the previous hook. Runs once.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !record(info) {
                previous(info);
            }
        }));
    });
}

fn record(info: &PanicHookInfo<'_>) -> bool {
    WATCHED
        .try_with(|watched| {
            let Ok(mut watched) = watched.try_borrow_mut() else { return false };
            let Some(seen) = watched.as_mut() else { return false };
            *seen = Some(info.location().map_or_else(|| "unknown".into(), place));
            true
        })
        .unwrap_or(false)
}

/// As it shows itself, without a formatter, which would take several times as long.
fn place(at: &Location<'_>) -> Arc<str> {
    [at.file(), ":", &at.line().to_string(), ":", &at.column().to_string()].concat().into()
}

/// Runs a piece of code whose panic ends nothing that anybody watches: it is written to the log.
pub(crate) fn guarded<R>(path: &str, piece: impl FnOnce() -> R) -> Result<R, ExitReason> {
    caught(piece).inspect_err(|panic| log::late_panic(path, panic))
}

/// Runs a piece of a supervised actor; a panic in it becomes the exit reason, which whoever watches is told.
pub(crate) fn caught<R>(piece: impl FnOnce() -> R) -> Result<R, ExitReason> {
    // A thread that is ending has no thread-locals any more: the panic is caught all the same, and printed by the hook.
    let outer = WATCHED.try_with(|watched| watched.replace(Some(None))).unwrap_or_default();
    let result = catch_unwind(AssertUnwindSafe(piece));
    let location = WATCHED.try_with(|watched| watched.replace(outer)).unwrap_or_default().flatten();
    result.map_err(|payload| reason_of(payload, location))
}

/// A panic of a part of what [`caught`] runs, caught as near to where it happened as can be: each frame on its way takes its time.
pub(crate) struct Early(Box<dyn Any + Send>);

impl Early {
    #[inline]
    pub(crate) fn catch<R>(part: impl FnOnce() -> R) -> Result<R, Self> {
        catch_unwind(AssertUnwindSafe(part)).map_err(Self)
    }

    /// As [`caught`] would call it.
    #[cold]
    pub(crate) fn reason(self) -> ExitReason {
        let location = WATCHED.try_with(|watched| watched.borrow_mut().as_mut().and_then(Option::take));
        reason_of(self.0, location.unwrap_or_default())
    }

    /// Goes on its way to [`caught`].
    #[cold]
    pub(crate) fn go_on(self) -> ! {
        resume_unwind(self.0)
    }
}

fn reason_of(payload: Box<dyn Any + Send>, location: Option<Arc<str>>) -> ExitReason {
    let text = text_of(&*payload);
    // A payload may have a destructor of its own, and that one may panic, too.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    ExitReason::Panic { text, location: location.unwrap_or_else(|| "unknown".into()) }
}

fn text_of(payload: &(dyn Any + Send)) -> Arc<str> {
    if let Some(text) = payload.downcast_ref::<&str>() {
        Arc::from(*text)
    } else if let Some(text) = payload.downcast_ref::<String>() {
        Arc::from(text.as_str())
    } else {
        Arc::from("a panic without text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caught_names_text_and_place() {
        install_hook();
        let line = line!() + 1;
        let reason = caught(|| panic!("boom {}", 7)).err();
        let Some(ExitReason::Panic { text, location }) = reason else { panic!("no panic seen: {reason:?}") };
        assert_eq!(&*text, "boom 7");
        assert!(location.contains(&format!("panics.rs:{line}")), "{location}");
    }

    #[test]
    fn a_place_is_written_as_it_shows_itself() {
        let here = Location::caller();
        assert_eq!(*place(here), here.to_string());
    }

    #[test]
    fn an_early_panic_has_the_reason_that_a_late_one_has() {
        install_hook();
        let early = || Early::catch(|| panic!("boom {}", 8)).map_err(Early::reason);
        let (early, late) = (caught(early), caught(|| Early::catch(|| panic!("boom {}", 8)).map_err(Early::go_on)));
        let Ok(Err(ExitReason::Panic { text, location })) = early else { panic!("no panic seen: {early:?}") };
        let Err(ExitReason::Panic { text: late_text, location: late_location }) = late else { panic!("{late:?}") };
        assert_eq!((&*text, text.clone()), ("boom 8", late_text));
        assert!(location.contains("panics.rs:") && late_location.contains("panics.rs:"), "{location} {late_location}");
    }

    #[test]
    fn caught_survives_a_payload_that_panics_when_dropped() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                // Its payload does the same.
                std::panic::panic_any(Self);
            }
        }
        install_hook();
        let reason = caught(|| std::panic::panic_any(Bomb)).err();
        assert!(matches!(reason, Some(ExitReason::Panic { text, .. }) if &*text == "a panic without text"));
    }
}
