//! The records that a program supplies, as batches.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, RecordBatch, StringArray, UInt64Array,
    new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, SchemaRef, UInt64Type};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;

use crate::batch::provenance::{Provenance, Split, SplitRows};
use crate::batch::reject::{Reject, RejectCode};
use crate::batch::{Batch, SourceBatch};
use crate::column_cast::cast_column;
use crate::columns::{IMAGE, ROW, SOURCE};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::plan_context::PipelineLimits;
use crate::source::batch_limits::{BatchLimits, arrow_bytes, too_large};
use crate::source::batch_size::BatchSize;
use crate::source::images::batcher::config::decoded_size;
use crate::source::images::column::{image_bytes, is_image_struct};

/// Cuts the records that a program supplies into batches.
#[derive(Debug)]
pub(crate) struct SuppliedRecords {
    pub(super) schema: SchemaRef,
    /// Whether the records have the column `source`.
    has_source: bool,
    batch_limits: BatchLimits,
    limits: PipelineLimits,
    /// The split of records without `source`.
    split: Arc<Split>,
}

/// A part of the supplied records, as the source passes it to the graph.
pub(crate) struct SuppliedBatch {
    /// The rows among the supplied records.
    pub rows: Range<usize>,
    /// The batch. The ordinals of its rows are counted from the first of `rows`.
    pub batch: SourceBatch,
}

impl SuppliedRecords {
    /// For the planned schema of the source.
    pub fn new(
        schema: SchemaRef,
        has_source: bool,
        batch: BatchSize,
        limits: PipelineLimits,
    ) -> Self {
        let batch_limits = match schema.column_with_name(IMAGE) {
            Some((_, field)) if field.data_type() == &DataType::Binary => {
                BatchLimits::images(batch)
            }
            _ => BatchLimits::features(batch),
        };
        Self {
            schema,
            has_source,
            batch_limits,
            limits,
            split: Split::new("embedded"),
        }
    }

    /// Cuts records into batches, limited by the decoded size of images. Columns are found by name;
    /// other columns are ignored.
    ///
    /// The identity of a record, on which noise depends, is its `source` and `row`. A record in which
    /// one of them is null or invalid is rejected. Records without `source` are identified by their
    /// position.
    ///
    /// # Errors
    /// If a column is missing, or cannot be converted to its planned type.
    pub fn batches(&self, records: &RecordBatch) -> Result<Vec<SuppliedBatch>, StageError> {
        let columns = self.columns(records)?;
        let image = columns
            .iter()
            .zip(self.schema.fields())
            .find(|(_, field)| field.name() == IMAGE && field.data_type() == &DataType::Binary)
            .and_then(|(column, _)| column.clone());
        let sizes: Vec<(u64, u64)> = match &image {
            Some(images) => decoded_sizes(images, self.limits.pixels)?,
            None => Vec::new(),
        };
        let weigh = |rows: Range<usize>| match sizes.get(rows.clone()) {
            Some(sizes) => sizes.iter().map(|(bytes, _)| bytes).sum(),
            None => arrow_bytes(records, rows),
        };
        let parts = self.batch_limits.split(records.num_rows(), &weigh);
        let batch = |rows: Range<usize>| {
            let pixels = sizes.get(rows.clone()).unwrap_or_default();
            let pixels = pixels.iter().map(|(_, pixels)| pixels).sum();
            let batch = self.batch(records, &columns, rows.clone(), pixels)?;
            Ok(SuppliedBatch { rows, batch })
        };
        parts.into_iter().map(batch).collect()
    }

    /// The column of each field of the plan; `None` for an origin that was not supplied.
    pub(super) fn columns(
        &self,
        records: &RecordBatch,
    ) -> Result<Vec<Option<ArrayRef>>, StageError> {
        let column = |field: &Arc<Field>| match records.column_by_name(field.name()) {
            Some(column) if is_image_struct(column.data_type()) => {
                let bytes = image_bytes(column).map_err(|error| named(field, &error))?;
                Ok(Some(bytes))
            }
            Some(column) => Ok(Some(Arc::clone(column))),
            None if field.name() == ROW || (field.name() == SOURCE && !self.has_source) => Ok(None),
            None => {
                let schema = records.schema();
                let names: Vec<&str> = schema
                    .fields()
                    .iter()
                    .map(|own| own.name().as_str())
                    .collect();
                Err(StageError::new(
                    ErrorCode::InputInvalid,
                    format!(
                        "the records have no column `{}`; they have: {}",
                        field.name(),
                        names.join(", ")
                    ),
                ))
            }
        };
        self.schema.fields().iter().map(column).collect()
    }

    fn batch(
        &self,
        records: &RecordBatch,
        columns: &[Option<ArrayRef>],
        rows: Range<usize>,
        pixels: u64,
    ) -> Result<SourceBatch, StageError> {
        let len = rows.len();
        let mut rejects = Vec::new();
        let mut own = Vec::with_capacity(columns.len());
        for (column, field) in columns.iter().zip(self.schema.fields()) {
            let column = column.as_ref().map(|column| column.slice(rows.start, len));
            own.push(match (field.name().as_str(), column) {
                (SOURCE | ROW, Some(column)) => origin_column(&column, field, &mut rejects)?,
                (SOURCE, None) => Arc::new(StringArray::from(vec![""; len])),
                (ROW, None) => Arc::new(UInt64Array::from(vec![0; len])),
                (_, Some(column)) => {
                    cast_column(&column, field.data_type()).map_err(|error| named(field, &error))?
                }
                // Checked before the records are cut.
                (_, None) => new_null_array(field.data_type(), len),
            });
        }
        let own = RecordBatch::try_new(SchemaRef::clone(&self.schema), own)?;
        let provenance = if self.has_source {
            provenance(&own)?
        } else {
            Provenance::rows(Arc::clone(&self.split), rows.start as u64..rows.end as u64)
        };
        rejects.sort_by_key(|reject: &Reject| reject.ordinal);
        rejects.dedup_by_key(|reject| reject.ordinal);
        let mut batch = Batch::new(own, provenance);
        if !rejects.is_empty() {
            let mut kept = vec![true; len];
            rejects
                .iter()
                .for_each(|reject| kept[reject.ordinal as usize] = false);
            batch = batch.filter(&BooleanArray::from(kept))?;
        }
        let mut batch = SourceBatch {
            batch,
            rejects,
            pixels,
        };
        let max = self.limits.record_bytes.0;
        let bytes = arrow_bytes(records, rows);
        // A part of one record is the only one that may exceed the limits of a batch.
        if len == 1 && bytes > max {
            batch.batch = batch.batch.rows(0..0);
            batch.rejects = vec![Reject::new(0, RejectCode::TooLarge, too_large(bytes, max))];
        }
        Ok(batch)
    }
}

fn named(field: &Field, error: &ArrowError) -> StageError {
    StageError::new(
        ErrorCode::InputInvalid,
        format!("column `{}`: {error}", field.name()),
    )
}

/// Converts `source` or `row` to its planned type. Rejects records without a value, or with one that
/// the type does not hold, such as a negative row.
fn origin_column(
    column: &ArrayRef,
    field: &Field,
    rejects: &mut Vec<Reject>,
) -> Result<ArrayRef, StageError> {
    if field.name() == ROW && !column.data_type().is_integer() {
        let message = format!(
            "column `row` is {}; expected an integer",
            column.data_type()
        );
        return Err(StageError::new(ErrorCode::InputInvalid, message));
    }
    let converted = cast(column, field.data_type()).map_err(|error| named(field, &error))?;
    for (ordinal, row) in (0..).zip(0..column.len()) {
        if converted.is_valid(row) {
            continue;
        }
        let name = field.name();
        rejects.push(if column.is_null(row) {
            let reason = format!("the column `{name}` is null; it identifies the record");
            Reject::new(ordinal, RejectCode::Missing, reason)
        } else {
            let value = array_value_to_string(column, row)?;
            let reason = format!("`{name}` is {value}; expected {}", field.data_type());
            Reject::new(ordinal, RejectCode::Mismatch, reason)
        });
    }
    // The values of rejected records are not used.
    Ok(match field.data_type() {
        DataType::UInt64 => {
            let numbers = converted.as_primitive::<UInt64Type>().iter();
            Arc::new(UInt64Array::from_iter_values(
                numbers.map(Option::unwrap_or_default),
            ))
        }
        _ => {
            let names = converted.as_string::<i32>().iter();
            Arc::new(StringArray::from_iter_values(
                names.map(Option::unwrap_or_default),
            ))
        }
    })
}

/// One range for each sequence of consecutive rows of a source.
fn provenance(records: &RecordBatch) -> Result<Provenance, StageError> {
    let wrong = || StageError::new(ErrorCode::Internal, "the records have no origin");
    let sources = records.column_by_name(SOURCE).ok_or_else(wrong)?;
    let rows = records.column_by_name(ROW).ok_or_else(wrong)?;
    let (sources, rows) = (
        sources.as_string::<i32>(),
        rows.as_primitive::<UInt64Type>(),
    );
    let mut ranges: Vec<SplitRows> = Vec::new();
    for (index, &row) in rows.values().iter().enumerate() {
        let source = sources.value(index);
        let end = row.saturating_add(1);
        match ranges.last_mut() {
            Some(last) if last.split.name() == source && last.rows.end == row => {
                last.rows.end = end;
            }
            last => {
                let known = last.filter(|last| last.split.name() == source);
                let split = known.map(|range| Arc::clone(&range.split));
                ranges.push(SplitRows {
                    split: split.unwrap_or_else(|| Split::new(source)),
                    // The last number has no successor.
                    rows: end - 1..end,
                });
            }
        }
    }
    Ok(Provenance::new(ranges))
}

/// The bytes and pixels of each image after decoding.
fn decoded_sizes(images: &ArrayRef, max_pixels: u64) -> Result<Vec<(u64, u64)>, StageError> {
    let size = |image: Option<&[u8]>| image.map_or((0, 0), |image| decoded_size(image, max_pixels));
    Ok(match images.data_type() {
        DataType::Binary => images.as_binary::<i32>().iter().map(size).collect(),
        DataType::LargeBinary => images.as_binary::<i64>().iter().map(size).collect(),
        DataType::BinaryView => images.as_binary_view().iter().map(size).collect(),
        _ => {
            let images = cast_column(images, &DataType::Binary)?;
            images.as_binary::<i32>().iter().map(size).collect()
        }
    })
}
