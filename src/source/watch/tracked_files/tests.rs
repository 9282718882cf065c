//! Unit tests of the module `tracked_files`.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::source::discovery::arrival_log::{SegmentWriter, segments};
use crate::source::discovery::content_digest::ContentDigest;
use crate::source::discovery::listing::Listing;
use crate::source::watch::tracked_files::missing::{RETENTION, missing_since};
use crate::storage::Location;

fn file(name: &str, time: i64, content: &str) -> ListedFile {
    let digest = ContentDigest::of(content.as_bytes()).to_string();
    serde_json::from_value(serde_json::json!({
        "path": name,
        "size": content.len(),
        "mtime_ns": time,
        "digest": digest,
    }))
    .unwrap()
}

fn empty() -> TrackedFiles {
    TrackedFiles::from_journals(&[], &ResumeState::default(), &BTreeMap::new(), 0)
}

#[test]
fn returning_file_is_recognized_until_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let state = Location::from(folder.path());
    let mut writer = SegmentWriter::open("in", folder.path(), 0).unwrap();
    let (a, b) = (file("sub/a", 1, "a"), file("sub/b", 1, "b"));
    writer.append(&[a.clone(), b.clone()]).unwrap();
    let old = writer.segment.clone();
    let mut tracked = empty();
    tracked.add(&[a.clone(), b], &old);
    tracked.segments.get_mut(&old.first).unwrap().pending = 0;
    let mut open = old.clone();
    open.first = 9;
    let entries: Vec<DigestEntry> = tracked.mark_below_missing("sub", 100);
    assert_eq!(
        (entries.len(), entries[0].away, tracked.present()),
        (2, Some(100), 0)
    );
    let back = file("sub/a", 2, "a");
    assert_eq!(tracked.compare(&back), Some(FileMatch::Same));
    assert_eq!(
        tracked.mark_present(&back, None),
        Some(DigestEntry::from_file(&back))
    );
    assert_eq!(
        (tracked.mark_present(&back, None), tracked.present()),
        (None, 1)
    );
    tracked.expire(100 + RETENTION, &open);
    assert_eq!(
        tracked.compare(&file("sub/b", 1, "b")),
        None,
        "the file was missing for too long"
    );
    assert_eq!(
        segments("in", &state).unwrap().len(),
        1,
        "a file of the segment is present"
    );
    tracked.mark_below_missing("sub/a", 200);
    tracked.expire(200 + RETENTION, &open);
    assert_eq!(segments("in", &state).unwrap().len(), 0);
}

#[test]
fn file_below_unread_folder_stays_present() {
    let mut tracked = empty();
    let folder = tempfile::tempdir().unwrap();
    let writer = SegmentWriter::open("in", folder.path(), 0).unwrap();
    let names = ["gone", "locked/a", "other/a"];
    tracked.add(&names.map(|name| file(name, 1, name)), &writer.segment);
    tracked.mark_present(&file("other/a", 1, "other/a"), Some(7));
    let mut listing = Listing::unread(Location::from(folder.path()));
    listing.unread = BTreeMap::from([("locked".to_owned(), None)]);
    let id = crate::storage::mounts::FolderId {
        device: 8,
        inode: 1,
    };
    listing.folders = ["", "other"].map(|name| (name.to_owned(), id)).into();
    let missing = tracked.mark_unlisted_missing(&listing, 1);
    assert_eq!(
        missing.iter().map(|entry| &*entry.path).collect::<Vec<_>>(),
        ["gone"]
    );
    assert_eq!(tracked.present(), 2);
}

#[test]
fn last_entry_decides_whether_file_is_missing() {
    let entry = |path: &str, away| DigestEntry {
        away,
        ..DigestEntry::from_file(&file(path, 1, "x"))
    };
    let entries = [
        entry("a", Some(1)),
        entry("b", Some(2)),
        entry("a", None),
        entry("c", None),
        entry("c", Some(3)),
    ];
    assert_eq!(
        missing_since(&entries),
        BTreeMap::from([("b", 2), ("c", 3)])
    );
}
