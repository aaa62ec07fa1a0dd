//! What a notifier must know after this daemon's end: a line of JSON in the data directory.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sighting::{Subject, Trouble};
use crate::model::Seq;

/// What was told, and up to which event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notes {
    /// Everything up to here was told.
    pub(super) after: Seq,
    /// The trouble that was told last of each subject, and not taken back.
    pub(super) told: BTreeMap<Subject, Trouble>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    after: u64,
    told: BTreeMap<String, String>,
}

impl Notes {
    /// What was written; `None` where it can't be read.
    pub(super) fn read(text: &str) -> Option<Self> {
        let Written { after, told } = serde_json::from_str(text).ok()?;
        let told = told.iter().map(|(subject, trouble)| Some((Subject::parse(subject)?, Trouble::parse(trouble)?)));
        Some(Self { after: Seq(after), told: told.collect::<Option<_>>()? })
    }

    pub(super) fn write(&self) -> String {
        let told = self.told.iter().map(|(subject, trouble)| (subject.text(), trouble.topic().word().to_owned()));
        let written = Written { after: self.after.0, told: told.collect() };
        // Strings and numbers: nothing of it can fail.
        serde_json::to_string(&written).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_as_they_were_written() {
        let told = [("", Trouble::Critical), ("s", Trouble::Critical), ("s/a", Trouble::Failed)];
        let told = told.map(|(subject, trouble)| (Subject::parse(subject).unwrap(), trouble)).into();
        let notes = Notes { after: Seq(77), told };
        assert_eq!(Notes::read(&notes.write()), Some(notes));
        for damaged in ["", "{}", r#"{"after":1,"told":{"s/a":"glad"}}"#, r#"{"after":1,"told":{"S":"failed"}}"#] {
            assert_eq!(Notes::read(damaged), None, "{damaged}");
        }
    }
}
