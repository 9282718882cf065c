//! Rejects records without a value in a column that has no nulls in the plan: a later file may
//! allow nulls where the first does not.

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::filter;
use arrow::datatypes::FieldRef;
use arrow::error::ArrowError;

use crate::batch::{Reject, RejectCode};
use crate::source::file_source::FileRecords;

/// Turns such records into rejects; `planned` holds the fields of the records' columns.
///
/// # Errors
/// None that is to be expected.
pub(super) fn reject_missing(
    planned: &[FieldRef],
    records: &mut FileRecords,
) -> Result<(), ArrowError> {
    let mut is_whole = vec![true; records.origin.len()];
    for (field, column) in planned
        .iter()
        .zip(&records.columns)
        .filter(|(field, _)| !field.is_nullable())
    {
        let Some(nulls) = column.nulls() else {
            continue;
        };
        let lacking = is_whole
            .iter_mut()
            .enumerate()
            .filter(|(place, is_whole)| **is_whole && nulls.is_null(*place));
        for (place, is_whole) in lacking {
            *is_whole = false;
            let reason = format!(
                "column `{}` has no value; the first file declares that it has no nulls",
                field.name()
            );
            records.rejects.push(Reject::new(
                records.origin[place],
                RejectCode::Missing,
                reason,
            ));
        }
    }
    if is_whole.iter().all(|&is_whole| is_whole) {
        return Ok(());
    }
    let kept = BooleanArray::from(is_whole);
    let keep = |column: &ArrayRef| filter(column, &kept);
    records.columns = records.columns.iter().map(keep).collect::<Result<_, _>>()?;
    records.sources = records.sources.as_ref().map(keep).transpose()?;
    let mut places = kept.values().iter();
    records.origin.retain(|_| places.next().unwrap_or(true));
    records.rejects.sort_by_key(|reject| reject.ordinal);
    Ok(())
}
