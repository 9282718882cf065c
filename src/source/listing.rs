//! Journals of listings: which files a source of images has seen, in rows that keep their numbers for ever.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::files::InputFile;
use crate::batch::Split;
use crate::durable::write_atomically;
use crate::error::StageError;

/// Files that were found together: a split, whose rows are the files.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) split: Arc<Split>,
    pub(super) entries: Vec<Entry>,
}

/// A file as it was when it was listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Relative to the root of the listing.
    #[serde(rename = "path")]
    pub(super) name: String,
    pub(super) size: u64,
    #[serde(rename = "mtime_ns")]
    pub(super) modified: u128,
}

impl Entry {
    pub(super) fn of(file: &InputFile) -> Self {
        Self { name: file.name.clone(), size: file.size, modified: file.modified }
    }
}

/// The listings of earlier runs, and one more where there are files that none of them has.
///
/// A folder cannot be read twice the same: so what was found is written down before it is used, and a row means the
/// same file in every run. Without a `state` folder nothing is remembered, and everything is in one listing.
///
/// # Errors
/// When a journal cannot be read or written.
pub(super) fn update(stage: &str, state: Option<&Path>, files: &[InputFile]) -> Result<Vec<Listing>, StageError> {
    let mut listings = Vec::new();
    while let Some(path) = state.map(|state| place(state, stage, listings.len())).filter(|path| path.exists()) {
        listings.push(Listing { split: split(stage, listings.len()), entries: read(&path)? });
    }
    let seen: BTreeMap<&str, Vec<&Entry>> =
        listings.iter().flat_map(|listing| &listing.entries).fold(BTreeMap::new(), |mut seen, entry| {
            seen.entry(entry.name.as_str()).or_insert_with(Vec::new).push(entry);
            seen
        });
    let is_new = |entry: &Entry| !seen.get(entry.name.as_str()).is_some_and(|seen| seen.contains(&entry));
    let new: Vec<Entry> = files.iter().map(Entry::of).filter(is_new).collect();
    if !new.is_empty() {
        if let Some(state) = state {
            write(&place(state, stage, listings.len()), &new)?;
        }
        listings.push(Listing { split: split(stage, listings.len()), entries: new });
    }
    Ok(listings)
}

fn split(stage: &str, number: usize) -> Arc<Split> {
    Split::new(format!("{stage}/listing-{number}"))
}

fn place(state: &Path, stage: &str, number: usize) -> PathBuf {
    state.join("listings").join(format!("{stage}-{number}.ndjson"))
}

fn read(path: &Path) -> Result<Vec<Entry>, StageError> {
    let text = fs::read_to_string(path).map_err(StageError::io(path))?;
    let entries = text.lines().map(serde_json::from_str).collect::<Result<Vec<Entry>, _>>();
    entries.map_err(|error| {
        let place = path.display();
        StageError::Other(format!("{place}: this is no listing of ours: {error}; restore it, or remove the output"))
    })
}

fn write(path: &Path, entries: &[Entry]) -> Result<(), StageError> {
    let mut text = Vec::new();
    for entry in entries {
        let written = serde_json::to_writer(&mut text, entry);
        written.map_err(|error| StageError::Other(format!("cannot write JSON: {error}")))?;
        text.push(b'\n');
    }
    write_atomically(path, &text)
}
