//! Checkpoints of input files, by which later runs recognize files that were touched or to which
//! text was appended.
//!
//! A file is identified by the split of its rows. The first split of a file is named by the file's
//! name, size and time. If a file of the same name begins with the content that was read as a
//! split, it continues that split: the rows are the same, and the rows of appended text follow
//! them. Every other change makes the file a new input.

pub(crate) mod checkpoint;
mod hashing_reader;
pub(crate) mod journal;
pub(crate) mod relation;
mod store;

use parking_lot::{Mutex, MutexGuard};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::source::discovery::content_digest::ContentDigest;
use crate::source::discovery::file_checkpoints::checkpoint::{
    CheckpointEnding, CheckpointMap, FileCheckpoint,
};
use crate::source::discovery::file_checkpoints::relation::{FileRelation, relate, same};
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;
use crate::storage::Location;

use store::CheckpointStore;

pub(crate) use crate::source::discovery::file_checkpoints::journal::remove_records;
pub(crate) use hashing_reader::{CheckpointTracker, HashingReader};

/// How to treat a file that has changed since an earlier run read it, other than by appended text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnChange {
    /// The file is read as a new file, with a warning; its earlier rows stay in the output.
    #[default]
    New,
    /// `check` and `run` refuse the pipeline and name the file.
    Refuse,
}

/// A file with the split of its rows.
pub(crate) struct SettledFile {
    /// The file with its split.
    pub(crate) file: InputFile,
    /// The checkpoint of an earlier run, if there is one.
    pub(crate) before: Option<FileCheckpoint>,
}

const CHANGED: &str = "has changed since an earlier run read it, other than by appended text";
/// Maximum number of changed files that a message lists.
const MAX_LISTED: usize = 5;

/// The error for changed files if `on_change` is `refuse`.
fn refused(names: &[String]) -> StageError {
    let more = match names.len().saturating_sub(MAX_LISTED) {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let named = names
        .iter()
        .take(MAX_LISTED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    StageError::new(
        ErrorCode::InputChanged,
        format!(
            "{named}{more}: {CHANGED}, which `on_change = \"refuse\"` does not allow; restore the \
         file, or write `on_change = \"new\"` to read it as a new file"
        ),
    )
}

/// The files of a stage that earlier runs read, and those that this run reads.
pub(crate) struct FileCheckpoints {
    stage: String,
    /// `None` without a state folder; then nothing is recorded.
    store: Option<Mutex<CheckpointStore>>,
}

impl FileCheckpoints {
    /// Reads the checkpoints that earlier runs recorded below `state`.
    ///
    /// # Errors
    /// If they cannot be read, or the files cannot be opened for writing.
    pub(crate) fn open(stage: &str, state: Option<&Location>) -> Result<Self, StageError> {
        let store = state
            .map(|state| CheckpointStore::open(stage, state))
            .transpose()?;
        Ok(Self {
            stage: stage.to_owned(),
            store: store.map(Mutex::new),
        })
    }

    fn store(&self) -> Option<MutexGuard<'_, CheckpointStore>> {
        self.store.as_ref().map(|store| store.lock())
    }

    /// The file with the split of its rows, if it is unchanged since it was recognized last, else
    /// `file`. Does not access the file.
    pub(crate) fn recognized(&self, file: &InputFile) -> InputFile {
        let store = self.store();
        let same = store
            .as_ref()
            .and_then(|store| same(store.of(&file.name), file, &self.stage));
        same.map_or_else(
            || file.clone(),
            |known| file.continuing(&self.stage, &known.split),
        )
    }

    /// Assigns a file the split of its rows; `None` if every sink has committed all of its rows. A
    /// file whose format cannot be appended to is recorded before it is read.
    ///
    /// # Errors
    /// The reason why reading stops at the file.
    pub(crate) fn settle(
        &self,
        file: &InputFile,
        resume: &ResumeState,
        is_text: bool,
        on_change: OnChange,
    ) -> Result<Option<SettledFile>, ReadEnd> {
        let before = match self.relate(file, resume)? {
            FileRelation::Own => None,
            FileRelation::Continues(before) => Some(*before),
            FileRelation::Changed => {
                let name = &file.name;
                if on_change == OnChange::Refuse {
                    return Err(refused(std::slice::from_ref(name)).into());
                }
                tracing::warn!(
                    path = %name,
                    "the file has changed since an earlier run read it, other than by appended \
                     text; it is read as a new file, and its earlier rows stay in the output"
                );
                None
            }
        };
        let is_complete = |checkpoint: &FileCheckpoint| {
            checkpoint.length == file.size() && checkpoint.ending != CheckpointEnding::Within
        };
        if before.as_ref().is_some_and(|before| {
            is_complete(before) && resume.is_committed(&before.split, &(0..before.rows))
        }) {
            return Ok(None);
        }
        let file = match &before {
            Some(before) => file.continuing(&self.stage, &before.split),
            None => file.clone(),
        };
        if !is_text && before.is_none() {
            self.record_content(&file)?;
        }
        Ok(Some(SettledFile { file, before }))
    }

    /// The relation of a file to the files that were read before. The current size and time of a
    /// file that continues a split are recorded.
    ///
    /// # Errors
    /// The reason why reading stops at the file.
    fn relate(&self, file: &InputFile, resume: &ResumeState) -> Result<FileRelation, ReadEnd> {
        let Some(known) = self.store().map(|store| store.of(&file.name).to_vec()) else {
            return Ok(FileRelation::Own);
        };
        let relation = relate(&known, file, &self.stage, resume)?;
        if let (FileRelation::Continues(record), Some(mut store)) = (&relation, self.store()) {
            store.add(FileCheckpoint {
                file: file.listed().clone(),
                ..(**record).clone()
            })?;
        }
        Ok(relation)
    }

    /// Records the digest of a file whose format cannot be appended to, before it is read. Files
    /// above `MAX_DIGEST_BYTES` are identified by name, size and time alone, and objects by their
    /// etag.
    ///
    /// # Errors
    /// The reason why reading stops at the file.
    fn record_content(&self, file: &InputFile) -> Result<(), ReadEnd> {
        let Some(mut store) = self.store() else {
            return Ok(());
        };
        if file.size() > MAX_DIGEST_BYTES || !file.is_local() {
            return Ok(());
        }
        let input = open(file)?;
        let digest = ContentDigest::of_prefix(input, file.size()).map_err(file.stopped())?;
        let Some(digest) = digest else { return Ok(()) };
        store.add(FileCheckpoint {
            file: file.listed().clone(),
            split: file.split.name().to_owned(),
            companion: file.companion(&self.stage).to_owned(),
            length: file.size(),
            digest,
            rows: u64::MAX,
            ending: CheckpointEnding::Whole,
        })?;
        Ok(())
    }

    /// A tracker that records the reads of a text file with the split of `file`; `before` is its
    /// checkpoint of an earlier run.
    pub(crate) fn track<'a>(
        &'a self,
        file: &'a InputFile,
        before: Option<&FileCheckpoint>,
    ) -> CheckpointTracker<'a> {
        CheckpointTracker::new(self, file, file.companion(&self.stage).to_owned(), before)
    }

    /// Makes the records durable.
    ///
    /// # Errors
    /// The error of the system or the store.
    pub(crate) fn sync(&self) -> Result<(), StageError> {
        self.store().map_or(Ok(()), |mut store| store.sync())
    }
}

/// Maximum size of a file that is read a second time to compute its digest.
const MAX_DIGEST_BYTES: u64 = 32 << 20;

/// Checks that no file has changed other than by appended text.
///
/// # Errors
/// A refusal with the names of the changed files; other errors if a file or the
/// checkpoints cannot be read.
pub(crate) fn admit(
    stage: &str,
    files: &[InputFile],
    resume: &ResumeState,
) -> Result<(), StageError> {
    let records = resume
        .state
        .as_ref()
        .map(|state| crate::source::discovery::file_checkpoints::journal::read(stage, state));
    let records: CheckpointMap = records.transpose()?.unwrap_or_default();
    let mut changed = Vec::new();
    for file in files {
        match relate(
            crate::source::discovery::file_checkpoints::journal::of(&records, &file.name),
            file,
            stage,
            resume,
        ) {
            Ok(FileRelation::Changed) => changed.push(file.name.clone()),
            Ok(FileRelation::Own | FileRelation::Continues(_))
            | Err(ReadEnd::Rejected(..) | ReadEnd::Cancelled) => {}
            Err(ReadEnd::Unavailable(unavailable)) => return Err(unavailable.into()),
            Err(ReadEnd::Failed(error)) => return Err(error),
        }
    }
    if changed.is_empty() {
        Ok(())
    } else {
        Err(refused(&changed))
    }
}

fn open(file: &InputFile) -> Result<crate::storage::FileReader, ReadEnd> {
    file.open_listed(None).map_err(ReadEnd::from)
}

#[cfg(test)]
mod tests;
