//! Sinks: where records end. The traits, and the table of kinds.

pub mod writer_lease;
mod column_selection;
pub mod compact;
pub mod inspect;
mod discard;
mod summary_stats;
mod image_encoder;
mod fencing_epoch;
pub mod rewrite_commit;
pub mod data_files;
pub mod provenance_footer;
mod output_identity;
mod images;
pub mod file_lock;
pub mod coverage_snapshot;
mod file_naming;
mod narrow_dictionaries;
pub mod output_mounts;
mod parquet;
pub mod parquet_file;
pub mod purge;
mod writer_recognition;
pub mod rejects_dataset;
mod rewrite;
mod row_group_writer;
mod stdout;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::batch::{Batch, RejectCollector};
use crate::error::{ConfigError, StageError};
use crate::plan_context::PlanContext;
use crate::registry::{self, ComponentKind, ResolvedStage, parse_options};
use crate::source::WrittenFiles;
use crate::storage::Location;

pub use output_identity::{
    ChangePolicy, FINGERPRINT_VERSION, IdentityScope, OutputHistory, OutputIdentity, StageIdentity,
};
pub use writer_recognition::{StageInterpreter, StageReader};

/// The folder inside a sink's own that holds what is not data: snapshots, journals, rejects.
/// Its leading underscore hides it from readers of datasets.
pub const STATE_DIR: &str = crate::source::file_set::STATE_DIR;

/// A sink as planned: checked against its input, nothing has been touched.
pub trait Sink: Send {
    /// The folder that it writes, where what it writes outlives the run.
    fn folder(&self) -> Option<Location>;

    /// That folder, where it lies on a disk of this machine.
    fn local_folder(&self) -> Option<PathBuf> {
        self.folder()?.local().map(Path::to_path_buf)
    }

    /// The files that it writes; `None`: it writes none.
    fn written_files(&self) -> Option<WrittenFiles<'_>> {
        None
    }

    /// What earlier runs made durable, by its own files. Nobody else may write there from now on.
    ///
    /// # Errors
    /// When files cannot be read, or another process writes there.
    fn history(&self) -> Result<OutputHistory, StageError> {
        Ok(OutputHistory::default())
    }

    /// What earlier runs made durable so far, read without claiming the folder: another process may
    /// write there meanwhile.
    ///
    /// # Errors
    /// When files cannot be read.
    fn read_history(&self) -> Result<OutputHistory, StageError> {
        Ok(OutputHistory::default())
    }

    /// Notes, durably, that rows of these digests may lie beside each other.
    ///
    /// # Errors
    /// When the folder cannot be written.
    fn allow_mixing(&self, _digests: &[String]) -> Result<(), StageError> {
        Ok(())
    }

    /// Forgets what earlier runs did, so that the next one starts over: counts what that removes,
    /// and removes it where `remove` says so.
    ///
    /// # Errors
    /// When files cannot be read or removed, or another process writes there.
    fn reset(&self, _remove: bool) -> Result<CommitStats, StageError> {
        Ok(CommitStats::default())
    }

    /// What workers do to its batches; `None`: it takes them as they come.
    fn batch_encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        None
    }

    /// Bytes that it holds at most while it writes, beside the batches that it is given.
    fn buffer_bytes(&self) -> u64 {
        0
    }

    /// Removes what a crash left behind and makes ready to write.
    ///
    /// # Errors
    /// When the folder cannot be written.
    fn open(self: Box<Self>, identity: OutputIdentity) -> Result<Box<dyn SinkWriter>, StageError>;
}

/// Does on the workers' threads what a sink's own, which is one, would be too slow for.
pub trait BatchEncoder: Send + Sync {
    /// The columns of the prepared batch.
    fn schema(&self) -> SchemaRef;

    /// The batch as [`SinkWriter::write`] takes it. A record that the sink cannot hold goes to
    /// `rejects` and is left out.
    ///
    /// # Errors
    /// An error that it does not expect of a record, as for a transform.
    fn encode(&self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError>;
}

/// A sink at work. Every batch number comes in ascending order, empty batches too: their rows are
/// done as well.
pub trait SinkWriter: Send {
    /// Takes a batch, prepared where that was asked for; may commit on its own when a file is full,
    /// and says so.
    ///
    /// # Errors
    /// When it cannot be written: the run ends, what was committed stays.
    fn write(&mut self, batch: &Batch) -> Result<CommitProgress, StageError>;

    /// Writes as another from the next batch on, with which older rows may lie beside newer ones.
    /// Nothing waits to be committed then.
    ///
    /// # Errors
    /// When that cannot be noted durably.
    fn switch_identity(&mut self, _identity: OutputIdentity) -> Result<(), StageError> {
        Ok(())
    }

    /// How long what was taken waits to be committed at most, whatever the pipeline says; `None`:
    /// as the pipeline says.
    fn commit_age(&self) -> Option<Duration> {
        None
    }

    /// Makes everything that was taken durable, together with its provenance, or fails; nothing in
    /// between.
    ///
    /// # Errors
    /// When it cannot be made durable.
    fn commit(&mut self) -> Result<(), StageError>;

    /// What was committed so far.
    fn stats(&self) -> CommitStats;
}

/// What a writer has made durable while it took a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommitProgress {
    /// Nothing more than before.
    Nothing,
    /// All batches before this one.
    Before,
    /// This one, too.
    All,
}

/// What a sink has committed in this run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// Files that bear their final name.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their records.
    pub records: u64,
}

/// The options of a kind of sink.
pub trait SinkConfig: DeserializeOwned + Serialize + JsonSchema {
    /// Checks the options against the columns that come in, and fills in those that were left out.
    ///
    /// # Errors
    /// Every fault that was found, keys relative to the stage.
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn Sink>, Vec<ConfigError>>;
}

/// How a sink of some kind is planned: options as written, schema of its input, context.
pub type PlanSink =
    fn(Value, &SchemaRef, &PlanContext) -> Result<ResolvedStage<Box<dyn Sink>>, Vec<ConfigError>>;

/// Every kind of sink.
pub const KINDS: &[ComponentKind<PlanSink>] = &[
    kind::<parquet::ParquetSinkConfig>(
        "parquet",
        "writes records to Parquet files, each file whole or not at all",
    ),
    kind::<images::ImagesSinkConfig>("images", "writes a tensor column as image files"),
    kind::<stdout::StdoutSinkConfig>("stdout", "prints records as NDJSON, one object a line"),
    kind::<discard::DiscardSinkConfig>("discard", "drops records, for benchmarks"),
];

const fn kind<C: SinkConfig>(name: &'static str, summary: &'static str) -> ComponentKind<PlanSink> {
    ComponentKind {
        name,
        summary,
        schema: |generator| generator.subschema_for::<C>(),
        check: |written| parse_options::<C>(written).err().unwrap_or_default(),
        plan: |written, input, context| {
            let mut config = parse_options::<C>(written)?;
            Ok(ResolvedStage {
                stage: config.plan(input, context)?,
                options: registry::option_values(&config)?,
            })
        },
    }
}
