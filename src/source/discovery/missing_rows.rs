//! The journaled rows that were rejected because their files did not exist any more or had changed.
//! A file that reappears gets a new row.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::source::discovery::append_log::AppendLog;
use crate::storage::Location;

/// A row of a split.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct MissingRow {
    split: String,
    row: u64,
}

/// The missing rows of a stage. They are only stored if `state` is on a local disk.
#[derive(Debug, Default)]
pub(crate) struct MissingRows {
    log: AppendLog,
    rows: BTreeSet<MissingRow>,
}

impl MissingRows {
    /// Loads the rows that earlier runs of `stage` stored below `state`.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) fn load(stage: &str, state: &Location) -> Result<Self, StageError> {
        let log = AppendLog::new(Some(&log_file(stage, state)));
        let rows = log.read()?.into_iter().collect();
        Ok(Self { log, rows })
    }

    /// Whether a row was rejected, or was about to be, because its file did not exist.
    pub(crate) fn contains(&self, split: &str, row: u64) -> bool {
        !self.rows.is_empty()
            && self.rows.contains(&MissingRow {
                split: split.to_owned(),
                row,
            })
    }

    /// Stores a row before it is rejected.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn add(&mut self, split: &str, row: u64) -> Result<(), StageError> {
        let row = MissingRow {
            split: split.to_owned(),
            row,
        };
        if !self.rows.insert(row.clone()) {
            return Ok(());
        }
        self.log.append(&[row])
    }

    /// Removes the rows of a stage.
    ///
    /// # Errors
    /// If they cannot be removed.
    pub(crate) fn remove(stage: &str, state: &Location) -> Result<(), StageError> {
        AppendLog::new(Some(&log_file(stage, state))).remove()
    }
}

fn log_file(stage: &str, state: &Location) -> Location {
    state.join("gone").join(&format!("{stage}.ndjson"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rows_are_loaded_until_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let state = Location::from(folder.path());
        let load = || MissingRows::load("in", &state).unwrap();
        load().add("in/listing 0", 7).unwrap();
        load().add("in/listing-1", 3).unwrap();
        let rows = load();
        assert!(
            rows.contains("in/listing 0", 7)
                && rows.contains("in/listing-1", 3)
                && !rows.contains("in/listing-1", 7)
        );
        MissingRows::remove("in", &state).unwrap();
        assert!(!load().contains("in/listing 0", 7));
    }
}
