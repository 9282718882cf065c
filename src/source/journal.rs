//! Listings as they are journalled: which file is which row of which split, in this run and in those after it.

use std::sync::Arc;

use crate::batch::Split;
use crate::error::StageError;
use crate::source::listing::{ListedFile, Listing};
use crate::source::watched::{self, Segment};
use crate::store::Location;

/// Files that were first met together: rows of a split, in order.
#[derive(Debug)]
pub(super) struct Journal {
    /// `<stage>/listing-<n>`; of files that came while a folder was watched, `<stage>/watched`.
    pub(super) split: Arc<Split>,
    /// The row of the first.
    pub(super) first: u64,
    /// The others follow.
    pub(super) rows: Vec<Row>,
    /// Where it lies, if the files came while a folder was watched.
    pub(super) segment: Option<Segment>,
}

/// A file that was listed, now or in an earlier run.
#[derive(Debug)]
pub(super) struct Row {
    /// As it was when it was listed.
    pub(super) file: ListedFile,
    /// Whether it has been removed or changed since.
    pub(super) gone: bool,
}

/// Gives every file its place: those that an earlier run has journalled under `state` keep theirs, the others are
/// journalled there as one more split. Without `state` there is one split, of this run only.
///
/// # Errors
/// When a journal cannot be read or written.
pub(super) fn place(stage: &str, state: Option<&Location>, listing: &mut Listing) -> Result<Vec<Journal>, StageError> {
    let mut journals = state.map(|state| recall(stage, state, listing)).transpose()?.unwrap_or_default();
    if !listing.files.is_empty() {
        let files = std::mem::take(&mut listing.files);
        let rows: Vec<Row> = files.into_values().map(|file| Row { file, gone: false }).collect();
        let number = journals.iter().filter(|journal| journal.segment.is_none()).count();
        if let Some(state) = state {
            write(&file_of(stage, state, number), &rows)?;
        }
        journals.push(Journal { split: split(stage, number), first: 0, rows, segment: None });
    }
    Ok(journals)
}

/// The files that earlier runs have journalled under `state`, each with what the listing says of it now; they are taken
/// out of the listing, so that what stays there is new.
///
/// # Errors
/// When a journal cannot be read.
pub(super) fn recall(stage: &str, state: &Location, listing: &mut Listing) -> Result<Vec<Journal>, StageError> {
    let mut journals = Vec::new();
    while let Some(recorded) = read(&file_of(stage, state, journals.len()))? {
        let rows = recorded.into_iter().map(|file| compare(file, listing)).collect();
        journals.push(Journal { split: split(stage, journals.len()), first: 0, rows, segment: None });
    }
    for segment in watched::segments(stage, state)? {
        let rows = segment.read()?.into_iter().map(|file| compare(file, listing)).collect();
        journals.push(Journal { split: watched::split(stage), first: segment.first, rows, segment: Some(segment) });
    }
    Ok(journals)
}

/// A file as it was journalled, beside the one of that name that is there now.
fn compare(file: ListedFile, listing: &mut Listing) -> Row {
    match listing.files.remove(&file.name) {
        Some(found) if found.is_same(&file) => Row { file: found, gone: false },
        // Nothing says that it is gone; an attempt to read it says more.
        None if listing.is_unseen(&file) => Row { file, gone: false },
        other => {
            listing.files.extend(other.map(|changed| (changed.name.clone(), changed)));
            Row { file, gone: true }
        }
    }
}

/// Removes the journals of a stage, so that its files are listed anew.
///
/// # Errors
/// When one cannot be removed.
pub(super) fn forget(stage: &str, state: &Location) -> Result<(), StageError> {
    let mut files = Vec::new();
    loop {
        let file = file_of(stage, state, files.len());
        if file.read()?.is_none() {
            break;
        }
        files.push(file);
    }
    watched::segments(stage, state)?.iter().try_for_each(Segment::remove)?;
    // The last goes first: what is read is the journals up to the first that is missing.
    files.iter().rev().try_for_each(Location::remove)
}

fn split(stage: &str, number: usize) -> Arc<Split> {
    Split::new(format!("{stage}/listing-{number}"))
}

fn file_of(stage: &str, state: &Location, number: usize) -> Location {
    state.join("listings").join(&format!("{stage}-{number}.ndjson"))
}

fn read(file: &Location) -> Result<Option<Vec<ListedFile>>, StageError> {
    let Some(text) = file.read()? else { return Ok(None) };
    parse(file, &text).map(Some)
}

/// The files that the lines of a journal name.
///
/// # Errors
/// The line that is none.
pub(super) fn parse(file: &Location, text: &[u8]) -> Result<Vec<ListedFile>, StageError> {
    let lines = text.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    let files = lines.map(|(number, line)| {
        serde_json::from_slice(line).map_err(|error| {
            StageError::Other(format!(
                "{file}:{}: this is no line of a listing: {error}; restore the file, or begin anew",
                number + 1
            ))
        })
    });
    files.collect()
}

fn write(file: &Location, rows: &[Row]) -> Result<(), StageError> {
    file.create(&lines(rows.iter().map(|row| &row.file))?)
}

/// The lines of a journal that name these files.
///
/// # Errors
/// None that is to be expected.
pub(super) fn lines<'a>(files: impl Iterator<Item = &'a ListedFile>) -> Result<Vec<u8>, StageError> {
    let mut text = Vec::new();
    for file in files {
        let written = serde_json::to_writer(&mut text, file);
        written.map_err(|error| StageError::Other(format!("cannot write JSON: {error}")))?;
        text.push(b'\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::source::listing::FileSet;

    /// Per split, its name and its rows; a `-` marks those that are gone.
    fn placed(folder: &Path, state: Option<&Path>) -> Vec<(String, Vec<String>)> {
        let set = FileSet::new(folder.to_str().unwrap().to_owned(), false, &["jpg"]).unwrap();
        let journals = place("in", state.map(Location::from).as_ref(), &mut set.list().unwrap()).unwrap();
        let name = |row: &Row| format!("{}{}", if row.gone { "-" } else { "" }, row.file.name);
        journals.iter().map(|j| (j.split.name().to_owned(), j.rows.iter().map(name).collect())).collect()
    }

    fn expect(splits: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let owned = |rows: &[&str]| rows.iter().map(|&row| row.to_owned()).collect();
        splits.iter().map(|(name, rows)| ((*name).to_owned(), owned(rows))).collect()
    }

    #[test]
    fn files_keep_their_rows_and_new_ones_come_after_them() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("b.jpg", "b");
        write("d.jpg", "d");
        let first = expect(&[("in/listing-0", &["b.jpg", "d.jpg"])]);
        assert_eq!(placed(folder.path(), Some(&state)), first);
        assert_eq!(placed(folder.path(), Some(&state)), first);
        write("a.jpg", "a");
        write("b.jpg", "changed");
        fs::remove_file(folder.path().join("d.jpg")).unwrap();
        let second = expect(&[("in/listing-0", &["-b.jpg", "-d.jpg"]), ("in/listing-1", &["a.jpg", "b.jpg"])]);
        assert_eq!(placed(folder.path(), Some(&state)), second);
        assert_eq!(placed(folder.path(), Some(&state)), second);
        assert_eq!(fs::read_dir(state.join("listings")).unwrap().count(), 2);
    }

    #[test]
    fn a_file_in_an_unreadable_folder_is_not_gone() {
        let folder = tempfile::tempdir().unwrap();
        let state = Location::from(folder.path().join("state").as_path());
        fs::create_dir(folder.path().join("s")).unwrap();
        fs::write(folder.path().join("s/a.jpg"), "a").unwrap();
        fs::write(folder.path().join("b.jpg"), "b").unwrap();
        let set = FileSet::new(folder.path().to_str().unwrap().to_owned(), false, &["jpg"]).unwrap();
        let mut listing = set.list().unwrap();
        place("in", Some(&state), &mut listing).unwrap();
        // As a listing is that could read neither folder nor file.
        let mut listing = set.list().unwrap();
        listing.files.clear();
        listing.overlook(&folder.path().join("s"), rustix::io::Errno::ACCESS.into());
        let journals = place("in", Some(&state), &mut listing).unwrap();
        let gone: Vec<bool> = journals[0].rows.iter().map(|row| row.gone).collect();
        assert_eq!(gone, [true, false]);
    }

    #[test]
    fn without_state_there_is_one_listing_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.jpg"), "a").unwrap();
        assert_eq!(placed(folder.path(), None), expect(&[("in/listing-0", &["a.jpg"])]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_broken_journal_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_of("in", &Location::from(folder.path()), 0);
        file.create(b"{\"path\":\"a\",\"size\":1,\"mtime_ns\":2}\n{\"path\"\n").unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("in-0.ndjson:2"), "{error}");
    }
}
