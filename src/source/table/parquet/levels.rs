//! The number of values in the longest record of a Parquet list column, computed from its
//! repetition levels before any value is decoded.

use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use crate::storage::FileReader;

/// Returns the number of values in the longest record. Pages are decompressed one at a time.
pub(crate) fn longest_record(
    input: &FileReader,
    column: &ColumnChunkMetaData,
) -> Result<u64, ParquetError> {
    let width = u64::from(
        u16::BITS
            - column
                .column_descr()
                .max_rep_level()
                .cast_unsigned()
                .leading_zeros(),
    );
    let mut reader = SerializedPageReader::new(Arc::new(input.try_clone()?), column, 0, None)?;
    let mut records = LevelCounter::default();
    while let Some(page) = reader.get_next_page()? {
        match page {
            Page::DataPage {
                buf,
                num_values,
                rep_level_encoding: Encoding::RLE,
                ..
            } => {
                let (length, levels) = buf.split_first_chunk::<4>().ok_or_else(truncated)?;
                let levels = levels
                    .get(..u32::from_le_bytes(*length) as usize)
                    .ok_or_else(truncated)?;
                records.add(levels, width, num_values.into())?;
            }
            Page::DataPageV2 {
                buf,
                num_values,
                rep_levels_byte_len,
                ..
            } => {
                let levels = buf
                    .get(..rep_levels_byte_len as usize)
                    .ok_or_else(truncated)?;
                records.add(levels, width, num_values.into())?;
            }
            // Levels of an encoding that current writers do not use: the entire page may belong to
            // one record.
            Page::DataPage { num_values, .. } => {
                records.current = records.current.saturating_add(num_values.into())
            }
            Page::DictionaryPage { .. } => {}
        }
    }
    Ok(records.longest.max(records.current))
}

fn truncated() -> ParquetError {
    ParquetError::EOF("the levels of a page exceed its length".to_owned())
}

/// Counts the values of each record; a record begins at level 0.
#[derive(Debug, Default)]
struct LevelCounter {
    longest: u64,
    current: u64,
}

impl LevelCounter {
    /// Adds the levels of a page, which are runs of one level and groups of eight levels of `width`
    /// bits each.
    fn add(&mut self, mut levels: &[u8], width: u64, mut left: u64) -> Result<(), ParquetError> {
        let value_bytes = usize::try_from(width.div_ceil(8)).unwrap_or(usize::MAX);
        while left > 0 {
            let header = varint(&mut levels)?;
            let count = header >> 1;
            if header & 1 == 0 {
                let value = levels.split_off(..value_bytes).ok_or_else(truncated)?;
                let count = count.min(left);
                self.run(value.iter().all(|&byte| byte == 0), count);
                left -= count;
            } else {
                let bytes = usize::try_from(count.saturating_mul(width)).unwrap_or(usize::MAX);
                // The last group may hold fewer than eight levels.
                let bytes = levels
                    .split_off(..bytes.min(levels.len()))
                    .unwrap_or_default();
                let count = count.saturating_mul(8).min(left);
                for at in 0..count {
                    self.run(is_zero(bytes, at * width, width), 1);
                }
                left -= count;
            }
            if count == 0 {
                return Err(truncated());
            }
        }
        Ok(())
    }

    fn run(&mut self, begins: bool, count: u64) {
        if !begins {
            self.current = self.current.saturating_add(count);
        } else if count > 0 {
            self.longest = self.longest.max(self.current).max(1);
            self.current = 1;
        }
    }
}

/// Returns whether the `width` bits from `start` on are 0. Bits beyond the end count as 0.
fn is_zero(bytes: &[u8], start: u64, width: u64) -> bool {
    (start..start + width).all(|bit| {
        let byte = usize::try_from(bit / 8)
            .ok()
            .and_then(|at| bytes.get(at))
            .copied()
            .unwrap_or(0);
        byte >> (bit % 8) & 1 == 0
    })
}

fn varint(bytes: &mut &[u8]) -> Result<u64, ParquetError> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let &byte = bytes.split_off_first().ok_or_else(truncated)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(truncated())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{ArrayRef, ListArray, RecordBatch};
    use arrow::datatypes::Int64Type;
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::ParquetMetaDataReader;
    use parquet::file::properties::{WriterProperties, WriterVersion};

    use super::*;

    fn longest(lengths: &[usize], version: WriterVersion, page: usize) -> u64 {
        let lists = lengths
            .iter()
            .map(|&length| Some((0..length).map(|_| Some(0)).collect::<Vec<_>>()));
        let column: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        let properties = WriterProperties::builder()
            .set_writer_version(version)
            .set_data_page_row_count_limit(page);
        let properties = properties.set_write_batch_size(page).build();
        let file = tempfile::tempfile().unwrap();
        let mut writer =
            ArrowWriter::try_new(file.try_clone().unwrap(), batch.schema(), Some(properties))
                .unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let metadata = ParquetMetaDataReader::new()
            .parse_and_finish(&file)
            .unwrap();
        longest_record(&FileReader::from(file), metadata.row_group(0).column(0)).unwrap()
    }

    #[test]
    fn longest_record_is_found_in_pages_of_both_versions() {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for page in [2, 1000] {
                assert_eq!(longest(&[3, 1, 40, 2, 0, 7], version, page), 40);
                assert_eq!(longest(&[100_000], version, page), 100_000);
                assert_eq!(longest(&[1; 5000], version, page), 1);
            }
        }
    }

    #[test]
    fn truncated_levels_are_an_error() {
        assert!(LevelCounter::default().add(&[0x80], 1, 5).is_err());
        assert!(LevelCounter::default().add(&[2], 1, 5).is_err());
        assert!(LevelCounter::default().add(&[1], 1, 5).is_err());
    }
}
