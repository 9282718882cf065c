//! Finds the file that gives a plan the columns of a source.

use crate::error::{ErrorClass, StageError};
use crate::source::file_source::ReadEnd;
use crate::source::input_file::InputFile;
use crate::storage::FileReader;

/// Returns the first result of `look`; `None` from `look` stands for an empty file. Files that are
/// unavailable or do not fit are passed over: when their turn comes, the run leaves them undone or
/// rejects them.
///
/// # Errors
/// An error of the whole process. Without any result: the error of the first unavailable file, else
/// the reason of the first that does not fit, else that all files are empty.
pub(super) fn first<T>(
    files: &[InputFile],
    look: impl Fn(&InputFile, FileReader) -> Result<Option<T>, ReadEnd>,
) -> Result<T, StageError> {
    let (mut unavailable, mut unfit) = (None, None);
    for file in files {
        let opened = file.reopen().map_err(file.stopped());
        match opened.and_then(|input| look(file, input)) {
            Ok(None) => {}
            Ok(Some(found)) => {
                if let Some(unavailable) = unavailable {
                    tracing::warn!(
                        "{unavailable}; the columns are those of {} instead",
                        file.name
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
            "every file is empty; expected records, to know the columns by".to_owned(),
        )),
    }
}
