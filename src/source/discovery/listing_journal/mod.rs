//! The journal of listings, which assigns each image file a row of a split, across runs.

pub(crate) mod contents;

use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::batch::provenance::Split;
use crate::error::StageError;
use crate::error::unavailable::UnavailableInput;
use crate::json::to_json_lines;
use crate::shard::Shard;
use crate::source::discovery::arrival_log::{self, ArrivalSegment};
use crate::source::discovery::digest_log::DigestLog;
use crate::source::discovery::journal_lines::parse;
use crate::source::discovery::listed_file::ListedFile;
use crate::source::discovery::listing::Listing;
use crate::source::discovery::listing_journal::contents::{
    assign_row, compare_contents, may_have_same_content,
};
use crate::source::discovery::missing_rows::MissingRows;
use crate::source::discovery::root_folder::RootRecord;
use crate::storage::Location;

/// Files that were first listed together: rows of a split, in order.
#[derive(Debug)]
pub(crate) struct JournaledListing {
    /// `<stage>/listing-<n>`; for files that arrived in a watched folder, `<stage>/watched`.
    pub(crate) split: Arc<Split>,
    /// The row number of the first file.
    pub(crate) first: u64,
    /// The files; their row numbers are consecutive.
    pub(crate) rows: Vec<JournalRow>,
    /// The segment of the arrival log, if the files arrived in a watched folder.
    pub(crate) segment: Option<ArrivalSegment>,
}

/// A file that was listed, now or in an earlier run.
#[derive(Debug)]
pub(crate) struct JournalRow {
    /// The current file if it is present, else the file as it was listed.
    pub(crate) file: ListedFile,
    /// The result of the comparison with the current listing.
    pub(crate) state: RowState,
}

/// The state of a journaled file in the current listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowState {
    /// The file is present and unchanged.
    Present,
    /// Another file has the name.
    Changed,
    /// The folder was read and does not contain the file.
    Gone,
    /// The row was rejected because the file did not exist. A file that has the name now is another
    /// record.
    Rejected,
    /// The folder could not be read, or the content could not be compared.
    Unseen,
}

/// The files in the journals of earlier runs.
#[derive(Debug, Default)]
pub(crate) struct LoadedListings {
    /// The listings in the order in which they were journaled.
    pub(crate) journals: Vec<JournaledListing>,
    /// Files whose content could not be compared. Whether they are new is not determined.
    pub(crate) unread: Vec<UnavailableInput>,
    /// The rows that were rejected because their files did not exist.
    pub(crate) gone: MissingRows,
    /// The shard whose files the journals of this run hold. The stored journals hold the files of
    /// all shards, so that a file has the same identity as without shards.
    shard: Option<Shard>,
}

impl LoadedListings {
    /// Whether any of the files is present.
    pub(crate) fn has_present(&self) -> bool {
        self.journals
            .iter()
            .flat_map(|journal| &journal.rows)
            .any(|row| row.state == RowState::Present)
    }

    /// Journals the files of the listing as a new split. The journal is written below `state`, if
    /// that is set.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub(crate) fn add(
        &mut self,
        stage: &str,
        state: Option<&Location>,
        listing: &mut Listing,
    ) -> Result<(), StageError> {
        if listing.files.is_empty() {
            return Ok(());
        }
        let files: Vec<ListedFile> = std::mem::take(&mut listing.files).into_values().collect();
        let number = self
            .journals
            .iter()
            .filter(|journal| journal.segment.is_none())
            .count();
        if let Some(state) = state {
            write(&file_of(stage, state, number), &files)?;
        }
        let (split, files) = share(stage, number, files, self.shard);
        let rows = files.into_iter().map(|file| JournalRow {
            file,
            state: RowState::Present,
        });
        self.journals.push(JournaledListing {
            split,
            first: 0,
            rows: rows.collect(),
            segment: None,
        });
        Ok(())
    }
}

/// Whether an earlier run has journaled files below `state`.
///
/// # Errors
/// If the journal cannot be read.
pub(crate) fn exists(stage: &str, state: Option<&Location>) -> Result<bool, StageError> {
    let Some(state) = state else {
        return Ok(false);
    };
    let is_listed = file_of(stage, state, 0).read()?.is_some();
    Ok(is_listed || !arrival_log::segments(stage, state)?.is_empty())
}

/// Loads the files that earlier runs have journaled below `state`, each with its state in the
/// current listing. Known files are removed from the listing, so that the remaining ones are new.
/// The contents of files that differ only in their time are compared. Of the files, those of
/// `shard` become rows.
///
/// # Errors
/// If a journal cannot be read.
pub(crate) fn load(
    stage: &str,
    state: Option<&Location>,
    listing: &mut Listing,
    digest_log: &mut DigestLog,
    shard: Option<Shard>,
) -> Result<LoadedListings, StageError> {
    let mut loaded = LoadedListings {
        shard,
        ..LoadedListings::default()
    };
    let Some(state) = state else {
        return Ok(loaded);
    };
    loaded.gone = MissingRows::load(stage, state)?;
    let LoadedListings { journals, gone, .. } = &mut loaded;
    while let Some(recorded) = read(&file_of(stage, state, journals.len()))? {
        remove_other_shards(&recorded, listing, shard);
        let (split, recorded) = share(stage, journals.len(), recorded, shard);
        let rows = (0..)
            .zip(recorded)
            .map(|(row, file)| match gone.contains(split.name(), row) {
                true => JournalRow {
                    file,
                    state: RowState::Rejected,
                },
                false => assign_row(file, listing),
            });
        let rows = rows.collect();
        journals.push(JournaledListing {
            split,
            first: 0,
            rows,
            segment: None,
        });
    }
    for segment in arrival_log::segments(stage, state)? {
        let split = arrival_log::split(stage);
        let rows = (segment.first..).zip(segment.read()?).map(|(row, file)| {
            match gone.contains(split.name(), row) {
                true => JournalRow {
                    file,
                    state: RowState::Rejected,
                },
                false => assign_row(file, listing),
            }
        });
        let rows = rows.collect();
        journals.push(JournaledListing {
            split,
            first: segment.first,
            rows,
            segment: Some(segment),
        });
    }
    compare_contents(&mut loaded, listing, digest_log)?;
    Ok(loaded)
}

/// Removes journaled files of other shards from the listing, so that they are not journaled again.
/// The contents of these files are not read, so a file of the same size counts as unchanged.
fn remove_other_shards(recorded: &[ListedFile], listing: &mut Listing, shard: Option<Shard>) {
    let is_of_other = |file: &&ListedFile| shard.is_some_and(|shard| !shard.has_file(&file.name));
    for file in recorded.iter().filter(is_of_other) {
        if let Entry::Occupied(found) = listing.files.entry(file.name.clone())
            && (found.get().is_same(file) || may_have_same_content(found.get(), file))
        {
            found.remove();
        }
    }
}

/// Removes the journals of a stage, so that its next run treats all files as new.
///
/// # Errors
/// If a journal cannot be removed.
pub(crate) fn remove_journal(stage: &str, state: &Location) -> Result<(), StageError> {
    let mut files = Vec::new();
    loop {
        let file = file_of(stage, state, files.len());
        if file.read()?.is_none() {
            break;
        }
        files.push(file);
    }
    arrival_log::segments(stage, state)?
        .iter()
        .try_for_each(ArrivalSegment::remove)?;
    DigestLog::new(stage, Some(state)).remove()?;
    RootRecord::remove_record(stage, state)?;
    MissingRows::remove(stage, state)?;
    // The last journal is removed first, because the journals are read up to the first missing one.
    files.iter().rev().try_for_each(Location::remove)
}

/// The split of a listing and its files; with a shard, those of the shard.
fn share(
    stage: &str,
    number: usize,
    listed: Vec<ListedFile>,
    shard: Option<Shard>,
) -> (Arc<Split>, Vec<ListedFile>) {
    let whole = format!("{stage}/listing-{number}");
    let Some(shard) = shard else {
        return (Split::new(whole), listed);
    };
    let numbered = (0..).zip(listed);
    let (rows, files) = numbered
        .filter(|(_, file)| shard.has_file(&file.name))
        .unzip();
    let name = format!("{whole}/{}", shard.folder());
    (Split::part_of(whole, rows, name), files)
}

fn file_of(stage: &str, state: &Location, number: usize) -> Location {
    state
        .join("listings")
        .join(&format!("{stage}-{number}.ndjson"))
}

fn read(file: &Location) -> Result<Option<Vec<ListedFile>>, StageError> {
    let Some(text) = file.read()? else {
        return Ok(None);
    };
    parse(file, &text).map(Some)
}

fn write(file: &Location, files: &[ListedFile]) -> Result<(), StageError> {
    file.put_if_absent(&to_json_lines(files.iter())?)
}

#[cfg(test)]
mod tests;
