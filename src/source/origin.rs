//! The origin of records: the columns with the input and the row of each record.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::columns::{ROW, SOURCE};
use crate::error::StageError;

/// The first fields of the schema of every source.
pub fn origin_fields() -> [Field; 2] {
    [
        Field::new(SOURCE, DataType::Utf8, false),
        Field::new(ROW, DataType::UInt64, false),
    ]
}

/// The schema of a source whose records have these columns. A column `source` or `row` of the input
/// keeps its place and replaces the origin column of the same name.
pub fn with_origin(fields: &Schema) -> SchemaRef {
    let origin = origin_fields()
        .into_iter()
        .filter(|field| fields.column_with_name(field.name()).is_none());
    let fields: Vec<Arc<Field>> = origin
        .map(Arc::new)
        .chain(fields.fields().iter().cloned())
        .collect();
    Arc::new(Schema::new(fields))
}

/// Creates a batch with a schema of [`with_origin`]: adds `source` and `row` before the columns of
/// the records.
///
/// # Errors
/// If the columns do not match the schema.
pub fn add_origin(
    schema: &SchemaRef,
    source: &str,
    rows: impl Iterator<Item = u64>,
    columns: &[ArrayRef],
) -> Result<RecordBatch, StageError> {
    let row: ArrayRef = Arc::new(UInt64Array::from_iter_values(rows));
    let source: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
        source,
        row.len(),
    )));
    let added = schema.fields().len() - columns.len();
    let origin = [(SOURCE, source), (ROW, row)];
    let origin = origin
        .into_iter()
        .filter(|(name, _)| schema.fields().iter().take(added).any(|f| f.name() == name));
    let columns = origin
        .map(|(_, column)| column)
        .chain(columns.iter().cloned())
        .collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
