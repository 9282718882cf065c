//! Tests of the `parquet` source with valid and malformed files.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, DictionaryArray, FixedSizeListArray, Float32Array,
    Int8Array, Int64Array, RecordBatch, StringArray, StructArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Field, Float32Type, Float64Type, Int8Type, Int32Type, Int64Type, Schema,
    TimestampMicrosecondType, TimestampNanosecondType, UInt64Type,
};
use arrow_schema::extension::EXTENSION_TYPE_METADATA_KEY;
use parquet::arrow::ArrowWriter;
use parquet::data_type::{
    ByteArrayType, DataType as StoredType, FixedLenByteArray, FixedLenByteArrayType, Int96,
    Int96Type,
};
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

use super::*;
use crate::coverage::ResumeState;
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::source::batch_size::BatchSize;
use crate::source::discovery::input_file;
use crate::source::table::file_source::testing::{
    drain, plan, progress_of, read, records, rejects,
};
use crate::source::table::parquet::config::ParquetSourceConfig;
use crate::source::{RecordCount, SourceConfig};
use crate::tensor::{fixed_column, fixed_values, tensor_field, vector_field, with_tensor_shape};
use crate::units::ByteSize;

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>, group: usize) {
    write_batch(path, &RecordBatch::try_from_iter(columns).unwrap(), group);
}

fn write_batch(path: &Path, batch: &RecordBatch, group: usize) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .build();
    let mut writer = ArrowWriter::try_new(
        File::create(path).unwrap(),
        batch.schema(),
        Some(properties),
    )
    .unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn numbers(rows: Range<i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows))
}

fn ranges(batches: &[crate::batch::SourceBatch]) -> Vec<Range<u64>> {
    batches
        .iter()
        .map(|batch| batch.batch.provenance.ranges()[0].rows.clone())
        .collect()
}

#[test]
fn columns_keep_values_in_batches_within_row_groups() {
    let folder = tempfile::tempdir().unwrap();
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..250).map(|row| row.to_string()),
    ));
    write(
        &folder.path().join("b.parquet"),
        vec![("n", numbers(0..250)), ("t", text)],
        100,
    );
    let source =
        plan::<ParquetSourceConfig>(json!({ "path": folder.path(), "columns": ["n"] }), 60)
            .unwrap();
    assert_eq!(source.schema().fields().len(), 3);
    let batches = drain(source, &ResumeState::default()).unwrap();
    assert_eq!(
        ranges(&batches),
        [0..60, 60..100, 100..160, 160..200, 200..250]
    );
    let all = records(&batches);
    assert_eq!(
        all["n"].as_primitive::<Int64Type>().values(),
        &(0..250).collect::<Vec<_>>()[..]
    );
    assert_eq!(all["row"].as_primitive::<UInt64Type>().value(249), 249);
}

#[test]
fn uncommitted_rows_are_counted_from_footers() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("a.parquet"),
        vec![("n", numbers(0..250))],
        100,
    );
    write(
        &folder.path().join("b.parquet"),
        vec![("n", numbers(0..30))],
        100,
    );
    std::fs::write(folder.path().join("c.parquet"), "no Parquet").unwrap();
    let plan = || plan::<ParquetSourceConfig>(json!({ "path": folder.path() }), 60).unwrap();
    let counted = |resume: &ResumeState| match plan().open(resume).unwrap().total {
        RecordCount::Counting(total) => total.blocking_recv().unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(counted(&ResumeState::default()), 250 + 30 + 1);
    let batches = drain(plan(), &ResumeState::default()).unwrap();
    assert_eq!(counted(&progress_of(&batches[1..])), 60);
    assert_eq!(counted(&progress_of(&batches)), 0);
}

#[test]
fn concurrent_readers_give_the_output_of_one_reader() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.parquet");
    write(&file, vec![("n", numbers(0..1000))], 90);
    // One row group is unreadable.
    let mut bytes = std::fs::read(&file).unwrap();
    let metadata = ParquetMetaDataReader::new()
        .parse_and_finish(&File::open(&file).unwrap())
        .unwrap();
    let (start, length) = metadata.row_group(4).column(0).byte_range();
    bytes[start as usize..(start + length) as usize].fill(0xff);
    std::fs::write(&file, bytes).unwrap();
    let read = |readers: u16| {
        read::<ParquetSourceConfig>(json!({ "path": folder.path(), "readers": readers }), 40)
    };
    let one = read(1);
    assert_eq!(
        rejects(&one)
            .iter()
            .map(|(row, ..)| *row)
            .collect::<Vec<_>>(),
        [360]
    );
    for readers in [2, 3, 20] {
        let several = read(readers);
        assert_eq!(ranges(&several), ranges(&one), "{readers}");
        assert_eq!(records(&several), records(&one), "{readers}");
        assert_eq!(rejects(&several), rejects(&one), "{readers}");
    }
}

#[test]
fn vectors_keep_values_with_other_columns_and_after_restart() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..750).map(|index| index as f32).collect();
    let vectors = fixed_column(3, values.clone()).unwrap();
    write(
        &folder.path().join("a.parquet"),
        vec![("n", numbers(0..250)), ("x", vectors)],
        100,
    );
    for columns in [json!(["x"]), json!(["n", "x"])] {
        let options = json!({ "path": folder.path(), "columns": columns });
        let all = read::<ParquetSourceConfig>(options.clone(), 30);
        assert_eq!(ranges(&all).len(), 10);
        let whole = records(&all);
        let decoded = whole["x"].as_fixed_size_list();
        assert_eq!(
            decoded.values().as_primitive::<Float32Type>().values(),
            &values[..]
        );
        assert_eq!(
            whole["row"].as_primitive::<UInt64Type>().values(),
            &(0..250).collect::<Vec<u64>>()[..]
        );
        for done in [1, 4, 6] {
            let resume = progress_of(&all[..done]);
            let rest = drain(
                plan::<ParquetSourceConfig>(options.clone(), 30).unwrap(),
                &resume,
            )
            .unwrap();
            assert_eq!(records(&rest), records(&all[done..]), "{done}");
        }
    }
}

#[test]
fn vectors_with_nulls_keep_their_nulls() {
    let folder = tempfile::tempdir().unwrap();
    let some = |row: i32| (row != 57).then(|| vec![Some(row as f32), (row != 81).then_some(0.5)]);
    let vectors =
        FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>((0..120).map(some), 2);
    let expected = vectors.clone();
    write(
        &folder.path().join("a.parquet"),
        vec![("x", Arc::new(vectors))],
        100,
    );
    let batches = read::<ParquetSourceConfig>(json!({ "path": folder.path() }), 20);
    assert_eq!(
        ranges(&batches),
        [0..20, 20..40, 40..60, 60..80, 80..100, 100..120]
    );
    let all = records(&batches);
    assert_eq!(
        all["x"].as_fixed_size_list().iter().collect::<Vec<_>>(),
        expected.iter().collect::<Vec<_>>()
    );
}

#[test]
fn row_groups_too_large_to_read_ahead_wait_for_their_turn() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("a.parquet"),
        vec![("n", numbers(0..5000))],
        1000,
    );
    let read = |readers: u16| {
        // Half of the memory is for pages: enough for one row group, but a quarter of that half is
        // not.
        let limits = PipelineLimits {
            memory: Some(ByteSize(64 << 10)),
            ..PipelineLimits::default()
        };
        let context = PlanContext::new(std::collections::BTreeMap::new(), limits);
        let options = json!({ "path": folder.path(), "readers": readers });
        let mut config: ParquetSourceConfig = crate::registry::parse_options(options).unwrap();
        let source = config.plan("in", BatchSize::default(), &context).unwrap();
        drain(source, &ResumeState::default()).unwrap()
    };
    let (one, four) = (read(1), read(4));
    assert_eq!(rejects(&one), []);
    assert_eq!(rejects(&four), []);
    assert_eq!(records(&four), records(&one));
    assert_eq!(records(&one).num_rows(), 5000);
}

#[test]
fn reader_threads_end_after_the_receiver_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("a.parquet"),
        vec![("n", numbers(0..5000))],
        50,
    );
    let source =
        plan::<ParquetSourceConfig>(json!({ "path": folder.path(), "readers": 4 }), 10).unwrap();
    let mut batches = source.open(&ResumeState::default()).unwrap().batches;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let first = runtime
        .block_on(tokio_stream::StreamExt::next(&mut batches))
        .unwrap()
        .unwrap();
    assert_eq!(first.batch.records.num_rows(), 10);
    drop(batches);
    // The reader threads hold the file open until they end.
    let open = || {
        let links = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| entry.ok()?.path().read_link().ok());
        links.filter(|link| link.starts_with(folder.path())).count()
    };
    while cfg!(target_os = "linux") && open() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn tensors_keep_their_type() {
    let folder = tempfile::tempdir().unwrap();
    let shape = [2_usize, 3];
    let field = tensor_field("x", &shape).unwrap();
    let column = fixed_column(6, vec![0.5; 24]).unwrap();
    let batch =
        RecordBatch::try_new(Arc::new(Schema::new(vec![field.clone()])), vec![column]).unwrap();
    write_batch(&folder.path().join("a.parquet"), &batch, 100);
    let all = records(&read::<ParquetSourceConfig>(
        json!({ "path": folder.path() }),
        10,
    ));
    assert_eq!(all.schema().field(2).data_type(), field.data_type());
    assert_eq!(
        all.schema().field(2).extension_type_name(),
        Some("arrow.fixed_shape_tensor")
    );
}

#[test]
fn later_run_starts_at_the_first_uncommitted_batch() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("a.parquet"),
        vec![("n", numbers(0..250))],
        100,
    );
    let all = read::<ParquetSourceConfig>(json!({ "path": folder.path() }), 30);
    let rest = |done: &[crate::batch::SourceBatch]| {
        drain(
            plan::<ParquetSourceConfig>(json!({ "path": folder.path() }), 30).unwrap(),
            &progress_of(done),
        )
        .unwrap()
    };
    for done in [1, 2, 4, 6, 9] {
        let rest = rest(&all[..done]);
        assert_eq!(ranges(&rest), ranges(&all[done..]), "{done}");
        assert_eq!(records(&rest), records(&all[done..]), "{done}");
    }
    assert_eq!(rest(&all[5..]).len(), 5);
    assert!(rest(&all).is_empty());
}

#[test]
fn images_of_hugging_face_tables_become_a_binary_column() {
    let folder = tempfile::tempdir().unwrap();
    let image: &[u8] = b"P5 4 3 255\n............";
    let bytes: ArrayRef = Arc::new(BinaryArray::from_opt_vec(vec![
        Some(image),
        None,
        Some(b"broken"),
    ]));
    let path: ArrayRef = Arc::new(StringArray::from(vec![Some("x/1.pgm"), None, None]));
    let field = |name: &str, column: &ArrayRef| {
        Arc::new(Field::new(name, column.data_type().clone(), true))
    };
    let pair = StructArray::from(vec![
        (field("bytes", &bytes), bytes.clone()),
        (field("path", &path), path.clone()),
    ]);
    write(
        &folder.path().join("a.parquet"),
        vec![("img", Arc::new(pair)), ("label", numbers(0..3))],
        100,
    );
    let batches = read::<ParquetSourceConfig>(json!({ "path": folder.path() }), 10);
    let all = records(&batches);
    assert_eq!(all["image"].as_binary::<i32>().value(0), image);
    assert!(all["image"].is_null(1));
    let sources: Vec<_> = all["source"].as_string::<i32>().iter().flatten().collect();
    assert_eq!(sources, ["a.parquet/x/1.pgm", "a.parquet", "a.parquet"]);
    assert_eq!(batches[0].pixels, 12);
    assert_eq!(all.schema().field(3).name(), "label");
}

#[test]
fn images_count_at_their_decoded_size() {
    let folder = tempfile::tempdir().unwrap();
    let image: &[u8] = b"P5 2000 2000 255\n";
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(vec![image; 8]));
    write(
        &folder.path().join("a.parquet"),
        vec![("image", images)],
        100,
    );
    let batches = read::<ParquetSourceConfig>(json!({ "path": folder.path() }), 8);
    assert_eq!(ranges(&batches), [0..2, 2..4, 4..6, 6..8]);
    assert_eq!(batches[0].pixels, 8_000_000);
}

#[test]
fn a_broken_file_among_others_is_one_reject() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("a.parquet"),
        b"PAR1 this is nothing PAR1",
    )
    .unwrap();
    write(
        &folder.path().join("b.parquet"),
        vec![("n", numbers(0..5))],
        100,
    );
    let batches = read::<ParquetSourceConfig>(json!({ "path": folder.path() }), 10);
    assert_eq!(rejects(&batches), [(0, "malformed", None)]);
    assert!(
        batches[0].rejects[0]
            .reason
            .starts_with("a.parquet, row 0: "),
        "{}",
        batches[0].rejects[0].reason
    );
    assert_eq!(records(&batches).num_rows(), 5);
    std::fs::remove_file(folder.path().join("b.parquet")).unwrap();
    let faults = plan::<ParquetSourceConfig>(json!({ "path": folder.path() }), 10)
        .err()
        .unwrap();
    assert!(
        faults[0]
            .message
            .starts_with("no file can be read; a.parquet: "),
        "{faults:?}"
    );
}

#[test]
fn a_broken_row_group_is_one_reject_and_the_next_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, vec![("n", numbers(0..300))], 100);
    let footer = metadata(&FileReader::from(File::open(&path).unwrap())).unwrap();
    let (start, length) = footer.row_group(1).column(0).byte_range();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[start as usize..(start + length) as usize].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let batches = read::<ParquetSourceConfig>(json!({ "path": folder.path() }), 100);
    assert_eq!(ranges(&batches), [0..100, 100..200, 200..300]);
    assert_eq!(batches[1].rejects.len(), 1);
    assert_eq!(
        (batches[1].rejects[0].rows, batches[1].rejects[0].records),
        (100, 100)
    );
    assert!(
        batches[1].rejects[0]
            .reason
            .starts_with("a.parquet, 100 rows from 100: ")
    );
    assert_eq!(records(&batches).num_rows(), 200);
}

#[test]
fn flipped_byte_gives_rows_rejects_or_error_with_file_name() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("a.parquet");
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..40).map(|row| (row % 7).to_string()),
    ));
    write(&whole, vec![("n", numbers(0..40)), ("t", text)], 20);
    let bytes = std::fs::read(&whole).unwrap();
    for offset in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[offset] ^= 0xff;
        std::fs::write(folder.path().join("b.parquet"), bytes).unwrap();
        let source = plan::<ParquetSourceConfig>(json!({ "path": folder.path() }), 15).unwrap();
        match drain(source, &ResumeState::default()) {
            Ok(batches) => assert!(records(&batches).num_rows() >= 40, "{offset}"),
            Err(error) => assert!(
                error.to_string().starts_with("b.parquet: "),
                "{offset}: {error}"
            ),
        }
    }
}

#[test]
fn file_with_a_different_column_type_is_one_reject() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("a.parquet"),
        vec![("n", numbers(0..5))],
        100,
    );
    write(
        &folder.path().join("b.parquet"),
        vec![("n", Arc::new(StringArray::from(vec!["1", "2"])))],
        100,
    );
    write(
        &folder.path().join("c.parquet"),
        vec![("n", numbers(5..9))],
        100,
    );
    let source = || plan::<ParquetSourceConfig>(json!({ "path": folder.path() }), 10).unwrap();
    assert_eq!(
        source().plan_notes(),
        [
            "rejects the records of files that differ from most files: b.parquet: column `n` \
             is Utf8; expected Int64; correct them, or read them with a separate source"
        ]
    );
    let batches = drain(source(), &ResumeState::default()).unwrap();
    let reason = &batches[1].rejects[0].reason;
    assert!(
        reason
            .starts_with("b.parquet: column `n` is Utf8; expected Int64, as in the other files; "),
        "{reason}"
    );
    assert_eq!(
        (ranges(&batches), rejects(&batches).len()),
        (vec![0..5, 0..2, 0..4], 1)
    );
    assert_eq!(records(&batches).num_rows(), 9);
    // A later run does not reject the file again.
    assert!(drain(source(), &progress_of(&batches)).unwrap().is_empty());
}

#[test]
fn files_with_different_columns_unify() {
    let folder = tempfile::tempdir().unwrap();
    let dictionary: DictionaryArray<Int32Type> = ["x", "y"].into_iter().collect();
    let far: ArrayRef = Arc::new(Int64Array::from(vec![7, i64::MAX]));
    let files: [(&str, Vec<(&str, ArrayRef)>); 3] = [
        ("a", vec![("n", numbers(0..2)), ("s", Arc::new(dictionary))]),
        (
            "b",
            vec![
                ("s", Arc::new(StringArray::from(vec!["z"]))),
                ("n", Arc::new(Float32Array::from(vec![0.5]))),
                ("late", Arc::new(Float32Array::from(vec![9.0]))),
            ],
        ),
        ("c", vec![("n", far)]),
    ];
    for (name, columns) in files {
        write(&folder.path().join(format!("{name}.parquet")), columns, 100);
    }
    let batches = read::<ParquetSourceConfig>(json!({ "path": folder.path() }), 10);
    let all = records(&batches);
    assert_eq!(
        all["n"].as_primitive::<Float64Type>().values(),
        &[0.0, 1.0, 0.5, 7.0]
    );
    let words: Vec<_> = all["s"].as_string::<i32>().iter().collect();
    assert_eq!(words, [Some("x"), Some("y"), Some("z"), None]);
    assert_eq!(all["late"].null_count(), 3);
    assert_eq!(rejects(&batches), [(1, "mismatch", None)]);
}

#[test]
fn column_that_allows_nulls_in_any_file_allows_them() {
    let folder = tempfile::tempdir().unwrap();
    let field = |nullable| {
        Arc::new(Schema::new(vec![Field::new(
            "n",
            DataType::Int64,
            nullable,
        )]))
    };
    let strict = RecordBatch::try_new(field(false), vec![numbers(0..3)]).unwrap();
    let loose: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), None]));
    let loose = RecordBatch::try_new(field(true), vec![loose]).unwrap();
    write_batch(&folder.path().join("a.parquet"), &strict, 100);
    write_batch(&folder.path().join("b.parquet"), &loose, 100);
    let batches = read::<ParquetSourceConfig>(json!({ "path": folder.path() }), 10);
    let all = records(&batches);
    let values: Vec<_> = all["n"].as_primitive::<Int64Type>().iter().collect();
    assert_eq!(values, [Some(0), Some(1), Some(2), Some(3), None]);
    assert!(all.schema().field(2).is_nullable());
}

#[test]
fn folder_names_become_columns() {
    let folder = tempfile::tempdir().unwrap();
    for day in ["2026-11-01", "2026-11-02"] {
        let day = folder.path().join(format!("day={day}"));
        std::fs::create_dir(&day).unwrap();
        write(&day.join("a.parquet"), vec![("n", numbers(0..2))], 100);
    }
    let all = records(&read::<ParquetSourceConfig>(
        json!({ "path": folder.path() }),
        10,
    ));
    assert_eq!(all.schema().field(3).data_type(), &DataType::Date32);
    let days = all["day"].as_primitive::<Date32Type>().values();
    assert_eq!(days, &[20_758, 20_758, 20_759, 20_759]);
    let chosen = records(&read::<ParquetSourceConfig>(
        json!({ "path": folder.path(), "columns": ["n"] }),
        10,
    ));
    assert_eq!(chosen.num_columns(), 3);
}

#[test]
fn tensors_differ_by_shape_and_are_read_in_row_major_order() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = |name: &str, metadata: &str| {
        let field = with_tensor_shape(vector_field("t", 6), &[2, 3]);
        let mut keys = field.metadata().clone();
        keys.insert(EXTENSION_TYPE_METADATA_KEY.to_owned(), metadata.to_owned());
        let column = fixed_column(6, (0..6_u8).map(f32::from).collect()).unwrap();
        let schema = Arc::new(Schema::new(vec![field.with_metadata(keys)]));
        let batch = RecordBatch::try_new(schema, vec![column]).unwrap();
        write_batch(&folder.path().join(name), &batch, 100);
    };
    tensors("a.parquet", r#"{"shape":[2,3]}"#);
    tensors("b.parquet", r#"{"shape":[3,2]}"#);
    tensors("c.parquet", r#"{"shape":[3,2],"permutation":[1,0]}"#);
    let batches = read::<ParquetSourceConfig>(json!({ "path": folder.path() }), 10);
    let reason = &batches[1].rejects[0].reason;
    assert!(
        reason.contains("column `t` is ") && reason.contains(r#"{"shape":[3,2]}"#),
        "{reason}"
    );
    let all = records(&batches);
    assert_eq!(
        fixed_values(&all["t"]).unwrap(),
        [
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
            [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]
        ]
        .concat()
    );
}

#[test]
fn requested_columns_come_from_the_first_file_with_them() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("a.parquet"),
        vec![("m", numbers(0..5))],
        100,
    );
    write(
        &folder.path().join("b.parquet"),
        vec![("n", numbers(0..5))],
        100,
    );
    let batches =
        read::<ParquetSourceConfig>(json!({ "path": folder.path(), "columns": ["n"] }), 10);
    assert_eq!(
        records(&batches)["n"].as_primitive::<Int64Type>().values(),
        &[0, 1, 2, 3, 4]
    );
    assert_eq!(
        (batches[0].rejects.len(), batches[0].batch.provenance.len()),
        (1, 5)
    );
}

#[test]
fn faults_name_their_key() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("a.parquet"),
        vec![("length", numbers(0..5))],
        100,
    );
    let faults = |options| plan::<ParquetSourceConfig>(options, 10).err().unwrap();
    let found = faults(json!({ "path": folder.path(), "columns": ["lenght"] }));
    assert_eq!(
        found[0].message,
        "unknown column `lenght` (did you mean `length`?); known: length"
    );
    assert_eq!(
        faults(json!({ "path": folder.path(), "image_column": "x" }))[0].key,
        "image_column"
    );
}

/// Prints the outcome for each file of Apache's collection.
#[test]
fn every_file_of_parquet_testing_gives_rows_or_rejects() {
    let Some(root) = crate::test_data::test_data("bad/parquet-testing") else {
        return;
    };
    let files = input_file::list("in", &format!("{}/**/*.parquet", root.display()), &[]).unwrap();
    assert!(files.len() > 60, "{} files", files.len());
    for file in files {
        let outcome =
            match plan::<ParquetSourceConfig>(json!({ "path": root.join(&file.name) }), 1000) {
                Err(faults) => format!("fault: {}", faults[0].message),
                Ok(source) => {
                    let batches = drain(source, &ResumeState::default()).unwrap();
                    let rows: usize = batches
                        .iter()
                        .map(|batch| batch.batch.records.num_rows())
                        .sum();
                    let covered: u64 = batches
                        .iter()
                        .map(|batch| batch.batch.provenance.len())
                        .sum();
                    let reasons: Vec<_> = batches
                        .iter()
                        .flat_map(|batch| &batch.rejects)
                        .map(|r| &r.reason)
                        .collect();
                    assert!(
                        rows as u64 == covered || !reasons.is_empty(),
                        "{}",
                        file.name
                    );
                    format!("{rows} of {covered} rows {reasons:?}")
                }
            };
        eprintln!("{}: {outcome}", file.name);
    }
}

/// Writes a file of one optional column of this Parquet type, whose values are those of `values`.
fn write_typed<T: StoredType>(path: &Path, column: &str, values: &[Option<T::T>]) {
    let schema = format!("message schema {{ {column} }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut leaf = group.next_column().unwrap().unwrap();
    let levels: Vec<i16> = values.iter().map(|value| value.is_some().into()).collect();
    let present: Vec<T::T> = values.iter().flatten().cloned().collect();
    leaf.typed::<T>()
        .write_batch(&present, Some(&levels), None)
        .unwrap();
    leaf.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

/// An INT96 timestamp of these days since 1970 and nanoseconds of the day.
fn int96(days: i64, nanoseconds: u64) -> Option<Int96> {
    let day = u32::try_from(days + 2_440_588).unwrap();
    let mut value = Int96::new();
    value.set_data(
        u32::try_from(nanoseconds & u64::from(u32::MAX)).unwrap(),
        u32::try_from(nanoseconds >> 32).unwrap(),
        day,
    );
    Some(value)
}

const LAST_SECOND: u64 = 86_399_000_000_000;

#[test]
fn int96_keeps_far_dates_and_rejects_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    // 9999-12-31 23:59:59, 0001-01-01, 1970-01-02 00:00:00.000001, a nanosecond later, and a day
    // of the year 294,900.
    let values = [
        int96(2_932_896, LAST_SECOND),
        int96(-719_162, 0),
        None,
        int96(1, 1000),
        int96(1, 1001),
        int96(107_000_000, 0),
        int96(0, 0),
    ];
    write_typed::<Int96Type>(&path, "optional int96 t;", &values);
    let batches = read::<ParquetSourceConfig>(json!({ "path": folder.path() }), 3);
    let found = records(&batches);
    let micros = found["t"].as_primitive::<TimestampMicrosecondType>();
    let expected = [
        Some(253_402_300_799_000_000),
        Some(-62_135_596_800_000_000),
        None,
        Some(86_400_000_001),
        Some(0),
    ];
    assert_eq!(micros.iter().collect::<Vec<_>>(), expected);
    let unsupported = |row| (row, "unsupported", None);
    assert_eq!(rejects(&batches), [unsupported(4), unsupported(5)]);

    let nanoseconds = json!({ "path": folder.path(), "int96": "ns" });
    let nanosecond_batches = read::<ParquetSourceConfig>(nanoseconds, 3);
    let exact = records(&nanosecond_batches);
    let nanos = exact["t"].as_primitive::<TimestampNanosecondType>();
    let expected_nanos = [
        None,
        Some(86_400_000_001_000),
        Some(86_400_000_001_001),
        Some(0),
    ];
    assert_eq!(nanos.iter().collect::<Vec<_>>(), expected_nanos);
    assert_eq!(rejects(&nanosecond_batches), [0, 1, 5].map(unsupported));
}

#[test]
fn int96_in_lists_is_checked_by_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let schema = "message schema { optional group t (LIST) { repeated group list { \
                  optional int96 element; } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut leaf = group.next_column().unwrap().unwrap();
    // [1970, null], null, [], [1970, a nanosecond later], [9999]
    let values = [int96(0, 0), int96(0, 0), int96(0, 1), int96(2_932_896, 0)].map(Option::unwrap);
    let (definitions, repetitions) = ([3, 2, 0, 1, 3, 3, 3], [0, 1, 0, 0, 0, 1, 0]);
    leaf.typed::<Int96Type>()
        .write_batch(&values, Some(&definitions), Some(&repetitions))
        .unwrap();
    leaf.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let batches = read::<ParquetSourceConfig>(json!({ "path": folder.path() }), 2);
    let lists = records(&batches);
    let lengths = lists["t"].as_list::<i32>().iter();
    let lengths: Vec<_> = lengths.map(|list| list.map(|list| list.len())).collect();
    assert_eq!(lengths, [Some(2), None, Some(0), Some(1)]);
    assert_eq!(rejects(&batches), [(3, "unsupported", None)]);
}

#[test]
fn enums_are_text_and_intervals_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let words = [Some("red".into()), None, Some("green".into())];
    write_typed::<ByteArrayType>(&path, "optional binary c (ENUM);", &words);
    let batches = read::<ParquetSourceConfig>(json!({ "path": folder.path() }), 10);
    let all = records(&batches);
    let found: Vec<_> = all["c"].as_string::<i32>().iter().collect();
    assert_eq!(found, [Some("red"), None, Some("green")]);

    let months = [Some(FixedLenByteArray::from(vec![1; 12]))];
    let column = "optional fixed_len_byte_array(12) i (INTERVAL);";
    write_typed::<FixedLenByteArrayType>(&path, column, &months);
    let faults = plan::<ParquetSourceConfig>(json!({ "path": folder.path() }), 10)
        .err()
        .unwrap();
    assert_eq!(faults[0].key, "columns");
    assert!(
        faults[0]
            .message
            .starts_with("column `i` is an INTERVAL of Parquet"),
        "{}",
        faults[0].message
    );
}

#[test]
fn dictionaries_of_any_key_type_are_read_as_values() {
    let folder = tempfile::tempdir().unwrap();
    let words = |group: i8| {
        let values = (0..100).map(|word| format!("{group}-{word}"));
        let values: ArrayRef = Arc::new(StringArray::from_iter_values(values));
        let keys = Int8Array::from_iter_values(0..100);
        let column: ArrayRef = Arc::new(DictionaryArray::<Int8Type>::new(keys, values));
        RecordBatch::try_from_iter([("c", column)]).unwrap()
    };
    let file = File::create(folder.path().join("a.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, words(0).schema(), None).unwrap();
    for group in 0..3 {
        writer.write(&words(group)).unwrap();
        writer.flush().unwrap();
    }
    writer.close().unwrap();
    let batches = read::<ParquetSourceConfig>(json!({ "path": folder.path() }), 1000);
    let all = records(&batches);
    let found = all["c"].as_string::<i32>();
    assert_eq!(
        (found.len(), found.value(0), found.value(299)),
        (300, "0-0", "2-99")
    );
}
