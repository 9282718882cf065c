//! Unit tests of the module `arrow_ipc`.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, DictionaryArray, Int32Array, StringArray};
use arrow::datatypes::{Int32Type, UInt64Type};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use serde_json::json;

use super::*;
use crate::coverage::ResumeState;
use crate::source::table::file_source::testing::{
    drain, plan, progress_of, read, records, rejects,
};

fn sample(rows: std::ops::Range<i32>) -> RecordBatch {
    let words: DictionaryArray<Int32Type> = rows
        .clone()
        .map(|row| if row % 2 == 0 { "even" } else { "odd" })
        .collect();
    let columns: [(&str, ArrayRef); 2] = [
        ("n", Arc::new(Int32Array::from_iter_values(rows))),
        ("w", Arc::new(words)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn write_file(path: &Path, compression: Option<CompressionType>) {
    let options = IpcWriteOptions::default()
        .try_with_compression(compression)
        .unwrap();
    let file = File::create(path).unwrap();
    let mut writer =
        FileWriter::try_new_with_options(file, &sample(0..1).schema(), options).unwrap();
    [0..30, 30..35]
        .into_iter()
        .for_each(|rows| writer.write(&sample(rows)).unwrap());
    writer.finish().unwrap();
}

fn stream() -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &sample(0..1).schema()).unwrap();
    [0..30, 30..35]
        .into_iter()
        .for_each(|rows| writer.write(&sample(rows)).unwrap());
    writer.into_inner().unwrap()
}

#[test]
fn files_and_streams_are_cut_to_batches() {
    let folder = tempfile::tempdir().unwrap();
    write_file(&folder.path().join("a.arrow"), None);
    write_file(
        &folder.path().join("b.feather"),
        Some(CompressionType::LZ4_FRAME),
    );
    write_file(&folder.path().join("c.ipc"), Some(CompressionType::ZSTD));
    std::fs::write(folder.path().join("d.arrows"), stream()).unwrap();
    let batches = read::<ArrowSourceConfig>(json!({ "path": folder.path() }), 20);
    let counts: Vec<_> = batches
        .iter()
        .map(|batch| batch.batch.records.num_rows())
        .collect();
    assert_eq!(counts, [20, 10, 5].repeat(4));
    assert!(rejects(&batches).is_empty());
    let last = records(&batches[9..]);
    assert_eq!(
        last["n"].as_primitive::<Int32Type>().values(),
        &(0..35).collect::<Vec<_>>()[..]
    );
    assert_eq!(last["row"].as_primitive::<UInt64Type>().value(34), 34);
    let words = arrow::compute::cast(&last["w"], &arrow::datatypes::DataType::Utf8).unwrap();
    assert_eq!(words.as_string::<i32>().value(33), "odd");
}

#[test]
fn bytes_behind_an_end_of_stream_marker_are_one_reject() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("a.arrow");
    write_file(&whole, None);
    let mut zeroed = std::fs::read(&whole).unwrap();
    let marks: Vec<usize> = (0..zeroed.len() - 8)
        .step_by(8)
        .filter(|&at| zeroed[at..].starts_with(&[0xff; 4]) && zeroed[at + 4..at + 8] != [0; 4])
        .collect();
    // The last mark is that of the message of the last batch.
    let last = *marks.last().unwrap();
    zeroed[last..last + 8].fill(0);
    std::fs::write(folder.path().join("b.arrow"), zeroed).unwrap();
    std::fs::write(
        folder.path().join("c.arrows"),
        [stream(), stream()].concat(),
    )
    .unwrap();
    let batches = read::<ArrowSourceConfig>(json!({ "path": folder.path() }), 100);
    assert_eq!(records(&batches).num_rows(), 35 + 30 + 35);
    assert_eq!(
        rejects(&batches),
        [(30, "malformed", None), (35, "malformed", None)]
    );
}

#[test]
fn truncated_file_gives_its_complete_batches_and_one_reject() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("a.arrow");
    write_file(&whole, Some(CompressionType::ZSTD));
    let bytes = std::fs::read(&whole).unwrap();
    for end in (0..bytes.len()).step_by(7) {
        std::fs::write(folder.path().join("b.arrow"), &bytes[..end]).unwrap();
        let batches = read::<ArrowSourceConfig>(json!({ "path": folder.path() }), 100);
        let rows = records(&batches).num_rows() - 35;
        assert!([0, 30, 35].contains(&rows), "{end}: {rows}");
        assert_eq!(rejects(&batches).len(), 1, "{end}");
    }
}

#[test]
fn flipped_byte_gives_rows_rejects_or_error_with_file_name() {
    let folder = tempfile::tempdir().unwrap();
    write_file(&folder.path().join("a.arrow"), None);
    let bytes = std::fs::read(folder.path().join("a.arrow")).unwrap();
    for offset in (0..bytes.len()).step_by(3) {
        let mut bytes = bytes.clone();
        bytes[offset] ^= 0xff;
        std::fs::write(folder.path().join("b.arrow"), bytes).unwrap();
        let source = plan::<ArrowSourceConfig>(json!({ "path": folder.path() }), 100).unwrap();
        match drain(source, &ResumeState::default()) {
            Ok(batches) => assert!(records(&batches).num_rows() >= 35),
            Err(error) => assert!(error.to_string().starts_with("b.arrow: "), "{error}"),
        }
    }
}

#[test]
fn file_with_another_type_is_one_reject_for_its_records() {
    let folder = tempfile::tempdir().unwrap();
    let other: ArrayRef = Arc::new(StringArray::from_iter_values(vec!["x"; 7]));
    let other = RecordBatch::try_from_iter([("n", other)]).unwrap();
    write_file(&folder.path().join("a.arrow"), None);
    let mut writer = FileWriter::try_new(
        File::create(folder.path().join("b.arrow")).unwrap(),
        &other.schema(),
    );
    writer.as_mut().unwrap().write(&other).unwrap();
    writer.unwrap().finish().unwrap();
    write_file(&folder.path().join("c.arrow"), None);
    let batches = read::<ArrowSourceConfig>(json!({ "path": folder.path() }), 100);
    assert_eq!(
        (records(&batches).num_rows(), rejects(&batches)),
        (70, vec![(0, "mismatch", None)])
    );
    let rejected = batches
        .iter()
        .find(|batch| !batch.rejects.is_empty())
        .unwrap();
    assert_eq!(rejected.batch.provenance.len(), 7);
}

#[test]
fn later_run_sends_the_uncommitted_batches() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.arrows"), stream()).unwrap();
    let all = read::<ArrowSourceConfig>(json!({ "path": folder.path() }), 20);
    let rest = drain(
        plan::<ArrowSourceConfig>(json!({ "path": folder.path() }), 20).unwrap(),
        &progress_of(&all[..1]),
    )
    .unwrap();
    assert_eq!(rest.len(), 2);
    assert_eq!(rest[0].batch.records, all[1].batch.records);
}

#[test]
fn declared_size_beyond_the_bound_is_refused_unallocated() {
    let mut bytes = Vec::from(CONTINUES);
    bytes.extend(i32::MAX.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.arrows"), bytes).unwrap();
    let faults = plan::<ArrowSourceConfig>(json!({ "path": folder.path() }), 20)
        .err()
        .unwrap();
    assert_eq!(
        faults[0].message,
        "no file can be read; a.arrows: a message declares a header of 2147483647 bytes; \
             the maximum is 67108864"
    );
}

const CONTINUES: [u8; 4] = [0xff; 4];
