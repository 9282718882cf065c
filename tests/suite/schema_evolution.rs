//! Tests of files whose columns differ: in one folder, and between the runs of an output.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::common::outputs::data_files;
use crate::common::runs::{errors, latentflow, run};

const PIPELINE: &str = "[stages.in]\nkind = \"parquet\"\npath = \"in\"\n\
                        [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n";

fn write(folder: &Path, name: &str, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let path = folder.join("in").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None);
    writer.as_mut().unwrap().write(&batch).unwrap();
    writer.unwrap().close().unwrap();
}

fn ints(values: Vec<i32>) -> ArrayRef {
    Arc::new(Int32Array::from(values))
}

fn longs(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn text(values: Vec<&str>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

fn run_all(folder: &Path) -> Value {
    let (output, summary) = run(folder, PIPELINE, &[]);
    assert!(output.status.success(), "{}", errors(&output));
    summary
}

/// The columns of each file of the output, as text.
fn columns(folder: &Path) -> Vec<String> {
    let of = |path: &std::path::PathBuf| {
        let file = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
        let fields = file.schema().fields().iter().skip(2);
        let fields: Vec<String> = fields
            .map(|field| format!("{} {}", field.name(), field.data_type()))
            .collect();
        fields.join(", ")
    };
    data_files(&folder.join("out")).iter().map(of).collect()
}

#[test]
fn later_run_with_wider_columns_writes_a_wider_file() {
    let folder = tempfile::tempdir().unwrap();
    let half: ArrayRef = Arc::new(Float32Array::from(vec![0.5]));
    write(
        folder.path(),
        "a.parquet",
        vec![("x", ints(vec![1])), ("f", half)],
    );
    run_all(folder.path());
    write(
        folder.path(),
        "b.parquet",
        vec![("new", text(vec!["w"])), ("x", longs(vec![1 << 40]))],
    );
    run_all(folder.path());
    for (name, x) in [("a.parquet", ints(vec![7])), ("c.parquet", ints(vec![8]))] {
        write(folder.path(), name, vec![("x", x)]);
    }
    std::fs::remove_file(folder.path().join("in/b.parquet")).unwrap();
    run_all(folder.path());
    let wide = "x Int64, f Float32, new Utf8";
    assert_eq!(columns(folder.path()), ["x Int32, f Float32", wide, wide]);
}

#[test]
fn column_that_readers_cannot_unify_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.parquet", vec![("x", longs(vec![1]))]);
    run_all(folder.path());
    std::fs::remove_file(folder.path().join("in/a.parquet")).unwrap();
    write(folder.path(), "b.parquet", vec![("x", text(vec!["one"]))]);
    let before = data_files(&folder.path().join("out"));
    for command in ["check", "run"] {
        let refused = latentflow(folder.path(), &[command, "p.toml"])
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(2), "{command}");
        let message = errors(&refused);
        assert!(
            message.contains("column `x` is Utf8; the dataset holds Int64"),
            "{message}"
        );
    }
    assert_eq!(data_files(&folder.path().join("out")), before);
}

#[test]
fn values_that_do_not_fit_earlier_files_are_rejects() {
    let folder = tempfile::tempdir().unwrap();
    let halves: ArrayRef = Arc::new(Float64Array::from(vec![0.5]));
    write(folder.path(), "a.parquet", vec![("x", halves)]);
    run_all(folder.path());
    std::fs::remove_file(folder.path().join("in/a.parquet")).unwrap();
    write(
        folder.path(),
        "b.parquet",
        vec![("x", longs(vec![1, (1 << 53) + 1, 2]))],
    );
    let summary = run_all(folder.path());
    let sink = &summary["stages"][1];
    assert_eq!(sink["rejects_by_reason"]["mismatch"], 1, "{summary}");
    assert_eq!(columns(folder.path()), ["x Float64", "x Float64"]);
    let again = run_all(folder.path());
    assert_eq!(
        (&again["records"], &again["rejects"]),
        (&0.into(), &0.into()),
        "{again}"
    );
}

#[test]
fn files_that_differ_from_most_are_named_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "0.parquet",
        vec![("x", text(vec!["one", "two"]))],
    );
    for name in ["a.parquet", "b.parquet"] {
        write(folder.path(), name, vec![("x", ints(vec![1]))]);
    }
    std::fs::write(folder.path().join("p.toml"), PIPELINE).unwrap();
    let checked = latentflow(folder.path(), &["check", "p.toml"])
        .output()
        .unwrap();
    let plan = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        checked.status.success() && plan.contains("0.parquet: column `x` is Utf8; expected Int32"),
        "{plan}"
    );
    let summary = run_all(folder.path());
    assert_eq!(
        (&summary["records"], &summary["rejects"]),
        (&4.into(), &2.into()),
        "{summary}"
    );
}
