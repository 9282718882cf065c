//! The values of feature columns as one vector column without scaling, as training data is stored.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float32Type, Float64Type, Schema, SchemaRef,
};

use super::feature_column::FeatureColumn;
use super::raw_vectors::{raw_vectors, unacceptable};
use super::rows::{RejectedRows, append};
use super::{Transform, TransformPlan};
use crate::batch::Batch;
use crate::batch::reject::RejectCollector;
use crate::error::StageError;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::model::input::rules::FeatureRule;
use crate::model::input::rules::index::RuleIndex;
use crate::transform::features::columns::resolve;

/// Plans a transform that appends the column `to` with the values of `columns`, in float64 or in
/// float32. It rejects the same records as the transform `features` with these rules. A category has
/// its word number, a time its seconds since 1970, and a missing value NaN, if the rules accept it.
/// `list_lengths` has the lengths of lists whose type does not fix them, by the index of the column.
///
/// # Errors
/// All faults of the columns.
pub fn plan(
    columns: &[String],
    rules: &[FeatureRule],
    to: &str,
    element: DataType,
    input: &SchemaRef,
    list_lengths: &[(usize, i32)],
) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
    let mut faults = Vec::new();
    let sized = with_list_lengths(input, list_lengths);
    let index = RuleIndex::new(rules);
    let raw = |name: &str| index.raw(name);
    let columns = resolve(&sized, "columns", (columns, &raw), None, &mut faults);
    let columns = columns.unwrap_or_default();
    let width = columns.iter().map(|column| column.len).sum::<usize>();
    // The columns are checked to have at most `i32::MAX` values.
    let len = i32::try_from(width).unwrap_or(i32::MAX);
    let item = Arc::new(Field::new_list_field(element, false));
    let vector = Field::new(to, DataType::FixedSizeList(Arc::clone(&item), len), false);
    let schema = faults.record(append(input, "to", vector));
    match schema {
        Some(schema) if faults.is_empty() => Ok(Box::new(RawFeatures {
            columns,
            width,
            item,
            len,
            schema,
        })),
        _ => Err(faults),
    }
}

/// Whether float32 holds every value of a column of this type exactly.
pub(crate) fn is_exact_in_float32(column: &DataType) -> bool {
    match column {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            is_exact_in_float32(item.data_type())
        }
        value => matches!(
            value,
            DataType::Boolean
                | DataType::Int8
                | DataType::Int16
                | DataType::UInt8
                | DataType::UInt16
                | DataType::Float16
                | DataType::Float32
        ),
    }
}

#[derive(Clone)]
struct RawFeatures {
    columns: Vec<FeatureColumn>,
    width: usize,
    item: Arc<Field>,
    len: i32,
    schema: SchemaRef,
}

impl TransformPlan for RawFeatures {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        Ok(Box::new(self.clone()))
    }
}

impl Transform for RawFeatures {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let mut incomplete = RejectedRows::default();
        for column in &self.columns {
            column.check(batch.records.column(column.index), &mut incomplete);
        }
        let batch = incomplete.remove_from(batch, rejects)?;
        let (values, infinite) = match self.item.data_type() {
            DataType::Float32 => self.vectors::<Float32Type>(&batch.records, |value| value as f32),
            _ => self.vectors::<Float64Type>(&batch.records, |value| value),
        }?;
        let vectors = FixedSizeListArray::try_new(Arc::clone(&self.item), self.len, values, None)?;
        let columns = batch.records.columns().iter().cloned();
        let columns = columns.chain([Arc::new(vectors) as ArrayRef]).collect();
        let records = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        infinite.remove_from(batch.with_records(records), rejects)
    }
}

impl RawFeatures {
    /// Returns the values of all vectors, row by row, and the rows with a value that is not finite.
    fn vectors<T>(
        &self,
        records: &RecordBatch,
        convert: impl Fn(f64) -> T::Native,
    ) -> Result<(ArrayRef, RejectedRows), StageError>
    where
        T: ArrowPrimitiveType,
        T::Native: Into<f64>,
    {
        let vectors = raw_vectors(&self.columns, self.width, records, convert)?;
        let infinite = unacceptable(&self.columns, self.width, &vectors);
        Ok((
            Arc::new(PrimitiveArray::<T>::from_iter_values(vectors)),
            infinite,
        ))
    }
}

/// Returns a schema in which lists have the given fixed lengths.
fn with_list_lengths(schema: &Schema, lengths: &[(usize, i32)]) -> SchemaRef {
    let fields = schema.fields().iter().enumerate().map(|(index, field)| {
        let length = lengths.iter().find(|(column, _)| *column == index);
        match (field.data_type(), length) {
            (DataType::List(item) | DataType::LargeList(item), Some((_, length))) => {
                let fixed = DataType::FixedSizeList(Arc::clone(item), *length);
                Arc::new(field.as_ref().clone().with_data_type(fixed))
            }
            _ => Arc::clone(field),
        }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
