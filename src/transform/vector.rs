//! A numeric column on its way into a vector: what it lacks, and its values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};

use super::columns::{Refusal, Refused};
use crate::batch::RejectCode;
use crate::error::StageError;

/// A column that goes into the vector.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    /// Its place in the input.
    pub(super) index: usize,
    /// The place of its first value in the vector.
    pub(super) start: usize,
    /// How many values it gives.
    pub(super) len: usize,
    /// Whether its rows are lists.
    pub(super) list: bool,
}

impl Column {
    /// Refuses the rows that are null, or hold a null, or are lists of another length.
    pub(super) fn check(&self, column: &ArrayRef, refused: &mut Refused) {
        let has_nulls = column.null_count() > 0 || (self.list && item_nulls(column));
        let same_length = matches!(column.data_type(), DataType::FixedSizeList(..)) || !self.list;
        if !has_nulls && same_length {
            return;
        }
        for row in 0..column.len() {
            if let Some(refusal) = self.refusal(column, row) {
                refused.add(row, refusal);
            }
        }
    }

    fn refusal(&self, column: &ArrayRef, row: usize) -> Option<Refusal> {
        if column.is_null(row) {
            return Some((RejectCode::Missing, format!("`{}` is null", self.name)));
        }
        let list = self.list.then(|| list_value(column, row)).flatten()?;
        if list.len() != self.len {
            let reason = format!("`{}` has {} values, not {}", self.name, list.len(), self.len);
            return Some((RejectCode::Mismatch, reason));
        }
        (list.null_count() > 0).then(|| (RejectCode::Missing, format!("`{}` holds a null", self.name)))
    }

    /// The values as float64, `len` a row; the rows are known to be complete.
    pub(super) fn values(&self, column: &ArrayRef) -> Result<ArrayRef, StageError> {
        if !self.list {
            return Ok(cast(column, &DataType::Float64)?);
        }
        let item = Arc::new(Field::new_list_field(DataType::Float64, true));
        // The plan bounds the length by what an `i32` holds.
        let lists = cast(column, &DataType::FixedSizeList(item, i32::try_from(self.len).unwrap_or(i32::MAX)))?;
        Ok(Arc::clone(lists.as_fixed_size_list().values()))
    }
}

/// Whether any value in a column of lists is null.
fn item_nulls(column: &ArrayRef) -> bool {
    let values = column
        .as_fixed_size_list_opt()
        .map(FixedSizeListArray::values)
        .or_else(|| column.as_list_opt::<i32>().map(|list| list.values()))
        .or_else(|| column.as_list_opt::<i64>().map(|list| list.values()));
    values.is_some_and(|values| values.null_count() > 0)
}

fn list_value(column: &ArrayRef, row: usize) -> Option<ArrayRef> {
    match column.data_type() {
        DataType::FixedSizeList(..) => Some(column.as_fixed_size_list().value(row)),
        DataType::List(_) => Some(column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Some(column.as_list::<i64>().value(row)),
        _ => None,
    }
}
