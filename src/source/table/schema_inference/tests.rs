//! Unit tests of the module `schema_inference`.

use arrow::datatypes::{DataType, Field};

use super::*;

#[test]
fn local_files_and_a_bounded_number_of_objects_are_planned() {
    let planned = |files, is_local| planned_files(files, is_local).collect::<Vec<_>>();
    assert_eq!(planned(1000, true), (0..1000).collect::<Vec<_>>());
    assert_eq!(planned(256, false), (0..256).collect::<Vec<_>>());
    let objects = planned(100_000, false);
    assert_eq!((objects.len(), objects[0], objects[255]), (256, 0, 99_999));
    assert!(objects.is_sorted_by(|one, other| one < other));
    assert_eq!((planned(0, false), planned(1, false)), (vec![], vec![0]));
}

#[test]
fn columns_are_those_of_most_files() {
    let mut groups = FileGroups::default();
    let schema = |data_type: DataType| Schema::new(vec![Field::new("x", data_type, false)]);
    for (file, data_type) in [
        ("a", DataType::Utf8),
        ("b", DataType::Int32),
        ("c", DataType::Boolean),
        ("d", DataType::Float32),
        ("e", DataType::Boolean),
    ] {
        groups.add(file, &schema(data_type));
    }
    let (fields, note) = groups.largest().expect("there are files");
    assert_eq!(fields[0].data_type(), &DataType::Float64);
    assert_eq!(
        note.as_deref(),
        Some(
            "rejects the records of files that differ from most files: a: column `x` is \
                 Utf8; expected Float64; c (and 1 more): column `x` is Boolean; expected \
                 Float64; correct them, or read them with a separate source"
        )
    );
    assert!(FileGroups::default().largest().is_none());
}
