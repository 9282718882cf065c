//! What a source of record files gives as a whole, whatever the format.

#![allow(clippy::unwrap_used)]

use arrow::array::{ArrayRef, Int64Array};

use super::testing::{drain, progress_of, records};
use super::*;

/// Gives one record of each file, and panics on some.
struct Fragile;

impl FileFormat for Fragile {
    const EXTENSIONS: &'static [&'static str] = &["x"];

    fn read(
        &self,
        file: &InputFile,
        _: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        assert!(file.name != "b.x", "this one is odd");
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
fn a_file_that_a_reader_panics_on_is_one_reject() {
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
            "b.x: the reader panicked: this one is odd"
        )
    );
    let again = drain(source(), &progress_of(&batches)).unwrap();
    assert!(
        again.iter().all(|batch| batch.rejects.is_empty()),
        "it is rejected once"
    );
}

/// A format whose files declare a number of rows that they do not hold.
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

/// Rows and records of the reject for a file of 10 bytes, and its reason.
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
fn reject_of_many_rows_counts_all_that_its_file_can_hold() {
    assert_eq!(
        reject_of(10_240),
        (
            10_240,
            10_240,
            "a.broken, 10240 rows from 5: damaged".to_owned()
        )
    );
    for absurd in [10_241, 1 << 60] {
        let (rows, records, reason) = reject_of(absurd);
        assert_eq!((rows, records), (1, 1));
        assert!(
            reason.contains(&format!(
                "{absurd} rows are declared, more than the file can hold"
            )),
            "{reason}"
        );
    }
}
