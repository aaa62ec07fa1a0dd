//! What an archive says of itself.

use serde::{Deserialize, Serialize};

/// The form of archives that this version writes and reads.
pub(super) const FORMAT: u32 = 1;
/// Its name in the archive.
pub(super) const NAME: &str = "manifest.json";

/// The last entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of the archive.
    pub format: u32,
    /// Who wrote it.
    pub version: String,
    /// Whose it is.
    pub hive_id: String,
    /// When it was begun, RFC 3339: what was acknowledged before is in it.
    pub begun_at: String,
    /// All other entries.
    pub files: Vec<Entry>,
}

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Below the data directory.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
}
