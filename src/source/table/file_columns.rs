//! The columns of a file in terms of the planned columns of its source: which are read, which are
//! absent, and how the values of each are converted.

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{Field, FieldRef, Schema};
use arrow::error::ArrowError;

use crate::schema_unification::accepts;
use crate::source::table::file_source::different_column;
use crate::source::table::tensor_layout::{AxisOrder, row_major};
use crate::text_excerpt::shorten;

/// The columns of a file that are read, and their conversion to the planned columns.
#[derive(Debug)]
pub(crate) struct FileColumns {
    planned: Vec<FieldRef>,
    /// The axes of the tensors of each planned column, if they are stored in another order.
    orders: Vec<Option<AxisOrder>>,
    /// The positions in the file of the planned columns that it has, in the order of the plan.
    indices: Vec<usize>,
}

impl FileColumns {
    /// Compares the columns of a file, as it declares them, with the plan.
    ///
    /// # Errors
    /// A sentence that names the first column whose type is not accepted by the planned one.
    pub(in crate::source) fn new(planned: &[FieldRef], file: &Schema) -> Result<Self, String> {
        let (mut indices, mut orders) = (Vec::new(), Vec::new());
        for field in planned {
            let Some((index, found)) = file.column_with_name(field.name()) else {
                orders.push(None);
                continue;
            };
            let mut later = file.fields().iter().skip(index + 1);
            if later.any(|other| other.name() == field.name()) {
                return Err(format!(
                    "duplicate column `{}`; names must be unique",
                    field.name()
                ));
            }
            let (found, order) = row_major(found)?;
            accepts(field, &found).map_err(|conflict| different_column(&conflict))?;
            indices.push(index);
            orders.push(order);
        }
        if indices.is_empty() {
            let names: Vec<&str> = planned.iter().map(|field| field.name().as_str()).collect();
            return Err(format!(
                "none of the planned columns is in the file; expected {}",
                shorten(&names.join(", "))
            ));
        }
        Ok(Self {
            planned: planned.to_vec(),
            orders,
            indices,
        })
    }

    /// The positions in the file of the columns that are read.
    pub(crate) fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// The names of the columns of the file that the plan lacks.
    pub(crate) fn left_out<'a>(&self, file: &'a Schema) -> Vec<&'a str> {
        let is_planned = |name: &str| self.planned.iter().any(|field| field.name() == name);
        let names = file.fields().iter().map(|field| field.name().as_str());
        names.filter(|name| !is_planned(name)).collect()
    }

    /// Returns the planned columns of records of the columns that are read: absent ones as nulls,
    /// and tensors in row-major order. Their types may be narrower than the planned ones.
    ///
    /// # Errors
    /// If a column does not have the type that the file declares.
    pub(crate) fn align(&self, records: &RecordBatch) -> Result<Vec<ArrayRef>, ArrowError> {
        let column = |(field, order): (&FieldRef, &Option<AxisOrder>)| match (
            records.column_by_name(field.name()),
            order,
        ) {
            (Some(column), Some(order)) => order.apply(column),
            (Some(column), None) => Ok(ArrayRef::clone(column)),
            (None, _) => Ok(new_null_array(field.data_type(), records.num_rows())),
        };
        self.planned.iter().zip(&self.orders).map(column).collect()
    }
}

/// The schema of a file as it is planned: tensors in row-major order.
///
/// # Errors
/// A sentence that names a tensor column whose metadata is not valid.
pub(in crate::source) fn logical_schema(file: &Schema) -> Result<Schema, String> {
    let fields = file.fields().iter().map(|field| logical_field(field));
    Ok(Schema::new(fields.collect::<Result<Vec<_>, _>>()?))
}

fn logical_field(field: &Field) -> Result<Field, String> {
    row_major(field).map(|(field, _)| field)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{Array, Int64Array, StringArray};
    use arrow::datatypes::DataType;

    use super::*;

    fn planned() -> Vec<FieldRef> {
        [
            Field::new("x", DataType::Float64, true),
            Field::new("late", DataType::Utf8, true),
        ]
        .map(Arc::new)
        .to_vec()
    }

    #[test]
    fn absent_columns_are_null() {
        let x: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let records = RecordBatch::try_from_iter([("x", x)]).unwrap();
        let columns = FileColumns::new(&planned(), &records.schema()).unwrap();
        let aligned = columns.align(&records).unwrap();
        assert_eq!(aligned[0].data_type(), &DataType::Int64);
        assert_eq!(aligned[1].null_count(), 2);
    }

    #[test]
    fn narrower_plan_is_refused_and_extra_columns_are_left_out() {
        let x: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let extra: ArrayRef = Arc::new(StringArray::from(vec!["b"]));
        let other = RecordBatch::try_from_iter([("late", x), ("more", extra)]).unwrap();
        let columns = FileColumns::new(&planned(), &other.schema()).unwrap();
        assert_eq!(columns.left_out(&other.schema()), ["more"]);
        let narrow = [Arc::new(Field::new("late", DataType::Int8, true))];
        let error = FileColumns::new(&narrow, &other.schema()).unwrap_err();
        assert!(
            error.starts_with("column `late` is Utf8; expected Int8, as in the other files"),
            "{error}"
        );
        let twice = Schema::new(vec![Field::new("x", DataType::Float64, true); 2]);
        assert_eq!(
            FileColumns::new(&planned(), &twice).unwrap_err(),
            "duplicate column `x`; names must be unique"
        );
        let none = Schema::new(vec![Field::new("z", DataType::Int8, true)]);
        assert_eq!(
            FileColumns::new(&planned(), &none).unwrap_err(),
            "none of the planned columns is in the file; expected x, late"
        );
    }
}
