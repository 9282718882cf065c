//! The marker: a small file in a sink's folder that says whose output it is, and which source rows are done.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::coverage::Coverage;
use crate::durable::write_atomically;
use crate::error::StageError;
use crate::sink::{Identity, STATE};

/// What the marker holds, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    identity: Identity,
    coverage: Coverage,
}

/// The source rows that the marker in `folder` says are done; none where there is no marker.
///
/// # Errors
/// When the marker cannot be read, or was written under another digest.
pub fn read(folder: &Path, identity: &Identity) -> Result<Coverage, StageError> {
    let Some((written, coverage)) = load(folder)? else { return Ok(Coverage::default()) };
    identity.check(folder, &written)?;
    Ok(coverage)
}

/// Who wrote the marker in `folder`, and the source rows that it says are done; `None` where there is no marker.
///
/// # Errors
/// When the marker cannot be read.
pub fn load(folder: &Path) -> Result<Option<(Identity, Coverage)>, StageError> {
    let path = place(folder);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StageError::io(&path)(error)),
    };
    let marker: Marker = serde_json::from_slice(&text).map_err(|error| {
        StageError::Other(format!("{}: this is no marker of ours: {error}; restore or remove it", path.display()))
    })?;
    Ok(Some((marker.identity, marker.coverage)))
}

/// Replaces the marker in `folder`, durably. What it covers must be durable already.
///
/// # Errors
/// When it cannot be written.
pub fn write(folder: &Path, identity: &Identity, coverage: &Coverage) -> Result<(), StageError> {
    let marker = Marker { identity: identity.clone(), coverage: coverage.clone() };
    let text = serde_json::to_vec(&marker).map_err(|error| StageError::Other(format!("cannot write JSON: {error}")))?;
    write_atomically(&place(folder), &text)
}

fn place(folder: &Path) -> PathBuf {
    folder.join(STATE).join("coverage.json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::batch::{Provenance, Split};

    fn identity(digest: &str) -> Identity {
        Identity { pipeline: "photos".into(), stage: "out".into(), digest: digest.into(), models: vec![] }
    }

    fn coverage() -> Coverage {
        let mut coverage = Coverage::default();
        coverage.insert(&Provenance::rows(Split::new("photos/listing-0"), 0..32));
        coverage.insert(&Provenance::rows(Split::new("photos/listing-0"), 64..96));
        coverage
    }

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path(), &identity("a")).unwrap().is_empty());
        write(folder.path(), &identity("a"), &coverage()).unwrap();
        assert_eq!(read(folder.path(), &identity("a")).unwrap(), coverage());
        let text = fs::read_to_string(folder.path().join("_latentflow/coverage.json")).unwrap();
        assert!(text.contains(r#""coverage":{"photos/listing-0":[[0,32],[64,96]]}"#), "{text}");
    }

    #[test]
    fn another_digest_is_refused_and_the_message_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &identity("a"), &coverage()).unwrap();
        let error = read(folder.path(), &identity("b")).unwrap_err().to_string();
        assert!(error.contains("stage `out` of pipeline `photos`") && error.contains("another path"), "{error}");
    }

    #[test]
    fn a_marker_that_is_no_json_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write_atomically(&place(folder.path()), b"{").unwrap();
        let error = read(folder.path(), &identity("a")).unwrap_err().to_string();
        assert!(error.contains("coverage.json") && error.contains("no marker"), "{error}");
    }
}
