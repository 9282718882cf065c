//! Reads files of a watched folder, and detects files that change during the read.

use std::io::{self, Read as _};
use std::path::Path;

use crate::error::unavailable::UnavailableInput;
use crate::source::discovery::content_digest::ContentDigest;
use crate::source::discovery::listed_file::{ListedFile, ReadFailure, RecordError};
use crate::source::discovery::stat_cache::{self, size_and_time};
use crate::storage::Location;

/// The result of an attempt to read a file.
pub(super) enum ReadAttempt {
    /// The file as it was during the read, with its digest, and its content.
    Content(ListedFile, Vec<u8>),
    /// The file cannot become a record.
    Refused(ListedFile, RecordError),
    /// The file does not exist.
    Gone,
    /// The file changed during the read.
    Changing,
    /// The file cannot be read now.
    Unavailable(UnavailableInput),
}

/// Reads a local file below `root`, unless it has more than `limit` bytes.
pub(super) fn read_local(file: &ListedFile, root: &Location, limit: u64) -> ReadAttempt {
    let location = file.location(root);
    let Some(path) = location.local() else {
        return ReadAttempt::Gone;
    };
    let mut now = file.clone();
    now.digest = None;
    match read_content(path, limit, &mut now) {
        Ok(Some(bytes)) => {
            now.digest = Some(ContentDigest::of(&bytes));
            ReadAttempt::Content(now, bytes)
        }
        Ok(None) if now.size > limit => {
            let refusal = RecordError::too_large(&now.name, now.size, limit);
            ReadAttempt::Refused(now, refusal)
        }
        Ok(None) => ReadAttempt::Changing,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            ReadAttempt::Gone
        }
        Err(error) => from_failure(file, file.failure(&location, error)),
    }
}

/// Reads a file, and stores its size and time in `now`. Returns `None` if the file is too large or
/// changed during the read.
fn read_content(path: &Path, limit: u64, now: &mut ListedFile) -> io::Result<Option<Vec<u8>>> {
    let mut file = stat_cache::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    (now.size, now.mtime_ns) = size_and_time(&metadata);
    if now.size > limit {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(now.size).unwrap_or_default());
    (&mut file).take(now.size + 1).read_to_end(&mut bytes)?;
    let is_same = size_and_time(&file.metadata()?) == (now.size, now.mtime_ns);
    Ok((is_same && bytes.len() as u64 == now.size).then_some(bytes))
}

/// Converts the result of fetching an object.
pub(super) fn fetched(
    file: &ListedFile,
    limit: u64,
    result: Result<Vec<u8>, ReadFailure>,
) -> ReadAttempt {
    match result {
        Ok(bytes) => ReadAttempt::Content(file.clone(), bytes),
        Err(failure) => match from_failure(file, failure) {
            // An object that was replaced or removed is listed with another etag, or not at all.
            ReadAttempt::Refused(..) if file.size <= limit => ReadAttempt::Gone,
            attempt => attempt,
        },
    }
}

fn from_failure(file: &ListedFile, failure: ReadFailure) -> ReadAttempt {
    match failure {
        ReadFailure::Rejected(refusal) => ReadAttempt::Refused(file.clone(), refusal),
        ReadFailure::Unavailable(unavailable) => ReadAttempt::Unavailable(unavailable),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn current_content_is_read_with_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let root = Location::from(folder.path());
        let file: ListedFile =
            serde_json::from_str(r#"{"path":"a","size":1,"mtime_ns":2}"#).unwrap();
        assert!(matches!(read_local(&file, &root, 10), ReadAttempt::Gone));
        fs::write(folder.path().join("a"), "content").unwrap();
        let ReadAttempt::Content(now, bytes) = read_local(&file, &root, 10) else {
            panic!("the file must be readable")
        };
        assert_eq!((bytes.as_slice(), now.size), (b"content".as_slice(), 7));
        assert_eq!(now.digest, Some(ContentDigest::of(b"content")));
        assert!(
            matches!(read_local(&file, &root, 6), ReadAttempt::Refused(grown, _) if grown.size == 7)
        );
        fs::remove_file(folder.path().join("a")).unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        assert!(
            matches!(read_local(&file, &root, 10), ReadAttempt::Gone),
            "a folder has replaced the file"
        );
    }
}
