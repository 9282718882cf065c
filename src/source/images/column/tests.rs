//! Unit tests of the module `image_column`.

#![allow(clippy::unwrap_used)]

use arrow::array::{BinaryArray, Int32Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::Int32Type;

use super::*;

fn pair(name: &str) -> FieldRef {
    let fields = [
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ];
    Arc::new(Field::new(
        name,
        DataType::Struct(fields.into_iter().collect()),
        true,
    ))
}

#[test]
fn image_column_is_found_by_type_or_name() {
    let text: FieldRef = Arc::new(Field::new("label", DataType::Utf8, true));
    let bytes: FieldRef = Arc::new(Field::new("image", DataType::Binary, true));
    let find = |columns: &[&FieldRef], name| {
        ImageColumn::find(
            &columns
                .iter()
                .map(|&field| field.clone())
                .collect::<Vec<_>>(),
            name,
        )
    };
    assert_eq!(find(&[&text], None), Ok(None));
    assert_eq!(
        find(&[&text, &bytes], None),
        Ok(Some(ImageColumn {
            index: 1,
            is_struct: false,
            is_list: false,
        }))
    );
    assert_eq!(
        find(&[&text, &pair("img")], None),
        Ok(Some(ImageColumn {
            index: 1,
            is_struct: true,
            is_list: false,
        }))
    );
    assert_eq!(
        find(&[&pair("a"), &pair("b")], Some("b")),
        Ok(Some(ImageColumn {
            index: 1,
            is_struct: true,
            is_list: false,
        }))
    );
    let fault = find(&[&pair("a"), &pair("b")], None).unwrap_err();
    assert_eq!(
        fault,
        "several columns hold images: a, b; name one of them, or choose `columns`"
    );
    assert_eq!(
        find(&[&text], Some("label")).unwrap_err(),
        "column `label` is Utf8; expected binary, a struct of `bytes` and `path`, or lists of them"
    );
    assert_eq!(
        find(&[&text], Some("x")).unwrap_err(),
        "no column `x`; the table has: label"
    );
}

#[test]
fn each_image_of_a_list_is_a_row() {
    let pairs = StructArray::try_new(
        vec![
            Field::new("bytes", DataType::Binary, true),
            Field::new("path", DataType::Utf8, true),
        ]
        .into(),
        vec![
            Arc::new(BinaryArray::from_iter_values([b"a", b"b", b"c", b"d"])),
            Arc::new(StringArray::from(vec![
                Some("1"),
                None,
                Some("3"),
                Some("4"),
            ])),
        ],
        Some(vec![true, true, true, false].into()),
    )
    .unwrap();
    let item = Arc::new(Field::new_list_field(pairs.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([2, 0, 1, 1]);
    let lists = ListArray::try_new(item, offsets, Arc::new(pairs), None).unwrap();
    let labels: ArrayRef = Arc::new(Int32Array::from(vec![7, 8, 9, 10]));
    let fields = [
        Arc::new(Field::new("label", DataType::Int32, false)),
        Arc::new(Field::new("views", lists.data_type().clone(), true)),
    ];
    let column = ImageColumn::find(&fields, None).unwrap().unwrap();
    let images = column
        .take(vec![labels, Arc::new(lists)], "f.arrow")
        .unwrap();
    assert_eq!(
        images.columns[0].as_primitive::<Int32Type>().values(),
        &[7, 7, 9, 10]
    );
    let bytes: Vec<_> = images.columns[1].as_binary::<i32>().iter().collect();
    assert_eq!(bytes, [Some(&b"a"[..]), Some(b"b"), Some(b"c"), None]);
    let sources = images.sources.as_ref().unwrap().as_string::<i32>();
    assert_eq!(
        sources.iter().flatten().collect::<Vec<_>>(),
        ["f.arrow/1", "f.arrow", "f.arrow/3", "f.arrow/4"]
    );
    assert_eq!((images.of(0..1), images.of(1..4)), (0..2, 2..4));
    assert_eq!(images.origin(1..4), [1, 2]);
    assert_eq!(images.without_image(1..4).collect::<Vec<_>>(), [0]);
}
