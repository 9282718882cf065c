//! The right to write to an output folder: a lock on this machine, an epoch in a bucket.

use crate::error::StageError;
use crate::sink::coverage_snapshot;
use crate::sink::fencing_epoch::FencingEpoch;
use crate::sink::file_lock::FileLock;
use crate::storage::{Location, S3Path};

/// Held by the one who writes.
#[derive(Debug)]
pub enum WriterLease {
    /// Nobody else can have it.
    Lock(FileLock),
    /// Ends when a later run makes the same claim.
    Epoch(FencingEpoch),
}

impl WriterLease {
    /// Claims a folder, which is made where it is missing.
    ///
    /// # Errors
    /// When another process writes there, or it cannot be written.
    pub fn take(folder: &Location) -> Result<Self, StageError> {
        match folder {
            Location::Local(path) => FileLock::take(path).map(Self::Lock),
            Location::Remote(prefix) => FencingEpoch::claim(prefix).map(Self::Epoch),
        }
    }

    /// To be asked before anything is made visible.
    ///
    /// # Errors
    /// When a later run has claimed the folder, or another folder lies in its place.
    pub fn check(&self) -> Result<(), StageError> {
        match self {
            Self::Lock(lock) => lock.check(),
            Self::Epoch(epoch) => epoch.check(),
        }
    }

    /// The name of a data file: one that no other run gives.
    pub fn part_name(&self, number: u32) -> String {
        match self.epoch() {
            None => format!("part-{number:05}.parquet"),
            Some(epoch) => format!("part-{number:05}-e{epoch:06}.parquet"),
        }
    }

    /// Where it is noted that a file is being sent, so that a later run can give it up.
    pub fn upload_record(&self) -> Option<S3Path> {
        match self {
            Self::Lock(_) => None,
            Self::Epoch(epoch) => Some(epoch.upload_record()),
        }
    }

    /// Where the snapshot of this run is written.
    pub fn snapshot_location(&self, folder: &Location) -> Location {
        coverage_snapshot::place(folder, self.epoch())
    }

    fn epoch(&self) -> Option<u32> {
        match self {
            Self::Lock(_) => None,
            Self::Epoch(epoch) => Some(epoch.number()),
        }
    }
}

/// The number in the name of a data file, whoever wrote it; `None` where it is no name of ours.
pub fn part_number(name: &str) -> Option<u32> {
    let name = name.strip_prefix("part-")?.strip_suffix(".parquet")?;
    name.split_once("-e")
        .map_or(name, |(number, _)| number)
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_file_is_known_whatever_its_epoch() {
        assert_eq!(part_number("part-00012.parquet"), Some(12));
        assert_eq!(part_number("part-00012-e000003.parquet"), Some(12));
        assert_eq!(part_number("part-x.parquet"), None);
        assert_eq!(part_number("other.parquet"), None);
    }
}
