//! Columns of every Arrow type pass through a pipeline and `compact` with their values, and
//! pyarrow, pandas, Polars and DuckDB read them from the output.

mod arrays;
mod values;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use arrow::ipc::writer::FileWriter;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value, json};

use crate::common::outputs::data_files;
use crate::common::runs::{errors, latentflow, run};
use arrays::random_columns;
use values::value;

const ROWS: usize = 40;

/// The files of a folder, each written by a run of its own: as many as `compact` merges.
const FILES: u64 = 3;

/// A table with a column of every type. `dropped` is the column that the pipeline drops.
fn table(seed: u64) -> RecordBatch {
    let mut columns = random_columns(seed, ROWS);
    let dropped: ArrayRef = Arc::new(StringArray::from(vec!["x"; ROWS]));
    columns.push((
        Field::new("dropped", dropped.data_type().clone(), false),
        dropped,
    ));
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn write_arrow(path: &Path, table: &RecordBatch) {
    let mut writer = FileWriter::try_new(File::create(path).unwrap(), table.schema_ref()).unwrap();
    writer.write(table).unwrap();
    writer.finish().unwrap();
}

fn write_parquet(path: &Path, table: &RecordBatch) {
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, table.schema(), None).unwrap();
    writer.write(table).unwrap();
    writer.close().unwrap();
}

/// Adds the values of a table to those of each column.
fn add_values(expected: &mut Map<String, Value>, table: &RecordBatch) {
    for (field, column) in table.schema().fields().iter().zip(table.columns()) {
        let added = (0..table.num_rows()).map(|row| value(column, row));
        let values = expected.entry(field.name().clone());
        let values = values.or_insert_with(|| json!([])).as_array_mut().unwrap();
        values.extend(added);
    }
}

/// The values of each column of an output.
fn output_values(folder: &Path) -> Map<String, Value> {
    let mut found = Map::new();
    for path in data_files(folder) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap());
        for records in reader.unwrap().build().unwrap() {
            add_values(&mut found, &records.unwrap());
        }
    }
    found
}

fn assert_same(expected: &Map<String, Value>, folder: &Path) {
    let found = output_values(folder);
    for (name, values) in expected {
        assert_eq!(
            found.get(name),
            Some(values),
            "{}: {name}",
            folder.display()
        );
    }
}

#[test]
fn values_of_every_type_reach_every_reader() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut outputs = Vec::new();
    for (kind, extension) in [("arrow", "arrow"), ("parquet", "parquet")] {
        let (input, out) = (format!("{kind}-in"), format!("{kind}-out"));
        fs::create_dir(folder.join(&input)).unwrap();
        let pipeline = format!(
            "[stages.in]\nkind = \"{kind}\"\npath = \"{input}\"\n\
             [stages.kept]\nkind = \"select\"\ninputs = [\"in\"]\ndrop = [\"dropped\"]\n\
             [stages.out]\nkind = \"parquet\"\ninputs = [\"kept\"]\npath = \"{out}\"\n"
        );
        let mut expected = Map::new();
        for seed in 0..FILES {
            let table = table(seed);
            let path = folder.join(&input).join(format!("{seed}.{extension}"));
            match kind {
                "arrow" => write_arrow(&path, &table),
                _ => write_parquet(&path, &table),
            }
            add_values(&mut expected, &table);
            let (output, summary) = run(folder, &pipeline, &[]);
            assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
            assert_eq!(summary["rejects"], 0, "{summary}");
        }
        expected.remove("dropped");
        let out = folder.join(&out);
        assert_same(&expected, &out);
        let mut compaction = latentflow(folder, &["compact", out.to_str().unwrap()]);
        let output = compaction.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        assert_eq!(data_files(&out).len(), 1);
        assert_same(&expected, &out);
        outputs.push(json!({ "path": data_files(&out)[0], "columns": expected }));
    }
    let expected = folder.join("expected.json");
    fs::write(&expected, serde_json::to_vec(&outputs).unwrap()).unwrap();
    check_by_readers(&expected);
}

/// Reads the outputs with each reader.
fn check_by_readers(expected: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readers = root.join(".runtime/parquet-readers");
    if !readers.exists() {
        eprintln!("SKIPPED: the readers of Parquet are missing; `make readers` fetches them");
        return;
    }
    let python = Command::new("python3")
        .arg(root.join("tests/suite/column_types/check.py"))
        .arg(expected)
        .env("PYTHONPATH", readers)
        .output()
        .unwrap();
    assert!(python.status.success(), "{}", errors(&python));
}
