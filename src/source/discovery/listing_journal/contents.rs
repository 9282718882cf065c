//! The comparison of listed files with journaled rows.

use std::collections::{BTreeMap, HashMap};

use crate::error::StageError;
use crate::source::discovery::content_digest::ContentDigest;
use crate::source::discovery::digest_log::{DigestEntry, DigestLog};
use crate::source::discovery::listed_file::ListedFile;
use crate::source::discovery::listing::Listing;
use crate::source::discovery::listing_journal::{JournalRow, LoadedListings, RowState};

/// Whether only the content can decide that two versions of a file are the same.
pub(super) fn may_have_same_content(found: &ListedFile, file: &ListedFile) -> bool {
    found.size == file.size && found.etag.is_none() && file.etag.is_none()
}

/// Compares a journaled file with the listed file of the same name.
pub(super) fn assign_row(file: ListedFile, listing: &mut Listing) -> JournalRow {
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
pub(super) fn compare_contents(
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
