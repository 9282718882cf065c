//! A source over files of records: lists them, reads them one after the other, hands batches over.

mod batch_output;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use tokio::sync::oneshot;

use crate::batch::{Provenance, RejectCode, SourceBatch};
use crate::coverage::ResumeState;
use crate::error::{StageError, UnavailableInput, UnreadInputs};
use crate::source::file_checkpoints::{self, FileCheckpoints, OnChange, SettledFile};
use crate::source::file_set::FileSet;
use crate::source::input_file::{self, InputFile, unusable};
use crate::source::listed_file::{ReadFailure, RecordError};
use crate::source::{
    LastSkippedFiles, RecordCount, Source, SourceHandle, WrittenFiles, spawn_reader, with_origin,
};
use crate::storage::{self, FileReader, PrefetchedObject};

pub(super) use batch_output::{BatchOutput, FileRecords, ROWS_PER_BYTE};

/// How the files of some kind are read.
pub(super) trait FileFormat: Send + Sync + 'static {
    /// What a folder is searched for.
    const EXTENSIONS: &'static [&'static str];

    /// Whether a file is text that is read from its beginning, to which more may be appended.
    const IS_TEXT: bool = false;

    /// Reads one file, which was opened, into `output`, batch by batch; where batches end depends
    /// on the file alone.
    fn read(
        &self,
        file: &InputFile,
        input: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd>;

    /// A file as it was listed, once what else decides its records is in its split.
    fn listed(&self, file: InputFile) -> Result<InputFile, StageError> {
        Ok(file)
    }

    /// Bytes that are held at most while a file is read, beside its batches.
    fn buffer_bytes(&self) -> u64 {
        0
    }

    /// How many rows a file has, where that is cheap to know; one of which they cannot be known is
    /// one row.
    fn count_rows(&self, _file: &InputFile) -> Option<u64> {
        None
    }
}

/// A planned source over files.
pub(super) struct FileSource<F> {
    /// The stage's name.
    stage: String,
    /// A file, a folder or a glob.
    path: String,
    /// The columns of every batch, origin included.
    schema: SchemaRef,
    /// How a file is read.
    format: F,
    /// What happens to its files beside being read.
    policy: ReadPolicy,
}

/// What a source does about its files beside reading them.
#[derive(Debug, Default)]
pub(super) struct ReadPolicy {
    on_change: OnChange,
    /// What the last listing left out.
    skipped_files: LastSkippedFiles,
}

impl From<OnChange> for ReadPolicy {
    fn from(on_change: OnChange) -> Self {
        Self {
            on_change,
            ..Self::default()
        }
    }
}

impl<F: FileFormat> FileSource<F> {
    /// The files at `path` for `stage`, whose records have `columns` beside their origin.
    pub(super) fn new(
        stage: &str,
        path: &str,
        columns: &Schema,
        format: F,
        policy: ReadPolicy,
    ) -> Self {
        Self {
            stage: stage.to_owned(),
            path: path.to_owned(),
            schema: with_origin(columns),
            format,
            policy,
        }
    }

    fn files(&self) -> Result<(Vec<InputFile>, Vec<UnavailableInput>), StageError> {
        let (files, unseen) = input_file::list_all(
            &self.stage,
            &self.path,
            F::EXTENSIONS,
            &self.policy.skipped_files,
        )?;
        let files: Result<Vec<_>, _> = files
            .into_iter()
            .map(|file| self.format.listed(file))
            .collect();
        Ok((files?, unseen))
    }

    /// Reads the files one after the other, and leaves those in `unread` that cannot be read now.
    fn read_all(
        &self,
        files: &[InputFile],
        known: &FileCheckpoints,
        mut unread: UnreadInputs,
        resume: &ResumeState,
        take: &(dyn Fn(SourceBatch) -> bool + Sync),
    ) -> Result<(), StageError> {
        let (mut later, mut asked) = (files.iter(), VecDeque::new());
        for file in files {
            while asked.len() < storage::MAX_CONCURRENT_REQUESTS
                && let Some(next) = later.next()
            {
                asked.push_back(next.prefetch()?);
            }
            let output = BatchOutput {
                schema: &self.schema,
                file,
                resume,
                tracking: None,
                take,
                wait: &|| (),
            };
            let read = match self.read(asked.pop_front().flatten(), known, &output) {
                Err(ReadEnd::Rejected(refusal, records)) => output.reject_file(refusal, records),
                read => read,
            };
            if !goes_on(read, &mut unread)? {
                return Ok(());
            }
        }
        unread.into_result()
    }

    /// Reads what earlier runs have not read of a file; `own` is the output of the file under its
    /// own split. Whatever goes wrong in a reader concerns the file alone.
    fn read(
        &self,
        asked: Option<PrefetchedObject>,
        known: &FileCheckpoints,
        own: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let (is_text, on_change) = (F::IS_TEXT, self.policy.on_change);
        let Some(SettledFile { file, before }) =
            known.settle(own.file, own.resume, is_text, on_change)?
        else {
            return Ok(());
        };
        let tracking = F::IS_TEXT.then(|| known.track(&file, before.as_ref()));
        let output = BatchOutput {
            file: &file,
            tracking: tracking.as_ref(),
            ..*own
        };
        // Others may remove or replace files while those before them are read.
        let input = file.open_listed(asked)?;
        let read = catch_unwind(AssertUnwindSafe(|| self.format.read(&file, input, &output)));
        read.unwrap_or_else(|panic| Err(file.unfit(RejectCode::Panicked, &panicked(&*panic), 1)))
    }
}

impl<F: FileFormat> Source for FileSource<F> {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn reading_bytes(&self) -> u64 {
        storage::reading_bytes(&self.path).saturating_add(self.format.buffer_bytes())
    }

    fn inputs(&self) -> Result<Option<Vec<String>>, StageError> {
        let (files, unseen) = self.files()?;
        if let Some(unavailable) = unseen.into_iter().next() {
            return Err(unavailable.into());
        }
        Ok(Some(
            files
                .iter()
                .map(|file| file.split.name().to_owned())
                .collect(),
        ))
    }

    fn skipped_files(&self) -> Option<LastSkippedFiles> {
        Some(self.policy.skipped_files.clone())
    }

    fn would_read(&self, written: &WrittenFiles<'_>) -> bool {
        FileSet::new(self.path.clone(), true, F::EXTENSIONS)
            .is_ok_and(|files| files.would_read(written))
    }

    fn refuses_changes(&self) -> bool {
        self.policy.on_change == OnChange::Refuse
    }

    fn admit_inputs(&self, resume: &ResumeState) -> Result<(), StageError> {
        if self.refuses_changes() {
            file_checkpoints::admit(&self.stage, &self.files()?.0, resume)
        } else {
            Ok(())
        }
    }

    fn open(self: Box<Self>, resume: &ResumeState) -> Result<SourceHandle, StageError> {
        let (files, unseen) = self.files()?;
        let mut unread = UnreadInputs::default();
        unseen
            .into_iter()
            .try_for_each(|unavailable| unread.leave(unavailable))?;
        let source = Arc::new(*self);
        let known = FileCheckpoints::open(&source.stage, resume.state.as_ref())?;
        let recognized = files.iter().map(|file| known.recognized(file)).collect();
        let total = count(&source, &recognized, resume);
        let resume = resume.clone();
        let batches = spawn_reader(2, move |sender| {
            let read =
                source.read_all(&files, &known, unread, &resume, &|batch| sender.send(batch));
            known.sync()?;
            read
        });
        Ok(SourceHandle::new(batches, total))
    }
}

/// Objects whose rows are counted at most: it takes a request for each of them.
const COUNTED_OBJECTS: usize = 256;

/// Counts what is to be read, aside: of many files it takes longer than the first records may.
fn count<F: FileFormat>(
    source: &Arc<FileSource<F>>,
    files: &Arc<[InputFile]>,
    resume: &ResumeState,
) -> RecordCount {
    if storage::is_url(&source.path) && files.len() > COUNTED_OBJECTS {
        return RecordCount::Unknown;
    }
    let (source, files, resume) = (Arc::clone(source), Arc::clone(files), resume.clone());
    let (sender, total) = oneshot::channel();
    let counting = std::thread::Builder::new().name("count".to_owned());
    let spawned = counting.spawn(move || {
        let pending = |file: &InputFile| {
            // Nobody wants to know any more once the run is over.
            let rows = if sender.is_closed() {
                None
            } else {
                source.format.count_rows(file)
            }?;
            if resume.is_committed(unusable(&file.split).name(), &(0..1)) {
                return Some(0);
            }
            let parts = resume.uncommitted_ranges(&Provenance::rows(file.split.clone(), 0..rows));
            Some(parts.iter().map(|part| part.end - part.start).sum::<u64>())
        };
        let total = files.iter().try_fold(0, |total: u64, file| {
            Some(total.saturating_add(pending(file)?))
        });
        total.map(|total| sender.send(total))
    });
    spawned.map_or(RecordCount::Unknown, |_| RecordCount::Counting(total))
}

/// Why reading ends early.
pub(super) enum ReadEnd {
    /// Nobody wants more.
    Cancelled,
    /// The file cannot be read now. What was not handed over is left undone.
    Unavailable(UnavailableInput),
    /// The file cannot be used. One reject stands for this number of records: all that it holds, as
    /// far as is known.
    Rejected(RecordError, u64),
    /// The run cannot go on.
    Failed(StageError),
}

/// Whether a source goes on with its next file, after it read one. A file that is unavailable is
/// left in `unread`.
///
/// # Errors
/// Why the source ends.
pub(super) fn goes_on(
    read: Result<(), ReadEnd>,
    unread: &mut UnreadInputs,
) -> Result<bool, StageError> {
    match read {
        Ok(()) => Ok(true),
        Err(ReadEnd::Unavailable(unavailable)) => unread.leave(unavailable).map(|()| true),
        Err(ReadEnd::Cancelled) => Ok(false),
        // Whoever can hand over a reject has done so.
        Err(ReadEnd::Rejected(RecordError { reason, .. }, _)) => Err(StageError::Other(reason)),
        Err(ReadEnd::Failed(error)) => Err(error),
    }
}

impl From<UnavailableInput> for ReadEnd {
    fn from(unavailable: UnavailableInput) -> Self {
        Self::Unavailable(unavailable)
    }
}

impl From<ReadFailure> for ReadEnd {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Rejected(refusal) => Self::Rejected(refusal, 1),
            ReadFailure::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<StageError> for ReadEnd {
    fn from(error: StageError) -> Self {
        Self::Failed(error)
    }
}

impl From<ArrowError> for ReadEnd {
    fn from(error: ArrowError) -> Self {
        Self::Failed(error.into())
    }
}

/// What a library said of bytes that it could not read, or that it panicked on them.
pub(super) fn catch_panic<T, E: ToString>(
    read: impl FnOnce() -> Result<T, E>,
) -> Result<T, (RejectCode, String)> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(outcome) => {
            outcome.map_err(|error| (RejectCode::Malformed, shorten(&error.to_string())))
        }
        Err(panic) => Err((RejectCode::Panicked, panicked(&*panic))),
    }
}

/// The message of a reader's panic.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    format!("the reader panicked: {}", shorten(message))
}

/// Reasons quote values, which may be as long as records may be.
const REASON_CHARS: usize = 300;

/// The beginning of a message that may quote hostile input.
pub(super) fn shorten(message: &str) -> String {
    match message.char_indices().nth(REASON_CHARS) {
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message.to_owned(),
    }
}

/// That a file lacks a planned column, or has it with another type.
pub(super) fn schema_mismatch(field: &Field, met: Option<&DataType>) -> String {
    let (name, expected) = (field.name(), field.data_type());
    let what = match met {
        Some(met) => format!("column `{name}` is {met}; expected {expected}, as in the first file"),
        None => format!("there is no column `{name}` ({expected}), which the first file has"),
    };
    format!("{what}; mend the file, or read files of its kind by a source of their own")
}

/// Where the planned columns stand among those of a file.
///
/// # Errors
/// Which of them is not there, or has another type, in a sentence.
pub(super) fn places<'a>(
    planned: impl IntoIterator<Item = &'a FieldRef>,
    schema: &Schema,
) -> Result<Vec<usize>, String> {
    let place = |planned: &FieldRef| match schema.column_with_name(planned.name()) {
        Some((place, field)) if field.data_type() == planned.data_type() => Ok(place),
        other => Err(schema_mismatch(
            planned,
            other.map(|(_, field)| field.data_type()),
        )),
    };
    planned.into_iter().map(place).collect()
}

/// What is wrong with the columns that a file is to give, if anything.
pub(super) fn check_names<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!(
                "column `{name}` is there twice; names must be unique"
            ));
        }
    }
    if seen.is_empty() {
        Err("there are no columns".to_owned())
    } else {
        Ok(())
    }
}
