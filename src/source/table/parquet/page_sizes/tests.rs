//! Unit tests of the module `parquet_page_sizes`.

#![allow(clippy::unwrap_used)]

use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::{WriterProperties, WriterVersion};
use proptest::prelude::*;

use super::*;
use crate::source::table::parquet::page_headers::PageHeader;

fn pages(column: ArrayRef, version: WriterVersion) -> (DecodedSizes, u64) {
    let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
    let file = tempfile::tempfile().unwrap();
    let properties = WriterProperties::builder()
        .set_writer_version(version)
        .set_data_page_row_count_limit(100);
    let properties = properties.set_write_batch_size(100).build();
    let mut writer =
        ArrowWriter::try_new(file.try_clone().unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let metadata = ParquetMetaDataReader::new()
        .parse_and_finish(&file)
        .unwrap();
    let chunk = metadata.row_group(0).column(0);
    (
        DecodedSizes::read(&FileReader::from(file), chunk, u64::MAX).unwrap(),
        chunk.uncompressed_size().cast_unsigned(),
    )
}

#[test]
fn page_headers_of_both_versions_give_decoded_sizes() {
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        let (numbers, _) = pages(Arc::new(Int64Array::from_iter_values(0..1000)), version);
        assert_eq!(
            numbers.bytes, 8000,
            "each page takes at least the bytes of its values"
        );
        assert!(
            numbers.peak >= 8000 && numbers.peak < 40_000,
            "a dictionary and a page: {numbers:?}"
        );
        assert_eq!(numbers.max_value, 0);
        let words = ["a", "four", "the longest of them"].repeat(300);
        let (words, declared) = pages(Arc::new(StringArray::from(words)), version);
        assert_eq!(words.max_value, 19);
        assert!(
            words.bytes >= 3600 && declared < 3600,
            "{words:?}, {declared} declared"
        );
    }
}

#[test]
fn list_that_expands_beyond_the_limit_counts_as_one_record() {
    let zeros = (0..100_000).map(|_| Some(0)).collect::<Vec<_>>();
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(zeros)]);
    let (pages, declared) = pages(Arc::new(list), WriterVersion::PARQUET_1_0);
    assert!(declared < 12_000, "{declared}");
    assert!(pages.longest >= 1_200_000, "{pages:?}");
}

/// The header of a page with 100 values in 8 bytes, after a change.
fn header(change: impl FnOnce(&mut Vec<u8>)) -> Result<PageHeader, String> {
    // The page type, the sizes, and the header of a data page: values and three encodings.
    let mut bytes = vec![
        0x15, 0, 0x15, 16, 0x15, 16, 0x2c, 0x15, 0xc8, 1, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0,
    ];
    change(&mut bytes);
    let mut input = bytes.as_slice();
    let mut reader = ThriftReader {
        input: &mut input,
        read: 0,
    };
    reader.page().map_err(|error| error.to_string())
}

#[test]
fn headers_that_the_library_reads_differently_are_refused() {
    let read = header(|_| {}).unwrap();
    assert_eq!((read.values, read.packed, read.unpacked), (100, 8, 8));
    let wrong_type = "a page header has a field of the wrong type";
    // The number of values is an integer of 64 bits.
    let refused = header(|bytes| bytes[7] = 0x16).unwrap_err();
    assert_eq!(refused, wrong_type);
    // The uncompressed size is an integer of 16 bits.
    assert_eq!(header(|bytes| bytes[2] = 0x14).unwrap_err(), wrong_type);
    // The header of the data page is a list, and another field is a list of booleans.
    assert_eq!(header(|bytes| bytes[6] = 0x29).unwrap_err(), wrong_type);
    let list = |bytes: &mut Vec<u8>| drop(bytes.splice(17.., [0x59, 0x11, 1, 0]));
    assert_eq!(header(list).unwrap_err(), wrong_type);
    // The compressed size is 8 in the lower 32 bits only.
    let long = |bytes: &mut Vec<u8>| drop(bytes.splice(5..6, [0x90, 0x80, 0x80, 0x80, 0x20]));
    assert_eq!(
        header(long).unwrap_err(),
        "a page header has an integer of more than 32 bits"
    );
    // The header of a dictionary page follows.
    let second = |bytes: &mut Vec<u8>| drop(bytes.splice(17.., [0x2c, 0x15, 2, 0x15, 0, 0, 0]));
    assert_eq!(
        header(second).unwrap_err(),
        "a page header has several page types"
    );
    // The field id is 5 in the lower 16 bits only.
    let far = |bytes: &mut Vec<u8>| drop(bytes.splice(6..7, [0x0c, 0x8a, 0x80, 0x08]));
    assert_eq!(
        header(far).unwrap_err(),
        "a page header has an invalid field id"
    );
}

proptest! {
    #[test]
    fn reading_a_header_of_any_bytes_stays_within_them(bytes: Vec<u8>) {
        let mut input = bytes.as_slice();
        let mut header = ThriftReader { input: &mut input, read: 0 };
        let _ = header.page();
        prop_assert!(header.read <= bytes.len() as u64);
    }
}
