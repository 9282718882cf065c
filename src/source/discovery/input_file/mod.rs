//! The input files of a source of records. Each file is a split.

use std::io;
use std::sync::Arc;

use crate::batch::provenance::Split;
use crate::batch::reject::RejectCode;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::unavailable::UnavailableInput;
use crate::source::discovery::file_set::FileSet;
use crate::source::discovery::listed_file::{CHANGED, ListedFile, ReadFailure, RecordError};
use crate::source::discovery::read_end::ReadEnd;
use crate::source::discovery::skipped_files::LastSkippedFiles;
use crate::storage::{FileReader, Location, ObjectPath, PrefetchedObject};
use crate::text_excerpt::shorten;

/// An input file.
#[derive(Debug, Clone)]
pub(crate) struct InputFile {
    /// The file as it was listed.
    listed: ListedFile,
    /// The root of the listing.
    root: Location,
    /// The path relative to the root of the listing, with `/` between folders.
    pub(crate) name: String,
    /// `<stage>/<name>:<size>:<etag, or modification time in ns>`. A file that is written again is
    /// another input.
    pub(crate) split: Arc<Split>,
    /// The value of [`Self::companion`] before the rows were continued in another split.
    companion: Option<String>,
}

impl InputFile {
    /// A file of a listing below `root`, with its own split.
    pub(crate) fn new(stage: &str, root: &Location, listed: ListedFile) -> Self {
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
    pub(crate) fn prefetch(&self) -> Option<PrefetchedObject> {
        match self.location() {
            Location::Remote(object) if self.listed.etag.is_some() => Some(self.request(&object)),
            _ => None,
        }
    }

    /// Opens the file, with the result of [`Self::prefetch`], if it is still the one that was
    /// listed.
    ///
    /// # Errors
    /// A rejection (`unreadable`, with the reason) if the file is missing or changed, else the
    /// error of the environment that makes it unavailable.
    pub(crate) fn open_listed(
        &self,
        prefetched: Option<PrefetchedObject>,
    ) -> Result<FileReader, ReadFailure> {
        let location = self.location();
        let Location::Remote(object) = &location else {
            return self.listed.open(&self.root);
        };
        let failed = |error| self.listed.failure(&location, error);
        let response = prefetched.unwrap_or_else(|| self.request(object));
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
    pub(crate) fn listed(&self) -> &ListedFile {
        &self.listed
    }

    /// Whether the file is local.
    pub(crate) fn is_local(&self) -> bool {
        self.root.local().is_some()
    }

    /// The rest of the name of the split after the stage and the identity of the file: other files
    /// that determine its records.
    pub(crate) fn companion(&self, stage: &str) -> &str {
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
    pub(crate) fn continuing(&self, stage: &str, split: &str) -> Self {
        let companion = Some(self.companion(stage).to_owned());
        Self {
            split: Split::new(split),
            companion,
            ..self.clone()
        }
    }

    /// Length in bytes, as listed.
    pub(crate) fn size(&self) -> u64 {
        self.listed.size
    }

    fn request(&self, object: &ObjectPath) -> PrefetchedObject {
        let ListedFile { size, etag, .. } = &self.listed;
        object.prefetch(*size, etag.as_deref())
    }

    /// Opens the file without checking that it is still the one that was listed.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn reopen(&self) -> io::Result<FileReader> {
        let ListedFile { size, etag, .. } = &self.listed;
        self.location().open(*size, etag.as_deref())
    }

    /// Stops reading if a read of `input` failed with an error of the environment. The error that a
    /// library reported is then not a verdict on the file.
    ///
    /// # Errors
    /// [`ReadEnd::Unavailable`].
    pub(crate) fn check_available(&self, input: &FileReader) -> Result<(), ReadEnd> {
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
    pub(crate) fn stopped(&self) -> impl FnOnce(io::Error) -> ReadEnd {
        |error| match self.unavailable(error) {
            Ok(unavailable) => unavailable.into(),
            Err(error) => ReadEnd::Rejected(self.listed.unreadable(&error.to_string()), 1),
        }
    }

    /// The reject of a file that does not fit the plan. `records` is the number of records in the
    /// file, 1 if that is unknown.
    pub(crate) fn unfit(&self, code: RejectCode, reason: &str, records: u64) -> ReadEnd {
        ReadEnd::Rejected(
            RecordError::new(code, format!("{}: {reason}", self.name)),
            records,
        )
    }

    /// Separates errors of the environment from verdicts on the file.
    ///
    /// # Errors
    /// `error` itself if it is a verdict on the file.
    pub(crate) fn unavailable(&self, error: io::Error) -> Result<UnavailableInput, io::Error> {
        self.location().unavailable(error)
    }

    /// Logs the columns of the file that are not read because the plan lacks them.
    pub(crate) fn note_left_out(&self, columns: &[&str]) {
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
pub(crate) fn list(
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
pub(crate) fn list_all(
    stage: &str,
    path: &str,
    extensions: &'static [&'static str],
    skipped_files: &LastSkippedFiles,
) -> Result<(Vec<InputFile>, Vec<UnavailableInput>), StageError> {
    let set = FileSet::new(path.to_owned(), true, extensions)
        .map_err(|fault| StageError::new(ErrorCode::InputInvalid, fault.message))?;
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
pub(crate) fn unusable(split: &Split) -> Arc<Split> {
    Split::new(format!("{}/unusable", split.name()))
}

#[cfg(test)]
mod tests;
