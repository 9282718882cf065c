//! Reads the journal as it grows, and combines its records into batches.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::batch::provenance::{Provenance, Split};
use crate::batch::{Batch, SourceBatch};
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::metrics::{BlockingCaller, BlockingOperation};
use crate::source::batch_limits::{BatchLimits, arrow_bytes};
use crate::source::http::wal::segment::SegmentReader;
use crate::source::http::wal::{WriteAheadLog, record};
use crate::source::images::batcher::config::ImageBatchConfig;
use crate::source::images::batcher::{ImageBatchBuilder, ImageRecord};
use crate::source::reader::BatchSender;

/// Interval at which an idle source checks whether its output is still open.
const IDLE: Duration = Duration::from_millis(100);

/// The kind of the records, and the limits of their batches.
#[derive(Clone)]
pub(crate) enum BatchShape {
    /// Encoded images.
    Images(ImageBatchConfig),
    /// Rows of columns, with the schema of the source.
    Features { schema: SchemaRef, cut: BatchLimits },
}

impl BatchShape {
    /// Maximum number of records of a batch.
    pub(crate) fn max_records(&self) -> usize {
        match self {
            Self::Images(batch_config) => batch_config.max_records(),
            Self::Features { cut, .. } => cut.records,
        }
    }
}

/// The reader of a source's journal.
pub(crate) struct WalReader {
    pub(crate) wal: Arc<WriteAheadLog>,
    pub(crate) split: Arc<Split>,
    pub(crate) shape: BatchShape,
    pub(crate) resume: ResumeState,
    /// Time that records wait for more records of a batch.
    pub(crate) delay: Duration,
    pub(crate) runtime: Handle,
    /// Records when the thread is in a call that may not return.
    pub(crate) caller: Arc<BlockingCaller>,
}

impl WalReader {
    /// Runs until the output is closed.
    ///
    /// # Errors
    /// Returns an error if the journal cannot be read.
    pub(crate) fn run(self, out: &BatchSender) -> Result<(), StageError> {
        let out = &out.outside_of(Arc::clone(&self.caller));
        let mut tail = self.wal.tail();
        let mut row = self.wal.state().done;
        let mut reader: Option<SegmentReader> = None;
        while self.wait(&mut tail, row, out) {
            self.caller.begin(BlockingOperation::Read);
            let mut gathered = Vec::new();
            let (mut records, mut bytes) = (0, 0);
            let begun = Instant::now();
            loop {
                let available = *tail.borrow_and_update();
                while row < available && records < self.shape.max_records() && bytes < MAX_BYTES {
                    let Some((first, batch, size)) = self.next(&mut reader, row)? else {
                        break;
                    };
                    row = first + batch.num_rows() as u64;
                    records += batch.num_rows();
                    bytes += size;
                    gathered.push((first, batch));
                }
                let left = self.delay.saturating_sub(begun.elapsed());
                if row < available
                    || records >= self.shape.max_records()
                    || left.is_zero()
                    || !self.changed(&mut tail, left)
                {
                    break;
                }
            }
            if !self.send(&gathered, out)? {
                return Ok(());
            }
            self.caller.end();
        }
        Ok(())
    }

    /// Waits for a row to read; `false` if the output is closed.
    fn wait(&self, tail: &mut watch::Receiver<u64>, row: u64, out: &BatchSender) -> bool {
        loop {
            if out.is_closed() {
                return false;
            }
            if *tail.borrow_and_update() > row {
                return true;
            }
            self.changed(tail, IDLE);
        }
    }

    /// Whether the channel has changed within `wait`.
    fn changed(&self, tail: &mut watch::Receiver<u64>, wait: Duration) -> bool {
        self.runtime
            .block_on(async { tokio::time::timeout(wait, tail.changed()).await.is_ok() })
    }

    /// The records of the frame that holds `row`, starting at `row`, with the row of the first
    /// record and the size of the frame.
    fn next(
        &self,
        reader: &mut Option<SegmentReader>,
        row: u64,
    ) -> Result<Option<(u64, RecordBatch, usize)>, StageError> {
        for _ in 0..2 {
            if reader.is_none() {
                *reader = self.wal.read_from(row)?;
            }
            while let Some((head, payload)) = reader
                .as_mut()
                .map(|reader| self.wal.next_frame(reader))
                .transpose()?
                .flatten()
            {
                if head.end() <= row {
                    continue;
                }
                let records = record::decode(&payload).map_err(|reason| {
                    StageError::new(
                        ErrorCode::StateCorrupt,
                        format!(
                            "{}: row {}: {reason}",
                            self.wal.folder.display(),
                            head.first
                        ),
                    )
                })?;
                let skip = usize::try_from(row.saturating_sub(head.first))
                    .unwrap_or(usize::MAX)
                    .min(records.num_rows());
                let first = head.first + skip as u64;
                return Ok(Some((
                    first,
                    records.slice(skip, records.num_rows() - skip),
                    payload.len(),
                )));
            }
            // The segment has no more frames: the row is in the next one.
            *reader = None;
        }
        Ok(None)
    }

    fn send(&self, gathered: &[(u64, RecordBatch)], out: &BatchSender) -> Result<bool, StageError> {
        match &self.shape {
            BatchShape::Images(batch_config) => {
                let Some((start, _)) = gathered.first() else {
                    return Ok(true);
                };
                let mut builder =
                    ImageBatchBuilder::new(batch_config, &self.resume, out, &self.split, *start);
                for (first, records) in gathered {
                    if !push_images(&mut builder, *first, records)? {
                        return Ok(false);
                    }
                }
                builder.close()
            }
            BatchShape::Features { schema, cut } => {
                let batches = feature_batches(schema, *cut, &self.split, gathered)?;
                Ok(batches.into_iter().all(|batch| out.send(batch)))
            }
        }
    }
}

/// Maximum number of bytes of frames that are gathered. Batches of images are cut by their decoded
/// size.
pub(crate) const MAX_BYTES: usize = 32 << 20;

/// Adds the images of a frame, whose columns are the text `source` and the image.
fn push_images(
    builder: &mut ImageBatchBuilder<'_>,
    first: u64,
    records: &RecordBatch,
) -> Result<bool, StageError> {
    let wrong = || {
        StageError::new(
            ErrorCode::StateCorrupt,
            "the columns of the journal differ from those of the source",
        )
    };
    let source = records
        .columns()
        .first()
        .and_then(|column| column.as_string_opt::<i32>())
        .ok_or_else(wrong)?;
    let image = records
        .columns()
        .get(1)
        .and_then(|column| column.as_binary_opt::<i32>())
        .ok_or_else(wrong)?;
    for (row, at) in (first..).zip(0..records.num_rows()) {
        let (source, image) = (source.value(at).into(), Ok(image.value(at).into()));
        if !builder.push(ImageRecord {
            source,
            row,
            text: None,
            image,
        })? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Concatenates frames, and splits them by the limits of a batch.
pub(crate) fn feature_batches(
    schema: &SchemaRef,
    cut: BatchLimits,
    split: &Arc<Split>,
    gathered: &[(u64, RecordBatch)],
) -> Result<Vec<SourceBatch>, StageError> {
    let Some((first, one)) = gathered.first() else {
        return Ok(Vec::new());
    };
    let all = concat_batches(&one.schema(), gathered.iter().map(|(_, records)| records))?;
    let batch = |part: Range<usize>| {
        let rows = first + part.start as u64..first + part.end as u64;
        let part = all.slice(part.start, part.len());
        let row: ArrayRef = Arc::new(UInt64Array::from_iter_values(rows.clone()));
        let columns: Vec<ArrayRef> = part
            .columns()
            .iter()
            .take(1)
            .cloned()
            .chain([row])
            .chain(part.columns().iter().skip(1).cloned())
            .collect();
        let records = RecordBatch::try_new(SchemaRef::clone(schema), columns)?;
        let batch = Batch::new(records, Provenance::rows(Arc::clone(split), rows));
        Ok(SourceBatch {
            batch,
            rejects: Vec::new(),
            pixels: 0,
        })
    };
    cut.split(all.num_rows(), &|rows| arrow_bytes(&all, rows))
        .into_iter()
        .map(batch)
        .collect()
}
