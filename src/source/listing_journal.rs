//! The journal of listings, which assigns each image file a row of a split, across runs.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::batch::Split;
use crate::error::{StageError, UnavailableInput};
use crate::json::to_json_lines;
use crate::shard::Shard;
use crate::source::arrival_log::{self, ArrivalSegment};
use crate::source::content_digest::ContentDigest;
use crate::source::digest_log::{DigestEntry, DigestLog};
use crate::source::listed_file::ListedFile;
use crate::source::listing::Listing;
use crate::source::missing_rows::MissingRows;
use crate::source::root_folder::RootRecord;
use crate::storage::Location;

/// Files that were first listed together: rows of a split, in order.
#[derive(Debug)]
pub(super) struct JournaledListing {
    /// `<stage>/listing-<n>`; for files that arrived in a watched folder, `<stage>/watched`.
    pub(super) split: Arc<Split>,
    /// The row number of the first file.
    pub(super) first: u64,
    /// The files; their row numbers are consecutive.
    pub(super) rows: Vec<JournalRow>,
    /// The segment of the arrival log, if the files arrived in a watched folder.
    pub(super) segment: Option<ArrivalSegment>,
}

/// A file that was listed, now or in an earlier run.
#[derive(Debug)]
pub(super) struct JournalRow {
    /// The current file if it is present, else the file as it was listed.
    pub(super) file: ListedFile,
    /// The result of the comparison with the current listing.
    pub(super) state: RowState,
}

/// The state of a journaled file in the current listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowState {
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
pub(super) struct LoadedListings {
    /// The listings in the order in which they were journaled.
    pub(super) journals: Vec<JournaledListing>,
    /// Files whose content could not be compared. Whether they are new is not determined.
    pub(super) unread: Vec<UnavailableInput>,
    /// The rows that were rejected because their files did not exist.
    pub(super) gone: MissingRows,
    /// The shard whose files the journals of this run hold. The stored journals hold the files of
    /// all shards, so that a file has the same identity as without shards.
    shard: Option<Shard>,
}

impl LoadedListings {
    /// Whether any of the files is present.
    pub(super) fn has_present(&self) -> bool {
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
    pub(super) fn add(
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
pub(super) fn exists(stage: &str, state: Option<&Location>) -> Result<bool, StageError> {
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
pub(super) fn load(
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

/// Whether only the content can decide that two versions of a file are the same.
fn may_have_same_content(found: &ListedFile, file: &ListedFile) -> bool {
    found.size == file.size && found.etag.is_none() && file.etag.is_none()
}

/// Compares a journaled file with the listed file of the same name.
fn assign_row(file: ListedFile, listing: &mut Listing) -> JournalRow {
    match listing.files.remove(&file.name) {
        Some(found) if found.is_same(&file) => JournalRow {
            file: ListedFile {
                digest: file.digest,
                ..found
            },
            state: RowState::Present,
        },
        Some(changed) => {
            listing.files.insert(changed.name.clone(), changed);
            JournalRow {
                file,
                state: RowState::Changed,
            }
        }
        None if listing.has_seen(&file.name) => JournalRow {
            file,
            state: RowState::Gone,
        },
        None => JournalRow {
            file,
            state: RowState::Unseen,
        },
    }
}

/// Decides by their digests whether files of the same size but another time are the journaled ones.
fn compare_contents(
    loaded: &mut LoadedListings,
    listing: &mut Listing,
    digest_log: &mut DigestLog,
) -> Result<(), StageError> {
    let LoadedListings {
        journals, unread, ..
    } = loaded;
    let mut unclear: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
    for (index, journal) in journals.iter().enumerate() {
        for (row, JournalRow { file, state }) in journal.rows.iter().enumerate() {
            // A later version of the file may have this name. Then this one has changed.
            let found = listing.files.get(&file.name);
            let may_be_same = *state != RowState::Rejected
                && found.is_some_and(|found| may_have_same_content(found, file));
            if may_be_same {
                unclear
                    .entry(file.name.clone())
                    .or_default()
                    .push((index, row));
            }
        }
    }
    if unclear.is_empty() {
        return Ok(());
    }
    let entries = digest_log.read(|name| unclear.contains_key(name))?;
    let logged: HashMap<(&str, u64, i64), ContentDigest> = entries
        .iter()
        .filter_map(|entry| Some(((&*entry.path, entry.size, entry.mtime_ns), entry.digest?)))
        .collect();
    let digest_of = |file: &ListedFile| {
        let key = (&*file.name, file.size, file.mtime_ns);
        file.digest.or_else(|| logged.get(&key).copied())
    };
    let mut new_entries = Vec::new();
    for (name, rows) in unclear {
        let digests: Vec<_> = rows
            .iter()
            .map(|&(index, row)| digest_of(&journals[index].rows[row].file))
            .collect();
        let Some(found) = listing
            .files
            .get(&name)
            .filter(|_| digests.iter().any(Option::is_some))
        else {
            continue;
        };
        let digest = match digest_of(found) {
            Some(digest) => Some(digest),
            None => match found.digest_of_content(&listing.root) {
                Ok(digest) => {
                    new_entries.extend(digest.map(|digest| {
                        DigestEntry::from_file(&ListedFile {
                            digest: Some(digest),
                            ..found.clone()
                        })
                    }));
                    digest
                }
                Err(unavailable) => {
                    unread.push(unavailable);
                    listing.files.remove(&name);
                    rows.iter().for_each(|&(index, row)| {
                        journals[index].rows[row].state = RowState::Unseen
                    });
                    continue;
                }
            },
        };
        let same = rows
            .iter()
            .zip(&digests)
            .rev()
            .find(|(_, known)| digest.is_some() && **known == digest);
        if let Some((&(index, row), _)) = same
            && let Some(listed) = listing.files.remove(&name)
        {
            journals[index].rows[row] = JournalRow {
                file: ListedFile { digest, ..listed },
                state: RowState::Present,
            };
        }
    }
    digest_log.append(&new_entries)
}

/// Removes the journals of a stage, so that its next run treats all files as new.
///
/// # Errors
/// If a journal cannot be removed.
pub(super) fn remove_journal(stage: &str, state: &Location) -> Result<(), StageError> {
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

/// Parses the lines of a journal.
///
/// # Errors
/// The first invalid line.
pub(super) fn parse(file: &Location, text: &[u8]) -> Result<Vec<ListedFile>, StageError> {
    let lines = text
        .split(|&byte| byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty());
    let files = lines.map(|(number, line)| {
        serde_json::from_slice(line).map_err(|error| {
            StageError::Other(format!(
                "{file}:{}: invalid journal entry: {error}; restore the file, or delete the output \
                 and the state with `latentflow reset`",
                number + 1
            ))
        })
    });
    files.collect()
}

fn write(file: &Location, files: &[ListedFile]) -> Result<(), StageError> {
    file.put_if_absent(&to_json_lines(files.iter())?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::source::file_set::FileSet;

    /// Loads and extends the journal. Returns the name and the rows of each split; a `-` marks rows
    /// without a present file.
    fn load_and_add(folder: &Path, state: Option<&Path>) -> Vec<(String, Vec<String>)> {
        let set = FileSet::new(folder.to_str().unwrap().to_owned(), false, &["jpg"]).unwrap();
        let (state, mut listing) = (state.map(Location::from), set.list().unwrap());
        let mut digest_log = DigestLog::new("in", state.as_ref());
        let mut loaded = load("in", state.as_ref(), &mut listing, &mut digest_log, None).unwrap();
        loaded.add("in", state.as_ref(), &mut listing).unwrap();
        let name = |row: &JournalRow| {
            format!(
                "{}{}",
                if row.state == RowState::Present {
                    ""
                } else {
                    "-"
                },
                row.file.name
            )
        };
        loaded
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
    fn files_keep_their_rows_and_new_ones_are_appended() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("b.jpg", "b");
        write("d.jpg", "d");
        let first = expect(&[("in/listing-0", &["b.jpg", "d.jpg"])]);
        assert_eq!(load_and_add(folder.path(), Some(&state)), first);
        assert_eq!(load_and_add(folder.path(), Some(&state)), first);
        write("a.jpg", "a");
        write("b.jpg", "changed");
        fs::remove_file(folder.path().join("d.jpg")).unwrap();
        let second = expect(&[
            ("in/listing-0", &["-b.jpg", "-d.jpg"]),
            ("in/listing-1", &["a.jpg", "b.jpg"]),
        ]);
        assert_eq!(load_and_add(folder.path(), Some(&state)), second);
        assert_eq!(load_and_add(folder.path(), Some(&state)), second);
        assert_eq!(fs::read_dir(state.join("listings")).unwrap().count(), 2);
    }

    #[test]
    fn touched_file_with_known_digest_keeps_its_row() {
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
        assert_eq!(load_and_add(folder.path(), Some(&state)), first);
        let digest = Some(ContentDigest::of(b"one"));
        let known = DigestEntry {
            path: "a.jpg".into(),
            size: 3,
            mtime_ns: 1_000_000_000,
            digest,
            away: None,
        };
        DigestLog::new("in", Some(&state.as_path().into()))
            .append(&[known])
            .unwrap();
        write("one", 2);
        assert_eq!(
            load_and_add(folder.path(), Some(&state)),
            first,
            "the content is unchanged"
        );
        let logged = DigestLog::new("in", Some(&state.as_path().into()))
            .read(|_| true)
            .unwrap();
        assert_eq!(
            logged
                .iter()
                .map(|entry| entry.mtime_ns)
                .collect::<Vec<_>>(),
            [1_000_000_000, 2_000_000_000]
        );
        write("two", 2);
        assert_eq!(
            load_and_add(folder.path(), Some(&state)),
            first,
            "size and time are the logged ones"
        );
        write("two", 3);
        let second = expect(&[("in/listing-0", &["-a.jpg"]), ("in/listing-1", &["a.jpg"])]);
        assert_eq!(load_and_add(folder.path(), Some(&state)), second);
        write("one", 4);
        let back = expect(&[("in/listing-0", &["a.jpg"]), ("in/listing-1", &["-a.jpg"])]);
        assert_eq!(
            load_and_add(folder.path(), Some(&state)),
            back,
            "the first version is present again"
        );
    }

    #[test]
    fn file_below_unread_folder_is_unseen() {
        let folder = tempfile::tempdir().unwrap();
        let state = Location::from(folder.path().join("state").as_path());
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/a.jpg"), "a").unwrap();
        let set =
            FileSet::new(folder.path().to_str().unwrap().to_owned(), false, &["jpg"]).unwrap();
        let mut digest_log = DigestLog::new("in", Some(&state));
        LoadedListings::default()
            .add("in", Some(&state), &mut set.list().unwrap())
            .unwrap();
        let mut state_of = |listing: &mut Listing| {
            load("in", Some(&state), listing, &mut digest_log, None)
                .unwrap()
                .journals[0]
                .rows[0]
                .state
        };
        assert_eq!(state_of(&mut set.list().unwrap()), RowState::Present);
        let root = Location::from(folder.path());
        assert_eq!(
            state_of(&mut Listing::unread(root.clone())),
            RowState::Unseen
        );
        let other = Listing {
            unread: BTreeMap::from([("su".to_owned(), None)]),
            ..Listing::unread(root.clone())
        };
        assert_eq!(state_of(&mut { other }), RowState::Gone);
        let below = Listing {
            unread: BTreeMap::from([("sub".to_owned(), None)]),
            ..Listing::unread(root)
        };
        assert_eq!(state_of(&mut { below }), RowState::Unseen);
    }

    #[test]
    fn shards_have_the_rows_of_the_complete_listing() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let set =
            FileSet::new(folder.path().to_str().unwrap().to_owned(), false, &["jpg"]).unwrap();
        let rows = |shard: Option<&str>| {
            let state = Location::from(
                folder
                    .path()
                    .join(format!("state {shard:?}").replace('/', "-"))
                    .as_path(),
            );
            let shard = shard.map(|shard| shard.parse().unwrap());
            let mut listing = set.list().unwrap();
            let mut digest_log = DigestLog::new("in", Some(&state));
            let mut loaded =
                load("in", Some(&state), &mut listing, &mut digest_log, shard).unwrap();
            loaded.add("in", Some(&state), &mut listing).unwrap();
            let mut found = BTreeMap::new();
            for journal in &loaded.journals {
                for (row, JournalRow { file, .. }) in (journal.first..).zip(&journal.rows) {
                    let identity = journal.split.identity(row);
                    found.insert(file.name.clone(), (identity.split.to_owned(), identity.row));
                }
            }
            found
        };
        let assert_divided = || {
            let whole = rows(None);
            let [mut one, mut two] = [rows(Some("0/2")), rows(Some("1/2"))];
            assert!(!one.is_empty() && !two.is_empty());
            assert_eq!(one.len() + two.len(), whole.len());
            one.append(&mut two);
            assert_eq!(one, whole);
            whole
        };
        (0..20).for_each(|number| write(&format!("{number}.jpg"), "old"));
        assert_divided();
        (20..40).for_each(|number| write(&format!("{number:03}.jpg"), "new"));
        write("0.jpg", "replaced");
        let whole = assert_divided();
        assert_eq!(whole["0.jpg"].0, "in/listing-1");
        assert_eq!(whole["1.jpg"].0, "in/listing-0");
    }

    #[test]
    fn without_state_one_listing_is_made_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.jpg"), "a").unwrap();
        assert_eq!(
            load_and_add(folder.path(), None),
            expect(&[("in/listing-0", &["a.jpg"])])
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn error_of_broken_journal_has_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_of("in", &Location::from(folder.path()), 0);
        file.put_if_absent(b"{\"path\":\"a\",\"size\":1,\"mtime_ns\":2}\n{\"path\"\n")
            .unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(
            error.contains("in-0.ndjson:2: invalid journal entry: "),
            "{error}"
        );
    }
}
