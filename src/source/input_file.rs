//! The input files of a source of records. Each file is a split.

use std::io;
use std::sync::Arc;

use crate::batch::{RejectCode, Split};
use crate::error::{StageError, UnavailableInput};
use crate::source::file_set::FileSet;
use crate::source::file_source::{ReadEnd, shorten};
use crate::source::listed_file::{CHANGED, ListedFile, ReadFailure, RecordError};
use crate::source::skipped_files::LastSkippedFiles;
use crate::storage::{FileReader, Location, PrefetchedObject, S3Path};

/// An input file.
#[derive(Debug, Clone)]
pub(super) struct InputFile {
    /// The file as it was listed.
    listed: ListedFile,
    /// The root of the listing.
    root: Location,
    /// The path relative to the root of the listing, with `/` between folders.
    pub(super) name: String,
    /// `<stage>/<name>:<size>:<etag, or modification time in ns>`. A file that is written again is
    /// another input.
    pub(super) split: Arc<Split>,
    /// The value of [`Self::companion`] before the rows were continued in another split.
    companion: Option<String>,
}

impl InputFile {
    /// A file of a listing below `root`, with its own split.
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

    /// Requests the beginning of an object without waiting for the response. `None` for a local
    /// file, and for an object without an etag: its responses cannot be assigned to a version of
    /// the content, so they must not be requested early.
    ///
    /// # Errors
    /// If requests cannot be sent.
    pub(super) fn prefetch(&self) -> Result<Option<PrefetchedObject>, StageError> {
        match self.location() {
            Location::Remote(object) if self.listed.etag.is_some() => {
                self.request(&object).map(Some).map_err(self.failed())
            }
            _ => Ok(None),
        }
    }

    /// Opens the file, with the result of [`Self::prefetch`], if it is still the one that was
    /// listed.
    ///
    /// # Errors
    /// A rejection (`unreadable`, with the reason) if the file is missing or changed, else the
    /// error of the environment that makes it unavailable.
    pub(super) fn open_listed(
        &self,
        prefetched: Option<PrefetchedObject>,
    ) -> Result<FileReader, ReadFailure> {
        let location = self.location();
        let Location::Remote(object) = &location else {
            return self.listed.open(&self.root);
        };
        let failed = |error| self.listed.failure(&location, error);
        let response = prefetched
            .map_or_else(|| self.request(object), Ok)
            .map_err(failed)?;
        let (found, input) = response.wait().map_err(failed)?;
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

    /// Whether the file is local.
    pub(super) fn is_local(&self) -> bool {
        self.root.local().is_some()
    }

    /// The rest of the name of the split after the stage and the identity of the file: other files
    /// that determine its records.
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

    /// The same file, whose rows are continued in another split.
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

    fn request(&self, object: &S3Path) -> io::Result<PrefetchedObject> {
        let ListedFile { size, etag, .. } = &self.listed;
        object.prefetch(*size, etag.as_deref())
    }

    /// Opens the file without checking that it is still the one that was listed.
    ///
    /// # Errors
    /// The error of the system.
    pub(super) fn reopen(&self) -> io::Result<FileReader> {
        let ListedFile { size, etag, .. } = &self.listed;
        self.location().open(*size, etag.as_deref())
    }

    /// A function for `map_err` that converts an I/O error of the file.
    pub(super) fn failed(&self) -> impl FnOnce(io::Error) -> StageError {
        |error| self.location().io_error(error)
    }

    /// Stops reading if a read of `input` failed with an error of the environment. The error that a
    /// library reported is then not a verdict on the file.
    ///
    /// # Errors
    /// [`ReadEnd::Unavailable`].
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

    /// A function for `map_err` that converts an I/O error of the file to the reason why reading
    /// stops.
    pub(super) fn stopped(&self) -> impl FnOnce(io::Error) -> ReadEnd {
        |error| match self.unavailable(error) {
            Ok(unavailable) => unavailable.into(),
            Err(error) => ReadEnd::Rejected(self.listed.unreadable(&error.to_string()), 1),
        }
    }

    /// The reject of a file that does not fit the plan. `records` is the number of records in the
    /// file, 1 if that is unknown.
    pub(super) fn unfit(&self, code: RejectCode, reason: &str, records: u64) -> ReadEnd {
        ReadEnd::Rejected(
            RecordError::new(code, format!("{}: {reason}", self.name)),
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

    /// Logs the columns of the file that are not read because the plan lacks them.
    pub(super) fn note_left_out(&self, columns: &[&str]) {
        if !columns.is_empty() {
            tracing::warn!(
                file = self.name,
                columns = shorten(&columns.join(", ")),
                "leaves out columns that no file had when the pipeline was planned"
            );
        }
    }

    fn location(&self) -> Location {
        self.listed.location(&self.root)
    }
}

/// Lists the files that `path` selects, sorted bytewise by name: one file, all files of a folder
/// and its subfolders that have one of `extensions`, or the matches of a glob. Links are followed,
/// because datasets in caches consist of links.
///
/// # Errors
/// If no file is found, or the folder cannot be read.
pub(super) fn list(
    stage: &str,
    path: &str,
    extensions: &'static [&'static str],
) -> Result<Vec<InputFile>, StageError> {
    list_all(stage, path, extensions, &LastSkippedFiles::default()).map(|(files, _)| files)
}

/// As [`list`], but also returns the files and folders that could not be read because of an error
/// of the environment. Skipped files are counted in `skipped_files`.
///
/// # Errors
/// Those of [`list`].
pub(super) fn list_all(
    stage: &str,
    path: &str,
    extensions: &'static [&'static str],
    skipped_files: &LastSkippedFiles,
) -> Result<(Vec<InputFile>, Vec<UnavailableInput>), StageError> {
    let set = FileSet::new(path.to_owned(), true, extensions)
        .map_err(|fault| StageError::Other(fault.message))?;
    let set = set.reporting_to(skipped_files.clone());
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

/// The split of the one reject that represents an unusable file. It differs from the file's own
/// split, so that all rows are new if the file can be read later.
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
    fn folder_selects_visible_files_with_extension_in_order() {
        assert_eq!(
            names(folder().path()),
            ["a-b.csv", "a.csv", "a/x.CSV", "b.csv"]
        );
    }

    #[test]
    fn glob_selects_its_matches_below_its_literal_folder() {
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
    fn split_is_named_by_stage_name_size_and_time() {
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
    fn error_without_files_states_the_path_or_pattern() {
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
            error("*.gz").ends_with("files scanned: 5; none matches"),
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
