//! Columns of encoded images.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

/// Whether a column of this type may hold encoded images.
pub(crate) fn holds_encoded_images(kind: &DataType) -> bool {
    matches!(kind, DataType::Binary | DataType::LargeBinary)
}

/// Returns the bytes of an encoded image; `None` if the row is null.
pub(crate) fn encoded_image(column: &ArrayRef, row: usize) -> Option<&[u8]> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Binary => Some(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Some(column.as_binary::<i64>().value(row)),
        _ => None,
    }
}
