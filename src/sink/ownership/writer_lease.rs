//! The exclusive right to write to an output: a file lock for a local folder, an epoch for a
//! bucket.

use crate::error::StageError;
use crate::sink::ownership::fencing_epoch::FencingEpoch;
use crate::sink::ownership::file_lock::FileLock;
use crate::sink::parquet::coverage_snapshot;
use crate::storage::{Location, ObjectPath};

/// The lease of a writer.
#[derive(Debug)]
pub enum WriterLease {
    /// A lock that excludes all other writers.
    Lock(FileLock),
    /// An epoch that ends when a later run claims the next one.
    Epoch(FencingEpoch),
}

impl WriterLease {
    /// Acquires the lease of a folder, which is created if it does not exist.
    ///
    /// # Errors
    /// If another process writes to the folder, or if the folder cannot be written.
    pub fn acquire(folder: &Location) -> Result<Self, StageError> {
        match folder {
            Location::Local(path) => FileLock::acquire(path).map(Self::Lock),
            Location::Remote(prefix) => FencingEpoch::claim(prefix).map(Self::Epoch),
        }
    }

    /// Checks that the lease is still valid. Called before files become visible.
    ///
    /// # Errors
    /// If a later run has claimed the output, or if the folder was replaced.
    pub fn check(&self) -> Result<(), StageError> {
        match self {
            Self::Lock(lock) => lock.check(),
            Self::Epoch(epoch) => epoch.check(),
        }
    }

    /// The name of a data file, which no other run uses.
    pub(crate) fn part_name(&self, number: u32) -> String {
        match self.epoch() {
            None => format!("part-{number:05}.parquet"),
            Some(epoch) => format!("part-{number:05}-e{epoch:06}.parquet"),
        }
    }

    /// The location of the record of an upload, with which a later run can abort it.
    pub(crate) fn upload_record(&self) -> Option<ObjectPath> {
        match self {
            Self::Lock(_) => None,
            Self::Epoch(epoch) => Some(epoch.upload_record()),
        }
    }

    /// The location of the coverage snapshot of this run.
    pub(crate) fn snapshot_location(&self, folder: &Location) -> Location {
        coverage_snapshot::location(folder, self.epoch())
    }

    fn epoch(&self) -> Option<u32> {
        match self {
            Self::Lock(_) => None,
            Self::Epoch(epoch) => Some(epoch.number()),
        }
    }
}

/// The number in the name of a data file of any run; `None` if the name has another form.
pub(crate) fn part_number(name: &str) -> Option<u32> {
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
    fn part_number_does_not_depend_on_the_epoch() {
        assert_eq!(part_number("part-00012.parquet"), Some(12));
        assert_eq!(part_number("part-00012-e000003.parquet"), Some(12));
        assert_eq!(part_number("part-x.parquet"), None);
        assert_eq!(part_number("other.parquet"), None);
    }
}
