//! Gathers encoded images into batches, counted at the size that they have once decoded.

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
/// A batch ends at the latest where the row is a multiple of the limit in records. So where batches
/// end depends on the input alone, and a *stretch* of rows between two such places can be left out
/// unread when it is done.
#[derive(Debug, Clone)]
pub(super) struct ImageBatchConfig {
    /// `source`, `row`, `image` and perhaps a text column.
    pub(super) schema: SchemaRef,
    /// What makes a batch full.
    batch_limits: BatchLimits,
    /// Bytes above which an image is not read.
    pub(super) record_bytes: u64,
    /// Pixels above which an image will not be decoded.
    pixels: u64,
}

/// Arrow counts the bytes of a binary column with an `i32`.
const COLUMN_BYTES: u64 = i32::MAX as u64;

impl ImageBatchConfig {
    /// `text` is the name of a text column after the image.
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
    /// Rows of a stretch: the limit in records.
    pub(super) fn max_records(&self) -> usize {
        self.batch_limits.records
    }

    /// Bytes that an image counts, and pixels that its decoding takes memory for. One that is no
    /// image, or has too many pixels, goes on as it is: it is refused, with its reason, before it
    /// would be decoded.
    fn decoded_size(&self, image: &[u8]) -> (u64, u64) {
        let header = probe(image).ok().filter(|header| header.fits(self.pixels));
        let pixels = header.map_or(0, |header| header.charged_pixels());
        (
            (image.len() as u64).max(pixels.saturating_mul(PIXEL_BYTES)),
            pixels,
        )
    }

    /// Batches of images that are at hand, each with the name of its source; their rows are counted
    /// from 0.
    ///
    /// # Errors
    /// When Arrow cannot hold a batch.
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

/// A record before it has its place in a batch.
pub(super) struct ImageRecord<'a> {
    /// Where it came from.
    pub(super) source: Cow<'a, str>,
    /// Which record in there.
    pub(super) row: u64,
    /// The value of the text column, where the rules have one.
    pub(super) text: Option<Cow<'a, str>>,
    /// The encoded image, or why there is none.
    pub(super) image: Result<Cow<'a, [u8]>, RecordError>,
}

/// The rows of a stretch as they are gathered into batches, which go to `out`.
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
    /// A stretch that begins at `row`.
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

    /// Whether every sink has the next `rows`.
    pub(super) fn is_done(&self, rows: u64) -> bool {
        self.resume
            .is_committed(self.split.name(), &(self.rows.end..self.rows.end + rows))
    }

    /// The split, and the row that is next.
    pub(super) fn next(&self) -> (&str, u64) {
        (self.split.name(), self.rows.end)
    }

    /// Passes over the next row, which belongs to a stretch that is done; always `true`.
    pub(super) fn skip(&mut self) -> bool {
        self.rows = self.rows.end + 1..self.rows.end + 1;
        true
    }

    /// Adds the next row, which has no record and is no reject; always `true`.
    pub(super) fn pass(&mut self) -> bool {
        self.rows.end += 1;
        true
    }

    /// Adds the next row. `false`: no more is wanted.
    ///
    /// # Errors
    /// When Arrow cannot hold a batch.
    pub(super) fn push(&mut self, member: ImageRecord<'_>) -> Result<bool, StageError> {
        let Some(member) = self.try_push(member) else {
            return Ok(true);
        };
        let goes_on = self.close()?;
        // An empty batch takes any row.
        self.try_push(member);
        Ok(goes_on)
    }

    /// Adds the next row, or returns it if the batch is full and must be closed before.
    pub(super) fn try_push<'m>(&mut self, member: ImageRecord<'m>) -> Option<ImageRecord<'m>> {
        let (bytes, pixels) = match &member.image {
            Ok(image) => self.config.decoded_size(image),
            Err(_) => (0, 0),
        };
        let rows = usize::try_from(self.rows.end - self.rows.start).unwrap_or(usize::MAX);
        if self.bytes > 0 && !self.config.batch_limits.fits(rows + 1, self.bytes + bytes) {
            return Some(member);
        }
        self.bytes += bytes;
        self.pixels += pixels;
        // A stretch has at most u32::MAX rows, as its limit is a u32.
        let ordinal = u32::try_from(self.rows.end - self.rows.start).unwrap_or(u32::MAX);
        match member.image {
            Ok(image) => {
                self.origin.push(ordinal);
                self.sources.append_value(member.source);
                self.numbers.append_value(member.row);
                self.images.append_value(image);
                self.texts.append_value(member.text.unwrap_or_default());
            }
            Err(RecordError {
                code,
                reason,
                reference,
            }) => {
                let source = Some((member.source.into_owned(), member.row));
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

    /// Sends what is left, and begins the next stretch. `false`: nobody wants more.
    ///
    /// # Errors
    /// When Arrow cannot hold a batch.
    pub(super) fn close(&mut self) -> Result<bool, StageError> {
        let rows = self.rows.clone();
        let next = Self::new(self.config, self.resume, self.out, &self.split, rows.end);
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
