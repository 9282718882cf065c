//! Sources of records: the trait, the table of kinds, and the helpers that all sources share.

mod batch_limits;
pub mod batch_size;
pub(crate) mod discovery;
pub mod embedded;
pub(crate) mod http;
pub mod images;
pub mod origin;
pub(crate) mod reader;
pub mod registry;
pub mod rejects;
mod synthetic;
pub mod table;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{Receiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio_stream::Stream;

use crate::batch::reject::Reject;
use crate::batch::{Batch, BatchAck, SourceBatch};
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::share::SourceShare;
use crate::source::discovery::skipped_files::LastSkippedFiles;
use crate::storage::Location;

/// The files that a sink writes into a folder.
#[derive(Debug, Clone, Copy)]
pub struct WrittenFiles<'a> {
    /// The folder; the files may be in its subfolders.
    pub folder: &'a Location,
    /// The extensions of the files.
    pub extensions: &'static [&'static str],
    /// The name of one of the files; `None`: any name.
    pub name: Option<&'static str>,
}

/// A planned source: its schema is fixed, and it has not been started.
pub trait Source: Send {
    /// The columns of every batch; the first two are [`SOURCE`](crate::columns::SOURCE) and [`ROW`](crate::columns::ROW).
    fn schema(&self) -> SchemaRef;

    /// Maximum memory of the source in bytes, in addition to its batches, while it reads.
    fn reading_bytes(&self) -> u64 {
        0
    }

    /// The inputs: the name of each file with its size and time, as far as they are available
    /// without reading. Equal lists mean equal records. `None`: the inputs cannot be listed.
    ///
    /// # Errors
    /// If the input cannot be found or listed.
    fn inputs(&self) -> Result<Option<Vec<String>>, StageError> {
        Ok(None)
    }

    /// Checks that the input exists and holds a file to read, if planning has not checked it. Outputs
    /// are opened afterwards. `state` is the folder of the journals.
    ///
    /// # Errors
    /// If there is nothing to read and the source would not wait for it, or if that cannot be
    /// determined.
    fn find_inputs(&self, _state: Option<&Location>) -> Result<(), StageError> {
        Ok(())
    }

    /// Lists the inputs, so that [`Self::skipped_files`] counts them, and checks that there is
    /// something to read. `state` is the folder of the journals.
    ///
    /// # Errors
    /// If the input cannot be listed, or the source would find nothing to read.
    fn list_inputs(&self, _state: Option<&Location>) -> Result<(), StageError> {
        self.inputs().map(drop)
    }

    /// The files that the last listing skipped, if the source lists files.
    fn skipped_files(&self) -> Option<LastSkippedFiles> {
        None
    }

    /// The share of the inputs that the source reads in a run of one shard; `None` if its inputs
    /// cannot be divided.
    fn share(&self) -> Option<&SourceShare> {
        None
    }

    /// Sentences for the user about inputs that differ from the plan.
    fn plan_notes(&self) -> &[String] {
        &[]
    }

    /// Whether the source refuses files that have changed since earlier runs read them.
    fn refuses_changes(&self) -> bool {
        false
    }

    /// Checks that no file has changed since earlier runs read it.
    ///
    /// # Errors
    /// A refusal names the changed files; other errors if files or their checkpoints
    /// cannot be read.
    fn admit_inputs(&self, _progress: &ResumeState) -> Result<(), StageError> {
        Ok(())
    }

    /// Whether files that a sink writes are inputs of the source, in this run or in the next one.
    fn would_read(&self, _written: &WrittenFiles<'_>) -> bool {
        false
    }

    /// Whether the records were rejected by an earlier run, so that the rejects of this run may be
    /// written to the dataset that the source reads.
    fn reads_rejects(&self) -> bool {
        false
    }

    /// Whether the source runs until it is stopped. Such sources are read concurrently, in the
    /// order of arrival; the others are read one after another.
    fn is_unbounded(&self) -> bool {
        false
    }

    /// Starts reading. Equal inputs produce equal batches, regardless of the load of the machine.
    ///
    /// A source may leave out rows for which [`ResumeState::is_committed`] holds; the caller
    /// removes the remaining ones.
    ///
    /// # Errors
    /// If the input cannot be found or listed.
    fn open(self: Box<Self>, resume: &ResumeState) -> Result<SourceHandle, StageError>;
}

/// A running source.
pub struct SourceHandle {
    /// The batches, in order, until the end is reached. An error ends the run.
    pub batches: BatchStream,
    /// The total number of records.
    pub total: RecordCount,
    /// Receives the acknowledgement of each batch once it is durable; `None`: the source does not
    /// need acknowledgements.
    pub acks: Option<UnboundedSender<BatchAck>>,
    /// Requests whose records are processed immediately and not written to a sink.
    pub inference_requests: Option<Receiver<InferenceRequest>>,
    /// Resolves when the source has sent all responses to its clients. The run waits for it at its
    /// end.
    pub shutdown_complete: Option<oneshot::Receiver<()>>,
}

impl SourceHandle {
    /// Creates the handle of a source that only produces batches.
    pub fn new(batches: BatchStream, total: impl Into<RecordCount>) -> Self {
        Self {
            batches,
            total: total.into(),
            acks: None,
            inference_requests: None,
            shutdown_complete: None,
        }
    }
}

/// The total number of records of a source.
#[derive(Debug, Default)]
pub enum RecordCount {
    /// The number is not available.
    #[default]
    Unknown,
    /// The records are being counted; the channel closes without a number if that is not possible.
    Counting(oneshot::Receiver<u64>),
    /// The number of records.
    Known(u64),
}

impl RecordCount {
    /// Returns the number of records, once it is available.
    pub fn known(&mut self) -> Option<u64> {
        if let Self::Counting(counted) = self {
            match counted.try_recv() {
                Ok(total) => *self = Self::Known(total),
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => *self = Self::Unknown,
            }
        }
        if let Self::Known(total) = self {
            Some(*total)
        } else {
            None
        }
    }
}

impl From<Option<u64>> for RecordCount {
    fn from(total: Option<u64>) -> Self {
        total.map_or(Self::Unknown, Self::Known)
    }
}

/// A request to process records immediately and to return the result.
pub struct InferenceRequest {
    /// The records.
    pub batch: SourceBatch,
    /// Receives the result, or the reason for a failure.
    pub reply: oneshot::Sender<Result<InferenceResponse, String>>,
}

/// The result of an [`InferenceRequest`].
pub struct InferenceResponse {
    /// The batch that the first sink would receive.
    pub batch: Batch,
    /// The rejects, each with the stage that rejected the record.
    pub rejected: Vec<(Arc<str>, Reject)>,
}

/// A stream of batches in the order of their arrival.
pub(crate) type BatchStream = Pin<Box<dyn Stream<Item = Result<SourceBatch, StageError>> + Send>>;

/// The options of a kind of source.
pub trait SourceConfig: DeserializeOwned + Serialize + JsonSchema {
    /// The extensions of the files that the source reads, in lower case and without that of a
    /// compression, or ends of their names that begin with a hyphen. Empty for a source that does not
    /// read files by name.
    const FILE_ENDINGS: &'static [&'static str] = &[];

    /// Checks the options, fills in omitted ones, and fixes the schema; `name` is the name of the
    /// stage.
    ///
    /// # Errors
    /// All faults, with keys relative to the stage.
    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>>;
}

#[cfg(test)]
mod tests;
