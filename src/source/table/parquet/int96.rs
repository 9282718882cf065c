//! The check of INT96 timestamps, which may have more digits or a later year than the type that
//! they are read as.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{Int96, Int96Type};
use parquet::errors::ParquetError;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::RowGroupReader;
use parquet::file::serialized_reader::SerializedRowGroupReader;

use crate::source::table::parquet::row_reader::RowGroupRef;
use crate::source::table::parquet::types::Int96Unit;

/// Reads the INT96 columns of a row group, in addition to the reader of its values.
pub(crate) struct Int96Check {
    unit: Int96Unit,
    columns: Vec<Int96Column>,
}

/// The records whose timestamps cannot be represented, by their row, with the reason.
pub(crate) type BadRows = BTreeMap<usize, String>;

struct Int96Column {
    name: String,
    /// The definition level of a value that is not null.
    present: i16,
    values: ColumnReaderImpl<Int96Type>,
}

impl Int96Check {
    /// Opens the INT96 columns among those of `group`, from row `start` on.
    ///
    /// # Errors
    /// Errors of the `parquet` crate about the row group.
    pub(crate) fn open(
        group: RowGroupRef<'_>,
        start: u64,
        unit: Int96Unit,
    ) -> Result<Self, ParquetError> {
        let metadata = group.metadata.metadata();
        let row_group = metadata.row_group(group.group_index);
        let schema = row_group.schema_descr();
        let is_int96 = |&leaf: &usize| {
            schema.column(leaf).physical_type() == Type::INT96
                && group.columns.contains(&schema.get_column_root_idx(leaf))
        };
        let mut columns = Vec::new();
        for leaf in (0..schema.num_columns()).filter(is_int96) {
            let input = Arc::new(group.input.try_clone()?);
            let index = metadata.page_index_for_row_group(group.group_index);
            let properties = Arc::new(ReaderProperties::builder().build());
            let reader = SerializedRowGroupReader::new(input, row_group, index, properties)?;
            let ColumnReader::Int96ColumnReader(mut values) = reader.get_column_reader(leaf)?
            else {
                continue;
            };
            values.skip_records(usize::try_from(start).unwrap_or(usize::MAX))?;
            let column = schema.column(leaf);
            columns.push(Int96Column {
                name: column.path().string(),
                present: column.max_def_level(),
                values,
            });
        }
        Ok(Self { unit, columns })
    }

    /// Reads the next `rows` rows, and returns those that have a timestamp that cannot be
    /// represented.
    ///
    /// # Errors
    /// Errors of the `parquet` crate about the pages.
    pub(crate) fn next(&mut self, rows: usize) -> Result<BadRows, ParquetError> {
        let mut bad = BadRows::new();
        for column in &mut self.columns {
            column.check(rows, self.unit, &mut bad)?;
        }
        Ok(bad)
    }
}

impl Int96Column {
    fn check(
        &mut self,
        rows: usize,
        unit: Int96Unit,
        bad: &mut BadRows,
    ) -> Result<(), ParquetError> {
        let mut read = 0;
        while read < rows {
            let (mut definitions, mut repetitions, mut values) =
                (Vec::new(), Vec::new(), Vec::new());
            let levels = (Some(&mut definitions), Some(&mut repetitions));
            let (records, ..) =
                self.values
                    .read_records(rows - read, levels.0, levels.1, &mut values)?;
            if records == 0 {
                break;
            }
            // A column has levels only if it can have nulls or lists.
            let mut present = values.iter();
            let (mut row, mut at) = (read, 0);
            let count = definitions.len().max(repetitions.len()).max(values.len());
            while at < count {
                if at > 0 && repetitions.get(at).is_none_or(|&level| level == 0) {
                    row += 1;
                }
                if definitions
                    .get(at)
                    .is_none_or(|&level| level == self.present)
                    && let Some(Err(reason)) = present.next().map(|value| unit.check(value))
                {
                    bad.entry(row)
                        .or_insert_with(|| format!("column `{}`: {reason}", self.name));
                }
                at += 1;
            }
            read += records;
        }
        Ok(())
    }
}

/// The Julian day of 1970-01-01.
const EPOCH_DAY: i128 = 2_440_588;
const DAY_NANOSECONDS: i128 = 86_400_000_000_000;

impl Int96Unit {
    /// Checks that the unit represents a timestamp exactly.
    fn check(self, value: &Int96) -> Result<(), String> {
        let [low, high, day] = *value.data() else {
            return Ok(());
        };
        let of_day = i128::from((u64::from(high) << 32 | u64::from(low)).cast_signed());
        let nanoseconds = (i128::from(day.cast_signed()) - EPOCH_DAY) * DAY_NANOSECONDS + of_day;
        match self {
            Self::Us if nanoseconds % 1000 != 0 => Err(
                "a timestamp has digits below a microsecond; set `int96 = \"ns\"` to read \
                 nanoseconds"
                    .to_owned(),
            ),
            Self::Us if i64::try_from(nanoseconds / 1000).is_err() => {
                Err("a timestamp is beyond the years that microseconds can represent".to_owned())
            }
            Self::Ns if i64::try_from(nanoseconds).is_err() => Err(
                "a timestamp is outside of the years 1678 to 2261, which nanoseconds can \
                 represent; set `int96 = \"us\"` to read microseconds"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

/// Cuts the rows `part` before and after each bad row. Returns the reason with each bad row.
pub(crate) fn cut_at_bad_rows(
    part: Range<usize>,
    bad: &BadRows,
) -> Vec<(Range<usize>, Option<&str>)> {
    let (mut pieces, mut start) = (Vec::new(), part.start);
    for (&row, reason) in bad.range(part.clone()) {
        if start < row {
            pieces.push((start..row, None));
        }
        pieces.push((row..row + 1, Some(reason.as_str())));
        start = row + 1;
    }
    if start < part.end {
        pieces.push((start..part.end, None));
    }
    pieces
}
