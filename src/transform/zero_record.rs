//! A record of zeros of a planned schema, with which a stage is tested.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, make_array, new_null_array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;

use crate::batch::Batch;
use crate::batch::provenance::Provenance;
use crate::image::PixelFormat;
use crate::tensor::{TensorShape, variable_column};

/// The side of an image tensor of variable shape.
const SIDE: usize = 32;

/// Creates a batch of one record of `schema` that consists of zeros, empty strings and empty lists,
/// and of nulls for types without a zero, such as dictionaries. Its provenance is a row of `batch`.
///
/// # Errors
/// If a column of the schema cannot be created.
pub(super) fn record(schema: &Schema, batch: &Batch) -> Result<Batch, ArrowError> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| column(field))
        .collect::<Result<Vec<_>, _>>()?;
    let fields = schema.fields().iter().zip(&columns);
    let fields: Vec<Field> = fields
        .map(|(field, column)| {
            field
                .as_ref()
                .clone()
                .with_nullable(field.is_nullable() || column.null_count() > 0)
        })
        .collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let records = RecordBatch::try_new(schema, columns)?;
    let (ranges, part) = (
        &batch.provenance,
        batch.row_ordinals.first().copied().unwrap_or_default(),
    );
    let row = u64::from(part);
    Ok(Batch::new(records, Provenance::slice(ranges, row..row + 1)))
}

fn column(field: &Field) -> Result<ArrayRef, ArrowError> {
    if let Some(TensorShape::Variable(dims)) = TensorShape::of(field) {
        let shape = match PixelFormat::from_field(field) {
            Some(format) if dims == 3 => format.shape(SIDE, SIDE),
            _ => vec![1; dims],
        };
        return variable_column(dims, vec![0.0; shape.iter().product()], &[shape]);
    }
    Ok(make_array(without_nulls(
        new_null_array(field.data_type(), 1).to_data(),
    )?))
}

/// Removes the null bitmaps, so that the zeros below them become valid.
fn without_nulls(nulls: ArrayData) -> Result<ArrayData, ArrowError> {
    match nulls.data_type() {
        DataType::Null
        | DataType::Dictionary(..)
        | DataType::RunEndEncoded(..)
        | DataType::Union(..) => Ok(nulls),
        _ => {
            let children = nulls
                .child_data()
                .iter()
                .cloned()
                .map(without_nulls)
                .collect::<Result<Vec<_>, _>>()?;
            nulls
                .into_builder()
                .nulls(None)
                .child_data(children)
                .build()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, TimeUnit, UInt64Type};

    use super::*;
    use crate::batch::provenance::Split;
    use crate::tensor::{fixed_values, tensor_field, variable_field, variable_row, vector_field};

    fn of(fields: Vec<Field>) -> Batch {
        let empty = Batch {
            records: RecordBatch::new_empty(Arc::new(Schema::empty())),
            row_ordinals: vec![1],
            provenance: Arc::new(Provenance::rows(Split::new("s"), 5..8)),
        };
        record(&Schema::new(fields), &empty).unwrap()
    }

    #[test]
    fn fixed_columns_hold_zeros_of_their_type_and_shape() {
        let zeros = of(vec![
            Field::new("source", DataType::Utf8, false),
            Field::new("row", DataType::UInt64, false),
            Field::new("x", DataType::Float64, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Second, None), false),
            Field::new("image", DataType::Binary, false),
            vector_field("code", 3),
            tensor_field("pixels", &[3, 2, 2]).unwrap(),
        ]);
        let column = |index: usize| zeros.records.column(index);
        assert_eq!(column(0).as_string::<i32>().value(0), "");
        assert_eq!(column(1).as_primitive::<UInt64Type>().value(0), 0);
        assert_eq!(
            column(2)
                .as_primitive::<Float64Type>()
                .iter()
                .collect::<Vec<_>>(),
            [Some(0.0)]
        );
        assert_eq!(column(4).as_binary::<i32>().value(0), b"");
        assert_eq!(fixed_values(column(5)).unwrap(), [0.0; 3]);
        assert_eq!(fixed_values(column(6)).unwrap(), [0.0; 12]);
        assert_eq!(zeros.provenance.row(0).map(|(_, row)| row), Some(6));
    }

    #[test]
    fn tensors_of_variable_shape_are_small() {
        let format = PixelFormat::default();
        let zeros = of(vec![
            format.annotate(variable_field("pixels", 3).unwrap()),
            variable_field("x", 2).unwrap(),
        ]);
        let shape = |index: usize| variable_row(zeros.records.column(index), 0).unwrap().1;
        assert_eq!((shape(0), shape(1)), (format.shape(SIDE, SIDE), vec![1, 1]));
    }

    #[test]
    fn type_without_zero_is_null() {
        let words = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let zeros = of(vec![
            Field::new("class", words, false),
            Field::new("nothing", DataType::Null, true),
        ]);
        assert!(
            zeros.records.column(0).is_null(0) && zeros.records.schema().field(0).is_nullable()
        );
    }
}
