//! The database, its thread that writes and its thread that reads. Neither is the journal's.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{bucket::Closed, point::Resolution, retain, rows, tally::Tally};
use crate::{
    model::{Epoch, Target},
    store::{
        data_dir::Fence,
        error::StoreError,
        forms::{millis, unsigned},
        journal::Answer,
        sqlite::{
            database,
            reader::Reader,
            writer::{Durability, Writer},
        },
    },
};

/// What is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    /// A bucket; added to what is there of its span.
    Bucket(Closed),
    /// A time in which not everything was seen.
    Hole {
        /// Its beginning.
        from: SystemTime,
        /// Its end, within it.
        to: SystemTime,
    },
}

/// An entry and its number, which grows by one from entry to entry of a daemon: what was written once is not written again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Numbered {
    /// From 1.
    pub(crate) number: u64,
    /// What.
    pub(crate) entry: Entry,
}

/// What is read of one series.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Stored {
    /// Entries up to this number of the present daemon are in it.
    pub(crate) upto: u64,
    /// When each begins, seconds since 1970, and what was counted; oldest first.
    pub(crate) tallies: Vec<(u64, Tally)>,
    /// Beginning and end of each, ms since 1970.
    pub(crate) holes: Vec<(u64, u64)>,
}

/// Who opens it.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// `history.sqlite` in the data directory.
    pub(crate) path: PathBuf,
    /// The daemon.
    pub(crate) epoch: Epoch,
    /// When it began to look.
    pub(crate) started_at: SystemTime,
    /// Whether a younger one has come.
    pub(crate) fence: Fence,
    /// `[history] max`.
    pub(crate) bytes_max: u64,
}

/// The open database. Dropping it waits for its threads.
pub(crate) struct HistoryFile {
    writer: Writer,
    reader: Reader,
    epoch: Epoch,
    bytes_max: u64,
}

/// How opening went.
pub(crate) struct Opened {
    /// The database.
    pub(crate) file: HistoryFile,
    /// Where the former one lies now, which could not be read.
    pub(crate) set_aside: Option<PathBuf>,
}

impl HistoryFile {
    /// Opens the database, and makes it when it is not there. One that is damaged is set aside under another name. Blocks.
    ///
    /// # Errors
    /// Why it can't be opened: a later version's, a full or read-only disk.
    pub(crate) fn open(origin: &Origin) -> Result<Opened, StoreError> {
        match Self::try_open(origin, false) {
            Err(StoreError::Corrupt(_) | StoreError::Damaged(_)) => {
                let set_aside = Self::set_aside(&origin.path)?;
                Ok(Opened { file: Self::try_open(origin, true)?, set_aside: Some(set_aside) })
            }
            other => Ok(Opened { file: other?, set_aside: None }),
        }
    }

    fn try_open(origin: &Origin, renewed: bool) -> Result<Self, StoreError> {
        let mut connection = database::open(&origin.path, rows::MIGRATIONS)?;
        rows::begin(&mut connection, origin.epoch, millis(origin.started_at), renewed)?;
        let fence = origin.fence.clone();
        let guard = Box::new(move |_: &_| if fence.is_fenced() { Err(StoreError::Fenced) } else { Ok(()) });
        let writer = Writer::start("hk-history", &origin.path, connection, guard)?;
        let reader = Reader::start("hk-history-read", database::open_for_reading(&origin.path)?, writer.damage())?;
        Ok(Self { writer, reader, epoch: origin.epoch, bytes_max: origin.bytes_max })
    }

    /// Gives a database that can't be read another name, `history.sqlite.damaged`; an earlier one of that name goes. Nobody has it open. Blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
        let named = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        // The log first: beside a new database it would be taken for that one's.
        for suffix in ["-wal", "-shm", ""] {
            match std::fs::rename(named(suffix), named(&format!(".damaged{suffix}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(named(".damaged"))
    }

    /// Writes entries, in the order of their numbers. Those before `seen_until` are then all there, unless it is `None`; `ended` says that nothing follows
    /// of this daemon and nothing is missing. To write the same again does no harm.
    pub(crate) fn write(&self, entries: Vec<Numbered>, seen_until: Option<SystemTime>, ended: bool) -> Answer<'_, ()> {
        let (epoch, bytes_max) = (self.epoch, self.bytes_max);
        let seen_until = seen_until.map(millis);
        self.writer.call(Durability::Process, move |db| {
            while retain::make_room(db, bytes_max)? {}
            rows::write(db, epoch, &entries, seen_until, ended)
        })
    }

    /// Takes a bite of what is kept no longer; whether there is more.
    pub(crate) fn trim(&self, now: SystemTime) -> Answer<'_, bool> {
        let (now_s, bytes_max) = (unsigned(millis(now)) / 1000, self.bytes_max);
        self.writer.call(Durability::Process, move |db| retain::trim(db, now_s, bytes_max))
    }

    /// What is there of one series that begins from `from_s` to `to_s`, both within.
    pub(crate) fn read(&self, of: &Target, resolution: Resolution, from_s: u64, to_s: u64) -> Answer<'_, Stored> {
        let (of, epoch) = (of.to_string(), self.epoch);
        self.reader.call(move |db| rows::read(db, epoch, &of, resolution, from_s, to_s))
    }
}
