//! Unit tests of the module `inspect`.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Float32Array, RecordBatch, StringArray};
use arrow::datatypes::Field;
use expect_test::expect;
use parquet::arrow::ArrowWriter;

use super::*;
use crate::batch::Batch;
use crate::batch::provenance::{Provenance, Split};
use crate::sink::parquet::config::ParquetSinkConfig;
use crate::tensor::{fixed_column, vector_field};
use crate::units::ByteSize;

fn records(errors: &[f32]) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        vector_field("latent", 2),
        Field::new("reconstruction_error", DataType::Float32, false),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(
            errors.iter().map(|error| format!("{error}.png")),
        )),
        fixed_column(2, vec![0.5; errors.len() * 2]).unwrap(),
        Arc::new(Float32Array::from(errors.to_vec())),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn run(path: &Path, digest: &str, from: u64, batches: &[&[f32]]) {
    let identity = OutputIdentity {
        pipeline: "photos".into(),
        stage: "out".into(),
        digest: digest.into(),
        models: BTreeMap::from([("photo".into(), "5eed".into())]),
        ..OutputIdentity::default()
    };
    let mut writer = ParquetSinkConfig::new(path)
        .sink(&records(&[]).schema())
        .unwrap()
        .open(identity)
        .unwrap();
    let split = Split::new("photos/listing-0");
    for (index, errors) in (0_u64..).zip(batches) {
        let start = from + index * 10;
        let provenance = Arc::new(Provenance::rows(Arc::clone(&split), start..start + 10));
        let row_ordinals = (0..u32::try_from(errors.len()).unwrap()).collect();
        writer
            .write(&Batch {
                records: records(errors),
                row_ordinals,
                provenance,
            })
            .unwrap();
        writer.commit().unwrap();
    }
}

fn text(path: &Path) -> String {
    let text = describe(&path.into()).unwrap().to_string();
    // The size of files depends on the encoder and is not tested.
    let size = format!("of {}", ByteSize(describe(&path.into()).unwrap().bytes));
    text.replace(&path.display().to_string(), "DATASET")
        .replace(&size, "of SIZE")
}

#[test]
fn description_has_content_and_provenance() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "d1", 0, &[&[0.5, 0.25, 1.0], &[], &[0.125]]);
    run(folder.path(), "d1", 50, &[&[f32::NAN], &[]]);
    expect![[r"
            DATASET
            rows         5 in 3 files of SIZE
            columns
                source                string
                latent                float32[2]
                reconstruction_error  float32
            errors
                                             count          mean           std           min           p50           p99           max
                reconstruction_error             4      0.468750      0.335119      0.125000      0.250000      0.500000      1.000000  (1 not finite)
            pipeline     photos, stage out
            digest       d1
            model        photo 5eed
            version      latentflow 0.1.0
            source rows  50 of 1 split
                photos/listing-0: 0..30, 50..70
        "]]
        .assert_eq(&text(folder.path()));
}

#[test]
fn file_of_another_program_has_no_provenance() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.parquet");
    let records = records(&[0.0001]);
    let mut writer =
        ArrowWriter::try_new(File::create(&path).unwrap(), records.schema(), None).unwrap();
    writer.write(&records).unwrap();
    writer.close().unwrap();
    let text = text(&path);
    assert!(
        text.contains("provenance   none: not written by latentflow"),
        "{text}"
    );
    assert!(text.contains("1.00000e-4"), "{text}");
    assert!(!text.contains("source rows"), "{text}");
}

#[test]
fn dataset_without_files_is_described_by_its_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "d1", 0, &[&[]]);
    let description = describe(&folder.path().into()).unwrap();
    assert_eq!(
        (
            description.files,
            description.rows,
            description.coverage.len()
        ),
        (0, 0, 10)
    );
    assert_eq!(description.writers.len(), 1);
}

#[test]
fn writers_of_different_files_are_listed_separately() {
    let folder = tempfile::tempdir().unwrap();
    run(&folder.path().join("a"), "d1", 0, &[&[0.5]]);
    run(&folder.path().join("b"), "d2", 0, &[&[0.5]]);
    let moved = folder.path().join("a/other.parquet");
    std::fs::rename(folder.path().join("b/part-00000.parquet"), &moved).unwrap();
    let description = describe(&Location::from(folder.path()).join("a")).unwrap();
    let digests: Vec<&str> = description
        .writers
        .iter()
        .map(|(identity, _)| identity.digest.as_str())
        .collect();
    assert_eq!(digests, ["d2", "d1"]);
    assert!(description.different.is_empty());
}

#[test]
fn folder_without_dataset_and_other_file_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        describe(&folder.path().into()).unwrap_err().to_string(),
        "expected Parquet files directly in this folder; found none"
    );
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "hello").unwrap();
    assert!(
        describe(&path.as_path().into())
            .unwrap_err()
            .to_string()
            .contains("notes.txt: invalid or truncated Parquet file")
    );
}
