//! Sources of records: the trait, the table of kinds, and the helpers that all sources share.

mod collapse_delimiters;
mod append_log;
mod arrays;
mod arrow_ipc;
mod bounded_ipc_reader;
mod column_type;
mod compression;
mod content_digest;
mod csv;
mod batch_limits;
mod dead_leaves;
pub mod embedded;
mod text_encoding;
mod factor_model;
mod object_prefetch;
mod file_reference;
mod table_rows;
mod tensor_layout;
mod hive_partitions;
mod file_columns;
pub mod file_set;
mod input_file;
mod schema_inference;
mod stat_cache;
mod image_batcher;
mod missing_rows;
mod http;
mod file_identity;
mod idx;
mod image_column;
pub mod images;
mod file_checkpoints;
mod listing_journal;
mod json_decoders;
mod json_scan;
mod json_types;
mod parallel_read;
mod listed_file;
mod listing;
mod missing_values;
mod widened_columns;
mod ndjson;
mod npy_header;
mod digest_log;
mod npz;
mod parquet;
mod parquet_int96;
mod parquet_levels;
mod parquet_page_sizes;
mod parquet_row_reader;
mod parquet_types;
mod skipped_files;
mod file_source;
pub mod rejects;
mod root_folder;
mod seen_values;
mod share;
mod synthetic;
mod tar;
mod text;
mod text_columns;
mod text_sample;
mod text_values;
mod type_misfits;
mod watch;
mod arrival_log;

use std::pin::Pin;
use std::sync::Arc;

use ::arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use ::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc::{Receiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio_stream::Stream;

use crate::batch::{Batch, BatchAck, Reject, SourceBatch};
use crate::coverage::ResumeState;
use crate::error::{ConfigError, StageError};
use crate::metrics::BlockingCaller;
use crate::plan_context::PlanContext;
use crate::registry::{self, ComponentKind, ResolvedStage, parse_options};
use crate::storage::Location;
use crate::units::{ByteSize, HumanDuration};

pub use parquet_types::{Int96Unit, metadata_as_read};
pub use share::{ShareSize, SourceShare};
pub use skipped_files::{LastSkippedFiles, SkippedFiles};

/// The column with the name of the input of a record, such as a file.
pub const SOURCE: &str = "source";
/// The column with the row of a record in its input, counted from 0.
pub const ROW: &str = "row";
/// The column of encoded images.
pub const IMAGE: &str = "image";

/// The files that a sink writes into a folder.
#[derive(Debug, Clone, Copy)]
pub struct WrittenFiles<'a> {
    /// The folder; the files may be in its subfolders.
    pub folder: &'a Location,
    /// The extension of the files.
    pub extension: &'static str,
    /// The name of one of the files; `None`: any name.
    pub name: Option<&'static str>,
}

/// A planned source: its schema is fixed, and it has not been started.
pub trait Source: Send {
    /// The columns of every batch; the first two are [`SOURCE`] and [`ROW`].
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
    /// [`StageError::Refused`] names the changed files; other errors if files or their checkpoints
    /// cannot be read.
    fn admit_inputs(&self, _progress: &ResumeState) -> Result<(), StageError> {
        Ok(())
    }

    /// Whether files that a sink writes are inputs of the source, in this run or in the next one.
    fn would_read(&self, _written: &WrittenFiles<'_>) -> bool {
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
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<SourceBatch, StageError>> + Send>>;

/// Limits on the size of a batch. The first limit that is reached completes a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BatchSize {
    /// Maximum number of records. Default: 32 images, up to 128 if they are small, or 4096 feature
    /// records.
    pub records: Option<std::num::NonZeroU32>,
    /// Maximum size in bytes, with images counted as decoded; a single larger record is a batch of
    /// its own. Default: 32MiB.
    pub bytes: Option<ByteSize>,
    /// Maximum time that a source without an end waits for a batch to fill.
    pub delay: Option<HumanDuration>,
    /// Upper bound from the available memory, which takes precedence over the configured limits.
    #[serde(skip)]
    pub most: Option<BatchCap>,
}

/// The largest batch that fits into the available memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchCap {
    /// Maximum number of records.
    pub records: u32,
    /// Maximum size in bytes.
    pub bytes: u64,
}

impl BatchSize {
    /// The maximum number of records, or `default` if it is not configured.
    pub fn records_or(&self, default: u32) -> usize {
        let records = self.records.map_or(default, std::num::NonZeroU32::get);
        self.most.map_or(records, |most| records.min(most.records)) as usize
    }

    /// The maximum size in bytes, 32 MiB if it is not configured.
    pub fn bytes(&self) -> u64 {
        let bytes = self.bytes.map_or(32 << 20, |bytes| bytes.0);
        self.most.map_or(bytes, |most| bytes.min(most.bytes))
    }
}

/// Size of a decoded pixel in bytes: red, green and blue.
const PIXEL_BYTES: u64 = 3;

/// Default maximum number of images in a batch of small images.
pub const IMAGE_RECORDS: u32 = 128;
/// Default maximum number of feature records in a batch.
pub const FEATURE_RECORDS: u32 = 4096;

/// The options of a kind of source.
pub trait SourceConfig: DeserializeOwned + Serialize + JsonSchema {
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

/// Plans a source from the name of its stage, its options as written, its batch size and the
/// context.
pub type PlanSource = fn(
    &str,
    Value,
    BatchSize,
    &PlanContext,
) -> Result<ResolvedStage<Box<dyn Source>>, Vec<ConfigError>>;

/// Every kind of source.
pub const KINDS: &[ComponentKind<PlanSource>] = &[
    kind::<images::ImagesSourceConfig>("images", "image files of a folder or a glob"),
    kind::<parquet::ParquetSourceConfig>(
        "parquet",
        "columns of Parquet files: features, or encoded images",
    ),
    kind::<csv::CsvSourceConfig>("csv", "records of delimited text"),
    kind::<ndjson::NdjsonSourceConfig>("ndjson", "records as JSON objects, one per line"),
    kind::<arrow_ipc::ArrowSourceConfig>(
        "arrow",
        "columns of Arrow IPC files (Feather) and streams: features, or encoded images",
    ),
    kind::<idx::IdxSourceConfig>(
        "idx",
        "images or features of IDX files (MNIST), with their labels",
    ),
    kind::<npz::NpzSourceConfig>("npz", "arrays of NumPy archives (.npz) and files (.npy)"),
    kind::<tar::TarSourceConfig>("tar", "images in tar shards (WebDataset)"),
    kind::<http::HttpSourceConfig>(
        "http",
        "images or records from HTTP clients, each acknowledged once it is durable",
    ),
    kind::<embedded::EmbeddedSourceConfig>(
        "embedded",
        "records that a program supplies, such as the Python package",
    ),
    kind::<rejects::RejectsSourceConfig>(
        "rejects",
        "records that an earlier run rejected, for a corrected pipeline",
    ),
    kind::<synthetic::SyntheticSourceConfig>(
        "synthetic",
        "synthetic data from a seed: dead-leaves images or correlated features",
    ),
];

const fn kind<C: SourceConfig>(
    name: &'static str,
    summary: &'static str,
) -> ComponentKind<PlanSource> {
    ComponentKind {
        name,
        summary,
        schema: |generator| generator.subschema_for::<C>(),
        check: |written| parse_options::<C>(written).err().unwrap_or_default(),
        plan: |stage, written, batch, context| {
            let mut config = parse_options::<C>(written)?;
            Ok(ResolvedStage {
                stage: config.plan(stage, batch, context)?,
                options: registry::option_values(&config)?,
            })
        },
    }
}

/// The first fields of the schema of every source.
pub fn origin_fields() -> [Field; 2] {
    [
        Field::new(SOURCE, DataType::Utf8, false),
        Field::new(ROW, DataType::UInt64, false),
    ]
}

/// The schema of a source whose records have these columns. A column `source` or `row` of the input
/// keeps its place and replaces the origin column of the same name.
pub fn with_origin(fields: &Schema) -> SchemaRef {
    let origin = origin_fields()
        .into_iter()
        .filter(|field| fields.column_with_name(field.name()).is_none());
    let fields: Vec<Arc<Field>> = origin
        .map(Arc::new)
        .chain(fields.fields().iter().cloned())
        .collect();
    Arc::new(Schema::new(fields))
}

/// Creates a batch with a schema of [`with_origin`]: adds `source` and `row` before the columns of
/// the records.
///
/// # Errors
/// If the columns do not match the schema.
pub fn add_origin(
    schema: &SchemaRef,
    source: &str,
    rows: impl Iterator<Item = u64>,
    columns: &[ArrayRef],
) -> Result<RecordBatch, StageError> {
    let row: ArrayRef = Arc::new(UInt64Array::from_iter_values(rows));
    let source: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
        source,
        row.len(),
    )));
    let added = schema.fields().len() - columns.len();
    let origin = [(SOURCE, source), (ROW, row)];
    let origin = origin
        .into_iter()
        .filter(|(name, _)| schema.fields().iter().take(added).any(|f| f.name() == name));
    let columns = origin
        .map(|(_, column)| column)
        .chain(columns.iter().cloned())
        .collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Deletes the listings and checkpoints of a stage, so that its next run lists all files again.
///
/// # Errors
/// If a journal cannot be removed.
pub fn delete_state(stage: &str, state: &Location) -> Result<(), StageError> {
    file_checkpoints::remove_records(stage, state)?;
    listing_journal::remove_journal(stage, state)
}

/// Deletes the record of the folder that a stage has read, so that its next run accepts the current
/// folder.
///
/// # Errors
/// If the record cannot be removed.
pub fn accept_folder(stage: &str, state: &Location) -> Result<(), StageError> {
    root_folder::RootRecord::remove_record(stage, state)
}

/// Runs a blocking reader on a separate thread. It sends batches through the sender, which blocks
/// while `ahead` batches wait. An error or a panic of the reader ends the stream with an error.
pub fn spawn_reader<F>(ahead: usize, read: F) -> BatchStream
where
    F: FnOnce(&BatchSender) -> Result<(), StageError> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(ahead.max(1));
    let sender = BatchSender {
        sender,
        caller: None,
    };
    let reader = std::thread::Builder::new().name("source".to_owned());
    let span = tracing::Span::current();
    let spawned = reader.spawn(move || {
        let _entered = span.enter();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&sender)));
        let outcome =
            outcome.unwrap_or_else(|_| Err(StageError::Other("the reader panicked".to_owned())));
        if let Err(error) = outcome {
            // The channel is closed if the run has already ended for another reason.
            let _ = sender.sender.blocking_send(Err(error));
        }
    });
    match spawned {
        Ok(_) => Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver)),
        Err(error) => Box::pin(tokio_stream::once(Err(StageError::Other(format!(
            "cannot start a thread: {error}"
        ))))),
    }
}

/// Sends the batches of a reader of [`spawn_reader`].
pub struct BatchSender {
    sender: tokio::sync::mpsc::Sender<Result<SourceBatch, StageError>>,
    /// The sending thread, if its blocking calls are monitored.
    caller: Option<Arc<BlockingCaller>>,
}

impl BatchSender {
    /// A sender for a thread whose blocking calls are monitored. A wait for room does not count as
    /// a blocking call.
    #[must_use]
    pub fn outside_of(&self, caller: Arc<BlockingCaller>) -> Self {
        Self {
            sender: self.sender.clone(),
            caller: Some(caller),
        }
    }

    /// Whether the receiver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a batch and waits for room. `false`: the receiver is gone, so the reader stops.
    #[must_use]
    pub fn send(&self, batch: SourceBatch) -> bool {
        let send = || self.sender.blocking_send(Ok(batch)).is_ok();
        match &self.caller {
            Some(caller) => caller.outside(send),
            None => send(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_is_available_after_it_is_sent() {
        let (sender, counted) = oneshot::channel();
        let mut total = RecordCount::Counting(counted);
        assert!(total.known().is_none() && matches!(total, RecordCount::Counting(_)));
        assert_eq!(sender.send(7), Ok(()));
        assert_eq!((total.known(), total.known()), (Some(7), Some(7)));
        let mut closed = RecordCount::Counting(oneshot::channel().1);
        assert!(closed.known().is_none() && matches!(closed, RecordCount::Unknown));
    }
}
