//! Collects encoded images into batches, which are limited by the decoded size of the images.

pub(crate) mod config;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, RecordBatch, StringBuilder, UInt64Builder};

use crate::batch::provenance::{Provenance, Split, SplitRows};
use crate::batch::reject::Reject;
use crate::batch::{Batch, SourceBatch};
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::source::discovery::listed_file::RecordError;
use crate::source::images::batcher::config::ImageBatchConfig;
use crate::source::reader::BatchSender;

/// A record that is not in a batch yet.
pub(crate) struct ImageRecord<'a> {
    /// The name of its file or archive member.
    pub(crate) source: Cow<'a, str>,
    /// Its row in the source.
    pub(crate) row: u64,
    /// The value of the text column, if the batches have one.
    pub(crate) text: Option<Cow<'a, str>>,
    /// The encoded image, or the reject in its place.
    pub(crate) image: Result<Cow<'a, [u8]>, RecordError>,
}

/// Collects the rows of a segment into batches and sends them to `out`.
pub(crate) struct ImageBatchBuilder<'a> {
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
    pub(crate) fn new(
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
    pub(crate) fn is_done(&self, rows: u64) -> bool {
        self.resume
            .is_committed(self.split.name(), &(self.rows.end..self.rows.end + rows))
    }

    /// The name of the split, and the next row.
    pub(crate) fn next(&self) -> (&str, u64) {
        (self.split.name(), self.rows.end)
    }

    /// Skips the next row, which belongs to a committed segment; always `true`.
    pub(crate) fn skip(&mut self) -> bool {
        self.rows = self.rows.end + 1..self.rows.end + 1;
        true
    }

    /// Adds the next row without a record or a reject; always `true`.
    pub(crate) fn pass(&mut self) -> bool {
        self.rows.end += 1;
        true
    }

    /// Adds the next row. Returns `false` if the receiver is closed.
    ///
    /// # Errors
    /// If Arrow cannot hold a batch.
    pub(crate) fn push(&mut self, record: ImageRecord<'_>) -> Result<bool, StageError> {
        let Some(record) = self.try_push(record) else {
            return Ok(true);
        };
        let is_open = self.close()?;
        // An empty batch accepts any row.
        self.try_push(record);
        Ok(is_open)
    }

    /// Adds the next row, or returns it if the batch is full and must be closed first.
    pub(crate) fn try_push<'m>(&mut self, record: ImageRecord<'m>) -> Option<ImageRecord<'m>> {
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
    pub(crate) fn close(&mut self) -> Result<bool, StageError> {
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
