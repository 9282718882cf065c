//! The decoded size of a Parquet column, computed from its page headers before any page is
//! decompressed: footers may be wrong, and a page of a few bytes may hold billions of values.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use crate::source::parquet_levels::longest_record;
use crate::storage::FileReader;

/// The decoded sizes of the pages of a column in a row group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DecodedSizes {
    /// Bytes of all values after decompression and decoding, without the repetition of dictionary
    /// values.
    pub(super) bytes: u64,
    /// Bytes of memory that decoding one page takes at most.
    pub(super) peak: u64,
    /// Maximum bytes of one value for which the pages hold only a reference.
    pub(super) max_value: u64,
    /// Average bytes of a value in the page where that average is largest; 0 for lists.
    pub(super) dense: u64,
    /// Bytes of the longest record of a list column if its levels were read, otherwise 0.
    pub(super) longest: u64,
    /// Bytes of lists, any number of which may belong to one record.
    pub(super) lists: u64,
}

/// Bytes per list value for its levels, which assign it to a list.
const LEVEL_BYTES: u64 = 4;

/// If a column of lists decodes to more than this multiple of its stored size, all of its values
/// may belong to one record, so the levels are read.
const EXPANSION_LIMIT: u64 = 100;

/// The levels of list columns up to this decoded size, in bytes, are not read.
const MIN_SUSPECT_BYTES: u64 = 1 << 20;

impl DecodedSizes {
    /// Reads the page headers of a column. Also reads its dictionary if decoding takes at most
    /// `max_bytes`, and the levels of lists that may take more than `max_bytes` or expand by more
    /// than [`EXPANSION_LIMIT`].
    pub(super) fn read(
        input: &FileReader,
        column: &ColumnChunkMetaData,
        max_bytes: u64,
    ) -> Result<Self, ParquetError> {
        let (start, length) = column.byte_range();
        let mut walk = BufReader::new(input.try_clone()?);
        walk.seek(SeekFrom::Start(start))?;
        let width = value_bytes(column);
        let levels = if column.column_descr().max_rep_level() > 0 {
            LEVEL_BYTES
        } else {
            0
        };
        let (mut pages, mut at, mut largest, mut dictionary) =
            (Self::default(), start, 0_u64, 0_u64);
        let (mut has_shared_prefixes, mut values, mut longest_page) = (false, 0_u64, 0_u64);
        // Values of variable length may all lie in one part of a page, so the page is held a second
        // time as a batch.
        let copies = if width == 4 && column.column_type() == Type::BYTE_ARRAY {
            2
        } else {
            1
        };
        while at < start.saturating_add(length) {
            let mut header = ThriftReader {
                input: &mut walk,
                read: 0,
            };
            let page = header
                .page()
                .map_err(|error| ParquetError::General(error.to_string()))?;
            at = at.saturating_add(header.read).saturating_add(page.packed);
            walk.seek_relative(i64::try_from(page.packed).unwrap_or(i64::MAX))?;
            let decoded = page
                .unpacked
                .max(page.values.saturating_mul(width + levels));
            match page.is_dictionary {
                true => dictionary = dictionary.saturating_add(page.unpacked.saturating_mul(2)),
                false => {
                    pages.bytes = pages.bytes.saturating_add(decoded);
                    values = values.saturating_add(page.values);
                    pages.dense = pages.dense.max(decoded / page.values.max(1));
                }
            }
            largest = largest.max(
                page.packed
                    .saturating_add(page.unpacked.saturating_mul(copies)),
            );
            longest_page = longest_page.max(decoded);
            has_shared_prefixes |= page.encoding == Encoding::DELTA_BYTE_ARRAY as i64;
        }
        pages.peak = largest.saturating_add(dictionary);
        if has_shared_prefixes {
            pages.max_value = longest_page;
        }
        if dictionary > 0 && column.column_type() == Type::BYTE_ARRAY && pages.peak <= max_bytes {
            pages.max_value = pages.max_value.max(longest_value(input, column)?);
        }
        if levels > 0 {
            pages.dense = 0;
            pages.lists = pages
                .bytes
                .saturating_add(values.saturating_mul(pages.max_value));
            let is_suspect = pages.lists
                > length
                    .saturating_mul(EXPANSION_LIMIT)
                    .max(MIN_SUSPECT_BYTES);
            if (pages.lists > max_bytes || is_suspect) && pages.peak <= max_bytes {
                let value = (width + levels)
                    .saturating_add(pages.max_value)
                    .max(pages.bytes / values.max(1));
                pages.longest = longest_record(input, column)?.saturating_mul(value);
                pages.lists = pages.longest;
            }
        }
        Ok(pages)
    }

    /// Adds the sizes of another column.
    pub(super) fn add(&mut self, other: Self) {
        let Self {
            bytes,
            peak,
            max_value,
            dense,
            longest,
            lists,
        } = other;
        let sums = [
            (&mut self.bytes, bytes),
            (&mut self.peak, peak),
            (&mut self.max_value, max_value),
            (&mut self.dense, dense),
        ];
        let sums = sums
            .into_iter()
            .chain([(&mut self.longest, longest), (&mut self.lists, lists)]);
        sums.for_each(|(sum, part)| *sum = sum.saturating_add(part));
    }
}

fn value_bytes(column: &ColumnChunkMetaData) -> u64 {
    match column.column_type() {
        Type::BOOLEAN => 1,
        Type::INT32 | Type::FLOAT => 4,
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
        Type::BYTE_ARRAY => 4,
        Type::FIXED_LEN_BYTE_ARRAY => {
            u64::try_from(column.column_descr().type_length()).unwrap_or(0)
        }
    }
}

/// Returns the length of the longest value in a column's dictionary, in bytes.
fn longest_value(input: &FileReader, column: &ColumnChunkMetaData) -> Result<u64, ParquetError> {
    let mut reader = SerializedPageReader::new(Arc::new(input.try_clone()?), column, 0, None)?;
    let Some(Page::DictionaryPage { buf, .. }) = reader.get_next_page()? else {
        return Ok(0);
    };
    let (mut longest, mut left) = (0, &buf[..]);
    while let Some((length, rest)) = left.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        longest = longest.max(u64::from(length));
        left = rest.get(length as usize..).unwrap_or_default();
    }
    Ok(longest)
}

/// The fields of a page header that determine its decoded size.
#[derive(Debug, Default, PartialEq, Eq)]
struct PageHeader {
    is_dictionary: bool,
    packed: u64,
    unpacked: u64,
    values: u64,
    encoding: i64,
}

/// Reads the parts of Thrift's compact protocol that page headers use.
struct ThriftReader<'a, R> {
    input: &'a mut R,
    read: u64,
}

/// Maximum nesting depth of structures; a page header has three levels.
const MAX_DEPTH: usize = 16;

/// Type codes of the compact protocol.
const I32: u8 = 5;
const STRUCT: u8 = 12;

/// Field ids of the page header that hold the header of the page type.
const DATA: i64 = 5;
const DICTIONARY: i64 = 7;
const DATA_V2: i64 = 8;

impl<R: Read> ThriftReader<'_, R> {
    fn page(&mut self) -> io::Result<PageHeader> {
        let mut page = PageHeader::default();
        let (mut id, mut sizes) = (0, 0);
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (2, I32) => page.unpacked = self.size()?,
                (3, I32) => page.packed = self.size()?,
                (DATA | DICTIONARY | DATA_V2, STRUCT) => self.part(id, &mut page)?,
                (_, kind) => self.skip(kind, 0)?,
            }
            sizes += usize::from(matches!(id, 2 | 3));
        }
        if sizes == 2 {
            Ok(page)
        } else {
            Err(invalid_data("a page header has no size"))
        }
    }

    /// Reads the header of a page type: data, dictionary or data v2.
    fn part(&mut self, which: i64, page: &mut PageHeader) -> io::Result<()> {
        page.is_dictionary = which == DICTIONARY;
        let encoding_id = if which == DATA_V2 { 4 } else { 2 };
        let mut id = 0;
        while let Some(kind) = self.field(&mut id)? {
            match kind {
                I32 if id == 1 => page.values = self.size()?,
                I32 if id == encoding_id => page.encoding = self.number()?,
                kind => self.skip(kind, 1)?,
            }
        }
        Ok(())
    }

    fn size(&mut self) -> io::Result<u64> {
        u64::try_from(self.number()?).map_err(|_| invalid_data("a page has a negative size"))
    }

    /// Returns the type of the next field and stores its id in `id`; `None` at the end of a
    /// structure.
    fn field(&mut self, id: &mut i64) -> io::Result<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        *id = match byte >> 4 {
            0 => self.number()?,
            step => id.saturating_add(i64::from(step)),
        };
        Ok(Some(byte & 0x0f))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(invalid_data("a page header is nested too deeply"));
        }
        match kind {
            // The type code of a boolean field is its value.
            1 | 2 => Ok(()),
            3 => self.bytes(1),
            4..=6 => self.varint().map(drop),
            7 => self.bytes(8),
            8 => {
                let length = self.varint()?;
                self.bytes(length)
            }
            9 | 10 => {
                let start = self.byte()?;
                let count = if start >> 4 == 15 {
                    self.varint()?
                } else {
                    u64::from(start >> 4)
                };
                (0..count).try_for_each(|_| match start & 0x0f {
                    // In a list, unlike in a field, a boolean takes one byte.
                    1 | 2 => self.bytes(1),
                    item_kind => self.skip(item_kind, depth + 1),
                })
            }
            STRUCT => {
                let mut id = 0;
                while let Some(field_kind) = self.field(&mut id)? {
                    self.skip(field_kind, depth + 1)?;
                }
                Ok(())
            }
            _ => Err(invalid_data("a page header has a field of an unknown type")),
        }
    }

    fn number(&mut self) -> io::Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(invalid_data(
            "a page header has an integer that does not end",
        ))
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        self.read += 1;
        Ok(byte[0])
    }

    fn bytes(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.input.take(count), &mut io::sink())?;
        self.read += skipped;
        if skipped == count {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

fn invalid_data(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
    use arrow::datatypes::Int64Type;
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::ParquetMetaDataReader;
    use parquet::file::properties::{WriterProperties, WriterVersion};
    use proptest::prelude::*;

    use super::*;

    fn pages(column: ArrayRef, version: WriterVersion) -> (DecodedSizes, u64) {
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        let file = tempfile::tempfile().unwrap();
        let properties = WriterProperties::builder()
            .set_writer_version(version)
            .set_data_page_row_count_limit(100);
        let properties = properties.set_write_batch_size(100).build();
        let mut writer =
            ArrowWriter::try_new(file.try_clone().unwrap(), batch.schema(), Some(properties))
                .unwrap();
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

    proptest! {
        #[test]
        fn reading_a_header_of_any_bytes_stays_within_them(bytes: Vec<u8>) {
            let mut input = bytes.as_slice();
            let mut header = ThriftReader { input: &mut input, read: 0 };
            let _ = header.page();
            prop_assert!(header.read <= bytes.len() as u64);
        }
    }
}
