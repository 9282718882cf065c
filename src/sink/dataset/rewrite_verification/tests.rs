//! Tests of rewrites of files of earlier versions, and of a rewrite that loses values.

#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, DictionaryArray, Int8Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int8Type, Schema};
use parquet::arrow::ArrowWriter;

use super::*;
use crate::batch::provenance::{Provenance, Split};
use crate::coverage::Coverage;
use crate::sink::OutputIdentity;
use crate::sink::dataset::compact::{CompactionTarget, compact};
use crate::sink::dataset::data_files::data_files;
use crate::sink::dataset::rewrite::DatasetRewrite;
use crate::sink::parquet::footer::ProvenanceFooter;
use crate::sink::parquet::stored_types::stored_schema;
use crate::tensor::{fixed_column, tensor_field};

/// Records as earlier versions stored them: a dictionary with narrow keys, and a tensor whose
/// values are required.
fn earlier_records(file: u8) -> RecordBatch {
    let words = (0..100).map(|word| format!("{file}-{word}"));
    let words = StringArray::from_iter_values(words);
    let words =
        DictionaryArray::<Int8Type>::new(Int8Array::from_iter_values(0..100), Arc::new(words));
    let pixels = (0..200).map(|at| f32::from(file) + f32::from(u8::try_from(at).unwrap()));
    let columns: Vec<ArrayRef> = vec![Arc::new(words), fixed_column(2, pixels.collect()).unwrap()];
    let schema = Schema::new(vec![
        Field::new_dictionary("c", DataType::Int8, DataType::Utf8, false),
        tensor_field("pixels", &[1, 2]).unwrap(),
    ]);
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn write(folder: &Path, number: u8, records: &RecordBatch) {
    let path = folder.join(format!("part-{number:05}.parquet"));
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, records.schema(), None).unwrap();
    writer.write(records).unwrap();
    let mut coverage = Coverage::default();
    let first = u64::from(number) * 100;
    coverage.insert(&Provenance::rows(Split::new("a"), first..first + 100));
    let footer = ProvenanceFooter::new(OutputIdentity::default(), coverage);
    for entry in footer.to_metadata() {
        writer.append_key_value_metadata(entry);
    }
    writer.close().unwrap();
}

/// A dataset of two files of an earlier version and one of this version.
fn dataset(folder: &Path) {
    write(folder, 0, &earlier_records(0));
    write(folder, 1, &earlier_records(1));
    let last = earlier_records(2);
    let stored = store(&last, &stored_schema(last.schema_ref())).unwrap();
    write(folder, 2, &stored);
}

#[test]
fn files_of_earlier_versions_become_plain_values() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path());
    let target = CompactionTarget {
        bytes: 1 << 20,
        records: None,
    };
    let summary = compact(folder.path(), target, false, &mut |_, _| ()).unwrap();
    assert_eq!((summary.before.files, summary.after.files), (3, 1));
    let files = data_files(&folder.path().into()).unwrap();
    let found = RewriteCandidate::read(files[0].clone()).unwrap().unwrap();
    assert_eq!(found.kind.schema.field(0).data_type(), &DataType::Utf8);
    let DataType::FixedSizeList(item, 2) = found.kind.schema.field(1).data_type() else {
        panic!("{}", found.kind.schema);
    };
    assert!(item.is_nullable());
    let mut words = Vec::new();
    for records in DatasetRecords::open(&files[0], None) {
        let records = records.map_err(failure).unwrap();
        words.extend(
            records["c"]
                .as_string::<i32>()
                .iter()
                .flatten()
                .map(str::to_owned),
        );
    }
    let expected = (0..3).flat_map(|file| (0..100).map(move |word| format!("{file}-{word}")));
    assert_eq!(words, expected.collect::<Vec<_>>());
}

#[test]
fn rewrite_that_differs_from_its_inputs_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path());
    let contents = || -> Vec<Vec<u8>> {
        let files = data_files(&folder.path().into()).unwrap();
        let paths = files.iter().map(|file| file.location.local().unwrap());
        paths.map(|path| fs::read(path).unwrap()).collect()
    };
    let before = contents();
    let rewrite = DatasetRewrite::begin(folder.path()).unwrap();
    let candidates: Vec<RewriteCandidate> = rewrite
        .files()
        .unwrap()
        .into_iter()
        .map(|file| RewriteCandidate::read(file).unwrap().unwrap())
        .collect();
    let kind = candidates[0].kind.clone();
    let files: Vec<DatasetFile> = candidates.into_iter().map(|found| found.file).collect();
    // The second file loses a value while it is written, but not when it is compared.
    let reads = Cell::new(0);
    let error = rewrite
        .replace(&kind, &files, |records| {
            reads.set(reads.get() + 1);
            if reads.get() != 2 {
                return Ok(records);
            }
            let mut columns = records.columns().to_vec();
            columns[1] = Arc::clone(earlier_records(7).column(1));
            Ok(RecordBatch::try_new(records.schema(), columns)?)
        })
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("differs from its inputs: column `pixels`")
            && error.contains("no file was replaced"),
        "{error}"
    );
    rewrite.end().unwrap();
    assert_eq!(contents(), before);
}
