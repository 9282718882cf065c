//! Serialization of values to JSON and NDJSON.

use serde::Serialize;

use crate::error::StageError;
use crate::error::code::ErrorCode;

/// A value as one JSON document.
///
/// # Errors
/// Returns an error if the value cannot be represented, such as a table with keys that are not
/// text.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, StageError> {
    serde_json::to_vec(value).map_err(|error| {
        StageError::new(ErrorCode::Internal, format!("cannot write JSON: {error}"))
    })
}

/// Values as NDJSON: one line of JSON each.
///
/// # Errors
/// Those of [`to_json`].
pub(crate) fn to_json_lines<'a, T: Serialize + 'a>(
    values: impl IntoIterator<Item = &'a T>,
) -> Result<Vec<u8>, StageError> {
    let mut text = Vec::new();
    for value in values {
        text.extend(to_json(value)?);
        text.push(b'\n');
    }
    Ok(text)
}
