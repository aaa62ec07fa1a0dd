//! The data directory: held by one daemon at a time, which numbers itself with an epoch before it binds anything.
//!
//! | path | is |
//! |---|---|
//! | `lock` | locked (flock) by the holder, touched by it every second, says who it is |
//! | `opening` | locked while a daemon opens the directory, so that two can't take it over at once |
//! | `epoch`, `hive-id` | the numbers that must outlive the database, each a line of text |
//! | `hive.db` | the journal |
//! | `history.sqlite` | the history |
//! | `endpoints.json` | the bound addresses, while a daemon serves |
//! | `notify/` | what each notifier has told, a file of JSON each |
//! | `restoring/` | a backup that is being unpacked; no daemon starts beside it |
//! | `run/`, `logs/`, `work/` | sockets and exit records of launchers; log books; working directories of swarms |

mod error;
pub(in crate::store) mod files;
mod lock;
mod open;

pub use error::DataDirError;
pub use open::{DataDir, Fence, Options};
pub(in crate::store) use open::{RESTORING, make};

#[cfg(test)]
mod tests;
