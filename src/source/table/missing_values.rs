//! Rejects records without a value in a column that is not nullable in the plan: a later file may
//! allow nulls in a column in which the first file does not.

use arrow::array::{Array, BooleanArray};
use arrow::datatypes::FieldRef;
use arrow::error::ArrowError;

use crate::batch::reject::{Reject, RejectCode};
use crate::source::table::file_source::FileRecords;

/// Converts records that lack a required value into rejects; `planned` holds the fields of the
/// columns of `records`.
///
/// # Errors
/// An error of Arrow's filter kernel, which does not occur for valid columns.
pub(crate) fn reject_missing(
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
                "column `{}` has no value, but the files declare it without nulls",
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
    records.retain(&BooleanArray::from(is_complete))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type};

    use super::*;

    #[test]
    fn null_in_a_column_planned_without_nulls_is_a_reject() {
        let planned = [Arc::new(Field::new("n", DataType::Int64, false))];
        let mut records = FileRecords {
            columns: vec![Arc::new(Int64Array::from(vec![
                Some(3),
                None,
                Some(5),
                None,
            ]))],
            origin: vec![0, 1, 2, 3],
            ..FileRecords::default()
        };
        reject_missing(&planned, &mut records).unwrap();
        assert_eq!(
            records.columns[0].as_primitive::<Int64Type>().values(),
            &[3, 5]
        );
        assert_eq!(records.origin, [0, 2]);
        let rejected: Vec<_> = records
            .rejects
            .iter()
            .map(|reject| (reject.ordinal, reject.code.as_str()))
            .collect();
        assert_eq!(rejected, [(1, "missing"), (3, "missing")]);
    }
}
