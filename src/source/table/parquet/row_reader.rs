//! The rows of a Parquet row group as batches. Vector columns are copied from their pages directly
//! into Arrow arrays; all other columns use the reader of the `parquet` crate, which copies vectors
//! value by value.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::FloatType;
use parquet::errors::ParquetError;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::RowGroupReader;
use parquet::file::serialized_reader::SerializedRowGroupReader;

use crate::storage::FileReader;
use crate::system::simd_dispatch;

/// Reads selected columns of one row group.
pub(crate) struct RowReader {
    /// Reader of the columns that are not vectors, if there are any.
    rest: Option<ParquetRecordBatchReader>,
    vectors: Vec<VectorReader>,
}

/// The result of reading the next rows.
pub(crate) enum NextRows {
    /// The next rows, in the requested number except at the end. The order of their columns is
    /// unspecified.
    Rows(RecordBatch),
    /// The end of the rows.
    End,
    /// Some vectors are null or differ in length: [`RowReader::plain`] reads the rows from here on.
    Irregular,
}

/// A row group of an open file and the indices of the columns to read.
#[derive(Clone, Copy)]
pub(crate) struct RowGroupRef<'a> {
    pub(crate) input: &'a FileReader,
    pub(crate) metadata: &'a ArrowReaderMetadata,
    pub(crate) group_index: usize,
    pub(crate) columns: &'a [usize],
}

impl RowReader {
    /// Opens a reader for the rows `part` in batches of `step` rows.
    ///
    /// # Errors
    /// Errors of the `parquet` crate about the row group.
    pub(crate) fn open(
        group: RowGroupRef<'_>,
        part: Range<u64>,
        step: u64,
    ) -> Result<Self, ParquetError> {
        let (mut vectors, mut rest) = (Vec::new(), Vec::new());
        for &column in group.columns {
            match VectorReader::open(group, column, part.start)? {
                Some(found) => vectors.push(found),
                None => rest.push(column),
            }
        }
        let rest = match rest.as_slice() {
            [] if !vectors.is_empty() => None,
            columns => Some(plain_reader(RowGroupRef { columns, ..group }, part, step)?),
        };
        Ok(Self { rest, vectors })
    }

    /// As [`RowReader::open`], with only the reader of the `parquet` crate.
    ///
    /// # Errors
    /// Errors of the `parquet` crate about the row group.
    pub(crate) fn plain(
        group: RowGroupRef<'_>,
        part: Range<u64>,
        step: u64,
    ) -> Result<Self, ParquetError> {
        Ok(Self {
            rest: Some(plain_reader(group, part, step)?),
            vectors: Vec::new(),
        })
    }

    /// Reads the next `count` rows.
    ///
    /// # Errors
    /// Errors of the `parquet` crate about the pages. The reader must not be used after an error.
    pub(crate) fn next(&mut self, count: u64) -> Result<NextRows, ParquetError> {
        let rest = self.rest.as_mut().map(|rest| rest.next().transpose());
        let rest = match rest.transpose()? {
            None => None,
            Some(Some(batch)) if batch.num_rows() > 0 => Some(batch),
            Some(_) => return Ok(NextRows::End),
        };
        if self.vectors.is_empty() {
            return Ok(rest.map_or(NextRows::End, NextRows::Rows));
        }
        let rows = rest.as_ref().map_or(size(count), RecordBatch::num_rows);
        let schema = rest.as_ref().map(|batch| Arc::clone(batch.schema_ref()));
        let mut fields: Vec<FieldRef> = schema
            .map(|schema| schema.fields().to_vec())
            .unwrap_or_default();
        let mut columns = rest
            .map(|batch| batch.columns().to_vec())
            .unwrap_or_default();
        for vectors in &mut self.vectors {
            let Some(column) = vectors.next(rows)? else {
                return Ok(NextRows::Irregular);
            };
            fields.push(Arc::clone(&vectors.field));
            columns.push(column);
        }
        Ok(NextRows::Rows(RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            columns,
        )?))
    }
}

fn size(rows: u64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}

fn plain_reader(
    group: RowGroupRef<'_>,
    part: Range<u64>,
    step: u64,
) -> Result<ParquetRecordBatchReader, ParquetError> {
    let input = group.input.try_clone()?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(input, group.metadata.clone());
    let mask = ProjectionMask::roots(builder.parquet_schema(), group.columns.iter().copied());
    let builder = builder
        .with_row_groups(vec![group.group_index])
        .with_projection(mask)
        .with_batch_size(size(step));
    if part.start == 0 {
        return builder.build();
    }
    let selectors = vec![
        RowSelector::skip(size(part.start)),
        RowSelector::select(size(part.end - part.start)),
    ];
    builder
        .with_row_selection(RowSelection::from(selectors))
        .build()
}

/// Maximum number of values to reserve memory for in advance, since a file may declare vectors of
/// any length: 64 MiB.
const MAX_AHEAD: usize = 1 << 24;

/// Reader of a column of float32 vectors.
struct VectorReader {
    field: FieldRef,
    item: FieldRef,
    len: usize,
    /// The definition level of a value that is not null.
    present: i16,
    column: ColumnReaderImpl<FloatType>,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

impl VectorReader {
    /// Opens a reader from row `start` on. Returns `None` if the column has another type or ends
    /// before `start`.
    fn open(
        group: RowGroupRef<'_>,
        column: usize,
        start: u64,
    ) -> Result<Option<Self>, ParquetError> {
        let field = &group.metadata.schema().fields()[column];
        let DataType::FixedSizeList(item, len) = field.data_type() else {
            return Ok(None);
        };
        let metadata = group.metadata.metadata();
        let row_group = metadata.row_group(group.group_index);
        let schema = row_group.schema_descr();
        let leaf =
            (0..schema.num_columns()).find(|&leaf| schema.get_column_root_idx(leaf) == column);
        let Some(leaf) = leaf else { return Ok(None) };
        let descriptor = schema.column(leaf);
        let is_float_vector = item.data_type() == &DataType::Float32
            && descriptor.physical_type() == Type::FLOAT
            && descriptor.max_rep_level() == 1;
        let (true, Ok(len @ 1..)) = (is_float_vector, usize::try_from(*len)) else {
            return Ok(None);
        };
        let (input, index) = (
            Arc::new(group.input.try_clone()?),
            metadata.page_index_for_row_group(group.group_index),
        );
        let properties = Arc::new(ReaderProperties::builder().build());
        let reader = SerializedRowGroupReader::new(input, row_group, index, properties)?;
        let ColumnReader::FloatColumnReader(mut values) = reader.get_column_reader(leaf)? else {
            return Ok(None);
        };
        if values.skip_records(size(start))? != size(start) {
            return Ok(None);
        }
        Ok(Some(Self {
            field: Arc::new(Field::clone(field)),
            item: Arc::clone(item),
            len,
            present: descriptor.max_def_level(),
            column: values,
            definitions: Vec::new(),
            repetitions: Vec::new(),
        }))
    }

    /// Reads the next `rows` vectors. Returns `None` if some are null or have another length.
    fn next(&mut self, rows: usize) -> Result<Option<ArrayRef>, ParquetError> {
        self.definitions.clear();
        self.repetitions.clear();
        let expected = rows.saturating_mul(self.len);
        let mut values = Vec::with_capacity(expected.min(MAX_AHEAD));
        let levels = (Some(&mut self.definitions), Some(&mut self.repetitions));
        let (read, _, _) = self
            .column
            .read_records(rows, levels.0, levels.1, &mut values)?;
        if read != rows || values.len() != expected || !self.is_regular() {
            return Ok(None);
        }
        let (values, len) = (
            Arc::new(Float32Array::from(values)),
            i32::try_from(self.len).unwrap_or(i32::MAX),
        );
        Ok(Some(Arc::new(FixedSizeListArray::try_new(
            Arc::clone(&self.item),
            len,
            values,
            None,
        )?)))
    }

    /// Returns whether every value is present and every vector has the declared length: a
    /// repetition level of 0 begins a vector, 1 continues it.
    fn is_regular(&self) -> bool {
        let (present, len) = (self.present, self.len);
        let (definitions, repetitions) = (self.definitions.as_slice(), self.repetitions.as_slice());
        simd_dispatch(|| {
            definitions
                .iter()
                .fold(true, |all, &level| all & (level == present))
                && repetitions.chunks(len).all(|vector| {
                    vector[0] == 0
                        && vector[1..]
                            .iter()
                            .fold(true, |all, &level| all & (level == 1))
                })
        })
    }
}
