//! The limits of batches of images.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::batch::provenance::{Provenance, Split};
use crate::batch::{Batch, SourceBatch};
use crate::columns::IMAGE;
use crate::error::StageError;
use crate::image::probe;
use crate::plan_context::PipelineLimits;
use crate::source::batch_limits::BatchLimits;
use crate::source::batch_size::{BatchSize, PIXEL_BYTES};
use crate::source::origin::origin_fields;

/// How images become batches.
///
/// A batch ends at the latest at a row that is a multiple of the limit in records. The ends of the
/// batches therefore depend on the input alone, and a *segment*, the rows between two such
/// multiples, can be skipped without reading it when it is committed.
#[derive(Debug, Clone)]
pub(crate) struct ImageBatchConfig {
    /// `source`, `row`, `image` and an optional text column.
    pub(crate) schema: SchemaRef,
    /// The limits of a batch.
    pub(super) batch_limits: BatchLimits,
    /// Bytes above which an image is not read.
    pub(crate) record_bytes: u64,
    /// Pixels above which an image is not decoded.
    pub(super) pixels: u64,
}

/// Arrow counts the bytes of a binary column with an `i32`.
const COLUMN_BYTES: u64 = i32::MAX as u64;

impl ImageBatchConfig {
    /// `text` is the name of a text column that follows the image.
    pub(crate) fn new(batch: BatchSize, limits: PipelineLimits, text: Option<&str>) -> Self {
        let image = Field::new(IMAGE, DataType::Binary, false);
        let text = text.map(|name| Field::new(name, DataType::Utf8, false));
        let fields: Vec<Field> = origin_fields()
            .into_iter()
            .chain([image])
            .chain(text)
            .collect();
        Self {
            schema: Arc::new(Schema::new(fields)),
            batch_limits: BatchLimits {
                bytes: batch.bytes().min(COLUMN_BYTES),
                ..BatchLimits::images(batch)
            },
            record_bytes: limits.record_bytes.0.min(COLUMN_BYTES),
            pixels: limits.pixels,
        }
    }
}

impl ImageBatchConfig {
    /// Rows of a segment: the limit in records.
    pub(crate) fn max_records(&self) -> usize {
        self.batch_limits.records
    }

    pub(super) fn decoded_size(&self, image: &[u8]) -> (u64, u64) {
        decoded_size(image, self.pixels)
    }

    /// Batches of images in memory, given as the name of the source and the bytes of each. The rows
    /// are counted from 0.
    ///
    /// # Errors
    /// If Arrow cannot hold a batch.
    pub(crate) fn batches(
        &self,
        split: &Arc<Split>,
        images: &[(&str, &[u8])],
    ) -> Result<Vec<SourceBatch>, StageError> {
        let weights: Vec<(u64, u64)> = images
            .iter()
            .map(|(_, image)| self.decoded_size(image))
            .collect();
        let parts = self.batch_limits.split(images.len(), &|rows| {
            weights[rows].iter().map(|(bytes, _)| bytes).sum()
        });
        let batch = |rows: Range<usize>| {
            let part = &images[rows.clone()];
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from_iter_values(
                    part.iter().map(|(source, _)| source),
                )),
                Arc::new(UInt64Array::from_iter_values(
                    rows.clone().map(|row| row as u64),
                )),
                Arc::new(BinaryArray::from_iter_values(
                    part.iter().map(|(_, image)| image),
                )),
            ];
            let records = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
            let provenance =
                Provenance::rows(Arc::clone(split), rows.start as u64..rows.end as u64);
            let pixels = weights[rows].iter().map(|(_, pixels)| pixels).sum();
            Ok(SourceBatch {
                batch: Batch::new(records, provenance),
                rejects: Vec::new(),
                pixels,
            })
        };
        parts.into_iter().map(batch).collect()
    }
}

/// Bytes that an image counts, and pixels that its decoding takes memory for. Data that is not an
/// image, or an image with more than `max_pixels` pixels, counts 0 pixels and is passed on: a later
/// stage rejects it with its reason before decoding.
pub(crate) fn decoded_size(image: &[u8], max_pixels: u64) -> (u64, u64) {
    let header = probe(image).ok().filter(|header| header.fits(max_pixels));
    let pixels = header.map_or(0, |header| header.charged_pixels());
    (
        (image.len() as u64).max(pixels.saturating_mul(PIXEL_BYTES)),
        pixels,
    )
}
