//! The schema of the next file of a dataset: the columns of its files so far, widened to those of
//! the records to write, as far as readers unify the files.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

use crate::column_cast::cast_column;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::schema_unification::{accepts, describe, unify_fields};
use crate::storage::Location;

/// The columns of the next file, and the conversion of records to them.
#[derive(Debug, Clone)]
pub(crate) struct DatasetSchema {
    schema: SchemaRef,
}

impl DatasetSchema {
    /// Unifies the columns of the latest file of a dataset with those of the records to write.
    /// Columns that the records lack are written as nulls, so that the files of a dataset have the
    /// same columns. Metadata and order are those of the dataset; new columns follow.
    ///
    /// # Errors
    /// A refusal with each column whose types readers do not unify.
    pub(crate) fn next(
        folder: &Location,
        dataset: &Schema,
        records: &Schema,
    ) -> Result<Self, StageError> {
        let (mut fields, mut refused) = (Vec::new(), String::new());
        for field in dataset.fields() {
            let Some((_, found)) = records.fields().find(field.name()) else {
                fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
                continue;
            };
            match next_field(field, found) {
                Some(next) => fields.push(next),
                None => {
                    // Writing to a string cannot fail.
                    let _ = write!(
                        refused,
                        "\n  column `{}` is {}; the dataset holds {}",
                        field.name(),
                        describe(found),
                        describe(field)
                    );
                }
            }
        }
        if !refused.is_empty() {
            return Err(StageError::new(
                ErrorCode::OutputColumns,
                format!(
                    "{folder}: readers cannot unify the records with the files of earlier runs; write \
                 to another folder, or convert the columns to the types of the dataset:{refused}"
                ),
            ));
        }
        let is_new = |field: &&FieldRef| dataset.fields().find(field.name()).is_none();
        fields.extend(records.fields().iter().filter(is_new).cloned());
        Ok(Self {
            schema: Arc::new(Schema::new(fields)),
        })
    }

    /// The columns of the next file.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns records in the columns of the file.
    ///
    /// # Errors
    /// If a value does not fit into the type of the dataset.
    pub(crate) fn convert(&self, records: &RecordBatch) -> Result<RecordBatch, StageError> {
        if records.schema_ref() == &self.schema {
            return Ok(records.clone());
        }
        let column =
            |field: &FieldRef| -> Result<ArrayRef, StageError> {
                let Some(column) = records.column_by_name(field.name()) else {
                    return Ok(new_null_array(field.data_type(), records.num_rows()));
                };
                cast_column(column, field.data_type()).map_err(|error| {
                StageError::new(ErrorCode::OutputUnwritable, format!(
                    "column `{}`: {error}; the files of earlier runs hold {}; write to another \
                     folder",
                    field.name(),
                    field.data_type()
                ))
            })
            };
        let columns = self.schema.fields().iter().map(column);
        Ok(RecordBatch::try_new(
            SchemaRef::clone(&self.schema),
            columns.collect::<Result<_, _>>()?,
        )?)
    }
}

/// The field of the next file, if readers unify it with the field of the dataset.
fn next_field(dataset: &Field, found: &Field) -> Option<FieldRef> {
    if is_view_of(dataset.data_type(), found.data_type()) {
        let nullable = dataset.is_nullable() || found.is_nullable();
        return Some(Arc::new(dataset.clone().with_nullable(nullable)));
    }
    let unified = unify_fields(dataset, found).ok()?;
    let is_same = accepts(dataset, found).is_ok();
    let is_widened = dataset.extension_type_name().is_none()
        && is_widened_by_readers(dataset.data_type(), unified.data_type());
    (is_same || is_widened).then(|| Arc::new(unified))
}

/// Whether a dataset holds views of text or bytes, and the records plain ones. PyArrow does not unify
/// them.
fn is_view_of(dataset: &DataType, found: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(
        (dataset, found),
        (Utf8View, Utf8 | LargeUtf8) | (BinaryView, Binary | LargeBinary)
    )
}

/// Whether pyarrow, Polars, DuckDB and Spark read a column whose type is `narrow` in some files and
/// `wide` in others, given the schema of the latest file. The rules follow trials with each
/// of them; Spark reads no 16-bit floats at all.
fn is_widened_by_readers(narrow: &DataType, wide: &DataType) -> bool {
    use DataType::{
        Binary, Decimal128, Dictionary, FixedSizeList, Float16, Float32, Float64, Int8, Int16,
        Int32, Int64, LargeBinary, LargeList, LargeUtf8, List, Null, Struct, Timestamp, UInt8,
        UInt16, UInt32, Utf8,
    };
    let items = |one: &FieldRef, other: &FieldRef| is_widened_field(one, other);
    match (narrow, wide) {
        (narrow, wide) if narrow == wide => true,
        (Null, Int8 | Int16 | Int32 | Int64 | Float64)
        | (Int8 | UInt8, Int16 | Int32 | Int64)
        | (Int16 | UInt16, Int32 | Int64)
        | (Int32 | UInt32, Int64)
        | (UInt8, UInt16 | UInt32)
        | (UInt16, UInt32)
        | (Float16, Float32 | Float64)
        | (Float32, Float64)
        | (Utf8, LargeUtf8)
        | (Binary, LargeBinary) => true,
        (Decimal128(narrow, scale), Decimal128(wide, wide_scale)) => {
            scale == wide_scale && narrow <= wide
        }
        // Parquet stores the values of a dictionary.
        (Dictionary(_, value), wide) => is_widened_by_readers(value, wide),
        // Earlier releases stored seconds, for which Parquet has no unit.
        (Timestamp(TimeUnit::Second, zone), Timestamp(TimeUnit::Millisecond, wide_zone)) => {
            zone == wide_zone
        }
        (List(one), List(other) | LargeList(other)) | (LargeList(one), LargeList(other)) => {
            items(one, other)
        }
        (FixedSizeList(one, len), FixedSizeList(other, wide_len)) => {
            len == wide_len && items(one, other)
        }
        (Struct(one), Struct(other)) => one.iter().all(|field| {
            other
                .find(field.name())
                .is_some_and(|(_, found)| is_widened_field(field, found))
        }),
        _ => false,
    }
}

fn is_widened_field(narrow: &Field, wide: &Field) -> bool {
    is_widened_by_readers(narrow.data_type(), wide.data_type())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{AsArray, Int32Array, Int64Array};
    use arrow::datatypes::{Float64Type, Int64Type};

    use super::*;
    use crate::tensor::{tensor_field, vector_field};

    fn next(dataset: Vec<Field>, records: Vec<Field>) -> Result<DatasetSchema, String> {
        DatasetSchema::next(
            &Location::from(std::path::Path::new("out")),
            &Schema::new(dataset),
            &Schema::new(records),
        )
        .map_err(|error| error.to_string())
    }

    #[test]
    fn narrower_records_are_written_as_the_dataset_holds_them() {
        let dataset = vec![
            Field::new("x", DataType::Int64, false),
            Field::new("y", DataType::Float64, true),
            Field::new("gone", DataType::Utf8, false),
        ];
        let records = vec![
            Field::new("y", DataType::Int64, true),
            Field::new("x", DataType::Int32, false),
        ];
        let next = next(dataset, records.clone()).unwrap();
        let expected = [
            Field::new("x", DataType::Int64, false),
            Field::new("y", DataType::Float64, true),
            Field::new("gone", DataType::Utf8, true),
        ];
        assert_eq!(**next.schema().fields(), expected.map(Arc::new));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(3), None])),
            Arc::new(Int32Array::from(vec![1, 2])),
        ];
        let batch =
            |values| RecordBatch::try_new(Arc::new(Schema::new(records.clone())), values).unwrap();
        let written = next.convert(&batch(columns)).unwrap();
        assert_eq!(written["x"].as_primitive::<Int64Type>().values(), &[1, 2]);
        assert_eq!(written["y"].as_primitive::<Float64Type>().value(0), 3.0);
        assert_eq!(written["gone"].null_count(), 2);
        let far = batch(vec![
            Arc::new(Int64Array::from(vec![i64::MAX])),
            Arc::new(Int32Array::from(vec![1])),
        ]);
        let error = next.convert(&far).unwrap_err().to_string();
        assert!(error.starts_with("column `y`: "), "{error}");
    }

    #[test]
    fn wider_and_new_columns_roll_to_a_wider_file() {
        let dataset = vec![
            Field::new("x", DataType::Int32, false),
            Field::new("none", DataType::Null, true),
            vector_field("v", 2),
        ];
        let wide = Arc::new(Field::new_list_field(DataType::Float64, true));
        let wide = Field::new("v", DataType::FixedSizeList(wide, 2), false);
        let records = vec![
            Field::new("new", DataType::Boolean, false),
            wide.clone(),
            Field::new("none", DataType::Int64, false),
            Field::new("x", DataType::Int64, false),
        ];
        let next = next(dataset, records).unwrap();
        let expected = [
            Field::new("x", DataType::Int64, false),
            Field::new("none", DataType::Int64, true),
            wide,
            Field::new("new", DataType::Boolean, false),
        ];
        assert_eq!(**next.schema().fields(), expected.map(Arc::new));
    }

    #[test]
    fn types_that_readers_do_not_unify_are_refused_by_name() {
        let dataset = vec![
            Field::new("id", DataType::Int64, false),
            vector_field("latent", 4),
            tensor_field("t", &[2, 3]).unwrap(),
            Field::new("fine", DataType::Utf8, false),
            Field::new("none", DataType::Null, true),
            Field::new("count", DataType::UInt32, true),
            Field::new("view", DataType::Utf8View, false),
        ];
        let records = vec![
            Field::new("id", DataType::Float64, false),
            vector_field("latent", 5),
            tensor_field("t", &[3, 2]).unwrap(),
            Field::new("fine", DataType::Utf8, true),
            Field::new("none", DataType::Utf8, true),
            Field::new("count", DataType::UInt64, true),
            Field::new("view", DataType::Utf8, false),
        ];
        let error = next(dataset, records).unwrap_err();
        let named: Vec<&str> = error
            .lines()
            .skip(1)
            .filter_map(|line| line.split('`').nth(1))
            .collect();
        assert_eq!(named, ["id", "latent", "t", "none", "count"], "{error}");
    }
}
