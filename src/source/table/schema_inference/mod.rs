//! Plans the columns of a source from its files.

use std::thread;

use arrow::datatypes::{FieldRef, Schema};

use crate::error::code::ErrorCode;
use crate::error::unavailable::UnavailableInput;
use crate::error::{ErrorClass, StageError};
use crate::schema_unification::UnifiedSchema;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;
use crate::storage::FileReader;
use crate::storage::transfer_limits::MAX_CONCURRENT_REQUESTS;
use crate::system;

/// Maximum number of objects that are opened for planning: each of them takes a request. The others
/// are compared with the plan when they are read.
const PLANNED_OBJECTS: usize = 256;

/// Number of files whose schemas are in memory at the same time.
const WINDOW: usize = 1024;

/// Number of files that a note names.
const NAMED: usize = 3;

/// The unified columns of the files of a source.
#[derive(Debug)]
pub(crate) struct InferredColumns {
    /// The columns of all files together.
    pub(crate) fields: Vec<FieldRef>,
    /// Sentences for the user about files that differ.
    pub(crate) notes: Vec<String>,
}

/// Unifies the schemas of all `files` in their order; of objects, those of at most
/// [`PLANNED_OBJECTS`]. If they do not unify, the columns are those of the largest group of files
/// that do. `infer` returns `None` for an empty file. Files that are unavailable, do not fit, or
/// are in another group are skipped here; the run later leaves them unread or rejects them.
///
/// # Errors
/// As [`first`].
pub(crate) fn unified(
    files: &[InputFile],
    infer: impl Fn(&InputFile, FileReader) -> Result<Option<Schema>, ReadEnd> + Sync,
) -> Result<InferredColumns, StageError> {
    let is_local = files.first().is_none_or(InputFile::is_local);
    let planned: Vec<&InputFile> = planned_files(files.len(), is_local)
        .map(|index| &files[index])
        .collect();
    let (mut groups, mut skipped) = (FileGroups::default(), SkippedInputs::default());
    for window in planned.chunks(WINDOW) {
        for (file, found) in window.iter().zip(infer_each(window, &infer)) {
            match found {
                Ok(Some(schema)) => groups.add(&file.name, &schema),
                Ok(None) => {}
                Err(end) => skipped.add(end)?,
            }
        }
    }
    let Some((fields, note)) = groups.largest() else {
        return Err(skipped.into_error());
    };
    skipped.warn();
    let mut notes: Vec<String> = note.into_iter().chain(skipped.notes()).collect();
    if planned.len() < files.len() {
        notes.push(format!(
            "the columns are those of {} of {} files; each of the others is compared with them \
             when it is read",
            planned.len(),
            files.len()
        ));
    }
    Ok(InferredColumns { fields, notes })
}

/// The indices of the files that are opened: all local files, or objects at equal distances, with
/// the first and the last of them.
fn planned_files(files: usize, is_local: bool) -> impl Iterator<Item = usize> {
    let count = if is_local {
        files
    } else {
        files.min(PLANNED_OBJECTS)
    };
    let last = files.saturating_sub(1);
    (0..count).map(move |index| index * last / count.saturating_sub(1).max(1))
}

/// Opens the files on several threads, and returns what `infer` returns for each, in order.
fn infer_each<T: Send>(
    files: &[&InputFile],
    infer: &(impl Fn(&InputFile, FileReader) -> Result<T, ReadEnd> + Sync),
) -> Vec<Result<T, ReadEnd>> {
    let open = |file: &&InputFile| {
        let input = file.reopen().map_err(file.stopped())?;
        infer(file, input)
    };
    let is_local = files.first().is_none_or(|file| file.is_local());
    let threads = if is_local {
        system::available_cores()
    } else {
        MAX_CONCURRENT_REQUESTS
    };
    let each = files.len().div_ceil(threads).max(1);
    if files.len() <= each {
        return files.iter().map(open).collect();
    }
    thread::scope(|scope| {
        let parts: Vec<_> = files
            .chunks(each)
            .map(|part| scope.spawn(|| part.iter().map(open).collect::<Vec<_>>()))
            .collect();
        let joined = parts.into_iter().map(|part| {
            part.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.flatten().collect()
    })
}

/// Maximum number of groups of files. Files beyond them are rejected when they are read.
const MAX_GROUPS: usize = 64;

/// Files whose schemas unify with each other.
struct FileGroup {
    schema: UnifiedSchema,
    /// The name of the first file.
    first: String,
    files: usize,
}

/// The files of a source in groups whose schemas do not unify.
#[derive(Default)]
struct FileGroups {
    groups: Vec<FileGroup>,
    /// Number of files without a group.
    others: usize,
}

impl FileGroups {
    fn add(&mut self, file: &str, columns: &Schema) {
        for group in &mut self.groups {
            if group.schema.add(columns).is_ok() {
                group.files += 1;
                return;
            }
        }
        let mut schema = UnifiedSchema::default();
        if self.groups.len() < MAX_GROUPS && schema.add(columns).is_ok() {
            self.groups.push(FileGroup {
                schema,
                first: file.to_owned(),
                files: 1,
            });
        } else {
            self.others += 1;
        }
    }

    /// The columns of the group with the most files, the first of several, and a sentence about
    /// the files of the other groups.
    fn largest(mut self) -> Option<(Vec<FieldRef>, Option<String>)> {
        let most = self.groups.iter().map(|group| group.files).max()?;
        let at = self.groups.iter().position(|group| group.files == most)?;
        let largest = self.groups.remove(at).schema;
        let describe = |group: &FileGroup| {
            let fields = group.schema.fields().to_vec();
            let conflict = largest.clone().add(&Schema::new(fields)).err();
            let reason = conflict
                .map(|conflict| conflict.to_string())
                .unwrap_or_default();
            let like_it = match group.files - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            format!("{}{like_it}: {reason}", group.first)
        };
        let named: Vec<String> = self.groups.iter().take(NAMED).map(describe).collect();
        let rest = self.groups.iter().skip(NAMED).map(|group| group.files);
        let more = match rest.sum::<usize>() + self.others {
            0 => String::new(),
            more => format!("; {more} more files differ"),
        };
        let note = (!named.is_empty()).then(|| {
            format!(
                "rejects the records of files that differ from most files: {}{more}; correct \
                 them, or read them with a separate source",
                named.join("; ")
            )
        });
        Some((largest.fields().to_vec(), note))
    }
}

/// The reasons why files are skipped at planning.
#[derive(Default)]
pub(crate) struct SkippedInputs {
    unavailable: Option<UnavailableInput>,
    /// The reasons of the first files that do not fit.
    unfit: Vec<String>,
    /// Number of files that do not fit.
    unfit_files: usize,
}

impl SkippedInputs {
    /// Adds the reason why a file is skipped.
    ///
    /// # Errors
    /// An error of the process, or one that ends the run.
    pub(crate) fn add(&mut self, end: ReadEnd) -> Result<(), StageError> {
        match end {
            ReadEnd::Unavailable(error) if error.class == ErrorClass::Process => {
                return Err(error.into());
            }
            ReadEnd::Unavailable(error) => {
                self.unavailable.get_or_insert(error);
            }
            ReadEnd::Rejected(refusal, _) => {
                self.unfit_files += 1;
                if self.unfit.len() < NAMED {
                    self.unfit.push(refusal.reason);
                }
            }
            ReadEnd::Failed(error) => return Err(error),
            ReadEnd::Cancelled => {}
        }
        Ok(())
    }

    /// Logs a file that is unavailable, if other files have columns.
    pub(crate) fn warn(&self) {
        if let Some(unavailable) = &self.unavailable {
            tracing::warn!(
                error = %unavailable,
                "cannot read a file; the columns are inferred from the other files"
            );
        }
    }

    /// Sentences for the user about files that are rejected.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self
            .unfit
            .iter()
            .map(|reason| format!("{reason}; the records of the file are rejected"))
            .collect();
        if self.unfit_files > NAMED {
            let more = self.unfit_files - NAMED;
            notes.push(format!("the records of {more} further files are rejected"));
        }
        notes
    }

    /// The error if no file has columns.
    pub(crate) fn into_error(self) -> StageError {
        match (self.unavailable, self.unfit.into_iter().next()) {
            (Some(unavailable), _) => unavailable.into(),
            (None, Some(reason)) => StageError::new(
                ErrorCode::InputInvalid,
                format!("no file can be read; {reason}"),
            ),
            (None, None) => StageError::new(
                ErrorCode::InputEmpty,
                "every file is empty; expected records, from which the columns are inferred"
                    .to_owned(),
            ),
        }
    }
}

/// Returns the first result of `infer`, which returns `None` for an empty file. Files that are
/// unavailable or do not fit are skipped here; the run later leaves them unread or rejects them.
///
/// # Errors
/// An error of the process. If no file has a result: the error of the first unavailable file,
/// otherwise the reason of the first file that does not fit, otherwise that all files are empty.
pub(crate) fn first<T>(
    files: &[InputFile],
    infer: impl Fn(&InputFile, FileReader) -> Result<Option<T>, ReadEnd>,
) -> Result<T, StageError> {
    let mut outcomes = SkippedInputs::default();
    for file in files {
        let opened = file.reopen().map_err(file.stopped());
        match opened.and_then(|input| infer(file, input)) {
            Ok(None) => {}
            Ok(Some(found)) => {
                outcomes.warn();
                return Ok(found);
            }
            Err(end) => outcomes.add(end)?,
        }
    }
    Err(outcomes.into_error())
}

#[cfg(test)]
mod tests;
