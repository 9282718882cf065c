//! The raw values of feature columns row by row, and the rows that the rules of the columns refuse.

use arrow::array::RecordBatch;

use super::feature_column::{FeatureColumn, FeatureValues};
use super::rows::{RejectReason, RejectedRows};
use crate::batch::reject::RejectCode;
use crate::error::StageError;

/// Returns the raw values of all columns, row by row, from rows that passed
/// [`FeatureColumn::check`]. Missing values are NaN.
pub(super) fn raw_vectors<T: Copy + Default>(
    columns: &[FeatureColumn],
    width: usize,
    records: &RecordBatch,
    convert: impl Fn(f64) -> T,
) -> Result<Vec<T>, StageError> {
    let mut vectors = vec![T::default(); records.num_rows() * width];
    for column in columns {
        let values = column.values(records.column(column.index))?;
        let mut values: Box<dyn Iterator<Item = f64>> = match &values {
            FeatureValues::Float32(values) => Box::new(values.iter().copied().map(f64::from)),
            FeatureValues::Float64(values) => Box::new(values.iter().copied()),
        };
        for vector in vectors.chunks_exact_mut(width) {
            let positions = &mut vector[column.start..column.start + column.len];
            positions
                .iter_mut()
                .zip(&mut values)
                .for_each(|(position, value)| *position = convert(value));
        }
    }
    Ok(vectors)
}

/// Rejects the vectors with a value that the rule of its column does not accept: infinity, NaN
/// without imputation, and a number that `log1p` is not defined for.
pub(super) fn unacceptable<T: Copy + Into<f64>>(
    columns: &[FeatureColumn],
    width: usize,
    vectors: &[T],
) -> RejectedRows {
    let mut rejected = RejectedRows::default();
    for (row, vector) in vectors.chunks_exact(width).enumerate() {
        let mut reasons = columns.iter().filter_map(|column| {
            let values = &vector[column.start..column.start + column.len];
            let values = values.iter().map(|&value| value.into());
            values
                .enumerate()
                .find_map(|(index, value)| refusal(column, index, value))
        });
        if let Some(reason) = reasons.next() {
            rejected.add(row, reason);
        }
    }
    rejected
}

fn refusal(column: &FeatureColumn, index: usize, value: f64) -> Option<RejectReason> {
    let name = &column.name;
    let is_accepted = value.is_finite() || (value.is_nan() && column.raw.is_imputed);
    if !is_accepted {
        return Some(not_finite(name, column.start + index, value));
    }
    (column.raw.is_above_minus_one && value <= -1.0).then(|| {
        let reason = format!(
            "`{name}` is {value}, but log1p requires a value above -1; clip it with `clip_min`"
        );
        (RejectCode::NotFinite, reason)
    })
}

/// The reason of a vector whose value `index`, which is of the column `name`, is not finite.
pub(super) fn not_finite(name: &str, index: usize, value: f64) -> RejectReason {
    let reason =
        format!("`{name}` is not a finite number (value {index} of the vector is {value})");
    (RejectCode::NotFinite, reason)
}
