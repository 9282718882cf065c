//! The marker: a small file in a sink's folder that says what its files no longer need to: rows that left no record,
//! long histories folded into one, and which outputs may be mixed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::write_atomically;
use crate::error::StageError;
use crate::sink::{History, STATE};

/// What the marker holds, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    /// Writers and their rows, as far as no footer needs to be read for them.
    #[serde(flatten)]
    pub history: History,
    /// Data files with a lower number are accounted for in here, whether they are still there or not.
    #[serde(default)]
    pub folded: u32,
}

impl Marker {
    /// The marker in `folder`; an empty one where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(folder: &Path) -> Result<Self, StageError> {
        let path = place(folder);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(StageError::io(&path)(error)),
        };
        Self::parse(&text).map_err(|error| {
            StageError::Other(format!("{}: this is no marker of ours: {error}; restore or remove it", path.display()))
        })
    }

    /// Reads a marker's text.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Replaces the marker in `folder`, durably. What it covers must be durable already.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), StageError> {
        let text = serde_json::to_vec(self);
        let text = text.map_err(|error| StageError::Other(format!("cannot write JSON: {error}")))?;
        write_atomically(&place(folder), &text)
    }
}

/// Where the marker of a folder lies.
pub fn place(folder: &Path) -> PathBuf {
    folder.join(STATE).join("coverage.json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::batch::{Provenance, Split};
    use crate::coverage::Coverage;
    use crate::sink::Identity;

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Marker::load(folder.path()).unwrap(), Marker::default());
        let mut coverage = Coverage::default();
        coverage.insert(&Provenance::rows(Split::new("photos/listing-0"), 0..32));
        coverage.insert(&Provenance::rows(Split::new("photos/listing-0"), 64..96));
        let mut marker = Marker { folded: 7, ..Marker::default() };
        marker.history.add(&Identity { digest: "a".into(), ..Identity::default() }, &coverage);
        marker.save(folder.path()).unwrap();
        assert_eq!(Marker::load(folder.path()).unwrap(), marker);
        let text = fs::read_to_string(folder.path().join("_latentflow/coverage.json")).unwrap();
        assert!(text.contains(r#"{"photos/listing-0":[[0,32],[64,96]]}"#), "{text}");
    }

    #[test]
    fn a_marker_that_is_no_json_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write_atomically(&place(folder.path()), b"{").unwrap();
        let error = Marker::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("coverage.json") && error.contains("no marker"), "{error}");
    }
}
