//! The files of a source of records: found at planning, each a split of its own.

use std::io;
use std::sync::Arc;

use crate::batch::{RejectCode, Split};
use crate::error::{StageError, UnavailableInput};
use crate::source::file_set::FileSet;
use crate::source::file_source::ReadEnd;
use crate::source::listed_file::{CHANGED, ListedFile, ReadFailure, RecordError};
use crate::source::skipped_files::LastSkippedFiles;
use crate::storage::{FileReader, Location, PrefetchedObject, S3Path};

/// A file of input.
#[derive(Debug, Clone)]
pub(super) struct InputFile {
    /// As it was when it was listed.
    listed: ListedFile,
    /// The root of the listing.
    root: Location,
    /// Its path relative to the root of the listing, with `/` between folders.
    pub(super) name: String,
    /// `<stage>/<name>:<size>:<etag, or modification time in ns>`: a file that was written anew is
    /// another input.
    pub(super) split: Arc<Split>,
    /// What [`Self::companion`] was before the file went on in another split.
    companion: Option<String>,
}

impl InputFile {
    /// A file of a listing under `root`, with the split that it has on its own.
    pub(super) fn new(stage: &str, root: &Location, listed: ListedFile) -> Self {
        let split = Split::new(format!("{stage}/{}", listed.identity()));
        Self {
            name: listed.name.clone(),
            listed,
            root: root.clone(),
            split,
            companion: None,
        }
    }

    /// Asks for what reading it begins with, and does not wait; `None` where it is opened at once,
    /// or where the store does not say of what content the answers are: then they must not be old.
    ///
    /// # Errors
    /// When requests cannot be made at all.
    pub(super) fn prefetch(&self) -> Result<Option<PrefetchedObject>, StageError> {
        match self.location() {
            Location::Remote(object) if self.listed.etag.is_some() => {
                self.ahead(&object).map(Some).map_err(self.failed())
            }
            _ => Ok(None),
        }
    }

    /// Opens it, by what was asked before, if it is still the file that was listed.
    ///
    /// # Errors
    /// A rejection (`unreadable`, with the reason) if it is gone or changed; else what makes it
    /// unavailable.
    pub(super) fn open_listed(
        &self,
        asked: Option<PrefetchedObject>,
    ) -> Result<FileReader, ReadFailure> {
        let location = self.location();
        let Location::Remote(object) = &location else {
            return self.listed.open(&self.root);
        };
        let failed = |error| self.listed.failure(&location, error);
        let asked = asked
            .map_or_else(|| self.ahead(object), Ok)
            .map_err(failed)?;
        let (found, input) = asked.wait().map_err(failed)?;
        let is_same =
            found.is_some_and(|found| ListedFile::from(found).has_content_of(&self.listed));
        if is_same {
            Ok(input)
        } else {
            Err(self.listed.unreadable(CHANGED).into())
        }
    }

    /// The file as it was listed.
    pub(super) fn listed(&self) -> &ListedFile {
        &self.listed
    }

    /// Whether it lies on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.root.local().is_some()
    }

    /// What the name of its split has beside the stage and the file: other files that decide its
    /// records.
    pub(super) fn companion(&self, stage: &str) -> &str {
        let own = || {
            self.split
                .name()
                .strip_prefix(stage)?
                .strip_prefix('/')?
                .strip_prefix(&self.listed.identity())
        };
        self.companion.as_deref().or_else(own).unwrap_or_default()
    }

    /// The same file, whose rows go on in another split.
    pub(super) fn continuing(&self, stage: &str, split: &str) -> Self {
        let companion = Some(self.companion(stage).to_owned());
        Self {
            split: Split::new(split),
            companion,
            ..self.clone()
        }
    }

    /// Length in bytes, as listed.
    pub(super) fn size(&self) -> u64 {
        self.listed.size
    }

    fn ahead(&self, object: &S3Path) -> io::Result<PrefetchedObject> {
        let ListedFile { size, etag, .. } = &self.listed;
        object.prefetch(*size, etag.as_deref())
    }

    /// Opens it, whether it is still the file that was listed or not.
    ///
    /// # Errors
    /// The error of the system.
    pub(super) fn reopen(&self) -> io::Result<FileReader> {
        let ListedFile { size, etag, .. } = &self.listed;
        self.location().open(*size, etag.as_deref())
    }

    /// For `map_err`: an I/O error of the file.
    pub(super) fn failed(&self) -> impl FnOnce(io::Error) -> StageError {
        |error| self.location().io_error(error)
    }

    /// Stops reading if an error of the environment made a read of `input` fail: then what a
    /// library reported is not a verdict on the file.
    ///
    /// # Errors
    /// [`ReadEnd::UnavailableInput`].
    pub(super) fn check_available(&self, input: &FileReader) -> Result<(), ReadEnd> {
        match input.failure() {
            None => Ok(()),
            Some((class, error)) => Err(UnavailableInput {
                path: self.location().to_path(),
                class,
                error,
            }
            .into()),
        }
    }

    /// For `map_err`: why reading stops at an I/O error of the file.
    pub(super) fn stopped(&self) -> impl FnOnce(io::Error) -> ReadEnd {
        |error| match self.unavailable(error) {
            Ok(unavailable) => unavailable.into(),
            Err(error) => ReadEnd::Rejected(self.listed.unreadable(&error.to_string()), 1),
        }
    }

    /// That the file does not fit the plan, with the number of records that it holds, 1 where that
    /// is not known.
    pub(super) fn unfit(&self, code: RejectCode, what: &str, records: u64) -> ReadEnd {
        ReadEnd::Rejected(
            RecordError::new(code, format!("{}: {what}", self.name)),
            records,
        )
    }

    /// Separates errors of the environment from verdicts on the file.
    ///
    /// # Errors
    /// `error` itself if it is a verdict on the file.
    pub(super) fn unavailable(&self, error: io::Error) -> Result<UnavailableInput, io::Error> {
        self.location().unavailable(error)
    }

    fn location(&self) -> Location {
        self.listed.location(&self.root)
    }
}

/// The files that `path` means, sorted bytewise by name: one file, all files of a folder and its
/// subfolders that have one of `extensions`, or what a glob matches. Links are followed: that is
/// how data sets are laid out in caches.
///
/// # Errors
/// When there is none, or the folder cannot be read.
pub(super) fn list(
    stage: &str,
    path: &str,
    extensions: &'static [&'static str],
) -> Result<Vec<InputFile>, StageError> {
    list_all(stage, path, extensions, &LastSkippedFiles::default()).map(|(files, _)| files)
}

/// As [`list`], with the files and folders that an error of the environment kept from being looked
/// at; what was left out is counted in `passed_over`.
///
/// # Errors
/// As there.
pub(super) fn list_all(
    stage: &str,
    path: &str,
    extensions: &'static [&'static str],
    passed_over: &LastSkippedFiles,
) -> Result<(Vec<InputFile>, Vec<UnavailableInput>), StageError> {
    let set = FileSet::new(path.to_owned(), true, extensions)
        .map_err(|fault| StageError::Other(fault.message))?;
    let set = set.reporting_to(passed_over.clone());
    let mut listing = set.list()?;
    if listing.files.is_empty() {
        return Err(set.no_matches(&listing));
    }
    let unread = listing.take_failures();
    let files = listing
        .files
        .into_values()
        .map(|file| InputFile::new(stage, &listing.root, file));
    Ok((files.collect(), unread))
}

/// The split of the one reject that stands for a file which cannot be used. It is not the file's
/// own: if the file can be used later, all of its rows are new.
pub(super) fn unusable(split: &Split) -> Arc<Split> {
    Split::new(format!("{}/unusable", split.name()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "b.csv",
            "a.csv",
            "a/x.CSV",
            "a-b.csv",
            "_latentflow/m.csv",
            ".hidden.csv",
            "notes.txt",
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        folder
    }

    fn names(path: &Path) -> Vec<String> {
        list("s", path.to_str().unwrap(), &["csv"])
            .unwrap()
            .into_iter()
            .map(|file| file.name)
            .collect()
    }

    #[test]
    fn a_folder_means_its_visible_files_with_the_extension_sorted_bytewise() {
        assert_eq!(
            names(folder().path()),
            ["a-b.csv", "a.csv", "a/x.CSV", "b.csv"]
        );
    }

    #[test]
    fn a_glob_means_what_it_matches_below_its_literal_folder() {
        let folder = folder();
        assert_eq!(
            names(&folder.path().join("*.csv")),
            [".hidden.csv", "a-b.csv", "a.csv", "b.csv"]
        );
        assert_eq!(
            names(&folder.path().join("**/*.{CSV,txt}")),
            ["a/x.CSV", "notes.txt"]
        );
    }

    #[test]
    fn a_file_is_known_by_stage_name_size_and_time() {
        let folder = folder();
        let file = list("s", folder.path().join("b.csv").to_str().unwrap(), &[])
            .unwrap()
            .remove(0);
        assert!(
            file.split.name().starts_with("s/b.csv:5:"),
            "{}",
            file.split.name()
        );
    }

    #[test]
    fn nothing_found_says_what_was_looked_for() {
        let folder = folder();
        let error = |path: &str| {
            list("s", folder.path().join(path).to_str().unwrap(), &["gz"])
                .unwrap_err()
                .to_string()
        };
        assert!(
            error("none").contains("does not exist; expected a folder, a file, or a glob"),
            "{}",
            error("none")
        );
        assert!(
            error("*.gz").ends_with("files that were looked at, none matches"),
            "{}",
            error("*.gz")
        );
        assert!(
            error("a").ends_with("none has the extension gz"),
            "{}",
            error("a")
        );
    }
}
