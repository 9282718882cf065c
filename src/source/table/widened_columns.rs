//! Casts the columns of a file to the wider types of the plan, and rejects the records whose values
//! do not fit.

use std::ops::Range;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;

use crate::batch::reject::{Reject, RejectCode};
use crate::column_cast::cast_column;
use crate::source::table::file_source::FileRecords;
use crate::text_excerpt::shorten;

/// Casts the columns of `records` to the types of the `planned` fields.
///
/// # Errors
/// If a type cannot be cast at all, which planning excludes.
pub(crate) fn widen_columns(
    planned: &[FieldRef],
    records: &mut FileRecords,
) -> Result<(), ArrowError> {
    let is_planned =
        |(field, column): (&FieldRef, &ArrayRef)| field.data_type() == column.data_type();
    if planned.iter().zip(&records.columns).all(is_planned) {
        return Ok(());
    }
    let rows = records.origin.len();
    let mut fits = vec![true; rows];
    for (field, column) in planned.iter().zip(&mut records.columns) {
        if field.data_type() == column.data_type() {
            continue;
        }
        if let Ok(cast) = cast_column(column, field.data_type()) {
            *column = cast;
            continue;
        }
        let mut unfit = Vec::new();
        find_unfit(column, field.data_type(), 0..rows, &mut unfit);
        for (row, error) in unfit {
            if std::mem::replace(&mut fits[row], false) {
                let reason = format!(
                    "column `{}`: {}; expected {}, as in the other files",
                    field.name(),
                    shorten(&error.to_string()),
                    field.data_type()
                );
                records.rejects.push(Reject::new(
                    records.origin[row],
                    RejectCode::Mismatch,
                    reason,
                ));
            }
        }
    }
    if fits.contains(&false) {
        records.retain(&BooleanArray::from(fits))?;
        for (field, column) in planned.iter().zip(&mut records.columns) {
            *column = cast_column(column, field.data_type())?;
        }
    }
    Ok(())
}

/// Finds the rows whose value cannot be cast: casts the rows together, or each half of them after
/// an error.
fn find_unfit(
    column: &ArrayRef,
    to: &DataType,
    rows: Range<usize>,
    unfit: &mut Vec<(usize, ArrowError)>,
) {
    let Err(error) = cast_column(&column.slice(rows.start, rows.len()), to) else {
        return;
    };
    if rows.len() <= 1 {
        return unfit.push((rows.start, error));
    }
    let middle = rows.start + rows.len() / 2;
    find_unfit(column, to, rows.start..middle, unfit);
    find_unfit(column, to, middle..rows.end, unfit);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, UInt64Array};
    use arrow::datatypes::{Field, Float64Type, Int64Type};

    use super::*;

    #[test]
    fn records_whose_values_do_not_fit_are_rejects() {
        let narrow_x: Vec<i64> = (0..100)
            .map(|row| if row % 40 == 7 { i64::MAX - row } else { row })
            .collect();
        let narrow_y: Vec<u64> = (0..100)
            .map(|row| {
                if row == 47 || row == 50 {
                    u64::MAX
                } else {
                    row
                }
            })
            .collect();
        let mut records = FileRecords {
            columns: vec![
                Arc::new(Int64Array::from(narrow_x)),
                Arc::new(UInt64Array::from(narrow_y)),
            ],
            origin: (100..200).collect(),
            ..FileRecords::default()
        };
        let planned = [
            Arc::new(Field::new("x", DataType::Float64, true)),
            Arc::new(Field::new("y", DataType::Int64, true)),
        ];
        widen_columns(&planned, &mut records).unwrap();
        let rejected: Vec<u32> = records
            .rejects
            .iter()
            .map(|reject| reject.ordinal)
            .collect();
        assert_eq!(rejected, [107, 147, 150, 187]);
        let reason = &records.rejects[0].reason;
        assert!(
            reason.starts_with("column `x`: ")
                && reason.ends_with("; expected Float64, as in the other files"),
            "{reason}"
        );
        assert_eq!(records.origin.len(), 96);
        let x = records.columns[0].as_primitive::<Float64Type>().values();
        let y = records.columns[1].as_primitive::<Int64Type>().values();
        assert_eq!((x[7], y[7]), (8.0, 8));
    }
}
