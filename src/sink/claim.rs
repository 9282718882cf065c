//! The right to write to an output folder: a lock on this machine, an epoch in a bucket.

use crate::error::StageError;
use crate::sink::epoch::Epoch;
use crate::sink::lock::Lock;
use crate::sink::marker;
use crate::store::{Location, Remote};

/// Held by the one who writes.
#[derive(Debug)]
pub enum Claim {
    /// Nobody else can have it.
    Lock(Lock),
    /// Ends when a later run makes the same claim.
    Epoch(Epoch),
}

impl Claim {
    /// Claims a folder, which is made where it is missing.
    ///
    /// # Errors
    /// When another process writes there, or it cannot be written.
    pub fn take(folder: &Location) -> Result<Self, StageError> {
        match folder {
            Location::Local(path) => Lock::take(path).map(Self::Lock),
            Location::Remote(prefix) => Epoch::claim(prefix).map(Self::Epoch),
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
    pub fn note(&self) -> Option<Remote> {
        match self {
            Self::Lock(_) => None,
            Self::Epoch(epoch) => Some(epoch.note()),
        }
    }

    /// Where the marker of this run is written.
    pub fn marker(&self, folder: &Location) -> Location {
        marker::place(folder, self.epoch())
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
    name.split_once("-e").map_or(name, |(number, _)| number).parse().ok()
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
