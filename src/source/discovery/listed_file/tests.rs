//! Unit tests of the module `listed_file`.

#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;
use crate::source::discovery::file_set::FileSet;
use crate::source::discovery::file_set::testing::folder;

fn set(folder: &Path) -> FileSet {
    FileSet::new(folder.to_str().unwrap().to_owned(), false, &["jpg", "png"]).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn file_with_name_that_is_not_utf8_is_encoded_and_read() {
    use std::os::unix::ffi::OsStrExt;
    let folder = folder(&[]);
    fs::write(
        folder
            .path()
            .join(std::ffi::OsStr::from_bytes(b"gr\xfcn %41.jpg")),
        b"data",
    )
    .unwrap();
    let listing = set(folder.path()).list().unwrap();
    let file = listing.files.get("gr%FCn %41.jpg").unwrap();
    assert_eq!(file.read(&listing.root, 100).unwrap(), b"data");
}

#[test]
fn changed_or_too_large_file_is_rejected_with_reason() {
    let folder = folder(&["a.jpg", "b.jpg"]);
    let listing = set(folder.path()).list().unwrap();
    fs::write(folder.path().join("a.jpg"), b"longer than before").unwrap();
    let refusal =
        |name: &str, limit| match listing.files[name].read(&listing.root, limit).unwrap_err() {
            ReadFailure::Rejected(refusal) => refusal,
            ReadFailure::Unavailable(unavailable) => panic!("{unavailable:?}"),
        };
    assert_eq!(refusal("a.jpg", 100).code, RejectCode::Unreadable);
    assert_eq!(refusal("a.jpg", 100).reason, format!("a.jpg: {CHANGED}"));
    assert_eq!(refusal("b.jpg", 4).code, RejectCode::TooLarge);
    fs::remove_file(folder.path().join("b.jpg")).unwrap();
    assert!(
        refusal("b.jpg", 5)
            .reason
            .starts_with("b.jpg: No such file")
    );
}
