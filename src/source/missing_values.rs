//! Rejects records without a value in a column that is not nullable in the plan: a later file may
//! allow nulls in a column in which the first file does not.

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::filter;
use arrow::datatypes::FieldRef;
use arrow::error::ArrowError;

use crate::batch::{Reject, RejectCode};
use crate::source::file_source::FileRecords;

/// Converts records that lack a required value into rejects; `planned` holds the fields of the
/// columns of `records`.
///
/// # Errors
/// An error of Arrow's filter kernel, which does not occur for valid columns.
pub(super) fn reject_missing(
    planned: &[FieldRef],
    records: &mut FileRecords,
) -> Result<(), ArrowError> {
    let mut is_complete = vec![true; records.origin.len()];
    for (field, column) in planned
        .iter()
        .zip(&records.columns)
        .filter(|(field, _)| !field.is_nullable())
    {
        let Some(nulls) = column.nulls() else {
            continue;
        };
        let incomplete = is_complete
            .iter_mut()
            .enumerate()
            .filter(|(index, is_complete)| **is_complete && nulls.is_null(*index));
        for (index, flag) in incomplete {
            *flag = false;
            let reason = format!(
                "column `{}` has no value, but the first file declares it without nulls",
                field.name()
            );
            records.rejects.push(Reject::new(
                records.origin[index],
                RejectCode::Missing,
                reason,
            ));
        }
    }
    if is_complete.iter().all(|&is_complete| is_complete) {
        return Ok(());
    }
    let kept = BooleanArray::from(is_complete);
    let keep = |column: &ArrayRef| filter(column, &kept);
    records.columns = records.columns.iter().map(keep).collect::<Result<_, _>>()?;
    records.sources = records.sources.as_ref().map(keep).transpose()?;
    let mut flags = kept.values().iter();
    records.origin.retain(|_| flags.next().unwrap_or(true));
    records.rejects.sort_by_key(|reject| reject.ordinal);
    Ok(())
}
