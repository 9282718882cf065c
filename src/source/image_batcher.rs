//! Collects encoded images into batches, which are limited by the decoded size of the images.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, RecordBatch, StringArray, StringBuilder, UInt64Array,
    UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::batch::{Batch, Provenance, Reject, SourceBatch, Split, SplitRows};
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::image::probe;
use crate::plan_context::PipelineLimits;
use crate::source::batch_limits::BatchLimits;
use crate::source::listed_file::RecordError;
use crate::source::{BatchSender, BatchSize, IMAGE, PIXEL_BYTES, origin_fields};

/// How images become batches.
///
/// A batch ends at the latest at a row that is a multiple of the limit in records. The ends of the
/// batches therefore depend on the input alone, and a *segment*, the rows between two such
/// multiples, can be skipped without reading it when it is committed.
#[derive(Debug, Clone)]
pub(super) struct ImageBatchConfig {
    /// `source`, `row`, `image` and an optional text column.
    pub(super) schema: SchemaRef,
    /// The limits of a batch.
    batch_limits: BatchLimits,
    /// Bytes above which an image is not read.
    pub(super) record_bytes: u64,
    /// Pixels above which an image is not decoded.
    pixels: u64,
}

/// Arrow counts the bytes of a binary column with an `i32`.
const COLUMN_BYTES: u64 = i32::MAX as u64;

impl ImageBatchConfig {
    /// `text` is the name of a text column that follows the image.
    pub(super) fn new(batch: BatchSize, limits: PipelineLimits, text: Option<&str>) -> Self {
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
    pub(super) fn max_records(&self) -> usize {
        self.batch_limits.records
    }

    fn decoded_size(&self, image: &[u8]) -> (u64, u64) {
        decoded_size(image, self.pixels)
    }

    /// Batches of images in memory, given as the name of the source and the bytes of each. The rows
    /// are counted from 0.
    ///
    /// # Errors
    /// If Arrow cannot hold a batch.
    pub(super) fn batches(
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
pub(super) fn decoded_size(image: &[u8], max_pixels: u64) -> (u64, u64) {
    let header = probe(image).ok().filter(|header| header.fits(max_pixels));
    let pixels = header.map_or(0, |header| header.charged_pixels());
    (
        (image.len() as u64).max(pixels.saturating_mul(PIXEL_BYTES)),
        pixels,
    )
}

/// A record that is not in a batch yet.
pub(super) struct ImageRecord<'a> {
    /// The name of its file or archive member.
    pub(super) source: Cow<'a, str>,
    /// Its row in the source.
    pub(super) row: u64,
    /// The value of the text column, if the batches have one.
    pub(super) text: Option<Cow<'a, str>>,
    /// The encoded image, or the reject in its place.
    pub(super) image: Result<Cow<'a, [u8]>, RecordError>,
}

/// Collects the rows of a segment into batches and sends them to `out`.
pub(super) struct ImageBatchBuilder<'a> {
    config: &'a ImageBatchConfig,
    resume: &'a ResumeState,
    out: &'a BatchSender,
    split: Arc<Split>,
    rows: Range<u64>,
    bytes: u64,
    pixels: u64,
    origin: Vec<u32>,
    rejects: Vec<Reject>,
    sources: StringBuilder,
    numbers: UInt64Builder,
    images: BinaryBuilder,
    texts: StringBuilder,
}

impl<'a> ImageBatchBuilder<'a> {
    /// A segment that begins at `row`.
    pub(super) fn new(
        batch_config: &'a ImageBatchConfig,
        resume: &'a ResumeState,
        out: &'a BatchSender,
        split: &Arc<Split>,
        row: u64,
    ) -> Self {
        Self {
            config: batch_config,
            resume,
            out,
            split: Arc::clone(split),
            rows: row..row,
            bytes: 0,
            pixels: 0,
            origin: Vec::new(),
            rejects: Vec::new(),
            sources: StringBuilder::new(),
            numbers: UInt64Builder::new(),
            images: BinaryBuilder::new(),
            texts: StringBuilder::new(),
        }
    }

    /// Whether every sink has committed the next `rows`.
    pub(super) fn is_done(&self, rows: u64) -> bool {
        self.resume
            .is_committed(self.split.name(), &(self.rows.end..self.rows.end + rows))
    }

    /// The name of the split, and the next row.
    pub(super) fn next(&self) -> (&str, u64) {
        (self.split.name(), self.rows.end)
    }

    /// Skips the next row, which belongs to a committed segment; always `true`.
    pub(super) fn skip(&mut self) -> bool {
        self.rows = self.rows.end + 1..self.rows.end + 1;
        true
    }

    /// Adds the next row without a record or a reject; always `true`.
    pub(super) fn pass(&mut self) -> bool {
        self.rows.end += 1;
        true
    }

    /// Adds the next row. Returns `false` if the receiver is closed.
    ///
    /// # Errors
    /// If Arrow cannot hold a batch.
    pub(super) fn push(&mut self, record: ImageRecord<'_>) -> Result<bool, StageError> {
        let Some(record) = self.try_push(record) else {
            return Ok(true);
        };
        let is_open = self.close()?;
        // An empty batch accepts any row.
        self.try_push(record);
        Ok(is_open)
    }

    /// Adds the next row, or returns it if the batch is full and must be closed first.
    pub(super) fn try_push<'m>(&mut self, record: ImageRecord<'m>) -> Option<ImageRecord<'m>> {
        let (bytes, pixels) = match &record.image {
            Ok(image) => self.config.decoded_size(image),
            Err(_) => (0, 0),
        };
        let rows = usize::try_from(self.rows.end - self.rows.start).unwrap_or(usize::MAX);
        if self.bytes > 0 && !self.config.batch_limits.fits(rows + 1, self.bytes + bytes) {
            return Some(record);
        }
        self.bytes += bytes;
        self.pixels += pixels;
        // A segment has at most u32::MAX rows, because its limit is a u32.
        let ordinal = u32::try_from(self.rows.end - self.rows.start).unwrap_or(u32::MAX);
        match record.image {
            Ok(image) => {
                self.origin.push(ordinal);
                self.sources.append_value(record.source);
                self.numbers.append_value(record.row);
                self.images.append_value(image);
                self.texts.append_value(record.text.unwrap_or_default());
            }
            Err(RecordError {
                code,
                reason,
                reference,
            }) => {
                let source = Some((record.source.into_owned(), record.row));
                self.rejects.push(Reject {
                    source,
                    reference,
                    ..Reject::new(ordinal, code, reason)
                });
            }
        }
        self.rows.end += 1;
        None
    }

    /// Sends the collected rows and begins the next segment. Returns `false` if the receiver is
    /// closed.
    ///
    /// # Errors
    /// If Arrow cannot hold a batch.
    pub(super) fn close(&mut self) -> Result<bool, StageError> {
        let rows = self.rows.clone();
        let mut next = Self::new(self.config, self.resume, self.out, &self.split, rows.end);
        // Images of one input have similar sizes. A buffer that grows is copied several times. The
        // limit excludes a single larger image, which is a batch of its own.
        let len = self.images.values_slice().len();
        let limit = usize::try_from(self.config.batch_limits.bytes).unwrap_or(usize::MAX);
        next.images = BinaryBuilder::with_capacity(self.origin.len(), (len + len / 4).min(limit));
        let mut full = std::mem::replace(self, next);
        if rows.is_empty() || self.resume.is_committed(self.split.name(), &rows) {
            return Ok(true);
        }
        let columns: [ArrayRef; 4] = [
            Arc::new(full.sources.finish()),
            Arc::new(full.numbers.finish()),
            Arc::new(full.images.finish()),
            Arc::new(full.texts.finish()),
        ];
        let columns = columns
            .into_iter()
            .take(self.config.schema.fields().len())
            .collect();
        let records = RecordBatch::try_new(Arc::clone(&self.config.schema), columns)?;
        let provenance = Arc::new(Provenance::new(vec![SplitRows {
            split: full.split,
            rows,
        }]));
        let batch = Batch {
            records,
            row_ordinals: full.origin,
            provenance,
        };
        Ok(self.out.send(SourceBatch {
            batch,
            rejects: full.rejects,
            pixels: full.pixels,
        }))
    }
}
