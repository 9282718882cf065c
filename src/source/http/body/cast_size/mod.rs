//! Computes the memory that the cast of a column allocates before the cast runs: a null,
//! dictionary, run-end or view column expands to many times its size.

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait, RunArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowNativeType, DataType, Int16Type, Int32Type, Int64Type, RunEndIndexType, UInt64Type,
};

/// Maximum number of characters of a number, a date or a boolean as text.
const SCALAR_TEXT: u64 = 96;

/// An upper bound of the bytes that the cast of `column` to `target` allocates.
///
/// # Errors
/// Returns a sentence for a type that cannot be cast.
pub(in crate::source) fn cast_size(column: &dyn Array, target: &DataType) -> Result<u64, String> {
    if column.data_type() == target {
        return Ok(0);
    }
    let rows = column.len() as u64;
    // An index for each repeated value, and a validity bit.
    let repeated = || rows.saturating_mul(9);
    match column.data_type() {
        DataType::Null => Ok(plain(rows, target)),
        DataType::Dictionary(_, values) => {
            flat(values, target)?;
            let dictionary = column.as_any_dictionary();
            let values_size = cast_size(dictionary.values().as_ref(), target)?;
            Ok(sum([
                repeated(),
                values_size,
                repeated_text(column, target)?,
                plain(rows, target),
            ]))
        }
        DataType::RunEndEncoded(_, values) => {
            flat(values.data_type(), target)?;
            let values_size = cast_size(run_values(column)?.as_ref(), target)?;
            Ok(sum([
                repeated(),
                values_size,
                repeated_text(column, target)?,
                plain(rows, target),
            ]))
        }
        _ => match target {
            DataType::List(item) => list_size(column, item.data_type()),
            DataType::Utf8 | DataType::Binary => {
                Ok(plain(rows, target).saturating_add(text_bytes(column)?))
            }
            _ => scalar(column.data_type()).map(|()| plain(rows, target)),
        },
    }
}

fn sum<const N: usize>(bytes: [u64; N]) -> u64 {
    bytes.into_iter().fold(0, u64::saturating_add)
}

/// Bytes of `rows` values, excluding the contents of text and lists.
fn plain(rows: u64, target: &DataType) -> u64 {
    let width = target.primitive_width().map_or(4, |width| width as u64);
    rows.saturating_mul(width).saturating_add(rows / 8 + 64)
}

fn unsupported(data_type: &DataType) -> String {
    format!("{data_type} cannot be cast")
}

/// Checks that a repeated value is one number or one text.
fn flat(values: &DataType, target: &DataType) -> Result<(), String> {
    match target {
        DataType::List(_) => Err(unsupported(values)),
        _ => scalar(values),
    }
}

fn scalar(data_type: &DataType) -> Result<(), String> {
    use DataType::{
        Binary, BinaryView, Boolean, FixedSizeBinary, LargeBinary, LargeUtf8, Null, Utf8, Utf8View,
    };
    match data_type {
        Null | Boolean | Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView
        | FixedSizeBinary(_) => Ok(()),
        other if other.is_primitive() => Ok(()),
        other => Err(unsupported(other)),
    }
}

/// Bytes of the text of a column without repeated values.
fn text_bytes(column: &dyn Array) -> Result<u64, String> {
    let spanned = |first: Option<u64>, last: Option<u64>| {
        last.unwrap_or(0).saturating_sub(first.unwrap_or(0))
    };
    fn ends<O: OffsetSizeTrait>(offsets: &[O]) -> (Option<u64>, Option<u64>) {
        (
            offsets.first().map(|offset| offset.as_usize() as u64),
            offsets.last().map(|offset| offset.as_usize() as u64),
        )
    }
    let ((first, last), rows) = match column.data_type() {
        DataType::Utf8 => (ends(column.as_string::<i32>().value_offsets()), 0),
        DataType::LargeUtf8 => (ends(column.as_string::<i64>().value_offsets()), 0),
        DataType::Binary => (ends(column.as_binary::<i32>().value_offsets()), 0),
        DataType::LargeBinary => (ends(column.as_binary::<i64>().value_offsets()), 0),
        // All views may refer to the same bytes.
        DataType::Utf8View => return Ok(column.as_string_view().lengths().map(u64::from).sum()),
        DataType::BinaryView => return Ok(column.as_binary_view().lengths().map(u64::from).sum()),
        DataType::FixedSizeBinary(width) => ((None, None), u64::try_from(*width).unwrap_or(0)),
        other => {
            scalar(other)?;
            ((None, None), SCALAR_TEXT)
        }
    };
    Ok(spanned(first, last).saturating_add(rows.saturating_mul(column.len() as u64)))
}

/// Bytes of text with repeated values; 0 if the target is not text.
fn repeated_text(column: &dyn Array, target: &DataType) -> Result<u64, String> {
    if !matches!(target, DataType::Utf8 | DataType::Binary) {
        return Ok(0);
    }
    match column.data_type() {
        DataType::Dictionary(_, _) => {
            let dictionary = column.as_any_dictionary();
            let lengths = lengths(dictionary.values())?;
            let keys = dictionary.keys();
            // Keys have at most 8 bytes each, in every integer type.
            let keys = cast(keys, &DataType::UInt64).map_err(|error| error.to_string())?;
            let keys = keys.as_primitive::<UInt64Type>();
            let of = |key: u64| {
                usize::try_from(key)
                    .ok()
                    .and_then(|key| lengths.get(key))
                    .copied()
                    .unwrap_or(0)
            };
            Ok(keys.iter().flatten().map(of).fold(0, u64::saturating_add))
        }
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => run_text::<Int16Type>(column),
            DataType::Int32 => run_text::<Int32Type>(column),
            _ => run_text::<Int64Type>(column),
        },
        other => Err(unsupported(other)),
    }
}

fn run_text<R: RunEndIndexType>(column: &dyn Array) -> Result<u64, String> {
    let runs = column
        .as_any()
        .downcast_ref::<RunArray<R>>()
        .ok_or_else(|| unsupported(column.data_type()))?;
    let (mut start, mut bytes) = (0, 0_u64);
    for (end, length) in runs.run_ends().values().iter().zip(lengths(runs.values())?) {
        // The last run may extend beyond the column.
        let end = end.as_usize().min(column.len()) as u64;
        bytes = bytes.saturating_add(end.saturating_sub(start).saturating_mul(length));
        start = end;
    }
    Ok(bytes)
}

fn run_values(column: &dyn Array) -> Result<&ArrayRef, String> {
    let wrong = || unsupported(column.data_type());
    let DataType::RunEndEncoded(ends, _) = column.data_type() else {
        return Err(wrong());
    };
    let any = column.as_any();
    let values = match ends.data_type() {
        DataType::Int16 => any
            .downcast_ref::<RunArray<Int16Type>>()
            .map(RunArray::values),
        DataType::Int32 => any
            .downcast_ref::<RunArray<Int32Type>>()
            .map(RunArray::values),
        _ => any
            .downcast_ref::<RunArray<Int64Type>>()
            .map(RunArray::values),
    };
    values.ok_or_else(wrong)
}

/// Bytes of each value as text.
fn lengths(values: &ArrayRef) -> Result<Vec<u64>, String> {
    (0..values.len())
        .map(|row| text_bytes(values.slice(row, 1).as_ref()))
        .collect()
}

/// Lists are cast with all of their values, including values outside of every list.
fn list_size(column: &dyn Array, item: &DataType) -> Result<u64, String> {
    let offsets = plain(column.len() as u64, &DataType::Int32);
    let values = match column.data_type() {
        DataType::List(_) => cast_size(column.as_list::<i32>().values().as_ref(), item)?,
        DataType::LargeList(_) => cast_size(column.as_list::<i64>().values().as_ref(), item)?,
        DataType::FixedSizeList(_, _) => {
            cast_size(column.as_fixed_size_list().values().as_ref(), item)?
        }
        other => {
            scalar(other)?;
            cast_size(column, item)?
        }
    };
    Ok(offsets.saturating_add(values))
}

#[cfg(test)]
mod tests;
