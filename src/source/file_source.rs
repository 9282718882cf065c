//! A source over files of records: lists the files, reads them in order, and sends their batches.

mod batch_output;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use tokio::sync::oneshot;

use crate::batch::{Provenance, RejectCode, SourceBatch};
use crate::coverage::ResumeState;
use crate::error::{StageError, UnavailableInput, UnreadInputs};
use crate::schema_unification::TypeConflict;
use crate::source::file_checkpoints::{self, FileCheckpoints, OnChange, SettledFile};
use crate::source::file_set::FileSet;
use crate::source::hive_partitions::HivePartitions;
use crate::source::input_file::{self, InputFile, unusable};
use crate::source::listed_file::{ReadFailure, RecordError};
use crate::source::{
    LastSkippedFiles, RecordCount, Source, SourceHandle, SourceShare, WrittenFiles, spawn_reader,
    with_origin,
};
use crate::storage::{self, FileReader, PrefetchedObject};

pub(super) use batch_output::{BatchOutput, FileRecords, ROWS_PER_BYTE};

/// The reader of one kind of file.
pub(super) trait FileFormat: Send + Sync + 'static {
    /// The extensions of the files that are read from a folder.
    const EXTENSIONS: &'static [&'static str];

    /// Reads one opened file into `output`, batch by batch. The ends of batches depend on the file
    /// alone.
    fn read(
        &self,
        file: &InputFile,
        input: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd>;

    /// Whether a file is text that is read from its beginning and to which records may be appended.
    fn is_appendable(&self, _file: &InputFile) -> bool {
        false
    }

    /// Whether the reader itself selects the parts of a file that belong to a shard. Otherwise a
    /// shard reads whole files.
    fn divides_files(&self) -> bool {
        false
    }

    /// Whether a part of an opened file belongs to the shard, if the format divides files.
    fn has_part(&self, _file: &InputFile, _input: &FileReader) -> Result<bool, ReadEnd> {
        Ok(true)
    }

    /// Called when all files have been read.
    fn finish(&self, _stage: &str) {}

    /// Completes the split of a listed file with the other inputs that decide its records.
    fn listed(&self, file: InputFile) -> Result<InputFile, StageError> {
        Ok(file)
    }

    /// Maximum memory in bytes, in addition to batches, while a file is read.
    fn buffer_bytes(&self) -> u64 {
        0
    }

    /// The number of rows of a file, if it is cheap to determine. A file that cannot be read counts
    /// as one row.
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
    /// The columns of every batch, including its origin.
    schema: SchemaRef,
    /// The reader of a file.
    format: F,
    /// The policy for changed files.
    policy: ReadPolicy,
    /// Sentences about files that differ from the plan.
    notes: Vec<String>,
    /// The last columns, whose values are in the names of folders.
    partitions: HivePartitions,
}

/// The policy of a source for changed files, its share of the inputs, and the files that its last
/// listing skipped.
#[derive(Debug, Default)]
pub(super) struct ReadPolicy {
    on_change: OnChange,
    /// The share of the files, or of their parts, that is read.
    share: SourceShare,
    /// The files that the last listing skipped.
    skipped_files: LastSkippedFiles,
}

impl ReadPolicy {
    /// The policy for changed files, and the share of the inputs.
    pub(super) fn new(on_change: OnChange, share: SourceShare) -> Self {
        Self {
            on_change,
            share,
            ..Self::default()
        }
    }
}

impl<F: FileFormat> FileSource<F> {
    /// Creates the source `stage` over the files at `path`, whose records have `columns` after
    /// their origin.
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
            notes: Vec::new(),
            partitions: HivePartitions::default(),
        }
    }

    /// Adds the columns that the names of folders define.
    pub(super) fn with_partitions(mut self, partitions: HivePartitions) -> Self {
        let fields = self.schema.fields().iter().chain(partitions.fields());
        self.schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        self.partitions = partitions;
        self
    }

    /// Adds sentences about files that differ from the plan.
    pub(super) fn with_notes(self, notes: Vec<String>) -> Self {
        Self { notes, ..self }
    }

    fn files(&self) -> Result<(Vec<InputFile>, Vec<UnavailableInput>), StageError> {
        let (files, unseen) = input_file::list_all(
            &self.stage,
            &self.path,
            F::EXTENSIONS,
            &self.policy.skipped_files,
        )?;
        let share = &self.policy.share;
        let are_divided = self.format.divides_files();
        if !are_divided {
            share.count_files(files.iter().map(|file| &file.name));
        }
        let files: Result<Vec<_>, _> = files
            .into_iter()
            .filter(|file| are_divided || share.has_file(&file.name))
            .map(|file| self.format.listed(file))
            .collect();
        Ok((files?, unseen))
    }

    /// Reads the files in order, and records in `unread` those that cannot be read now.
    fn read_all(
        &self,
        files: &[InputFile],
        known: &FileCheckpoints,
        mut unread: UnreadInputs,
        resume: &ResumeState,
        take: &(dyn Fn(SourceBatch) -> bool + Sync),
    ) -> Result<(), StageError> {
        let (mut later, mut prefetched) = (files.iter(), VecDeque::new());
        for file in files {
            while prefetched.len() < storage::MAX_CONCURRENT_REQUESTS
                && let Some(next) = later.next()
            {
                prefetched.push_back(next.prefetch()?);
            }
            let output = BatchOutput {
                schema: &self.schema,
                partitions: &self.partitions,
                file,
                resume,
                tracking: None,
                take,
                wait: &|| (),
            };
            let read = match self.read(prefetched.pop_front().flatten(), known, &output) {
                Err(ReadEnd::Rejected(refusal, records)) => output.reject_file(refusal, records),
                read => read,
            };
            if !continues(read, &mut unread)? {
                return Ok(());
            }
        }
        unread.into_result()
    }

    /// Reads the part of a file that earlier runs have not read; `own` is the output of the file
    /// under its own split. An error or a panic of a reader affects only its file.
    fn read(
        &self,
        mut prefetched: Option<PrefetchedObject>,
        known: &FileCheckpoints,
        own: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let mut opened = None;
        if self.policy.share.shard().is_some() && self.format.divides_files() {
            // A file of other shards is not settled, because that reads small files completely.
            let input = own.file.open_listed(prefetched.take())?;
            if !self.format.has_part(own.file, &input)? {
                return Ok(());
            }
            opened = Some(input);
        }
        let (is_text, on_change) = (self.format.is_appendable(own.file), self.policy.on_change);
        let Some(SettledFile { file, before }) =
            known.settle(own.file, own.resume, is_text, on_change)?
        else {
            return Ok(());
        };
        let tracking = is_text.then(|| known.track(&file, before.as_ref()));
        let output = BatchOutput {
            file: &file,
            tracking: tracking.as_ref(),
            ..*own
        };
        self.partitions.values(&file.name, 1).map_err(|reason| {
            let records = self.format.count_rows(&file).unwrap_or(1);
            file.unfit(RejectCode::Mismatch, &reason, records)
        })?;
        // Other processes may remove or replace files while earlier files are read.
        let input = opened.map_or_else(|| file.open_listed(prefetched), Ok)?;
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

    fn share(&self) -> Option<&SourceShare> {
        Some(&self.policy.share)
    }

    fn plan_notes(&self) -> &[String] {
        &self.notes
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
            source.format.finish(&source.stage);
            read
        });
        Ok(SourceHandle::new(batches, total))
    }
}

/// Maximum number of objects whose rows are counted: each of them takes a request.
const COUNTED_OBJECTS: usize = 256;

/// Counts the rows to be read on a separate thread, so that the count of many files does not delay
/// the first records.
fn count<F: FileFormat>(
    source: &Arc<FileSource<F>>,
    files: &Arc<[InputFile]>,
    resume: &ResumeState,
) -> RecordCount {
    if storage::is_url(&source.path) && files.len() > COUNTED_OBJECTS {
        return RecordCount::Unknown;
    }
    let (source, files, resume) = (Arc::clone(source), Arc::clone(files), resume.clone());
    let (sender, receiver) = oneshot::channel();
    let counting = std::thread::Builder::new().name("count".to_owned());
    let spawned = counting.spawn(move || {
        let pending = |file: &InputFile| {
            // The count is not needed after the end of the run.
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
    spawned.map_or(RecordCount::Unknown, |_| RecordCount::Counting(receiver))
}

/// The reason why a file is not read to its end.
pub(super) enum ReadEnd {
    /// The receiver of batches is gone.
    Cancelled,
    /// The file cannot be read now. The rows that were not sent remain unread.
    Unavailable(UnavailableInput),
    /// The file cannot be used. One reject represents this number of records: all records of the
    /// file, as far as their number is known.
    Rejected(RecordError, u64),
    /// The run cannot continue.
    Failed(StageError),
}

/// Whether a source continues with its next file after it has read one. An unavailable file is
/// recorded in `unread`.
///
/// # Errors
/// The error that ends the source.
pub(super) fn continues(
    read: Result<(), ReadEnd>,
    unread: &mut UnreadInputs,
) -> Result<bool, StageError> {
    match read {
        Ok(()) => Ok(true),
        Err(ReadEnd::Unavailable(unavailable)) => unread.leave(unavailable).map(|()| true),
        Err(ReadEnd::Cancelled) => Ok(false),
        // A caller that can send a reject has sent it before.
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

/// Runs a reader and converts its error or its panic into a reject code and a reason.
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

/// The reject reason for a panic of a reader.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    format!("the reader panicked: {}", shorten(message))
}

/// Maximum length of a reason in characters. Reasons quote values, which may be as long as a
/// record.
const REASON_CHARS: usize = 300;

/// Returns the beginning of a message that may quote hostile input.
pub(super) fn shorten(message: &str) -> String {
    match message.char_indices().nth(REASON_CHARS) {
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message.to_owned(),
    }
}

/// What to do about a file whose columns differ from the plan.
const SEPARATE: &str = "correct the file, or read files of this schema with a separate source";

/// The reject reason for a file that has a planned column with another type.
pub(super) fn different_column(conflict: &TypeConflict) -> String {
    format!("{conflict}, as in the other files; {SEPARATE}")
}

/// The reject reason for a file that lacks a planned column.
pub(super) fn absent_column(field: &Field) -> String {
    format!(
        "column `{}` ({}) of the other files is missing; {SEPARATE}",
        field.name(),
        field.data_type()
    )
}

/// Checks that the names of columns are unique and that there is at least one.
///
/// # Errors
/// A sentence that states the problem.
pub(super) fn check_names<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("duplicate column `{name}`; names must be unique"));
        }
    }
    if seen.is_empty() {
        Err("expected at least one column".to_owned())
    } else {
        Ok(())
    }
}
