//! The Arrow types that Parquet files store. A type that Parquet or its readers do not support is
//! converted to one that pyarrow, pandas, Polars and DuckDB read with the same values.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

use crate::column_cast::cast_column;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::nested_types::find_type;
use crate::tensor::FIXED_SHAPE_TENSOR;

/// The schema in which columns of `schema` are stored.
///
/// - Dictionaries and runs are stored as plain values: readers decode a dictionary with the key
///   type of the schema, which cannot distinguish the values of several row groups or files.
/// - List views, and lists of the fixed size 0, are stored as lists: the readers support no others.
/// - Views of text and bytes inside other types are stored as text and bytes: pandas supports no
///   lists of views.
/// - Seconds are stored as milliseconds, since Parquet has no logical type for them.
/// - `date64` is stored as `date32`, the logical type of dates.
/// - The values of a `fixed_shape_tensor` are optional, as pyarrow requires.
pub(crate) fn stored_schema(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema
        .fields()
        .iter()
        .map(|field| stored_field(field, false))
        .collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn stored_field(field: &FieldRef, is_nested: bool) -> FieldRef {
    let mut data_type = stored_type(field.data_type(), is_nested);
    if let (Some(FIXED_SHAPE_TENSOR), DataType::FixedSizeList(item, _)) =
        (field.extension_type_name(), &mut data_type)
    {
        *item = Arc::new(Field::clone(item).with_nullable(true));
    }
    // PyArrow does not read a required list of fixed size in a struct that may be null.
    let is_fixed_list = is_nested && matches!(data_type, DataType::FixedSizeList(..));
    if let (true, DataType::FixedSizeList(item, _)) = (is_nested, &mut data_type) {
        *item = Arc::new(Field::clone(item).with_nullable(true));
    }
    let is_nullable = field.is_nullable()
        || is_fixed_list
        || matches!(field.data_type(), DataType::RunEndEncoded(_, value) if value.is_nullable());
    if &data_type == field.data_type() && is_nullable == field.is_nullable() {
        return Arc::clone(field);
    }
    Arc::new(
        Field::clone(field)
            .with_data_type(data_type)
            .with_nullable(is_nullable),
    )
}

fn stored_type(data_type: &DataType, is_nested: bool) -> DataType {
    let child = |field: &FieldRef| stored_field(field, true);
    match data_type {
        DataType::Dictionary(_, value) => stored_type(value, is_nested),
        DataType::RunEndEncoded(_, value) => stored_type(value.data_type(), is_nested),
        DataType::List(item) | DataType::ListView(item) => DataType::List(child(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => {
            DataType::LargeList(child(item))
        }
        DataType::FixedSizeList(item, 0) => DataType::List(child(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(child(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(child).collect()),
        DataType::Map(entries, is_sorted) => DataType::Map(child(entries), *is_sorted),
        DataType::Utf8View if is_nested => DataType::Utf8,
        DataType::BinaryView if is_nested => DataType::Binary,
        DataType::Timestamp(TimeUnit::Second, zone) => {
            DataType::Timestamp(TimeUnit::Millisecond, zone.clone())
        }
        DataType::Time32(TimeUnit::Second) => DataType::Time32(TimeUnit::Millisecond),
        DataType::Date64 => DataType::Date32,
        other => other.clone(),
    }
}

/// Whether the conversion of a column fails for some of its values. A dictionary may have null
/// among its values, although its column is not nullable.
pub(crate) fn can_fail(data_type: &DataType) -> bool {
    let is_checked = |inner: &DataType| {
        matches!(
            inner,
            DataType::Dictionary(..)
                | DataType::RunEndEncoded(..)
                | DataType::Timestamp(TimeUnit::Second, _)
                | DataType::Time32(TimeUnit::Second)
                | DataType::Date64
        )
    };
    find_type(data_type, &is_checked).is_some()
}

/// Converts records to `schema`, the [`stored_schema`] of their own schema.
///
/// # Errors
/// If a value cannot be stored. The message contains the name of the column.
pub(crate) fn store(records: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, StageError> {
    let fields = schema.fields().iter().zip(records.columns());
    let columns = fields
        .map(|(field, column)| {
            cast_column(column, field.data_type()).map_err(|error| {
                StageError::new(
                    ErrorCode::OutputUnwritable,
                    format!("column `{}`: {error}", field.name()),
                )
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
