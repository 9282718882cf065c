//! Counts of the files and archive members that a source skips, by reason.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

/// Why a file or a member of an archive is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SkipReason {
    /// The source does not read files with this extension.
    Extension,
    /// The glob does not match it.
    Unmatched,
    /// A part of its path begins with a dot.
    Hidden,
    /// A part of its path begins with an underscore, which marks files other than data by the
    /// convention of datasets.
    Underscore,
    /// It is a symbolic link.
    Link,
    /// It is a member of an archive that links to another one.
    MemberLink,
    /// It is a sparse member of an archive, which is stored without its holes.
    Sparse,
    /// It is an internal file of latentflow: a temporary file, or one in a folder `_latentflow`.
    Own,
    /// It lies next to the only file that `path` names.
    NotRequested,
}

/// The numbers of files that a listing skipped, and of archive members that reads skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SkippedFiles {
    /// Number of files by extension in lower case, with its dot; empty for files without one.
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
    /// Sparse members of archives.
    #[serde(skip_serializing_if = "is_zero")]
    sparse: u64,
    #[serde(skip_serializing_if = "is_zero")]
    own: u64,
    /// Objects whose keys are not valid names of files.
    #[serde(skip_serializing_if = "is_zero")]
    unusable_keys: u64,
    /// Objects below the name of the only object that is read.
    #[serde(skip_serializing_if = "is_zero")]
    below_object: u64,
}

/// Number of different extensions that are counted separately.
const EXTENSIONS: usize = 64;
/// Length in bytes above which an extension is counted with the other ones.
const EXTENSION_BYTES: usize = 16;
/// Number of extensions that a message lists.
const NAMED: usize = 8;

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde requires this signature"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl SkippedFiles {
    /// Counts a file.
    pub(crate) fn add(&mut self, file: &Path, reason: SkipReason) {
        let count = match reason {
            SkipReason::Extension => return self.add_extension(file),
            SkipReason::Unmatched => &mut self.unmatched,
            SkipReason::Hidden => &mut self.hidden,
            SkipReason::Underscore => &mut self.underscore,
            SkipReason::Link => &mut self.links,
            SkipReason::MemberLink => &mut self.member_links,
            SkipReason::Sparse => &mut self.sparse,
            SkipReason::Own => &mut self.own,
            SkipReason::NotRequested => return,
        };
        *count += 1;
    }

    /// Counts objects whose keys are not valid names of files.
    pub(crate) fn add_unusable_keys(&mut self, count: u64) {
        self.unusable_keys += count;
    }

    /// Counts objects below the name of the only object that is read.
    pub(crate) fn add_below_object(&mut self, count: u64) {
        self.below_object += count;
    }

    fn add_extension(&mut self, file: &Path) {
        let extension = file
            .extension()
            .map(|extension| extension.as_encoded_bytes())
            .unwrap_or_default();
        // Files with a known extension allocate nothing: there may be millions of them.
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

    /// Whether no file was skipped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Number of skipped symbolic links.
    pub(crate) fn links(&self) -> u64 {
        self.links
    }
}

impl fmt::Display for SkippedFiles {
    /// Writes the most frequent extensions first, then the other reasons.
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
        let number = |count: u64, one, many| if count == 1 { one } else { many };
        let reasons = [
            (unnamed, "with other extensions"),
            (self.unmatched, "not matched by the glob"),
            (self.hidden, "hidden (a name begins with `.`)"),
            (
                self.underscore,
                "not data by convention (a name begins with `_`)",
            ),
            (
                self.links,
                number(
                    self.links,
                    "symbolic link (follow_links = true follows it)",
                    "symbolic links (follow_links = true follows them)",
                ),
            ),
            (
                self.member_links,
                number(self.member_links, "link in an archive", "links in archives"),
            ),
            (
                self.sparse,
                number(
                    self.sparse,
                    "sparse file in an archive",
                    "sparse files in archives",
                ),
            ),
            (
                self.own,
                number(
                    self.own,
                    "internal file of latentflow",
                    "internal files of latentflow",
                ),
            ),
            (
                self.unusable_keys,
                "with keys that are not valid file names (an empty part, `.`, `..`, a control \
                 character)",
            ),
            (
                self.below_object,
                "below the name of the object that is read (add a glob such as `/**/*` to read \
                 them)",
            ),
        ];
        let reasons = reasons
            .into_iter()
            .filter(|&(count, _)| count > 0)
            .map(|(count, reason)| format!("{count} {reason}"));
        f.write_str(&named.chain(reasons).collect::<Vec<_>>().join(", "))
    }
}

/// The counts of the last listing of a source, shared by the source and the reports.
#[derive(Debug, Clone, Default)]
pub struct LastSkippedFiles(Arc<Mutex<SkippedFiles>>);

impl LastSkippedFiles {
    /// The counts of the last listing; empty before the first one.
    #[must_use]
    pub fn get(&self) -> SkippedFiles {
        self.0.lock().clone()
    }

    /// Counts a member that is skipped while the listed files are read.
    pub(crate) fn add(&self, file: &Path, reason: SkipReason) {
        self.0.lock().add(file, reason);
    }

    pub(crate) fn set(&self, counts: SkippedFiles) {
        *self.0.lock() = counts;
    }
}

#[cfg(test)]
mod tests;
