//! Sources: where records come from. The trait, and the table of kinds.

mod collapse_delimiters;
mod append_log;
mod arrays;
mod arrow_ipc;
mod bounded_ipc_reader;
mod content_digest;
mod csv;
mod batch_limits;
mod dead_leaves;
mod text_encoding;
mod factor_model;
mod object_prefetch;
mod file_reference;
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
mod json_prescan;
mod parallel_read;
mod listed_file;
mod listing;
mod missing_values;
mod ndjson;
mod npy_header;
mod digest_log;
mod npz;
mod parquet;
mod parquet_levels;
mod parquet_page_sizes;
mod parquet_row_reader;
mod skipped_files;
mod file_source;
pub mod rejects;
mod root_folder;
mod synthetic;
mod tar;
mod text;
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

pub use skipped_files::{LastSkippedFiles, SkippedFiles};

/// The column that says where a record came from.
pub const SOURCE: &str = "source";
/// The column that says which record in there it was, counted from 0.
pub const ROW: &str = "row";
/// The column of encoded images.
pub const IMAGE: &str = "image";

/// The files that a sink writes into a folder.
#[derive(Debug, Clone, Copy)]
pub struct WrittenFiles<'a> {
    /// The folder; files may lie in folders below it.
    pub folder: &'a Location,
    /// Their extension.
    pub extension: &'static str,
    /// The name of one of them; `None`: any name.
    pub name: Option<&'static str>,
}

/// A source as planned: its schema is fixed, nothing has been started.
pub trait Source: Send {
    /// The columns of every batch; the first two are [`SOURCE`] and [`ROW`].
    fn schema(&self) -> SchemaRef;

    /// Bytes that it holds at most, beside its batches, while it reads.
    fn reading_bytes(&self) -> u64 {
        0
    }

    /// What will be read: the name of each file with its size and time, as far as that is known
    /// without reading. The same list means the same records. `None`: that cannot be told
    /// beforehand.
    ///
    /// # Errors
    /// When the input cannot be found or listed.
    fn inputs(&self) -> Result<Option<Vec<String>>, StageError> {
        Ok(None)
    }

    /// Looks whether there is something where its input would lie, as far as planning has not. An
    /// output is claimed afterwards.
    ///
    /// # Errors
    /// When there is nothing, or that cannot be found out.
    fn find_inputs(&self) -> Result<(), StageError> {
        Ok(())
    }

    /// What its last listing left out, where it lists files.
    fn skipped_files(&self) -> Option<LastSkippedFiles> {
        None
    }

    /// Whether the source refuses files that changed since earlier runs read them.
    fn refuses_changes(&self) -> bool {
        false
    }

    /// Checks that there is no such file.
    ///
    /// # Errors
    /// [`StageError::Refused`] names those that there are; others when files, or what was recorded
    /// of them, cannot be read.
    fn admit_inputs(&self, _progress: &ResumeState) -> Result<(), StageError> {
        Ok(())
    }

    /// Whether files that a sink writes are input of it, now or in the next run.
    fn would_read(&self, _written: &WrittenFiles<'_>) -> bool {
        false
    }

    /// Whether it goes on until it is told to stop. Such sources are read side by side, by arrival;
    /// others one after another.
    fn is_unbounded(&self) -> bool {
        false
    }

    /// Starts reading. The same input gives the same batches, whatever the machine's load.
    ///
    /// A source may leave out rows for which [`ResumeState::is_committed`] holds; the caller cuts
    /// out what is left of them.
    ///
    /// # Errors
    /// When the input cannot be found or listed.
    fn open(self: Box<Self>, resume: &ResumeState) -> Result<SourceHandle, StageError>;
}

/// A source that is being read.
pub struct SourceHandle {
    /// The batches, in order, until the end is reached. An error ends the run.
    pub batches: BatchStream,
    /// How many records there are.
    pub total: RecordCount,
    /// Where to say what became of each batch, once it is durable; `None`: the source need not
    /// know.
    pub acks: Option<UnboundedSender<BatchAck>>,
    /// Records that are to go through the graph at once, into no sink.
    pub inference_requests: Option<Receiver<InferenceRequest>>,
    /// Resolves when the source has told its clients all that there was to tell; that is waited for
    /// at the end.
    pub shutdown_complete: Option<oneshot::Receiver<()>>,
}

impl SourceHandle {
    /// A source that gives batches, and no more.
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

/// How many records a source has to give.
#[derive(Debug, Default)]
pub enum RecordCount {
    /// Nobody knows.
    #[default]
    Unknown,
    /// They are being counted; nothing comes where they cannot be.
    Counting(oneshot::Receiver<u64>),
    /// So many.
    Known(u64),
}

impl RecordCount {
    /// How many, once that is known.
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

/// Records that are to go through the graph at once.
pub struct InferenceRequest {
    /// The records.
    pub batch: SourceBatch,
    /// Where to tell what came of them, or why nothing did.
    pub reply: oneshot::Sender<Result<InferenceResponse, String>>,
}

/// What came of records that went through the graph at once.
pub struct InferenceResponse {
    /// What the first sink would have been given.
    pub batch: Batch,
    /// What was refused, and by which stage.
    pub rejected: Vec<(Arc<str>, Reject)>,
}

/// Batches as they arrive.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<SourceBatch, StageError>> + Send>>;

/// How many records travel together: the first limit that is reached closes a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct BatchSize {
    /// At most so many records. Default: 32 images, up to 128 where they are small, or 4096 feature
    /// records.
    pub records: Option<std::num::NonZeroU32>,
    /// At most so many bytes, images counted as decoded; a single larger record travels alone.
    /// Default: 32MiB.
    pub bytes: Option<ByteSize>,
    /// Sources without an end: wait at most so long for a batch to fill.
    pub delay: Option<HumanDuration>,
    /// What the memory at hand allows, whatever is written.
    #[serde(skip)]
    pub most: Option<BatchCap>,
}

/// The largest batch that the memory at hand allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchCap {
    /// At most so many records.
    pub records: u32,
    /// At most so many bytes.
    pub bytes: u64,
}

impl BatchSize {
    /// The limit in records, or `default`.
    pub fn records_or(&self, default: u32) -> usize {
        let records = self.records.map_or(default, std::num::NonZeroU32::get);
        self.most.map_or(records, |most| records.min(most.records)) as usize
    }

    /// The limit in bytes.
    pub fn bytes(&self) -> u64 {
        let bytes = self.bytes.map_or(32 << 20, |bytes| bytes.0);
        self.most.map_or(bytes, |most| bytes.min(most.bytes))
    }
}

/// Bytes of a decoded pixel: red, green, blue.
const PIXEL_BYTES: u64 = 3;

/// Images in a batch, where they are small and the pipeline does not say.
pub const IMAGE_RECORDS: u32 = 128;
/// Feature records in a batch where the pipeline does not say.
pub const FEATURE_RECORDS: u32 = 4096;

/// The options of a kind of source.
pub trait SourceConfig: DeserializeOwned + Serialize + JsonSchema {
    /// Checks the options, fills in those that were left out, and fixes the schema; `name` is the
    /// stage's.
    ///
    /// # Errors
    /// Every fault that was found, keys relative to the stage.
    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>>;
}

/// How a source of some kind is planned: stage name, options as written, batch size, context.
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
    kind::<ndjson::NdjsonSourceConfig>("ndjson", "records as JSON objects, one a line"),
    kind::<arrow_ipc::ArrowSourceConfig>(
        "arrow",
        "records of Arrow IPC files (Feather) and streams",
    ),
    kind::<idx::IdxSourceConfig>(
        "idx",
        "images or features of IDX files (MNIST), with their labels",
    ),
    kind::<npz::NpzSourceConfig>("npz", "arrays of NumPy archives (.npz) and files (.npy)"),
    kind::<tar::TarSourceConfig>("tar", "images in tar shards (WebDataset)"),
    kind::<http::HttpSourceConfig>(
        "http",
        "images or records that clients send over HTTP, each acknowledged when it is safe",
    ),
    kind::<rejects::RejectsSourceConfig>(
        "rejects",
        "records that an earlier run refused, for a pipeline that was mended",
    ),
    kind::<synthetic::SyntheticSourceConfig>(
        "synthetic",
        "made-up data from a seed: dead-leaves images or correlated features",
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
        plan: |name, written, batch, context| {
            let mut config = parse_options::<C>(written)?;
            Ok(ResolvedStage {
                stage: config.plan(name, batch, context)?,
                options: registry::option_values(&config)?,
            })
        },
    }
}

/// The fields that every source's schema begins with.
pub fn origin_fields() -> [Field; 2] {
    [
        Field::new(SOURCE, DataType::Utf8, false),
        Field::new(ROW, DataType::UInt64, false),
    ]
}

/// The schema of a source whose records have these columns; a column of the input that is called
/// `source` or `row` keeps its place and hides ours.
pub fn with_origin(fields: &Schema) -> SchemaRef {
    let ours = origin_fields()
        .into_iter()
        .filter(|field| fields.column_with_name(field.name()).is_none());
    let fields: Vec<Arc<Field>> = ours
        .map(Arc::new)
        .chain(fields.fields().iter().cloned())
        .collect();
    Arc::new(Schema::new(fields))
}

/// Records under a schema of [`with_origin`]: puts `source` and `row` before their columns.
///
/// # Errors
/// When the columns are not those of the schema.
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
    let ours = [(SOURCE, source), (ROW, row)];
    let ours = ours
        .into_iter()
        .filter(|(name, _)| schema.fields().iter().take(added).any(|f| f.name() == name));
    let columns = ours
        .map(|(_, column)| column)
        .chain(columns.iter().cloned())
        .collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Forgets what was listed and read for a stage; its next run lists anew.
///
/// # Errors
/// When a journal cannot be removed.
pub fn forget(stage: &str, state: &Location) -> Result<(), StageError> {
    file_checkpoints::forget(stage, state)?;
    listing_journal::forget(stage, state)
}

/// Forgets which folder a stage has read, so that its next run accepts the one that is there.
///
/// # Errors
/// When the record cannot be removed.
pub fn accept_folder(stage: &str, state: &Location) -> Result<(), StageError> {
    root_folder::RootRecord::forget(stage, state)
}

/// Runs a blocking reader on a thread of its own; it hands over batches through the sender, which
/// blocks while `ahead` batches wait. A reader that returns an error ends the stream with it; so
/// does a panic.
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
    let spawned = reader.spawn(move || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&sender)));
        let outcome =
            outcome.unwrap_or_else(|_| Err(StageError::Other("the reader panicked".to_owned())));
        if let Err(error) = outcome {
            // A closed channel means that nobody listens any more: the run has ended for another
            // reason.
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

/// Where a reader of [`spawn_reader`] puts its batches.
pub struct BatchSender {
    sender: tokio::sync::mpsc::Sender<Result<SourceBatch, StageError>>,
    /// The thread that hands over, where it says which calls it is in.
    caller: Option<Arc<BlockingCaller>>,
}

impl BatchSender {
    /// The same, for a thread that says which calls it is in: waiting for room is none.
    #[must_use]
    pub fn outside_of(&self, caller: Arc<BlockingCaller>) -> Self {
        Self {
            sender: self.sender.clone(),
            caller: Some(caller),
        }
    }

    /// Whether nobody wants more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Hands a batch over, waiting for room. `false`: nobody wants more, stop reading.
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
    fn a_count_is_known_once_it_has_come_and_unknown_where_none_will() {
        let (sender, counted) = oneshot::channel();
        let mut total = RecordCount::Counting(counted);
        assert!(total.known().is_none() && matches!(total, RecordCount::Counting(_)));
        assert_eq!(sender.send(7), Ok(()));
        assert_eq!((total.known(), total.known()), (Some(7), Some(7)));
        let mut never = RecordCount::Counting(oneshot::channel().1);
        assert!(never.known().is_none() && matches!(never, RecordCount::Unknown));
    }
}
