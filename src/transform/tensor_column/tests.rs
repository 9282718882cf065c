//! Unit tests of the module `tensor_column`.

#![allow(clippy::unwrap_used)]

use arrow::array::{FixedSizeListArray, Float64Array, ListArray, StringArray};
use arrow::datatypes::Float64Type;

use super::*;
use crate::tensor::{item_of, variable_column, variable_field};

#[test]
fn texts_with_a_nul_are_unfit() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("a\0b"), None]));
    let converted = conversion::convert(&texts, &DataType::Utf8).unwrap();
    let unfit: Vec<bool> = converted.unfit.unwrap().values().iter().collect();
    assert_eq!(unfit, [false, true, false]);
}

#[test]
fn sliced_lists_have_the_ranges_of_their_rows() {
    let lists = [
        Some(vec![Some(1.)]),
        Some(vec![Some(2.), Some(3.)]),
        None,
        Some(vec![]),
    ];
    let lists = ListArray::from_iter_primitive::<Float64Type, _, _>(lists);
    let column: ArrayRef = Arc::new(lists.slice(1, 3));
    let field = Field::new("x", column.data_type().clone(), true);
    let nested = NestedColumn::new(&field, &column).unwrap();
    assert_eq!(nested.row(0).unwrap(), (1..3, vec![2]));
    assert_eq!(nested.row(1).unwrap_err().0, RejectCode::Missing);
    assert_eq!(nested.row(2).unwrap(), (3..3, vec![0]));
}

#[test]
fn nested_fixed_lists_have_a_fixed_shape() {
    let values: ArrayRef = Arc::new(Float64Array::from_iter_values((0..12).map(f64::from)));
    let inner = FixedSizeListArray::try_new(item_of(DataType::Float64), 2, values, None).unwrap();
    let item = item_of(inner.data_type().clone());
    let outer = FixedSizeListArray::try_new(item, 3, Arc::new(inner), None).unwrap();
    let column: ArrayRef = Arc::new(outer.slice(1, 1));
    let field = Field::new("x", column.data_type().clone(), false);
    assert_eq!(ColumnShape::of(&field).fixed(), Some(vec![3, 2]));
    let nested = NestedColumn::new(&field, &column).unwrap();
    let (range, shape) = nested.row(0).unwrap();
    assert_eq!(shape, [3, 2]);
    let of_row = nested.values.slice(range.start, range.len());
    let numbers = of_row.as_primitive::<Float64Type>().values().to_vec();
    assert_eq!(numbers, [6., 7., 8., 9., 10., 11.]);
}

#[test]
fn variable_tensors_have_their_stored_shapes() {
    let shapes = [vec![1, 2], vec![2, 1], vec![3, 1]];
    let values = (0..7).map(|value| value as f32).collect();
    let column = variable_column(2, values, &shapes).unwrap().slice(1, 2);
    let field = variable_field("x", 2).unwrap();
    let nested = NestedColumn::new(&field, &column).unwrap();
    assert_eq!(nested.row(0).unwrap(), (2..4, vec![2, 1]));
    assert_eq!(nested.row(1).unwrap(), (4..7, vec![3, 1]));
}
