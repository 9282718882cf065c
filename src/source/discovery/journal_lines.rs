//! The lines of the journals of listings.

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::source::discovery::listed_file::ListedFile;
use crate::storage::Location;

/// Parses the lines of a journal.
///
/// # Errors
/// The first invalid line.
pub(crate) fn parse(file: &Location, text: &[u8]) -> Result<Vec<ListedFile>, StageError> {
    let lines = text
        .split(|&byte| byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty());
    let files = lines.map(|(number, line)| {
        serde_json::from_slice(line).map_err(|error| {
            StageError::new(ErrorCode::StateCorrupt, format!(
                "{file}:{}: invalid journal entry: {error}; restore the file, or delete the output \
                 and the state with `latentflow reset`",
                number + 1
            ))
        })
    });
    files.collect()
}
