//! Unit tests of the module `tensor`.

#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn shape_of_a_tensor_column_round_trips() {
    assert_eq!(
        TensorShape::of(&tensor_field("x", &[2, 3]).unwrap()),
        Some(TensorShape::Fixed(vec![2, 3]))
    );
    assert_eq!(
        TensorShape::of(&variable_field("x", 3).unwrap()),
        Some(TensorShape::Variable(3))
    );
    assert_eq!(
        TensorShape::of(&vector_field("x", 4)),
        Some(TensorShape::Fixed(vec![4]))
    );
    assert_eq!(
        TensorShape::of(&Field::new("x", DataType::Float32, false)),
        None
    );
}

#[test]
fn metadata_is_the_minimum_of_the_arrow_format() {
    let field = tensor_field("x", &[2, 3]).unwrap();
    assert_eq!(
        field.extension_type_name(),
        Some("arrow.fixed_shape_tensor")
    );
    assert_eq!(field.extension_type_metadata(), Some(r#"{"shape":[2,3]}"#));
}

#[test]
fn shape_that_differs_from_its_values_is_not_a_tensor() {
    for shape in [json!([2, 4]), json!([usize::MAX, 2])] {
        let field = extended(
            vector_field("x", 6),
            FIXED_SHAPE_TENSOR,
            &json!({ "shape": shape }),
        );
        assert_eq!(TensorShape::of(&field), None);
    }
    assert!(tensor_field("x", &[1 << 20, 1 << 20]).is_err());
}
