//! The records that a run works on now: the last ones that each source has read, and the batch of
//! each worker.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use parking_lot::Mutex;
use serde::Serialize;

use crate::batch::Batch;
use crate::columns::ROW;
use crate::topology::reject_records::source_of;

/// The origin of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RecordPosition {
    /// The name of the file or request.
    pub source: String,
    /// The index of the record in it, from 0.
    pub row: u64,
}

impl RecordPosition {
    /// The position of the source row with this ordinal.
    fn new(batch: &Batch, ordinal: u32) -> Self {
        let index = batch.row_ordinals.binary_search(&ordinal).ok();
        let column = batch.records.column_by_name(ROW);
        let column = column.and_then(|column| column.as_primitive_opt::<UInt64Type>());
        let row = index.zip(column).map(|(index, rows)| rows.value(index));
        let in_split = || batch.provenance.row(ordinal).map(|(_, number)| number);
        Self {
            source: source_of(batch, ordinal),
            row: row.or_else(in_split).unwrap_or(0),
        }
    }
}

/// The records of a batch, without their values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct BatchRange {
    /// The number of source rows.
    pub records: u64,
    /// The first source row.
    pub first: RecordPosition,
    /// The last source row.
    pub last: RecordPosition,
}

impl BatchRange {
    /// Describes a batch as it leaves its source; `None` if it has no source row.
    pub(crate) fn new(batch: &Batch) -> Option<Self> {
        let records = batch.provenance.len();
        let last = u32::try_from(records.checked_sub(1)?).unwrap_or(u32::MAX);
        Some(Self {
            records,
            first: RecordPosition::new(batch, 0),
            last: RecordPosition::new(batch, last),
        })
    }
}

/// The batch that a worker processes, if there is one.
#[derive(Default)]
pub struct WorkerActivity {
    batch: Mutex<Option<(BatchRange, Instant)>>,
    /// The index of the stage that processes the batch.
    stage: AtomicUsize,
}

/// A batch that a worker processes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ActiveBatch {
    /// The index of the stage that processes the batch.
    pub stage: usize,
    /// Its records.
    pub range: BatchRange,
    /// The time since the worker began with the batch, in seconds.
    pub seconds: f64,
}

impl WorkerActivity {
    /// Records that the worker begins with a batch of a source.
    pub(crate) fn begin(&self, source: usize, batch: &Batch) {
        self.enter(source);
        *self.batch.lock() = BatchRange::new(batch).map(|range| (range, Instant::now()));
    }

    /// Records that a stage begins with the batch.
    pub(crate) fn enter(&self, stage: usize) {
        self.stage.store(stage, Relaxed);
    }

    /// Records that the batch is done.
    pub(crate) fn end(&self) {
        *self.batch.lock() = None;
    }

    /// The batch that the worker processes; `None` while it waits.
    pub(crate) fn active(&self) -> Option<ActiveBatch> {
        let batch = self.batch.lock();
        let (range, begun) = batch.as_ref()?;
        Some(ActiveBatch {
            stage: self.stage.load(Relaxed),
            range: range.clone(),
            seconds: begun.elapsed().as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};

    use super::*;
    use crate::batch::provenance::{Provenance, Split};
    use crate::columns::SOURCE;

    fn batch(sources: &[&str], rows: &[u64]) -> Batch {
        let columns: [(&str, ArrayRef); 2] = [
            (SOURCE, Arc::new(StringArray::from(sources.to_vec()))),
            (ROW, Arc::new(UInt64Array::from(rows.to_vec()))),
        ];
        Batch {
            records: RecordBatch::try_from_iter(columns).unwrap(),
            row_ordinals: (0..u32::try_from(rows.len()).unwrap()).collect(),
            provenance: Arc::new(Provenance::rows(Split::new("in/list"), 10..13)),
        }
    }

    #[test]
    fn worker_reports_its_batch_until_the_end() {
        let worker = WorkerActivity::default();
        assert_eq!(worker.active(), None);
        worker.begin(0, &batch(&["a.jpg", "b.jpg", "c.jpg"], &[0, 0, 4]));
        worker.enter(2);
        let active = worker.active().unwrap();
        let position = |source: &str, row| RecordPosition {
            source: source.to_owned(),
            row,
        };
        assert_eq!(
            (active.stage, active.range),
            (
                2,
                BatchRange {
                    records: 3,
                    first: position("a.jpg", 0),
                    last: position("c.jpg", 4),
                }
            )
        );
        worker.end();
        assert_eq!(worker.active(), None);
    }

    #[test]
    fn rows_without_records_are_named_by_their_split() {
        let range = BatchRange::new(&batch(&[], &[])).unwrap();
        assert_eq!(
            (range.records, range.first.source.as_str(), range.last.row),
            (3, "in/list", 12)
        );
    }
}
