//! The patterns that select files: globs, extensions, and excluded names.

use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

use crate::source::WrittenFiles;
use crate::source::discovery::file_set::{FileSet, STATE_DIR};
use crate::source::discovery::skipped_files::SkipReason;
use crate::storage::mounts::real_path;
use crate::storage::{Location, is_url};

/// A path with wildcards.
pub(super) struct FileGlob {
    /// The folder above the first wildcard.
    pub(super) root: String,
    /// Matches paths relative to `root`.
    pub(super) matcher: GlobMatcher,
    /// The maximum depth of a match; `None` if it is unlimited.
    pub(super) depth: Option<usize>,
}

/// Checks whether a glob selects a file.
pub(super) fn matches_glob(glob: &GlobMatcher, name: &Path) -> Result<(), SkipReason> {
    if name.iter().any(|part| part == STATE_DIR) {
        return Err(SkipReason::Own);
    }
    keep_if(glob.is_match(name), SkipReason::Unmatched)
}

pub(super) fn keep_if(is_selected: bool, reason: SkipReason) -> Result<(), SkipReason> {
    if is_selected { Ok(()) } else { Err(reason) }
}

/// Whether a path ends in one of these extensions, regardless of case.
pub(crate) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    extensions.iter().any(|extension| {
        let start = name.len().saturating_sub(extension.len());
        start > 1
            && name[start - 1] == b'.'
            && name[start..].eq_ignore_ascii_case(extension.as_bytes())
    })
}

impl FileSet {
    /// Whether the set selects files that a sink writes, or would select them once they exist.
    pub(crate) fn would_read(&self, written: &WrittenFiles<'_>) -> bool {
        if Path::new(&self.path).is_file() || !self.matches_extension(written.extensions) {
            return false;
        }
        let glob = self.folder_glob().ok().flatten();
        let root = match &glob {
            Some(glob) if glob.root.is_empty() => ".",
            Some(glob) => &glob.root,
            None => &self.path,
        };
        let below = match (Location::parse(root), written.folder) {
            (Ok(Location::Local(root)), Location::Local(folder)) => {
                let (root, folder) = (real_path(&root), real_path(folder));
                folder.strip_prefix(&root).map(Path::to_path_buf).ok()
            }
            (Ok(Location::Remote(root)), Location::Remote(folder)) => {
                let (root, folder) = (root.to_string(), folder.to_string());
                let below = folder.strip_prefix(root.trim_end_matches('/'));
                below
                    .filter(|below| below.is_empty() || below.starts_with('/'))
                    .map(|below| below[1.min(below.len())..].into())
            }
            _ => None,
        };
        let Some(below) = below else { return false };
        match (glob, written.name) {
            (None, _) => !self.excludes(&below),
            (Some(glob), Some(name)) => matches_glob(&glob.matcher, &below.join(name)).is_ok(),
            (Some(glob), None) => {
                let is_deep_enough = glob
                    .depth
                    .is_none_or(|depth| below.components().count() < depth);
                // Files of any name match, unless the pattern ends in an extension.
                let end = self
                    .path
                    .rsplit(['/', '*', '?', ']', '}', '\\'])
                    .next()
                    .unwrap_or_default();
                is_deep_enough
                    && end
                        .rsplit_once('.')
                        .is_none_or(|(_, end)| written.extensions.contains(&end))
            }
        }
    }

    /// Whether a file with one of these extensions may be selected; a glob may select any extension.
    fn matches_extension(&self, extensions: &[&str]) -> bool {
        extensions
            .iter()
            .any(|extension| self.extensions.contains(extension))
            || self.folder_glob().is_ok_and(|glob| glob.is_some())
    }

    /// Checks whether a file of a folder is selected. For tables, every path with a part that
    /// begins with `.` or `_` is skipped, as Spark and Hive do; for images, only folders with an
    /// underscore are skipped.
    pub(super) fn matches(&self, name: &Path) -> Result<(), SkipReason> {
        let is_selected = has_extension(name, self.extensions);
        let mut parts = name.iter().peekable();
        while let Some(part) = parts.next() {
            match part.as_encoded_bytes().first() {
                _ if part == STATE_DIR => return Err(SkipReason::Own),
                Some(b'.') => return Err(SkipReason::Hidden),
                Some(b'_') if parts.peek().is_some() || !(is_selected && self.underscore_files) => {
                    return Err(SkipReason::Underscore);
                }
                _ => {}
            }
        }
        keep_if(is_selected, SkipReason::Extension)
    }

    /// Whether nothing at or below this path of a folder can be selected, regardless of the
    /// extension.
    pub(super) fn excludes(&self, name: &Path) -> bool {
        matches!(
            self.matches(name),
            Err(SkipReason::Hidden | SkipReason::Underscore | SkipReason::Own)
        )
    }

    /// The glob; `None` for a plain path or an existing folder.
    pub(super) fn folder_glob(&self) -> Result<Option<FileGlob>, String> {
        if !is_url(&self.path) && Path::new(&self.path).is_dir() {
            Ok(None)
        } else {
            self.glob()
        }
    }

    /// The glob; `None` for a plain path.
    pub(super) fn glob(&self) -> Result<Option<FileGlob>, String> {
        let Some(meta) = self.path.find(['*', '?', '[', '{', '\\']) else {
            return Ok(None);
        };
        let (root, pattern) = match self.path[..meta].rfind('/') {
            Some(slash) => self.path.split_at(slash + 1),
            None => ("", self.path.as_str()),
        };
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        let glob = glob.map_err(|error| {
            format!("{error}; `**` matches folders of any depth, `*` a part of a name")
        })?;
        let depth = (!pattern.contains("**")).then(|| pattern.matches('/').count() + 1);
        Ok(Some(FileGlob {
            root: root.to_owned(),
            matcher: glob.compile_matcher(),
            depth,
        }))
    }
}
