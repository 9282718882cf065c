//! Isolation of the records that cause an error or a panic of a transform.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;

use super::{ImagePreview, Transform, TransformPlan, zero_record};
use crate::batch::Batch;
use crate::batch::provenance::Provenance;
use crate::batch::reject::{RejectCode, RejectCollector};
use crate::error::StageError;
use crate::error::code::ErrorCode;

/// The instance of a transform of one worker. A batch on which the transform fails is halved until
/// one record is left. That record is rejected if the transform succeeds on another record;
/// otherwise, the transform is broken.
pub(crate) struct IsolatedTransform {
    plan: Arc<dyn TransformPlan>,
    transform: Box<dyn Transform>,
    /// A batch of one record on which the transform succeeded.
    good: Option<Batch>,
}

/// Maximum number of bytes of the good record: each worker keeps one for each stage, in addition to
/// the memory of batches.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// Maximum number of characters of a panic message in the reason of a reject.
const MESSAGE_CHARS: usize = 300;

impl IsolatedTransform {
    /// Builds an instance from the plan.
    ///
    /// # Errors
    /// If a resource cannot be acquired.
    pub fn build(plan: Arc<dyn TransformPlan>) -> Result<Self, StageError> {
        Ok(Self {
            transform: plan.build()?,
            plan,
            good: None,
        })
    }

    /// The columns of the output.
    pub fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// Applies the transform as [`Transform::apply`] does, and adds the records on which it fails
    /// to `rejects`.
    ///
    /// # Errors
    /// The first error, if the environment fails or the transform fails on every record.
    pub fn apply(
        &mut self,
        batch: &Batch,
        rejects: &mut RejectCollector,
    ) -> Result<Batch, StageError> {
        match self.attempt(batch.clone())? {
            Ok((output, found)) => {
                self.keep_good(batch, &output);
                rejects.append(found);
                Ok(output)
            }
            Err(failure) => match self.isolate(batch, failure, rejects)? {
                Some(output) => Ok(output),
                None => Ok(Batch {
                    records: RecordBatch::new_empty(self.plan.schema()),
                    row_ordinals: Vec::new(),
                    provenance: Arc::clone(&batch.provenance),
                }),
            },
        }
    }

    /// Calls [`Transform::preview`]; returns `None` if it panics.
    ///
    /// # Errors
    /// If the transform cannot be rebuilt after a panic.
    pub fn preview(
        &mut self,
        input: &Batch,
        output: &Batch,
    ) -> Result<Option<ImagePreview>, StageError> {
        match catch_unwind(AssertUnwindSafe(|| self.transform.preview(input, output))) {
            Ok(preview) => Ok(preview),
            Err(_) => {
                self.transform = self.plan.build()?;
                Ok(None)
            }
        }
    }

    /// Calls [`Transform::warm_up`], and converts a panic to an error.
    ///
    /// # Errors
    /// If the model fails, and thus cannot process any record.
    pub(crate) fn warm_up(&mut self) -> Result<(), StageError> {
        let warmed = catch_unwind(AssertUnwindSafe(|| self.transform.warm_up()));
        warmed.unwrap_or_else(|panic| Err(TransformFailure::Panic(message(panic.as_ref())).into()))
    }

    /// Applies the transform once. The outer error ends the run, because the transform cannot be
    /// rebuilt after a panic.
    fn attempt(
        &mut self,
        batch: Batch,
    ) -> Result<Result<(Batch, RejectCollector), TransformFailure>, StageError> {
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let mut found = RejectCollector::default();
            self.transform
                .apply(batch, &mut found)
                .map(|output| (output, found))
        }));
        match attempt {
            Ok(outcome) => Ok(outcome.map_err(TransformFailure::Error)),
            Err(panic) => {
                // The state after a panic is not reliable.
                self.transform = self.plan.build()?;
                Ok(Err(TransformFailure::Panic(message(panic.as_ref()))))
            }
        }
    }

    /// Applies the transform to the halves of a batch on which it failed; `None` if no record is
    /// left.
    fn isolate(
        &mut self,
        batch: &Batch,
        failure: TransformFailure,
        rejects: &mut RejectCollector,
    ) -> Result<Option<Batch>, StageError> {
        if failure.is_of_environment() {
            return Err(failure.into());
        }
        let half = match batch.row_ordinals.as_slice() {
            [] => return Err(failure.into()),
            &[ordinal] => {
                self.reject_record(batch, ordinal, failure, rejects)?;
                return Ok(None);
            }
            records => records.len() / 2,
        };
        let mut outputs = Vec::new();
        for part in [
            batch.rows(0..half),
            batch.rows(half..batch.row_ordinals.len()),
        ] {
            match self.attempt(part.clone())? {
                Ok((output, found)) => {
                    self.keep_good(&part, &output);
                    rejects.append(found);
                    outputs.push(output);
                }
                Err(part_failure) => outputs.extend(self.isolate(&part, part_failure, rejects)?),
            }
        }
        // The outputs of both halves can exceed the maximum size of one batch; the first error is
        // returned in that case.
        Batch::concat(&outputs).map_err(|_| failure.into())
    }

    /// Rejects the remaining record, unless the transform fails on another record as well.
    fn reject_record(
        &mut self,
        batch: &Batch,
        ordinal: u32,
        failure: TransformFailure,
        rejects: &mut RejectCollector,
    ) -> Result<(), StageError> {
        let probe = match &self.good {
            Some(good) => good.clone(),
            None => zero_record::record(&batch.records.schema(), batch)?,
        };
        if self.attempt(probe)?.is_err() {
            return Err(failure.into());
        }
        let (code, reason) = match failure {
            TransformFailure::Error(error @ StageError::Model(_)) => {
                (RejectCode::Model, error.to_string())
            }
            TransformFailure::Error(error) => (RejectCode::Internal, error.to_string()),
            TransformFailure::Panic(message) => (
                RejectCode::Panicked,
                format!("the stage panicked on this record: {message}"),
            ),
        };
        rejects.push(ordinal, code, reason);
        Ok(())
    }

    /// Keeps a copy of the first record on which the transform succeeded, if it is small. If a
    /// record is kept already, the call returns immediately.
    fn keep_good(&mut self, input: &Batch, output: &Batch) {
        let (None, Some(ordinal)) = (&self.good, output.row_ordinals.first()) else {
            return;
        };
        let Some(index) = input
            .row_ordinals
            .iter()
            .position(|origin| origin == ordinal)
        else {
            return;
        };
        let bytes = |column: &ArrayRef| column.slice(index, 1).to_data().get_slice_memory_size();
        let bytes = input
            .records
            .columns()
            .iter()
            .map(bytes)
            .sum::<Result<usize, _>>();
        let Some((split, row)) = input.provenance.row(*ordinal) else {
            return;
        };
        let (Ok(0..=MAX_KEPT_BYTES), Ok(index)) = (bytes, u32::try_from(index)) else {
            return;
        };
        if let Ok(records) = take_record_batch(&input.records, &UInt32Array::from(vec![index])) {
            self.good = Some(Batch::new(
                records,
                Provenance::rows(Arc::clone(split), row..row + 1),
            ));
        }
    }
}

/// The reason that a transform failed on a batch.
enum TransformFailure {
    Error(StageError),
    /// The message of the panic.
    Panic(String),
}

impl TransformFailure {
    fn is_of_environment(&self) -> bool {
        matches!(self, Self::Error(error) if error.is_of_environment())
    }
}

impl From<TransformFailure> for StageError {
    fn from(failure: TransformFailure) -> Self {
        match failure {
            TransformFailure::Error(error) => error,
            TransformFailure::Panic(message) => Self::new(
                ErrorCode::Internal,
                format!("the stage panicked: {message}"),
            ),
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message")
        .chars()
        .take(MESSAGE_CHARS)
        .collect()
}

#[cfg(test)]
mod tests;
