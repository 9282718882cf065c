//! Unit tests of the module `listing_journal`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::source::discovery::content_digest::ContentDigest;
use crate::source::discovery::digest_log::DigestEntry;
use crate::source::discovery::file_set::FileSet;

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
    let set = FileSet::new(folder.path().to_str().unwrap().to_owned(), false, &["jpg"]).unwrap();
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
    let set = FileSet::new(folder.path().to_str().unwrap().to_owned(), false, &["jpg"]).unwrap();
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
        let mut loaded = load("in", Some(&state), &mut listing, &mut digest_log, shard).unwrap();
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
