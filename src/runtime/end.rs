//! What an exit record means to the supervisor. Pure.

use crate::model::{ExitCause, ExitRecord};

/// How an incarnation ended, in the supervisor's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// As it should: code 0, or we asked for it.
    Normal,
    /// Otherwise; the text is for people.
    Failed(String),
    /// Its container is gone, and it with it: nothing is debited to it.
    Lost(String),
}

/// Names the end by what we had done to it, and says what it means. `stopping`: a stop was ordered; `forced`: why we had ended it ourselves.
pub(super) fn judge(mut record: ExitRecord, stopping: bool, forced: Option<ExitCause>) -> (ExitRecord, End) {
    // A stop that somebody else sent to the launcher is no stop of ours.
    let foreign = record.cause == ExitCause::Stopped && !stopping && forced.is_none();
    if let Some(cause) = forced
        && !matches!(record.cause, ExitCause::StartFailed { .. })
    {
        record.cause = cause;
    }
    if stopping && matches!(record.cause, ExitCause::Exited | ExitCause::Signalled | ExitCause::ContainerLost { .. }) {
        // It heard of the stop by another way than its signal, or died while it was on its way: asked for, either way.
        record.cause = ExitCause::Stopped;
    }
    let end = if stopping || (record.is_normal() && !foreign) {
        End::Normal
    } else if record.is_debited() {
        End::Failed(record.describe())
    } else {
        End::Lost(record.describe())
    };
    (record, end)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn judged(code: Option<i32>, cause: ExitCause, stopping: bool, forced: Option<ExitCause>) -> (ExitCause, End) {
        let record = ExitRecord { code, ..ExitRecord::unseen(1, SystemTime::UNIX_EPOCH, cause) };
        let (record, end) = judge(record, stopping, forced);
        (record.cause, end)
    }

    fn lost() -> ExitCause {
        ExitCause::ContainerLost { message: "exit code 137".to_owned() }
    }

    fn failed(text: &str) -> End {
        End::Failed(text.to_owned())
    }

    #[test]
    fn its_own_end_is_what_its_code_says() {
        assert_eq!(judged(Some(0), ExitCause::Exited, false, None), (ExitCause::Exited, End::Normal));
        let exited = judged(Some(3), ExitCause::Exited, false, None);
        assert_eq!(exited, (ExitCause::Exited, failed("exited with code 3")));
    }

    #[test]
    fn a_stop_of_ours_is_one_however_it_came_about() {
        for cause in [ExitCause::Exited, ExitCause::Signalled, ExitCause::Stopped, lost()] {
            assert_eq!(judged(Some(3), cause, true, None), (ExitCause::Stopped, End::Normal));
        }
        let unheard = judged(None, ExitCause::LauncherLost, true, None);
        assert_eq!(unheard, (ExitCause::LauncherLost, End::Normal), "the truth, and no failure");
    }

    #[test]
    fn a_stop_of_somebody_else_is_a_failure() {
        let (cause, end) = judged(Some(0), ExitCause::Stopped, false, None);
        assert_eq!((cause, end), (ExitCause::Stopped, failed("stopped: exited with code 0")));
    }

    #[test]
    fn a_lost_container_is_no_failure_of_its_own() {
        let end = End::Lost("its container ended: exit code 137".to_owned());
        assert_eq!(judged(None, lost(), false, None), (lost(), end));
    }

    #[test]
    fn what_we_forced_is_named_so_and_debited() {
        for cause in [ExitCause::Stopped, ExitCause::Exited, lost()] {
            let (cause, end) = judged(Some(0), cause, false, Some(ExitCause::Stuck));
            assert_eq!((cause, end), (ExitCause::Stuck, failed("made no progress: exited with code 0")));
        }
        let never = ExitCause::StartFailed { message: "no such file".to_owned() };
        let (cause, _) = judged(None, never.clone(), false, Some(ExitCause::StartTimeout));
        assert_eq!(cause, never, "it never ran");
    }
}
