//! The coverage snapshot: a small file in a sink's folder that says what its files no longer need
//! to: rows that left no record, long histories folded into one, and which outputs may be mixed.

use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::json::to_json;
use crate::sink::{OutputHistory, STATE_DIR};
use crate::storage::Location;

/// What the snapshot holds, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CoverageSnapshot {
    /// Writers and their rows, as far as no footer needs to be read for them.
    #[serde(flatten)]
    pub history: OutputHistory,
    /// Data files with a lower number are accounted for in here, whether they are still there or
    /// not.
    #[serde(default, rename = "folded")]
    pub folded_below: u32,
    /// How the files of the sink `images` are named; absent for other sinks, and in outputs that
    /// are older than patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub naming: Option<NamingState>,
}

/// What the sink `images` notes of the names of its files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamingState {
    /// Whether names that the pipeline does not choose are those of the scheme that is older than
    /// patterns.
    pub former: bool,
    /// Whether files that were there before the first note may be those of the same records.
    pub adopts: bool,
    /// Bytes of the list of names whose files are complete.
    pub listed: u64,
}

impl CoverageSnapshot {
    /// What the snapshots in `folder` say together; an empty one where there is none.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn load(folder: &Location) -> Result<Self, StageError> {
        'anew: loop {
            let mut all = Self::default();
            for place in places(folder)? {
                // Another run has put it into its own since it was listed.
                let Some(text) = place.read()? else {
                    continue 'anew;
                };
                let snapshot = Self::parse(&text).map_err(|error| {
                    StageError::Other(format!(
                        "{place}: this is no marker of ours: {error}; restore or remove it"
                    ))
                })?;
                all.history.union(&snapshot.history);
                all.folded_below = all.folded_below.max(snapshot.folded_below);
                all.naming = all.naming.or(snapshot.naming);
            }
            return Ok(all);
        }
    }

    /// Reads a snapshot's text.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Replaces the snapshot at `place`, durably. What it covers must be durable already.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, place: &Location) -> Result<(), StageError> {
        place.put(&to_json(self)?)
    }
}

const NAME: &str = "coverage";

/// Where a folder's snapshot is written: one for all runs, or, in a bucket, one for each epoch.
pub fn place(folder: &Location, epoch: Option<u32>) -> Location {
    let name = epoch.map_or_else(
        || format!("{NAME}.json"),
        |epoch| format!("{NAME}-{epoch:06}.json"),
    );
    folder.join(STATE_DIR).join(&name)
}

/// Where the snapshots of a folder lie.
///
/// # Errors
/// When the folder cannot be read.
pub fn places(folder: &Location) -> Result<Vec<Location>, StageError> {
    let state = folder.join(STATE_DIR);
    let names = state.files()?.into_iter().map(|entry| entry.name);
    Ok(names
        .filter(|name| name.starts_with(NAME) && name.ends_with(".json"))
        .map(|name| state.join(&name))
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::batch::{Provenance, Split};
    use crate::coverage::Coverage;
    use crate::sink::OutputIdentity;

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder.path().into(), None);
        assert_eq!(
            CoverageSnapshot::load(&folder.path().into()).unwrap(),
            CoverageSnapshot::default()
        );
        let mut coverage = Coverage::default();
        coverage.insert(&Provenance::rows(Split::new("photos/listing-0"), 0..32));
        coverage.insert(&Provenance::rows(Split::new("photos/listing-0"), 64..96));
        let mut snapshot = CoverageSnapshot {
            folded_below: 7,
            ..CoverageSnapshot::default()
        };
        snapshot.history.add(
            &OutputIdentity {
                digest: "a".into(),
                ..OutputIdentity::default()
            },
            &coverage,
        );
        snapshot.save(&place).unwrap();
        assert_eq!(
            CoverageSnapshot::load(&folder.path().into()).unwrap(),
            snapshot
        );
        let text =
            std::fs::read_to_string(folder.path().join("_latentflow/coverage.json")).unwrap();
        assert!(
            text.contains(r#"{"photos/listing-0":[[0,32],[64,96]]}"#),
            "{text}"
        );
    }

    #[test]
    fn a_marker_that_is_no_json_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder.path().into(), None);
        place.put(b"{").unwrap();
        let error = CoverageSnapshot::load(&folder.path().into())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("coverage.json") && error.contains("no marker"),
            "{error}"
        );
    }

    #[test]
    fn markers_of_several_epochs_count_together() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Location::from(folder.path());
        let rows = |rows| {
            let mut coverage = Coverage::default();
            coverage.insert(&Provenance::rows(Split::new("a"), rows));
            coverage
        };
        for (epoch, done) in [(2, 0..4), (11, 4..9)] {
            let mut snapshot = CoverageSnapshot {
                folded_below: epoch,
                ..CoverageSnapshot::default()
            };
            snapshot
                .history
                .add(&OutputIdentity::default(), &rows(done));
            snapshot.save(&place(&folder, Some(epoch))).unwrap();
        }
        let all = CoverageSnapshot::load(&folder).unwrap();
        assert_eq!((all.folded_below, all.history.coverage()), (11, rows(0..9)));
        assert_eq!(places(&folder).unwrap().len(), 2);
    }
}
