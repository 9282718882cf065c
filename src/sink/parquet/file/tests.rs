//! Unit tests of the module `parquet_file`.

#![allow(clippy::unwrap_used)]

use std::num::NonZeroU32;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, Schema, UnionFields, UnionMode};
use parquet::basic::{Compression as Codec, Encoding, Type, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;

use super::*;
use crate::coverage::Coverage;
use crate::sink::OutputIdentity;
use crate::sink::dataset::data_files::data_files;
use crate::sink::parquet::options::ParquetCompression;
use crate::tensor::{fixed_column, variable_column, variable_field, vector_field};
use crate::units::ByteSize;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("image", DataType::Binary, false),
        vector_field("latent", 8),
        variable_field("pixels", 1).unwrap(),
    ]))
}

fn records(rows: usize) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(vec!["same"; rows])),
        Arc::new(BinaryArray::from_iter_values(vec![b"bytes"; rows])),
        fixed_column(8, vec![0.5; rows * 8]).unwrap(),
        variable_column(1, vec![0.5; rows * 2], &vec![vec![2]; rows]).unwrap(),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn written(row_group: RowGroupConfig, batches: &[RecordBatch]) -> ParquetMetaData {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::from(folder.path());
    let format = ParquetOptions::new(schema(), ParquetCompression::Zstd, row_group).unwrap();
    let mut part =
        ParquetFileWriter::begin(location.join("part-00000.parquet"), None, &format).unwrap();
    batches.iter().for_each(|batch| part.write(batch).unwrap());
    assert!(data_files(&location).unwrap().is_empty());
    part.finish(
        &ProvenanceFooter::new(OutputIdentity::default(), Coverage::default()),
        || Ok(()),
    )
    .unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    data_files(&location).unwrap()[0].metadata().unwrap()
}

fn groups(metadata: &ParquetMetaData) -> Vec<i64> {
    metadata
        .row_groups()
        .iter()
        .map(parquet::file::metadata::RowGroupMetaData::num_rows)
        .collect()
}

#[test]
fn row_groups_are_cut_by_records_across_batches() {
    let row_group = RowGroupConfig {
        records: NonZeroU32::new(100).unwrap(),
        ..RowGroupConfig::default()
    };
    assert_eq!(
        groups(&written(
            row_group,
            &[records(30), records(250), records(20)]
        )),
        [100, 100, 100]
    );
}

#[test]
fn row_groups_are_cut_by_bytes_between_records() {
    let bytes_of = |rows| ByteSize(record_bytes(&records(rows)));
    let cut = |bytes| {
        groups(&written(
            RowGroupConfig {
                bytes,
                ..RowGroupConfig::default()
            },
            &[records(10), records(15)],
        ))
    };
    assert_eq!(cut(bytes_of(10)), [10, 10, 5]);
    assert_eq!(cut(ByteSize(1)), [1; 25]);
}

#[test]
fn floats_use_byte_stream_split_and_text_a_dictionary() {
    let metadata = written(RowGroupConfig::default(), &[records(100)]);
    assert_eq!(
        metadata.file_metadata().created_by(),
        Some(concat!("latentflow ", env!("CARGO_PKG_VERSION")))
    );
    for column in metadata.row_group(0).columns() {
        let encodings: Vec<Encoding> = column.encodings().collect();
        let name = column.column_path().string();
        let float = column.column_type() == Type::FLOAT;
        assert_eq!(
            float,
            encodings.contains(&Encoding::BYTE_STREAM_SPLIT),
            "{name}: {encodings:?}"
        );
        let dictionary = column.dictionary_page_offset().is_some();
        assert_eq!(
            dictionary,
            name == "source" || name.starts_with("pixels.shape"),
            "{name}: {encodings:?}"
        );
        assert_eq!(
            column.compression(),
            Codec::ZSTD(ZstdLevel::default()),
            "{name}"
        );
    }
}

#[test]
fn columns_of_unsupported_types_are_all_reported() {
    let nested = |depth: usize| {
        (0..depth).fold(DataType::Int8, |item, _| {
            DataType::List(Arc::new(Field::new_list_field(item, true)))
        })
    };
    let union = DataType::Union(UnionFields::empty(), UnionMode::Sparse);
    let interval = Field::new_list_field(DataType::Interval(IntervalUnit::MonthDayNano), true);
    let schema = Schema::new(vec![
        Field::new("fine", DataType::Int8, true),
        Field::new("choice", union, true),
        Field::new("spans", DataType::List(Arc::new(interval)), true),
        Field::new("nothing", DataType::Struct(Fields::empty()), true),
        Field::new("readable", nested(49), true),
        Field::new("deep", nested(50), true),
    ]);
    let faults = ParquetOptions::new(
        Arc::new(schema),
        ParquetCompression::Zstd,
        RowGroupConfig::default(),
    )
    .unwrap_err();
    let columns: Vec<&str> = faults
        .iter()
        .filter_map(|fault| fault.message.split('`').nth(1))
        .collect();
    assert_eq!(columns, ["choice", "spans", "nothing", "deep"]);
}
