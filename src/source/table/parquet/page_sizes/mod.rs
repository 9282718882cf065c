//! The decoded size of a Parquet column, computed from its page headers before any page is
//! decompressed: footers may be wrong, and a page of a few bytes may hold billions of values.

use std::io::{BufReader, Seek, SeekFrom};
use std::sync::Arc;

use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use crate::source::table::parquet::levels::longest_record;
use crate::source::table::parquet::page_headers::ThriftReader;
use crate::storage::FileReader;

/// The decoded sizes of the pages of a column in a row group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DecodedSizes {
    /// Bytes of all values after decompression and decoding, without the repetition of dictionary
    /// values.
    pub(crate) bytes: u64,
    /// Bytes of memory that decoding one page takes at most.
    pub(crate) peak: u64,
    /// Maximum bytes of one value for which the pages hold only a reference.
    pub(crate) max_value: u64,
    /// Average bytes of a value in the page where that average is largest; 0 for lists.
    pub(crate) dense: u64,
    /// Bytes of the longest record of a list column if its levels were read, otherwise 0.
    pub(crate) longest: u64,
    /// Bytes of lists, any number of which may belong to one record.
    pub(crate) lists: u64,
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
    pub(crate) fn read(
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
    pub(crate) fn add(&mut self, other: Self) {
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

#[cfg(test)]
mod tests;
