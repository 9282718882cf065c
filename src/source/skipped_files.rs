//! The files, and the members of archives, that a source leaves out, counted by reason.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// Why a file, or a member of an archive, is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SkipReason {
    /// The source takes no files with this extension.
    Extension,
    /// The glob does not match it.
    Unmatched,
    /// A part of its path begins with a dot.
    Hidden,
    /// A part of its path begins with an underscore, as what is not data does by the custom of data
    /// sets.
    Underscore,
    /// It is a symbolic link.
    Link,
    /// It is a member of an archive that links to another one.
    MemberLink,
    /// It is a member of an archive that is stored without its holes.
    Sparse,
    /// It belongs to latentflow: a temporary file, or one in a folder `_latentflow`.
    Own,
    /// It lies beside the only file that was asked for.
    Unasked,
}

/// The numbers of files that a listing left out, and of members of archives that reading them left
/// out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SkippedFiles {
    /// By extension in lower case, with its dot; empty for files without one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extensions: BTreeMap<String, u64>,
    /// Files with further extensions, after [`EXTENSIONS`] different ones.
    #[serde(skip_serializing_if = "is_zero")]
    other_extensions: u64,
    #[serde(skip_serializing_if = "is_zero")]
    unmatched: u64,
    #[serde(skip_serializing_if = "is_zero")]
    hidden: u64,
    #[serde(skip_serializing_if = "is_zero")]
    underscore: u64,
    #[serde(skip_serializing_if = "is_zero")]
    links: u64,
    /// Members of archives that link to other members.
    #[serde(skip_serializing_if = "is_zero")]
    member_links: u64,
    /// Members of archives that are stored without their holes.
    #[serde(skip_serializing_if = "is_zero")]
    sparse: u64,
    #[serde(skip_serializing_if = "is_zero")]
    own: u64,
    /// Objects whose keys no file could have.
    #[serde(skip_serializing_if = "is_zero")]
    unusable_keys: u64,
    /// Objects below the name of the only object that is read.
    #[serde(skip_serializing_if = "is_zero")]
    below_object: u64,
}

/// Different extensions that are counted apart.
const EXTENSIONS: usize = 64;
/// A longer extension is counted with the further ones.
const EXTENSION_BYTES: usize = 16;
/// Extensions that a message names.
const NAMED: usize = 8;

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde demands"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl SkippedFiles {
    /// Counts a file.
    pub(super) fn add(&mut self, file: &Path, omission: SkipReason) {
        let count = match omission {
            SkipReason::Extension => return self.add_extension(file),
            SkipReason::Unmatched => &mut self.unmatched,
            SkipReason::Hidden => &mut self.hidden,
            SkipReason::Underscore => &mut self.underscore,
            SkipReason::Link => &mut self.links,
            SkipReason::MemberLink => &mut self.member_links,
            SkipReason::Sparse => &mut self.sparse,
            SkipReason::Own => &mut self.own,
            SkipReason::Unasked => return,
        };
        *count += 1;
    }

    /// Counts objects whose keys no file could have.
    pub(super) fn add_unusable_keys(&mut self, count: u64) {
        self.unusable_keys += count;
    }

    /// Counts objects below the name of the only object that is read.
    pub(super) fn add_below_object(&mut self, count: u64) {
        self.below_object += count;
    }

    fn add_extension(&mut self, file: &Path) {
        let extension = file
            .extension()
            .map(|extension| extension.as_encoded_bytes())
            .unwrap_or_default();
        // Nothing is allocated for a file whose extension was met before: there may be millions.
        let mut buffer = [0; EXTENSION_BYTES + 1];
        let length = extension.len() + usize::from(!extension.is_empty());
        let name = buffer.get_mut(..length).and_then(|name| {
            if let Some((dot, rest)) = name.split_first_mut() {
                *dot = b'.';
                rest.copy_from_slice(extension);
                rest.make_ascii_lowercase();
            }
            std::str::from_utf8(name).ok()
        });
        let Some(name) = name else {
            self.other_extensions += 1;
            return;
        };
        if let Some(count) = self.extensions.get_mut(name) {
            *count += 1;
        } else if self.extensions.len() < EXTENSIONS {
            self.extensions.insert(name.to_owned(), 1);
        } else {
            self.other_extensions += 1;
        }
    }

    /// Whether no file was left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Symbolic links that were left out.
    pub(super) fn links(&self) -> u64 {
        self.links
    }
}

impl fmt::Display for SkippedFiles {
    /// The most frequent extensions first, then the other reasons.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut extensions: Vec<(&String, u64)> = self
            .extensions
            .iter()
            .map(|(name, &count)| (name, count))
            .collect();
        extensions.sort_by_key(|&(name, count)| (std::cmp::Reverse(count), name));
        let unnamed = extensions
            .iter()
            .skip(NAMED)
            .map(|&(_, count)| count)
            .sum::<u64>()
            + self.other_extensions;
        let named = extensions
            .iter()
            .take(NAMED)
            .map(|&(name, count)| match name.as_str() {
                "" => format!("{count} without an extension"),
                name => format!("{count} {name}"),
            });
        let reasons = [
            (unnamed, "with other extensions"),
            (self.unmatched, "not matched by the glob"),
            (self.hidden, "hidden (`.` begins a name)"),
            (self.underscore, "not data by custom (`_` begins a name)"),
            (
                self.links,
                "symbolic links (follow_links = true takes what they lead to)",
            ),
            (self.member_links, "links in archives"),
            (self.sparse, "sparse files in archives"),
            (self.own, "of latentflow itself"),
            (
                self.unusable_keys,
                "with keys that no file could have (an empty part, `.`, `..`, a control character)",
            ),
            (
                self.below_object,
                "below the name of the object that is read (add a glob such as `/**/*` to read them)",
            ),
        ];
        let reasons = reasons
            .into_iter()
            .filter(|&(count, _)| count > 0)
            .map(|(count, what)| format!("{count} {what}"));
        f.write_str(&named.chain(reasons).collect::<Vec<_>>().join(", "))
    }
}

/// What the last listing of a source left out, shared by the source and those who report on it.
#[derive(Debug, Clone, Default)]
pub struct LastSkippedFiles(Arc<Mutex<SkippedFiles>>);

impl LastSkippedFiles {
    /// The counts of the last listing; empty before the first one.
    #[must_use]
    pub fn get(&self) -> SkippedFiles {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Counts what is met while the listed files are read.
    pub(super) fn add(&self, file: &Path, omission: SkipReason) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(file, omission);
    }

    pub(super) fn set(&self, counts: SkippedFiles) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn counted(files: &[(&str, SkipReason)]) -> SkippedFiles {
        let mut counts = SkippedFiles::default();
        files
            .iter()
            .for_each(|&(file, omission)| counts.add(Path::new(file), omission));
        counts
    }

    #[test]
    fn extensions_are_counted_whatever_their_case_and_named_by_number() {
        let files = ["a.txt", "b.HEIC", "c.heic", "Makefile", "d.Heic"]
            .map(|file| (file, SkipReason::Extension));
        assert_eq!(
            counted(&files).to_string(),
            "3 .heic, 1 without an extension, 1 .txt"
        );
    }

    #[test]
    fn other_reasons_are_named_after_the_extensions() {
        use SkipReason::{Extension, Hidden, Link, Own, Unasked, Underscore};
        let files = [
            ("l", Link),
            (".x", Hidden),
            ("a.b", Extension),
            ("_S", Underscore),
            ("t", Own),
            ("u", Unasked),
        ];
        let text = counted(&files).to_string();
        let expected = "1 .b, 1 hidden (`.` begins a name), 1 not data by custom (`_` begins a name), \
             1 symbolic links (follow_links = true takes what they lead to), 1 of latentflow itself";
        assert_eq!(text, expected);
        assert!(
            SkippedFiles::default().is_empty() && SkippedFiles::default().to_string().is_empty()
        );
    }

    #[test]
    fn objects_that_no_glob_leaves_out_are_named() {
        let mut counts = SkippedFiles::default();
        counts.add_unusable_keys(2);
        counts.add_below_object(30);
        let text = counts.to_string();
        assert!(
            text.starts_with("2 with keys that no file could have")
                && text.contains("30 below the name"),
            "{text}"
        );
        assert_eq!(
            serde_json::to_string(&counts).unwrap(),
            r#"{"unusable_keys":2,"below_object":30}"#
        );
    }

    #[test]
    fn many_or_long_extensions_are_counted_together() {
        let names: Vec<String> = (0..100).map(|number| format!("a.{number}")).collect();
        let mut counts = SkippedFiles::default();
        names
            .iter()
            .for_each(|name| counts.add(Path::new(name), SkipReason::Extension));
        counts.add(
            Path::new("a.an-extension-that-is-long"),
            SkipReason::Extension,
        );
        assert_eq!((counts.extensions.len(), counts.other_extensions), (64, 37));
        assert!(
            counts.to_string().ends_with("93 with other extensions"),
            "{counts}"
        );
    }

    #[test]
    fn counts_in_json_name_only_what_was_met() {
        let counts = counted(&[("a.heic", SkipReason::Extension), ("l", SkipReason::Link)]);
        assert_eq!(
            serde_json::to_string(&counts).unwrap(),
            r#"{"extensions":{".heic":1},"links":1}"#
        );
    }
}
