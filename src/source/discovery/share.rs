//! The share of the inputs that a source reads in a run of one shard.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::shard::Shard;

/// The share of a source, with its size once it was counted.
#[derive(Debug, Clone, Default)]
pub struct SourceShare {
    shard: Option<Shard>,
    size: Arc<Mutex<Option<ShareSize>>>,
}

/// The number of inputs of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareSize {
    share: u64,
    all: u64,
    /// The counted inputs, in the plural.
    unit: &'static str,
}

impl SourceShare {
    /// The share of a shard; all inputs if `shard` is `None`.
    #[must_use]
    pub fn new(shard: Option<Shard>) -> Self {
        Self {
            shard,
            size: Arc::default(),
        }
    }

    /// The shard; `None` if the source reads all inputs.
    #[must_use]
    pub fn shard(&self) -> Option<Shard> {
        self.shard
    }

    /// The size, if it was counted.
    #[must_use]
    pub fn size(&self) -> Option<ShareSize> {
        *self.size.lock()
    }

    /// Whether a file belongs to the share.
    pub(crate) fn has_file(&self, name: &str) -> bool {
        self.shard.is_none_or(|shard| shard.has_file(name))
    }

    /// Whether a row group of a file belongs to the share.
    pub(crate) fn has_row_group(&self, file: &str, index: usize) -> bool {
        self.shard
            .is_none_or(|shard| shard.has_row_group(file, index))
    }

    /// Counts the files of the share among the names of all files.
    pub(crate) fn count_files<'a>(&self, names: impl Iterator<Item = &'a String>) {
        if self.shard.is_some() {
            let (mut share, mut all) = (0, 0);
            for name in names {
                all += 1;
                share += u64::from(self.has_file(name));
            }
            self.set_size(share, all, "files");
        }
    }

    /// Sets the size: `share` of `all` inputs.
    pub(crate) fn set_size(&self, share: u64, all: u64, unit: &'static str) {
        if self.shard.is_some() {
            let size = ShareSize { share, all, unit };
            *self.size.lock() = Some(size);
        }
    }
}

impl fmt::Display for ShareSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} {}", self.share, self.all, self.unit)
    }
}
