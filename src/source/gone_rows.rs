//! The rows of listings that were rejected because their files were gone or changed. A file that comes back has a new row.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use crate::durable::create_folders;
use crate::error::StageError;
use crate::store::Location;

/// The rows of a stage, one on each line of a file that is appended to: `<split> <row>`.
#[derive(Debug, Default)]
pub(super) struct GoneRows {
    /// `None` without a state on a disk of this machine: then they are not kept.
    path: Option<PathBuf>,
    rows: BTreeSet<(String, u64)>,
}

impl GoneRows {
    /// The rows that earlier runs of `stage` noted below `state`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn load(stage: &str, state: Option<&Location>) -> Result<Self, StageError> {
        let Some(file) = state.map(|state| place(stage, state)).filter(|file| file.local().is_some()) else {
            return Ok(Self::default());
        };
        let text = file.read()?.unwrap_or_default();
        let lines = text.split_inclusive(|&byte| byte == b'\n').filter_map(|line| parse(line.strip_suffix(b"\n")?));
        Ok(Self { path: file.local().map(PathBuf::from), rows: lines.collect() })
    }

    /// Whether a row was rejected, or was about to be, because its file was gone.
    pub(super) fn contains(&self, split: &str, row: u64) -> bool {
        !self.rows.is_empty() && self.rows.contains(&(split.to_owned(), row))
    }

    /// Notes a row before it is rejected. The note survives the process; it is not synced.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn add(&mut self, split: &str, row: u64) -> Result<(), StageError> {
        let Some(path) = &self.path else { return Ok(()) };
        if !self.rows.insert((split.to_owned(), row)) {
            return Ok(());
        }
        path.parent().map_or(Ok(()), create_folders)?;
        let file = OpenOptions::new().create(true).append(true).open(path);
        // A line that a crash cut short ends before this one.
        let written = file.and_then(|mut file| file.write_all(format!("\n{split} {row}\n").as_bytes()));
        written.map_err(StageError::io(path))
    }

    /// Removes the rows of a stage.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub(super) fn forget(stage: &str, state: &Location) -> Result<(), StageError> {
        place(stage, state).remove()
    }
}

fn place(stage: &str, state: &Location) -> Location {
    state.join("digests").join(&format!("{stage}.gone"))
}

fn parse(line: &[u8]) -> Option<(String, u64)> {
    let (split, row) = std::str::from_utf8(line).ok()?.rsplit_once(' ')?;
    Some((split.to_owned(), row.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rows_are_found_again_without_a_line_that_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let state = Location::from(folder.path());
        let load = || GoneRows::load("in", Some(&state)).unwrap();
        load().add("in/listing 0", 7).unwrap();
        let path = folder.path().join("digests/in.gone");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"in/listing 0 1").unwrap();
        load().add("in/listing-1", 3).unwrap();
        let rows = load();
        assert!(
            rows.contains("in/listing 0", 7) && rows.contains("in/listing-1", 3) && !rows.contains("in/listing-1", 7)
        );
        GoneRows::forget("in", &state).unwrap();
        assert!(!load().contains("in/listing 0", 7));
    }
}
