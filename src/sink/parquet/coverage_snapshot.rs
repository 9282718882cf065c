//! The coverage snapshot: a small file in a sink's folder with the coverage of rows without records
//! and of files whose footers no longer have to be read, and with the outputs that may be mixed.

use serde::{Deserialize, Serialize};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::json::to_json;
use crate::sink::{OutputHistory, STATE_DIR};
use crate::storage::Location;

/// The content of the snapshot, stored as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CoverageSnapshot {
    /// Writers and their rows that are known without reading footers.
    #[serde(flatten)]
    pub history: OutputHistory,
    /// The rows of data files with a lower number are part of the history, even if the files no
    /// longer exist.
    #[serde(default, rename = "folded")]
    pub folded_below: u32,
    /// The naming of the files of the sink `images`; absent for other sinks, and in outputs of
    /// versions without patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub naming: Option<NamingState>,
}

/// The naming of files that the sink `images` records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamingState {
    /// Whether default names are those of versions without patterns.
    pub former: bool,
    /// Whether files that existed before the first snapshot may belong to the same records.
    pub adopts: bool,
    /// Length in bytes of the part of the name log whose files are complete.
    pub listed: u64,
}

impl CoverageSnapshot {
    /// The union of the snapshots in `folder`; an empty snapshot if there are none.
    ///
    /// # Errors
    /// If a snapshot cannot be read or parsed.
    pub fn load(folder: &Location) -> Result<Self, StageError> {
        'restart: loop {
            let mut all = Self::default();
            for location in locations(folder)? {
                // Another run has merged this snapshot into its own one since the listing.
                let Some(text) = location.read()? else {
                    continue 'restart;
                };
                let snapshot = Self::parse(&text).map_err(|error| {
                    StageError::new(
                        ErrorCode::StateCorrupt,
                        format!(
                            "{location}: invalid coverage snapshot: {error}; restore or remove it"
                        ),
                    )
                })?;
                all.history.union(&snapshot.history);
                all.folded_below = all.folded_below.max(snapshot.folded_below);
                all.naming = all.naming.or(snapshot.naming);
            }
            return Ok(all);
        }
    }

    /// Parses the text of a snapshot.
    ///
    /// # Errors
    /// If the text is not a valid snapshot.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Durably writes or replaces the snapshot at `location`. The covered data must already be
    /// durable.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, location: &Location) -> Result<(), StageError> {
        location.put(&to_json(self)?)
    }
}

const NAME: &str = "coverage";

/// The location of a folder's snapshot: one for all runs, or in a bucket one for each epoch.
pub fn location(folder: &Location, epoch: Option<u32>) -> Location {
    let name = epoch.map_or_else(
        || format!("{NAME}.json"),
        |epoch| format!("{NAME}-{epoch:06}.json"),
    );
    folder.join(STATE_DIR).join(&name)
}

/// The locations of all snapshots of a folder.
///
/// # Errors
/// If the folder cannot be read.
pub(crate) fn locations(folder: &Location) -> Result<Vec<Location>, StageError> {
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
    use crate::batch::provenance::{Provenance, Split};
    use crate::coverage::Coverage;
    use crate::sink::OutputIdentity;

    #[test]
    fn saved_snapshot_is_loaded_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let location = location(&folder.path().into(), None);
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
        snapshot.save(&location).unwrap();
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
    fn snapshot_that_is_not_json_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let location = location(&folder.path().into(), None);
        location.put(b"{").unwrap();
        let error = CoverageSnapshot::load(&folder.path().into())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("coverage.json: invalid coverage snapshot: EOF"),
            "{error}"
        );
    }

    #[test]
    fn snapshots_of_several_epochs_are_combined() {
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
            snapshot.save(&location(&folder, Some(epoch))).unwrap();
        }
        let all = CoverageSnapshot::load(&folder).unwrap();
        assert_eq!((all.folded_below, all.history.coverage()), (11, rows(0..9)));
        assert_eq!(locations(&folder).unwrap().len(), 2);
    }
}
