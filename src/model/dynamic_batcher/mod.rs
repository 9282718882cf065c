//! The dynamic batcher, which shares one session between all workers and combines their records
//! into one call, since a device is efficient only with large batches.
//!
//! It has no thread of its own: the caller that finds the session idle executes the pending batch,
//! which holds its own records and those of waiting callers. Meanwhile the next batch is collected.
//! While the device computes, workers that do not wait for it decode.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::model::batch_limits::InferenceBatchLimits;

/// A session that runs one batch at a time.
pub trait RunBatch: Send {
    /// Runs one batch of the shape `dims`, whose first dimension is the number of records, and
    /// appends the outputs of the first `rows` records to `out`. Returns the output shape of one
    /// record.
    ///
    /// # Errors
    /// When the model fails, or its output does not have one entry per record. `out` is unchanged
    /// then.
    fn run_batch(
        &mut self,
        dims: &[usize],
        values: &[f32],
        rows: usize,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, String>;
}

/// A session that several threads call concurrently.
pub struct DynamicBatcher<E> {
    state: Mutex<BatcherState<E>>,
    changed: Condvar,
    limits: InferenceBatchLimits,
    /// The batch size if the file fixes it. Records of several callers are then not combined.
    batch: Option<usize>,
}

struct BatcherState<E> {
    /// The session; `None` while it runs.
    engine: Option<E>,
    /// The batch of the next call.
    pending: Option<PendingBatch>,
    /// The buffer for the batch after that.
    spare: Vec<f32>,
}

/// The records of several callers for one call.
struct PendingBatch {
    /// The shape of one record.
    row: Vec<usize>,
    /// The number of records, including padding.
    records: usize,
    values: Vec<f32>,
    slots: Vec<BatchSlot>,
    output: Arc<OnceLock<BatchOutput>>,
}

/// The records of one caller in a batch.
#[derive(Clone, Copy)]
struct BatchSlot {
    /// The number of records, including padding.
    records: usize,
    /// The number of records whose output is returned.
    rows: usize,
}

/// The result of a call.
#[derive(Default)]
struct BatchOutput {
    /// The outputs of all records.
    values: Vec<f32>,
    slots: Vec<SlotOutput>,
}

/// The output shape of one record, and the range of the slot's outputs.
type SlotOutput = Result<(Vec<usize>, Range<usize>), String>;

impl<E: RunBatch> DynamicBatcher<E> {
    /// Creates a batcher. A call does not exceed `limits`, unless a single caller does. `batch` is
    /// the batch size if the file fixes it.
    pub fn new(engine: E, limits: InferenceBatchLimits, batch: Option<usize>) -> Self {
        let state = BatcherState {
            engine: Some(engine),
            pending: None,
            spare: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            limits,
            batch,
        }
    }

    /// As [`RunBatch::run_batch`], but waits for its turn and combines these records with those of
    /// concurrent callers.
    ///
    /// # Errors
    /// When the model fails on these records. A failure on the records of another caller does not
    /// matter: a call that fails is repeated for each caller separately.
    pub(in crate::model) fn run(
        &self,
        dims: &[usize],
        values: &[f32],
        rows: usize,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, String> {
        let Some((&records, row)) = dims.split_first() else {
            return Err("the batch has no dimension for its records".to_owned());
        };
        let max_records = self
            .batch
            .unwrap_or_else(|| self.limits.rows(row.iter().product()));
        let mut state = self.state.lock();
        while state
            .pending
            .as_ref()
            .is_some_and(|batch| !batch.has_room(row, records, max_records))
        {
            state = self.wait_or_execute(state);
        }
        let BatcherState { pending, spare, .. } = &mut *state;
        let batch = pending.get_or_insert_with(|| PendingBatch::new(row, std::mem::take(spare)));
        let (index, output) = (batch.slots.len(), Arc::clone(&batch.output));
        batch.add(BatchSlot { records, rows }, values);
        loop {
            if let Some(output) = output.get() {
                // Other callers must not wait while the output is copied.
                drop(state);
                let (shape, range) = output.slots[index].as_ref().map_err(String::clone)?;
                out.extend_from_slice(&output.values[range.clone()]);
                return Ok(shape.clone());
            }
            state = self.wait_or_execute(state);
        }
    }

    /// Executes the pending batch if the session is idle. Otherwise waits for a change of state.
    fn wait_or_execute<'a>(
        &'a self,
        mut state: MutexGuard<'a, BatcherState<E>>,
    ) -> MutexGuard<'a, BatcherState<E>> {
        let Some(mut engine) = state.engine.take() else {
            self.changed.wait(&mut state);
            return state;
        };
        let batch = state.pending.take();
        drop(state);
        // The next batch has room for all waiting callers.
        self.changed.notify_all();
        let spare = batch.map(|batch| {
            let output = batch.run(&mut engine);
            // Only this thread sets the output, since the batch was removed from the state.
            let _ = batch.output.set(output);
            batch.values
        });
        state = self.state.lock();
        state.engine = Some(engine);
        state.spare = spare.unwrap_or_default();
        state.spare.clear();
        self.changed.notify_all();
        state
    }
}

impl PendingBatch {
    fn new(row: &[usize], values: Vec<f32>) -> Self {
        Self {
            row: row.to_vec(),
            records: 0,
            values,
            slots: Vec::new(),
            output: Arc::default(),
        }
    }

    fn has_room(&self, row: &[usize], records: usize, max_records: usize) -> bool {
        self.row == row && self.records + records <= max_records
    }

    fn add(&mut self, slot: BatchSlot, values: &[f32]) {
        self.records += slot.records;
        self.values.extend_from_slice(values);
        self.slots.push(slot);
    }

    fn run<E: RunBatch>(&self, engine: &mut E) -> BatchOutput {
        let mut output = BatchOutput::default();
        if self.slots.len() > 1
            && let Ok((shape, all)) = self.call(
                engine,
                self.records,
                &self.values,
                self.records,
                &mut output.values,
            )
        {
            let ranges = self.slot_ranges(all.len() / self.records.max(1));
            let ranges = ranges.map(|(slot, range)| {
                range.start..range.start + range.len() / slot.records.max(1) * slot.rows
            });
            output.slots = ranges.map(|range| Ok((shape.clone(), range))).collect();
            return output;
        }
        // Either there is one caller, or the call has failed on the records of some callers, which
        // must not affect the others.
        for (slot, own) in self.slot_ranges(self.values.len() / self.records.max(1)) {
            let slot_output = self.call(
                engine,
                slot.records,
                &self.values[own],
                slot.rows,
                &mut output.values,
            );
            output.slots.push(slot_output);
        }
        output
    }

    /// The range of each slot among values of which each record has `len`.
    fn slot_ranges(&self, len: usize) -> impl Iterator<Item = (&BatchSlot, Range<usize>)> {
        let mut end = 0;
        self.slots.iter().map(move |slot| {
            let start = end;
            end += slot.records * len;
            (slot, start..end)
        })
    }

    fn call<E: RunBatch>(
        &self,
        engine: &mut E,
        records: usize,
        values: &[f32],
        rows: usize,
        out: &mut Vec<f32>,
    ) -> SlotOutput {
        let dims: Vec<usize> = std::iter::once(records)
            .chain(self.row.iter().copied())
            .collect();
        let start = out.len();
        // A panic becomes an error of this caller and must not leave the others waiting.
        let result = catch_unwind(AssertUnwindSafe(|| {
            engine.run_batch(&dims, values, rows, out)
        }));
        let result = result.unwrap_or_else(|_| Err("the session panicked".to_owned()));
        if result.is_err() {
            out.truncate(start);
        }
        result.map(|shape| (shape, start..out.len()))
    }
}

#[cfg(test)]
mod tests;
