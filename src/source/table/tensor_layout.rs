//! Tensors whose axes are stored in another order than that of their values: the `permutation` of
//! `arrow.fixed_shape_tensor`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use arrow_schema::extension::EXTENSION_TYPE_METADATA_KEY;
use serde_json::{Value, json};

/// The order in which the values of a stored tensor appear in row-major order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AxisOrder {
    /// The position in the stored tensor of each value.
    positions: Vec<u64>,
}

impl AxisOrder {
    /// From the stored shape and the stored axis of each axis.
    fn new(stored: &[usize], permutation: &[usize]) -> Self {
        let mut strides = vec![1; stored.len()];
        for axis in (1..stored.len()).rev() {
            strides[axis - 1] = strides[axis] * stored[axis] as u64;
        }
        let mut positions = vec![0];
        for &axis in permutation {
            positions = positions
                .iter()
                .flat_map(|&start| {
                    let stride = strides[axis];
                    (0..stored[axis] as u64).map(move |index| start + index * stride)
                })
                .collect();
        }
        Self { positions }
    }

    /// Returns the tensors of a column with their values in row-major order.
    ///
    /// # Errors
    /// If the column is not a list of tensors of this shape.
    pub(crate) fn apply(&self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let list = column.as_fixed_size_list_opt().ok_or_else(|| {
            ArrowError::SchemaError("a tensor column is not a fixed-size list".to_owned())
        })?;
        let DataType::FixedSizeList(item, len) = list.data_type() else {
            return Ok(ArrayRef::clone(column));
        };
        let each = self.positions.len() as u64;
        let indices = (0..list.len() as u64)
            .flat_map(|row| self.positions.iter().map(move |at| row * each + at));
        let values = take(list.values(), &UInt64Array::from_iter_values(indices), None)?;
        Ok(Arc::new(FixedSizeListArray::try_new(
            Arc::clone(item),
            *len,
            values,
            list.nulls().cloned(),
        )?))
    }
}

const FIXED: &str = "arrow.fixed_shape_tensor";
const VARIABLE: &str = "arrow.variable_shape_tensor";

/// Returns the field of a column whose tensors are in row-major order, and the order to apply to
/// its stored values. Fields other than permuted tensors remain as they are.
///
/// The meaning of `permutation` is that of the canonical extension types of Arrow: axis `i` of the
/// tensor is axis `permutation[i]` of the stored one.
///
/// # Errors
/// A sentence that names the column if its permutation is not valid or not supported.
pub(in crate::source) fn row_major(field: &Field) -> Result<(Field, Option<AxisOrder>), String> {
    let unchanged = || Ok((field.clone(), None));
    let kind = field.extension_type_name();
    let Some(metadata) = field
        .extension_type_metadata()
        .filter(|_| kind == Some(FIXED) || kind == Some(VARIABLE))
    else {
        return unchanged();
    };
    let Ok(Value::Object(mut metadata)) = serde_json::from_str::<Value>(metadata) else {
        return unchanged();
    };
    let Some(permutation) = metadata
        .remove("permutation")
        .filter(|value| !value.is_null())
    else {
        return unchanged();
    };
    let invalid = |what: &str| {
        format!(
            "column `{}`: the permutation {permutation} of its tensors {what}; write the column \
             in row-major order",
            field.name()
        )
    };
    let axes: Vec<usize> = serde_json::from_value(permutation.clone())
        .map_err(|_| invalid("is not a list of axes"))?;
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    if sorted
        .iter()
        .enumerate()
        .any(|(axis, &found)| axis != found)
    {
        return Err(invalid("does not name each axis once"));
    }
    let is_identity = axes == sorted;
    if kind == Some(VARIABLE) && !is_identity {
        return Err(invalid("is not supported for tensors of variable shape"));
    }
    let mut order = None;
    if !is_identity {
        let stored = metadata.get("shape").cloned().unwrap_or_default();
        let stored: Vec<usize> =
            serde_json::from_value(stored).map_err(|_| invalid("has no shape"))?;
        let values = stored
            .iter()
            .try_fold(1_usize, |product, &side| product.checked_mul(side));
        let len = match field.data_type() {
            DataType::FixedSizeList(_, len) => usize::try_from(*len).ok(),
            _ => None,
        };
        if stored.len() != axes.len() || values.is_none() || values != len {
            return Err(invalid("does not match their shape"));
        }
        let shape: Vec<usize> = axes.iter().map(|&axis| stored[axis]).collect();
        metadata.insert("shape".to_owned(), json!(shape));
        if let Some(Value::Array(names)) = metadata.get("dim_names").cloned() {
            let names: Option<Vec<Value>> =
                axes.iter().map(|&axis| names.get(axis).cloned()).collect();
            let names = names.ok_or_else(|| invalid("does not match `dim_names`"))?;
            metadata.insert("dim_names".to_owned(), Value::Array(names));
        }
        order = Some(AxisOrder::new(&stored, &axes));
    }
    let mut all = field.metadata().clone();
    all.insert(
        EXTENSION_TYPE_METADATA_KEY.to_owned(),
        Value::Object(metadata).to_string(),
    );
    Ok((field.clone().with_metadata(all), order))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::Int16Array;
    use arrow_schema::extension::EXTENSION_TYPE_NAME_KEY;

    use super::*;

    fn tensors(shape: &[usize], metadata: &Value) -> Field {
        let len = i32::try_from(shape.iter().product::<usize>()).unwrap();
        let item = Arc::new(Field::new_list_field(DataType::Int16, true));
        Field::new("t", DataType::FixedSizeList(item, len), true).with_metadata([
            (EXTENSION_TYPE_NAME_KEY, FIXED),
            (EXTENSION_TYPE_METADATA_KEY, metadata.to_string().as_str()),
        ])
    }

    #[test]
    fn permuted_tensor_is_read_in_row_major_order() {
        let field = tensors(
            &[2, 3, 4],
            &json!({"shape": [2, 3, 4], "permutation": [2, 0, 1], "dim_names": ["a", "b", "c"]}),
        );
        let (logical, order) = row_major(&field).unwrap();
        let metadata: Value =
            serde_json::from_str(logical.extension_type_metadata().unwrap()).unwrap();
        assert_eq!(
            metadata,
            json!({"shape": [4, 2, 3], "dim_names": ["c", "a", "b"]})
        );
        let DataType::FixedSizeList(item, len) = field.data_type() else {
            unreachable!()
        };
        let values = Arc::new(Int16Array::from_iter_values(0..72));
        let stored: ArrayRef =
            Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *len, values, None).unwrap());
        let read = order.unwrap().apply(&stored.slice(1, 2)).unwrap();
        let second = read.as_fixed_size_list().value(1);
        let expected: Vec<i16> = (0..4)
            .flat_map(|c| (0..2).flat_map(move |a| (0..3).map(move |b| 48 + a * 12 + b * 4 + c)))
            .collect();
        assert_eq!(
            second
                .as_primitive::<arrow::datatypes::Int16Type>()
                .values(),
            &expected[..]
        );
    }

    #[test]
    fn identity_is_dropped_and_invalid_permutations_are_refused() {
        let field = tensors(&[2, 3], &json!({"shape": [2, 3], "permutation": [0, 1]}));
        let (logical, order) = row_major(&field).unwrap();
        assert_eq!(
            (logical.extension_type_metadata(), order),
            (Some(r#"{"shape":[2,3]}"#), None)
        );
        for metadata in [
            json!({"shape": [2, 3], "permutation": [1, 1]}),
            json!({"shape": [2, 3], "permutation": [1, 0, 2]}),
            json!({"shape": [2, 4], "permutation": [1, 0]}),
            json!({"permutation": [1, 0]}),
            json!({"shape": [2, 3], "permutation": "F"}),
            json!({"shape": [2, 3], "permutation": [1, 0], "dim_names": ["a"]}),
        ] {
            let error = row_major(&tensors(&[2, 3], &metadata)).unwrap_err();
            assert!(error.starts_with("column `t`: the permutation"), "{error}");
        }
    }
}
