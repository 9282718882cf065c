//! Tests of a file source that do not depend on a format.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Schema};

use super::testing::{drain, progress_of, records};
use super::*;
use crate::batch::reject::RejectCode;
use crate::coverage::ResumeState;
use crate::source::table::file_source::FileSource;
use crate::source::table::file_source::source::ReadPolicy;

/// A format that reads one record from each file and panics on `b.x`.
struct Fragile;

impl FileFormat for Fragile {
    const EXTENSIONS: &'static [&'static str] = &["x"];

    fn read(
        &self,
        file: &InputFile,
        _: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        assert!(file.name != "b.x", "the test panics here");
        if output.done(&(0..1)) {
            return Ok(());
        }
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![7]))];
        output.send(
            0..1,
            FileRecords {
                columns,
                origin: vec![0],
                ..FileRecords::default()
            },
        )
    }
}

#[test]
fn file_whose_reader_panics_is_one_reject() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.x", "b.x", "c.x"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    let source = || {
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
        let path = folder.path().to_str().unwrap().to_owned();
        Box::new(FileSource::new(
            "in",
            &path,
            &schema,
            Fragile,
            ReadPolicy::default(),
        ))
    };
    let batches = drain(source(), &ResumeState::default()).unwrap();
    assert_eq!(records(&batches).num_rows(), 2);
    let reject = &batches[1].rejects[0];
    assert_eq!(
        (reject.code, reject.reason.as_str()),
        (
            RejectCode::Panicked,
            "b.x: the reader panicked: the test panics here"
        )
    );
    let again = drain(source(), &progress_of(&batches)).unwrap();
    assert!(
        again.iter().all(|batch| batch.rejects.is_empty()),
        "the file is rejected once"
    );
}

/// A format that rejects a declared number of rows.
struct Broken {
    declared: u64,
}

impl FileFormat for Broken {
    const EXTENSIONS: &'static [&'static str] = &["broken"];

    fn read(&self, _: &InputFile, _: FileReader, output: &BatchOutput<'_>) -> Result<(), ReadEnd> {
        output.reject_rows(
            5..5 + self.declared,
            RejectCode::Malformed,
            "damaged".to_owned(),
        )
    }
}

/// The rows, the records and the reason of the reject of a file of 10 bytes.
fn reject_of(declared: u64) -> (u64, u64, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.broken"), "0123456789").unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let source = FileSource::new(
        "in",
        &path,
        &Schema::empty(),
        Broken { declared },
        ReadPolicy::default(),
    );
    let batch = drain(Box::new(source), &ResumeState::default())
        .unwrap()
        .remove(0);
    let reject = &batch.rejects[0];
    assert_eq!(batch.batch.provenance.len(), reject.rows);
    (reject.rows, reject.records, reject.reason.clone())
}

#[test]
fn reject_counts_declared_rows_that_fit_into_the_file() {
    assert_eq!(
        reject_of(10_240),
        (
            10_240,
            10_240,
            "a.broken, 10240 rows from 5: damaged".to_owned()
        )
    );
    for declared in [10_241, 1 << 60] {
        let (rows, records, reason) = reject_of(declared);
        assert_eq!((rows, records), (1, 1));
        assert_eq!(
            reason,
            format!(
                "a.broken, row 5: damaged; the file declares {declared} rows, more than it can \
                 hold, so the reject counts as one record"
            )
        );
    }
}
