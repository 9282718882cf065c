//! The identity of files: the only definition of when two listings of a path found the same file.
//!
//! A file of a bucket is identified by its name, size and etag. A local file is identified by its
//! name, size and content: if the modification time is equal, the content is assumed to be equal;
//! if the time differs, the digests of the contents decide. Without a known digest, a file with
//! another time is another file.

use crate::source::discovery::listed_file::ListedFile;

/// The result of a comparison by name, size, time and digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileMatch {
    /// The files are the same.
    Same,
    /// The files are different.
    Other,
    /// The content must be read and compared.
    Unclear,
}

/// Compares a known file with a found one.
pub(crate) fn compare(known: &ListedFile, found: &ListedFile) -> FileMatch {
    if known.name != found.name || known.size != found.size || known.etag != found.etag {
        return FileMatch::Other;
    }
    if known.etag.is_some() || known.mtime_ns == found.mtime_ns {
        return FileMatch::Same;
    }
    match (known.digest, found.digest) {
        (Some(known), Some(found)) if known == found => FileMatch::Same,
        (Some(_), None) => FileMatch::Unclear,
        _ => FileMatch::Other,
    }
}

impl ListedFile {
    /// Whether both are known to be the same file, without reading its content.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        compare(self, other) == FileMatch::Same
    }

    /// As [`Self::is_same`], but ignores the names.
    pub(crate) fn has_content_of(&self, other: &Self) -> bool {
        compare(
            self,
            &Self {
                name: self.name.clone(),
                ..other.clone()
            },
        ) == FileMatch::Same
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::source::discovery::content_digest::ContentDigest;

    fn file(json: serde_json::Value) -> ListedFile {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn match_depends_on_size_time_and_digest() {
        let digest = |content: &str| ContentDigest::of(content.as_bytes()).to_string();
        let known = file(
            serde_json::json!({"path": "a", "size": 3, "mtime_ns": 1, "digest": digest("one")}),
        );
        let found = |size: u64, time: i64, content: Option<&str>| {
            let mut found = serde_json::json!({"path": "a", "size": size, "mtime_ns": time});
            if let Some(content) = content {
                found["digest"] = digest(content).into();
            }
            compare(&known, &file(found))
        };
        assert_eq!(found(3, 1, None), FileMatch::Same);
        assert_eq!(found(4, 1, None), FileMatch::Other);
        assert_eq!(found(3, 2, None), FileMatch::Unclear);
        assert_eq!(found(3, 2, Some("one")), FileMatch::Same);
        assert_eq!(found(3, 2, Some("two")), FileMatch::Other);
        let old = file(serde_json::json!({"path": "a", "size": 3, "mtime_ns": 1}));
        let touched = file(serde_json::json!({"path": "a", "size": 3, "mtime_ns": 2}));
        assert_eq!(
            compare(&old, &touched),
            FileMatch::Other,
            "the digests are unknown"
        );
    }

    #[test]
    fn etag_decides_regardless_of_the_time() {
        let object = |etag: &str, time: i64| {
            file(serde_json::json!({"path": "a", "size": 3, "mtime_ns": time, "etag": etag}))
        };
        assert_eq!(compare(&object("x", 1), &object("x", 2)), FileMatch::Same);
        assert_eq!(compare(&object("x", 1), &object("y", 1)), FileMatch::Other);
    }
}
