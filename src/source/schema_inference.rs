//! Finds the file from which the columns of a source are inferred.

use crate::error::{ErrorClass, StageError};
use crate::source::file_source::ReadEnd;
use crate::source::input_file::InputFile;
use crate::storage::FileReader;

/// Returns the first result of `infer`, which returns `None` for an empty file. Files that are
/// unavailable or do not fit are skipped here; the run later leaves them unread or rejects them.
///
/// # Errors
/// An error of the process. If no file has a result: the error of the first unavailable file,
/// otherwise the reason of the first file that does not fit, otherwise that all files are empty.
pub(super) fn first<T>(
    files: &[InputFile],
    infer: impl Fn(&InputFile, FileReader) -> Result<Option<T>, ReadEnd>,
) -> Result<T, StageError> {
    let (mut unavailable, mut unfit) = (None, None);
    for file in files {
        let opened = file.reopen().map_err(file.stopped());
        match opened.and_then(|input| infer(file, input)) {
            Ok(None) => {}
            Ok(Some(found)) => {
                if let Some(unavailable) = unavailable {
                    tracing::warn!(
                        error = %unavailable,
                        columns_from = %file.name,
                        "cannot read a file; the columns are inferred from a later file"
                    );
                }
                return Ok(found);
            }
            Err(ReadEnd::Unavailable(error)) if error.class == ErrorClass::Process => {
                return Err(error.into());
            }
            Err(ReadEnd::Unavailable(error)) => drop(unavailable.get_or_insert(error)),
            Err(ReadEnd::Rejected(refusal, _)) => drop(unfit.get_or_insert(refusal.reason)),
            Err(ReadEnd::Failed(error)) => return Err(error),
            Err(ReadEnd::Cancelled) => break,
        }
    }
    match (unavailable, unfit) {
        (Some(unavailable), _) => Err(unavailable.into()),
        (None, Some(reason)) => Err(StageError::Other(format!("no file can be read; {reason}"))),
        (None, None) => Err(StageError::Other(
            "every file is empty; expected records, from which the columns are inferred".to_owned(),
        )),
    }
}
