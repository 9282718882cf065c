//! A checkpoint of an input file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::source::discovery::content_digest::ContentDigest;
use crate::source::discovery::listed_file::ListedFile;

/// How the content of a checkpoint ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::source) enum CheckpointEnding {
    /// Rows were sent up to a position inside of the content.
    Within,
    /// The content ends with a line end.
    Line,
    /// The content ends within a line, which is a record.
    Text,
    /// The content ends within a quoted value.
    Quote,
    /// The content cannot be appended to, because the format has a footer or an index.
    Whole,
}

/// The digest of a file or of its beginning, with the number of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileCheckpoint {
    /// The file as it was listed when it was last recognized.
    #[serde(flatten)]
    pub(super) file: ListedFile,
    /// The split of its rows.
    pub(super) split: String,
    /// Other inputs that determine its records and are part of the split's name, such as a file of
    /// labels.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) companion: String,
    /// Number of bytes, from the beginning of the file, that `digest` covers.
    pub(super) length: u64,
    /// The digest of the first `length` bytes.
    pub(super) digest: ContentDigest,
    /// Number of rows in these bytes; `u64::MAX` if it is unknown.
    pub(super) rows: u64,
    /// How these bytes end.
    pub(super) ending: CheckpointEnding,
}

/// Maximum number of splits per file name. A file that is replaced repeatedly is recognized by its
/// last contents.
pub(super) const MAX_SPLITS: usize = 8;

/// Checkpoints by file name; those of one name are sorted from the oldest split to the newest.
pub(super) type CheckpointMap = BTreeMap<String, Vec<FileCheckpoint>>;
