//! Sinks: the traits, and the table of kinds.

mod column_selection;
pub mod dataset;
mod discard;
pub mod identity;
pub(crate) mod images;
pub mod ownership;
pub mod parquet;
pub mod registry;
mod stdout;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::batch::Batch;
use crate::batch::reject::RejectCollector;
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::source::WrittenFiles;
use crate::storage::Location;

pub(crate) use crate::sink::identity::stage::{StageInterpreter, StageReader};
pub(crate) use identity::FINGERPRINT_VERSION;
pub use identity::history::OutputHistory;
pub use identity::stage::StageIdentity;
pub use identity::{ChangePolicy, IdentityScope, OutputIdentity};

/// The subfolder of a sink's folder for snapshots, journals and rejects. Its leading underscore
/// hides it from readers of datasets.
pub(crate) const STATE_DIR: &str = crate::source::discovery::file_set::STATE_DIR;

/// A planned sink: its options were checked against its input, and no file was changed.
pub trait Sink: Send {
    /// The folder that the sink writes to; `None` if its output does not outlive the run.
    fn folder(&self) -> Option<Location>;

    /// The folder that the sink writes to, if it is local.
    fn local_folder(&self) -> Option<PathBuf> {
        self.folder()?.local().map(Path::to_path_buf)
    }

    /// The files that the sink writes; `None` if it writes no files.
    fn written_files(&self) -> Option<WrittenFiles<'_>> {
        None
    }

    /// The rows that earlier runs have committed, according to the sink's files. Claims the folder,
    /// so that no other process may write to it.
    ///
    /// # Errors
    /// If files cannot be read, or if another process writes to the folder.
    fn history(&self) -> Result<OutputHistory, StageError> {
        Ok(OutputHistory::default())
    }

    /// The rows that earlier runs have committed, read without claiming the folder, since another
    /// process may be writing to it.
    ///
    /// # Errors
    /// If files cannot be read.
    fn read_history(&self) -> Result<OutputHistory, StageError> {
        Ok(OutputHistory::default())
    }

    /// Checks that readers unify the columns of the records with those of the files whose history
    /// was read last.
    ///
    /// # Errors
    /// A refusal with the names and the types of the columns.
    fn check_columns(&self) -> Result<(), StageError> {
        Ok(())
    }

    /// The changes of the pipeline that the output allows in every run.
    fn change_policy(&self) -> ChangePolicy {
        ChangePolicy::Refuse
    }

    /// Durably records that the output may hold rows of all these digests.
    ///
    /// # Errors
    /// If the folder cannot be written.
    fn allow_mixing(&self, _digests: &[String]) -> Result<(), StageError> {
        Ok(())
    }

    /// Counts the output of earlier runs, and deletes it if `remove` is set, so that the next run
    /// starts from the beginning.
    ///
    /// # Errors
    /// If files cannot be read or removed, or if another process writes to the folder.
    fn reset(&self, _remove: bool) -> Result<CommitStats, StageError> {
        Ok(CommitStats::default())
    }

    /// The encoder whose output an embedding program receives instead of files; `None` if the records
    /// stay as they are.
    fn embedded_encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        None
    }

    /// Whether the writer may have a [`BatchEncoder`], which rejects records. It may depend on the
    /// output of earlier runs.
    fn can_reject(&self) -> bool {
        false
    }

    /// Maximum memory of the writer in bytes, without the batches that it receives.
    fn buffer_bytes(&self) -> u64 {
        0
    }

    /// Removes the remains of a crash, and creates the writer.
    ///
    /// # Errors
    /// If the folder cannot be written.
    fn open(self: Box<Self>, identity: OutputIdentity) -> Result<Box<dyn SinkWriter>, StageError>;
}

/// The part of a sink that runs on the threads of the workers, since the single thread of a sink
/// would be too slow for it.
pub trait BatchEncoder: Send + Sync {
    /// The schema of an encoded batch.
    fn schema(&self) -> SchemaRef;

    /// Encodes a batch for [`SinkWriter::write`]. A record that the sink cannot represent is
    /// omitted and added to `rejects`.
    ///
    /// # Errors
    /// An error that is not a reject of a single record, as for a transform.
    fn encode(&self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError>;
}

/// A running sink. It receives every batch in ascending order of batch numbers, including empty
/// batches, whose rows must be committed as well.
pub trait SinkWriter: Send {
    /// The encoder that workers apply to batches before [`Self::write`]; `None` if the sink writes
    /// them unchanged.
    fn batch_encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        None
    }

    /// Writes a batch, which is encoded if the sink has an encoder. May commit when a file is full,
    /// and returns the progress of commits.
    ///
    /// # Errors
    /// If the batch cannot be written. The run then ends; committed data stays.
    fn write(&mut self, batch: &Batch) -> Result<CommitProgress, StageError>;

    /// Changes the identity for the following batches, and allows rows of both identities in the
    /// output. The caller has committed all earlier batches.
    ///
    /// # Errors
    /// If the change cannot be recorded durably.
    fn switch_identity(&mut self, _identity: OutputIdentity) -> Result<(), StageError> {
        Ok(())
    }

    /// Maximum age of uncommitted batches, which overrides that of the pipeline; `None` if that of
    /// the pipeline applies.
    fn commit_age(&self) -> Option<Duration> {
        None
    }

    /// Makes all written batches and their provenance durable, atomically.
    ///
    /// # Errors
    /// If they cannot be made durable.
    fn commit(&mut self) -> Result<(), StageError>;

    /// The files that were committed in this run.
    fn stats(&self) -> CommitStats;
}

/// The batches that a writer has committed while it wrote a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommitProgress {
    /// No further batch.
    Nothing,
    /// All batches before the written one.
    Before,
    /// All batches including the written one.
    All,
}

/// The files that a sink has committed in this run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// Number of files with their final name.
    pub files: u64,
    /// Size of these files in bytes.
    pub bytes: u64,
    /// Number of records in these files.
    pub records: u64,
}

/// The options of a kind of sink.
pub trait SinkConfig: DeserializeOwned + Serialize + JsonSchema {
    /// Checks the options against the schema of the input, and sets the defaults of omitted
    /// options.
    ///
    /// # Errors
    /// All faults, with keys relative to the stage.
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn Sink>, Vec<ConfigError>>;
}
