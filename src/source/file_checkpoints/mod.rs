//! Checkpoints of input files, by which later runs recognize files that were touched or to which
//! text was appended.
//!
//! A file is identified by the split of its rows. The first split of a file is named by the file's
//! name, size and time. If a file of the same name begins with the content that was read as a
//! split, it continues that split: the rows are the same, and the rows of appended text follow
//! them. Every other change makes the file a new input.

mod store;
mod hashing_reader;

use std::io::{self, BufRead, BufReader};
use std::sync::{Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::coverage::{Coverage, ResumeState};
use crate::error::StageError;
use crate::source::content_digest::{ContentDigest, ContentHasher};
use crate::source::file_source::ReadEnd;
use crate::source::input_file::InputFile;
use crate::storage::Location;

pub(super) use hashing_reader::{CheckpointTracker, HashingReader};
pub(super) use store::remove_records;
use store::{CheckpointEnding, CheckpointMap, CheckpointStore, FileCheckpoint};

/// How to treat a file that has changed since an earlier run read it, other than by appended text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// The file is read as a new file, with a warning; its earlier rows stay in the output.
    #[default]
    New,
    /// `check` and `run` refuse the pipeline and name the file.
    Refuse,
}

/// The relation of a file to the files that earlier runs read.
#[derive(Debug)]
enum FileRelation {
    /// The file is new, or its own split has rows in an output.
    Own,
    /// The file begins with, or equals, content that was read before. Its rows continue that split.
    Continues(Box<FileCheckpoint>),
    /// The file had another content when it was read before, and rows of that content are in an
    /// output.
    Changed,
}

/// A file with the split of its rows.
pub(super) struct SettledFile {
    /// The file with its split.
    pub(super) file: InputFile,
    /// The checkpoint of an earlier run, if there is one.
    pub(super) before: Option<FileCheckpoint>,
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
    StageError::Refused(format!(
        "{named}{more}: {CHANGED}, which `on_change = \"refuse\"` does not allow; restore the \
         file, or write `on_change = \"new\"` to read it as a new file"
    ))
}

/// The files of a stage that earlier runs read, and those that this run reads.
pub(super) struct FileCheckpoints {
    stage: String,
    /// `None` without a state folder; then nothing is recorded.
    store: Option<Mutex<CheckpointStore>>,
}

impl FileCheckpoints {
    /// Reads the checkpoints that earlier runs recorded below `state`.
    ///
    /// # Errors
    /// If they cannot be read, or the files cannot be opened for writing.
    pub(super) fn open(stage: &str, state: Option<&Location>) -> Result<Self, StageError> {
        let store = state
            .map(|state| CheckpointStore::open(stage, state))
            .transpose()?;
        Ok(Self {
            stage: stage.to_owned(),
            store: store.map(Mutex::new),
        })
    }

    fn store(&self) -> Option<MutexGuard<'_, CheckpointStore>> {
        self.store
            .as_ref()
            .map(|store| store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The file with the split of its rows, if it is unchanged since it was recognized last, else
    /// `file`. Does not access the file.
    pub(super) fn recognized(&self, file: &InputFile) -> InputFile {
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
    pub(super) fn settle(
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
    pub(super) fn track<'a>(
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
    pub(super) fn sync(&self) -> Result<(), StageError> {
        self.store().map_or(Ok(()), |mut store| store.sync())
    }
}

/// Maximum size of a file that is read a second time to compute its digest.
const MAX_DIGEST_BYTES: u64 = 32 << 20;

/// Checks that no file has changed other than by appended text.
///
/// # Errors
/// [`StageError::Refused`] with the names of the changed files; other errors if a file or the
/// checkpoints cannot be read.
pub(super) fn admit(
    stage: &str,
    files: &[InputFile],
    resume: &ResumeState,
) -> Result<(), StageError> {
    let records = resume.state.as_ref().map(|state| store::read(stage, state));
    let records: CheckpointMap = records.transpose()?.unwrap_or_default();
    let mut changed = Vec::new();
    for file in files {
        match relate(store::of(&records, &file.name), file, stage, resume) {
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

/// The checkpoint of a file that is unchanged since it was recognized last.
fn same<'a>(
    known: &'a [FileCheckpoint],
    file: &InputFile,
    stage: &str,
) -> Option<&'a FileCheckpoint> {
    let companion = file.companion(stage);
    known
        .iter()
        .rev()
        .find(|known| known.file.is_same(file.listed()) && known.companion == companion)
}

fn relate(
    known: &[FileCheckpoint],
    file: &InputFile,
    stage: &str,
    resume: &ResumeState,
) -> Result<FileRelation, ReadEnd> {
    if let Some(same) = same(known, file, stage) {
        return Ok(FileRelation::Continues(Box::new(same.clone())));
    }
    let has_rows = |split: &str| resume.max_row_end(split) > 0;
    if has_rows(file.split.name()) || !is_in_output(known, file, stage, resume) {
        return Ok(FileRelation::Own);
    }
    let (size, companion) = (file.size(), file.companion(stage));
    let mut candidates: Vec<&FileCheckpoint> = known
        .iter()
        .filter(|known| known.companion == companion)
        .collect();
    candidates.retain(|candidate| match candidate.ending {
        CheckpointEnding::Whole | CheckpointEnding::Quote => candidate.length == size,
        CheckpointEnding::Within | CheckpointEnding::Line | CheckpointEnding::Text => {
            candidate.length <= size
        }
    });
    // Rows beyond those of the checkpoint come from unknown content.
    candidates.retain(|candidate| resume.max_row_end(&candidate.split) <= candidate.rows);
    candidates.sort_by_key(|candidate| candidate.length);
    if candidates.is_empty() {
        return Ok(FileRelation::Changed);
    }
    let found = longest(open(file)?, &candidates, size).map_err(file.stopped())?;
    Ok(found.map_or(FileRelation::Changed, |found| {
        FileRelation::Continues(Box::new(found.clone()))
    }))
}

fn open(file: &InputFile) -> Result<crate::storage::FileReader, ReadEnd> {
    file.open_listed(None).map_err(ReadEnd::from)
}

/// Whether an output has rows of another version of a file of this name.
fn is_in_output(
    known: &[FileCheckpoint],
    file: &InputFile,
    stage: &str,
    resume: &ResumeState,
) -> bool {
    let prefix = format!("{stage}/{}:", file.name);
    let is_version = |rest: &str| match rest.split_once(':') {
        // The name of another file may begin like this one and contain colons.
        Some((size, version)) => size.parse::<u64>().is_ok() && !version.contains([':', '/']),
        None => false,
    };
    let by_name = |sink: &Coverage| {
        let versions = sink
            .splits()
            .range(prefix.clone()..)
            .map(|(split, _)| split.strip_prefix(&prefix));
        versions
            .map_while(|rest| rest)
            .any(|rest| is_version(rest.split('+').next().unwrap_or_default()))
    };
    known
        .iter()
        .any(|known| resume.max_row_end(&known.split) > 0)
        || resume.sinks.iter().any(by_name)
}

/// The longest candidate with whose content `input` of `size` bytes begins. `candidates` are sorted
/// by length, ascending.
fn longest<'a>(
    input: impl io::Read,
    candidates: &[&'a FileCheckpoint],
    size: u64,
) -> io::Result<Option<&'a FileCheckpoint>> {
    let (mut input, mut hasher, mut found) = (
        BufReader::with_capacity(CHUNK, input),
        ContentHasher::default(),
        None,
    );
    for candidate in candidates {
        while hasher.length() < candidate.length {
            let chunk = fill(&mut input)?;
            if chunk.is_empty() {
                return Ok(found);
            }
            let missing = candidate.length - hasher.length();
            let length =
                usize::try_from(missing).map_or(chunk.len(), |missing| missing.min(chunk.len()));
            hasher.update(&chunk[..length]);
            input.consume(length);
        }
        if hasher.digest() != candidate.digest {
            continue;
        }
        // Text that continues the last line changes its record.
        let continues = candidate.ending == CheckpointEnding::Text && candidate.length < size;
        if !continues || ends_line(&mut input, &mut hasher)? {
            found = Some(*candidate);
        }
    }
    Ok(found)
}

/// Whether a line ends at the current position.
fn ends_line(input: &mut BufReader<impl io::Read>, hasher: &mut ContentHasher) -> io::Result<bool> {
    if fill(input)?.first() == Some(&b'\r') {
        hasher.update(b"\r");
        input.consume(1);
    }
    Ok(fill(input)?.first() == Some(&b'\n'))
}

const CHUNK: usize = 1 << 16;

fn fill(input: &mut BufReader<impl io::Read>) -> io::Result<&[u8]> {
    while let Err(error) = input.fill_buf() {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(input.buffer())
}

#[cfg(test)]
mod tests;
