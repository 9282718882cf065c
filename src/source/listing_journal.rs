//! Listings as they are journalled: which file is which row of which split, in this run and in
//! those after it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::batch::Split;
use crate::error::{StageError, UnavailableInput};
use crate::json::to_json_lines;
use crate::source::arrival_log::{self, ArrivalSegment};
use crate::source::content_digest::ContentDigest;
use crate::source::digest_log::{DigestEntry, DigestLog};
use crate::source::listed_file::ListedFile;
use crate::source::listing::Listing;
use crate::source::missing_rows::MissingRows;
use crate::source::root_folder::RootRecord;
use crate::storage::Location;

/// Files that were first met together: rows of a split, in order.
#[derive(Debug)]
pub(super) struct JournaledListing {
    /// `<stage>/listing-<n>`; of files that came while a folder was watched, `<stage>/watched`.
    pub(super) split: Arc<Split>,
    /// The row of the first.
    pub(super) first: u64,
    /// The others follow.
    pub(super) rows: Vec<JournalRow>,
    /// Where it lies, if the files came while a folder was watched.
    pub(super) segment: Option<ArrivalSegment>,
}

/// A file that was listed, now or in an earlier run.
#[derive(Debug)]
pub(super) struct JournalRow {
    /// As it is now where it is there, or else as it was when it was listed.
    pub(super) file: ListedFile,
    /// Whether it is still there.
    pub(super) standing: RowState,
}

/// What the listing of now says of a file that was listed earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowState {
    /// It is there.
    Present,
    /// Another file has its name.
    Changed,
    /// Its folder was read and lacks it.
    Gone,
    /// Its file was gone when the row was rejected for it. The file that has its name now is
    /// another record.
    Rejected,
    /// Its folder could not be read, or its content could not be compared.
    Unseen,
}

/// The files that earlier runs have journalled.
#[derive(Debug, Default)]
pub(super) struct LoadedListings {
    /// In the order in which they were journalled.
    pub(super) journals: Vec<JournaledListing>,
    /// Files whose content could not be compared. They are neither new nor known.
    pub(super) unread: Vec<UnavailableInput>,
    /// The rows of listings that were rejected because their files were gone.
    pub(super) gone: MissingRows,
}

impl LoadedListings {
    /// Whether any of the files is there.
    pub(super) fn has_present(&self) -> bool {
        self.journals
            .iter()
            .flat_map(|journal| &journal.rows)
            .any(|row| row.standing == RowState::Present)
    }

    /// Journals the files of the listing as one more split, under `state` where there is one.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(super) fn add(
        &mut self,
        stage: &str,
        state: Option<&Location>,
        listing: &mut Listing,
    ) -> Result<(), StageError> {
        if listing.files.is_empty() {
            return Ok(());
        }
        let files = std::mem::take(&mut listing.files);
        let rows: Vec<JournalRow> = files
            .into_values()
            .map(|file| JournalRow {
                file,
                standing: RowState::Present,
            })
            .collect();
        let number = self
            .journals
            .iter()
            .filter(|journal| journal.segment.is_none())
            .count();
        if let Some(state) = state {
            write(&file_of(stage, state, number), &rows)?;
        }
        self.journals.push(JournaledListing {
            split: split(stage, number),
            first: 0,
            rows,
            segment: None,
        });
        Ok(())
    }
}

/// The files that earlier runs have journalled under `state`, each with what the listing says of it
/// now; they are taken out of the listing, so that what stays there is new. Files that changed
/// their time alone are read and compared.
///
/// # Errors
/// When a journal cannot be read.
pub(super) fn load(
    stage: &str,
    state: Option<&Location>,
    listing: &mut Listing,
    notes: &mut DigestLog,
) -> Result<LoadedListings, StageError> {
    let mut recalled = LoadedListings::default();
    let Some(state) = state else {
        return Ok(recalled);
    };
    recalled.gone = MissingRows::load(stage, state)?;
    let LoadedListings { journals, gone, .. } = &mut recalled;
    while let Some(recorded) = read(&file_of(stage, state, journals.len()))? {
        let split = split(stage, journals.len());
        let rows = (0..)
            .zip(recorded)
            .map(|(row, file)| match gone.contains(split.name(), row) {
                true => JournalRow {
                    file,
                    standing: RowState::Rejected,
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
                    standing: RowState::Rejected,
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
    reconcile(&mut recalled, listing, notes)?;
    Ok(recalled)
}

/// A file as it was journalled, beside the one of that name that is there now.
fn assign_row(file: ListedFile, listing: &mut Listing) -> JournalRow {
    match listing.files.remove(&file.name) {
        Some(found) if found.is_same(&file) => JournalRow {
            file: ListedFile {
                digest: file.digest,
                ..found
            },
            standing: RowState::Present,
        },
        Some(changed) => {
            listing.files.insert(changed.name.clone(), changed);
            JournalRow {
                file,
                standing: RowState::Changed,
            }
        }
        None if listing.has_seen(&file.name) => JournalRow {
            file,
            standing: RowState::Gone,
        },
        None => JournalRow {
            file,
            standing: RowState::Unseen,
        },
    }
}

/// Decides by their contents whether files that seem to have changed are those that were
/// journalled.
fn reconcile(
    recalled: &mut LoadedListings,
    listing: &mut Listing,
    notes: &mut DigestLog,
) -> Result<(), StageError> {
    let LoadedListings {
        journals, unread, ..
    } = recalled;
    let mut unclear: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
    for (at, journal) in journals.iter().enumerate() {
        for (row, JournalRow { file, standing }) in journal.rows.iter().enumerate() {
            // A later version of a file may have been found under its name: then this one has
            // changed.
            let found = listing.files.get(&file.name);
            let may_be_same = *standing != RowState::Rejected
                && found.is_some_and(|found| {
                    found.size == file.size && found.etag.is_none() && file.etag.is_none()
                });
            if may_be_same {
                unclear
                    .entry(file.name.clone())
                    .or_default()
                    .push((at, row));
            }
        }
    }
    if unclear.is_empty() {
        return Ok(());
    }
    let known = notes.read(|name| unclear.contains_key(name))?;
    let known: HashMap<(&str, u64, i64), ContentDigest> = known
        .iter()
        .filter_map(|note| Some(((&*note.path, note.size, note.mtime_ns), note.digest?)))
        .collect();
    let noted = |file: &ListedFile| {
        let at = (&*file.name, file.size, file.mtime_ns);
        file.digest.or_else(|| known.get(&at).copied())
    };
    let mut learned = Vec::new();
    for (name, rows) in unclear {
        let digests: Vec<_> = rows
            .iter()
            .map(|&(at, row)| noted(&journals[at].rows[row].file))
            .collect();
        let Some(found) = listing
            .files
            .get(&name)
            .filter(|_| digests.iter().any(Option::is_some))
        else {
            continue;
        };
        let digest = match noted(found) {
            Some(digest) => Some(digest),
            None => match found.digest_of_content(&listing.root) {
                Ok(digest) => {
                    learned.extend(digest.map(|digest| {
                        DigestEntry::of(&ListedFile {
                            digest: Some(digest),
                            ..found.clone()
                        })
                    }));
                    digest
                }
                Err(unavailable) => {
                    unread.push(unavailable);
                    listing.files.remove(&name);
                    rows.iter()
                        .for_each(|&(at, row)| journals[at].rows[row].standing = RowState::Unseen);
                    continue;
                }
            },
        };
        let same = rows
            .iter()
            .zip(&digests)
            .rev()
            .find(|(_, known)| digest.is_some() && **known == digest);
        if let Some((&(at, row), _)) = same
            && let Some(found) = listing.files.remove(&name)
        {
            journals[at].rows[row] = JournalRow {
                file: ListedFile { digest, ..found },
                standing: RowState::Present,
            };
        }
    }
    notes.append(&learned)
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
    arrival_log::segments(stage, state)?
        .iter()
        .try_for_each(ArrivalSegment::remove)?;
    DigestLog::new(stage, Some(state)).forget()?;
    RootRecord::forget(stage, state)?;
    MissingRows::forget(stage, state)?;
    // The last goes first: what is read is the journals up to the first that is missing.
    files.iter().rev().try_for_each(Location::remove)
}

fn split(stage: &str, number: usize) -> Arc<Split> {
    Split::new(format!("{stage}/listing-{number}"))
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

/// The files that the lines of a journal name.
///
/// # Errors
/// The line that is none.
pub(super) fn parse(file: &Location, text: &[u8]) -> Result<Vec<ListedFile>, StageError> {
    let lines = text
        .split(|&byte| byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty());
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

fn write(file: &Location, rows: &[JournalRow]) -> Result<(), StageError> {
    file.put_if_absent(&to_json_lines(rows.iter().map(|row| &row.file))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::source::file_set::FileSet;

    /// Per split, its name and its rows; a `-` marks those that are gone.
    fn placed(folder: &Path, state: Option<&Path>) -> Vec<(String, Vec<String>)> {
        let set = FileSet::new(folder.to_str().unwrap().to_owned(), false, &["jpg"]).unwrap();
        let (state, mut listing) = (state.map(Location::from), set.list().unwrap());
        let mut notes = DigestLog::new("in", state.as_ref());
        let mut recalled = load("in", state.as_ref(), &mut listing, &mut notes).unwrap();
        recalled.add("in", state.as_ref(), &mut listing).unwrap();
        let name = |row: &JournalRow| {
            format!(
                "{}{}",
                if row.standing == RowState::Present {
                    ""
                } else {
                    "-"
                },
                row.file.name
            )
        };
        recalled
            .journals
            .iter()
            .map(|j| (j.split.name().to_owned(), j.rows.iter().map(name).collect()))
            .collect()
    }

    fn expect(splits: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let owned = |rows: &[&str]| rows.iter().map(|&row| row.to_owned()).collect();
        splits
            .iter()
            .map(|(name, rows)| ((*name).to_owned(), owned(rows)))
            .collect()
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
        let second = expect(&[
            ("in/listing-0", &["-b.jpg", "-d.jpg"]),
            ("in/listing-1", &["a.jpg", "b.jpg"]),
        ]);
        assert_eq!(placed(folder.path(), Some(&state)), second);
        assert_eq!(placed(folder.path(), Some(&state)), second);
        assert_eq!(fs::read_dir(state.join("listings")).unwrap().count(), 2);
    }

    #[test]
    fn touched_file_keeps_its_row_where_its_digest_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let write = |text: &str, time: u64| {
            let path = folder.path().join("a.jpg");
            fs::write(&path, text).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time);
            fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        };
        write("one", 1);
        let first = expect(&[("in/listing-0", &["a.jpg"])]);
        assert_eq!(placed(folder.path(), Some(&state)), first);
        let digest = Some(ContentDigest::of(b"one"));
        let note = DigestEntry {
            path: "a.jpg".into(),
            size: 3,
            mtime_ns: 1_000_000_000,
            digest,
            away: None,
        };
        DigestLog::new("in", Some(&state.as_path().into()))
            .append(&[note])
            .unwrap();
        write("one", 2);
        assert_eq!(
            placed(folder.path(), Some(&state)),
            first,
            "the content is what it was"
        );
        let noted = DigestLog::new("in", Some(&state.as_path().into()))
            .read(|_| true)
            .unwrap();
        assert_eq!(
            noted.iter().map(|note| note.mtime_ns).collect::<Vec<_>>(),
            [1_000_000_000, 2_000_000_000]
        );
        write("two", 2);
        assert_eq!(
            placed(folder.path(), Some(&state)),
            first,
            "size and time are those that were noted"
        );
        write("two", 3);
        let second = expect(&[("in/listing-0", &["-a.jpg"]), ("in/listing-1", &["a.jpg"])]);
        assert_eq!(placed(folder.path(), Some(&state)), second);
        write("one", 4);
        let back = expect(&[("in/listing-0", &["a.jpg"]), ("in/listing-1", &["-a.jpg"])]);
        assert_eq!(
            placed(folder.path(), Some(&state)),
            back,
            "the first version is there again"
        );
    }

    #[test]
    fn file_below_unread_folder_is_not_gone() {
        let folder = tempfile::tempdir().unwrap();
        let state = Location::from(folder.path().join("state").as_path());
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/a.jpg"), "a").unwrap();
        let set =
            FileSet::new(folder.path().to_str().unwrap().to_owned(), false, &["jpg"]).unwrap();
        let mut notes = DigestLog::new("in", Some(&state));
        LoadedListings::default()
            .add("in", Some(&state), &mut set.list().unwrap())
            .unwrap();
        let mut standing = |listing: &mut Listing| {
            load("in", Some(&state), listing, &mut notes)
                .unwrap()
                .journals[0]
                .rows[0]
                .standing
        };
        assert_eq!(standing(&mut set.list().unwrap()), RowState::Present);
        let root = Location::from(folder.path());
        assert_eq!(
            standing(&mut Listing::unread(root.clone())),
            RowState::Unseen
        );
        let other = Listing {
            unread: BTreeMap::from([("su".to_owned(), None)]),
            ..Listing::unread(root.clone())
        };
        assert_eq!(standing(&mut { other }), RowState::Gone);
        let below = Listing {
            unread: BTreeMap::from([("sub".to_owned(), None)]),
            ..Listing::unread(root)
        };
        assert_eq!(standing(&mut { below }), RowState::Unseen);
    }

    #[test]
    fn without_state_there_is_one_listing_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.jpg"), "a").unwrap();
        assert_eq!(
            placed(folder.path(), None),
            expect(&[("in/listing-0", &["a.jpg"])])
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_broken_journal_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_of("in", &Location::from(folder.path()), 0);
        file.put_if_absent(b"{\"path\":\"a\",\"size\":1,\"mtime_ns\":2}\n{\"path\"\n")
            .unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("in-0.ndjson:2"), "{error}");
    }
}
