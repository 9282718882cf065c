//! A numeric column of a feature vector: the check of its rows, and the scaling of its values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type};

use super::raw_values::{numbers_or_missing, seconds, word_numbers};
use super::rows::{RejectReason, RejectedRows};
use crate::batch::reject::RejectCode;
use crate::error::StageError;
use crate::model::FeatureScale;
use crate::model::input::rules::{RawType, RawValue};
use crate::system::simd_dispatch;

/// The number of vectors that are filled together, column by column. They stay in the cache between
/// two columns.
pub(super) const BLOCK: usize = 32;

/// A column that is a part of the vector.
#[derive(Debug, Clone)]
pub(super) struct FeatureColumn {
    pub(super) name: String,
    /// The index of the column in the input.
    pub(super) index: usize,
    /// The index of the first value of the column in the vector.
    pub(super) start: usize,
    /// The number of values of the column in the vector.
    pub(super) len: usize,
    /// Whether the rows of the column are lists.
    pub(super) list: bool,
    /// The values that the rule of the column accepts.
    pub(super) raw: RawValue,
}

impl FeatureColumn {
    /// Rejects the rows that are null or contain a null, if nulls are not imputed, and the rows that
    /// are lists of another length.
    pub(super) fn check(&self, column: &ArrayRef, rejected: &mut RejectedRows) {
        let has_nulls =
            !self.raw.is_imputed && (column.null_count() > 0 || (self.list && item_nulls(column)));
        let same_length = matches!(column.data_type(), DataType::FixedSizeList(..)) || !self.list;
        if !has_nulls && same_length {
            return;
        }
        for row in 0..column.len() {
            if let Some(reason) = self.reject_reason(column, row) {
                rejected.add(row, reason);
            }
        }
    }

    fn reject_reason(&self, column: &ArrayRef, row: usize) -> Option<RejectReason> {
        if column.is_null(row) {
            let reason = || (RejectCode::Missing, format!("`{}` is null", self.name));
            return (!self.raw.is_imputed).then(reason);
        }
        let list = self.list.then(|| list_value(column, row)).flatten()?;
        if list.len() != self.len {
            let reason = format!(
                "`{}` has {} values, not {}",
                self.name,
                list.len(),
                self.len
            );
            return Some((RejectCode::Mismatch, reason));
        }
        (list.null_count() > 0 && !self.raw.is_imputed)
            .then(|| (RejectCode::Missing, format!("`{}` holds a null", self.name)))
    }

    /// The values, `len` per row. All rows must have passed [`FeatureColumn::check`].
    pub(super) fn values(&self, column: &ArrayRef) -> Result<FeatureValues, StageError> {
        let own = match self.raw.kind {
            RawType::Word => Some(word_numbers(column)?),
            RawType::Time => Some(seconds(column)?),
            RawType::Number => None,
        };
        if let Some(own) = own {
            return Ok(FeatureValues::Float64(own.into()));
        }
        let values = if self.list {
            let fixed = column
                .as_fixed_size_list_opt()
                .filter(|list| list.value_type() == DataType::Float32);
            match fixed {
                Some(list) => Arc::clone(list.values()),
                None => {
                    let item = Arc::new(Field::new_list_field(DataType::Float64, true));
                    // The plan limits the length to the range of `i32`.
                    let len = i32::try_from(self.len).unwrap_or(i32::MAX);
                    let lists = cast(column, &DataType::FixedSizeList(item, len))?;
                    Arc::clone(lists.as_fixed_size_list().values())
                }
            }
        } else {
            Arc::clone(column)
        };
        if self.raw.is_imputed {
            let numbers = numbers_or_missing(column, &values, self.len)?;
            return Ok(FeatureValues::Float64(numbers.into()));
        }
        Ok(match values.as_primitive_opt::<Float32Type>() {
            Some(values) => FeatureValues::Float32(values.values().clone()),
            None => FeatureValues::Float64(
                cast(&values, &DataType::Float64)?
                    .as_primitive::<Float64Type>()
                    .values()
                    .clone(),
            ),
        })
    }

    /// Scales all rows of a column that makes up the complete vector, as [`FeatureColumn::write`]
    /// does.
    pub(super) fn scaled(&self, values: &FeatureValues, scales: &[FeatureScale]) -> Vec<f32> {
        match values {
            FeatureValues::Float32(values) => simd_dispatch(|| self.scaled_from(values, scales)),
            FeatureValues::Float64(values) => simd_dispatch(|| self.scaled_from(values, scales)),
        }
    }

    #[inline(always)]
    fn scaled_from<T: Copy + Into<f64>>(&self, values: &[T], scales: &[FeatureScale]) -> Vec<f32> {
        let mut vectors = Vec::with_capacity(values.len());
        for row in values.chunks_exact(self.len) {
            let scaled = row
                .iter()
                .zip(scales)
                .map(|(&value, scale)| scale.to_input(value.into()));
            vectors.extend(scaled);
        }
        vectors
    }

    /// Writes the scaled values of the column into the block of at most [`BLOCK`] vectors that
    /// starts at row `first`. `scales` holds the conversion of each value of the column.
    pub(super) fn write(
        &self,
        values: &FeatureValues,
        scales: &[FeatureScale],
        first: usize,
        width: usize,
        block: &mut [f32],
    ) {
        match values {
            FeatureValues::Float32(values) => {
                simd_dispatch(|| self.write_from(&values[first * self.len..], scales, width, block))
            }
            FeatureValues::Float64(values) => {
                simd_dispatch(|| self.write_from(&values[first * self.len..], scales, width, block))
            }
        }
    }

    #[inline(always)]
    fn write_from<T: Copy + Into<f64>>(
        &self,
        values: &[T],
        scales: &[FeatureScale],
        width: usize,
        block: &mut [f32],
    ) {
        if let &[scale] = scales {
            // All values are scaled in vector registers before they are written to their positions.
            let mut scaled = [0.0; BLOCK];
            scaled
                .iter_mut()
                .zip(values)
                .for_each(|(to, &value)| *to = scale.to_input(value.into()));
            let positions = block.iter_mut().skip(self.start).step_by(width);
            return positions
                .zip(scaled)
                .for_each(|(position, value)| *position = value);
        }
        let vectors = block
            .chunks_exact_mut(width)
            .map(|vector| &mut vector[self.start..self.start + self.len]);
        for (vector, row) in vectors.zip(values.chunks_exact(self.len)) {
            for ((to, &value), scale) in vector.iter_mut().zip(row).zip(scales) {
                *to = scale.to_input(value.into());
            }
        }
    }
}

/// The values of a column. Those of nulls are NaN.
pub(super) enum FeatureValues {
    Float32(ScalarBuffer<f32>),
    Float64(ScalarBuffer<f64>),
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
