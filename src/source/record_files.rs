//! A source over files of records: lists them, reads them one after the other, hands batches over.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use tokio::sync::oneshot;

use crate::batch::{Batch, Provenance, Reject, RejectCode, SourceBatch};
use crate::coverage::Progress;
use crate::error::{StageError, Unavailable, UnreadInputs};
use crate::source::file_checkpoints::{self, CheckpointTracker, FileCheckpoints, HashingReader, OnChange, Settled};
use crate::source::file_set::FileSet;
use crate::source::files::{self, InputFile, unusable};
use crate::source::listed_file::{ReadFailure, Refusal};
use crate::source::missing_values::reject_missing;
use crate::source::{
    LastPassedOver, Opened, SOURCE, Source, Total, WrittenFiles, add_origin, read_blocking, with_origin,
};
use crate::store::{self, Ahead, Input};

/// How the files of some kind are read.
pub(super) trait RecordFormat: Send + Sync + 'static {
    /// What a folder is searched for.
    const EXTENSIONS: &'static [&'static str];

    /// Whether a file is text that is read from its beginning, to which more may be appended.
    const IS_TEXT: bool = false;

    /// Reads one file, which was opened, into `output`, batch by batch; where batches end depends on the file alone.
    fn read(&self, file: &InputFile, input: Input, output: &Output<'_>) -> Result<(), Stop>;

    /// A file as it was listed, once what else decides its records is in its split.
    fn listed(&self, file: InputFile) -> Result<InputFile, StageError> {
        Ok(file)
    }

    /// Bytes that are held at most while a file is read, beside its batches.
    fn held_bytes(&self) -> u64 {
        0
    }

    /// How many rows a file has, where that is cheap to know; one of which they cannot be known is one row.
    fn rows(&self, _file: &InputFile) -> Option<u64> {
        None
    }
}

/// A planned source over files.
pub(super) struct RecordFiles<F> {
    /// The stage's name.
    stage: String,
    /// A file, a folder or a glob.
    path: String,
    /// The columns of every batch, origin included.
    schema: SchemaRef,
    /// How a file is read.
    format: F,
    /// What happens to its files beside being read.
    policy: Policy,
}

/// What a source does about its files beside reading them.
#[derive(Debug, Default)]
pub(super) struct Policy {
    on_change: OnChange,
    /// What the last listing left out.
    passed_over: LastPassedOver,
}

impl From<OnChange> for Policy {
    fn from(on_change: OnChange) -> Self {
        Self { on_change, ..Self::default() }
    }
}

impl<F: RecordFormat> RecordFiles<F> {
    /// The files at `path` for `stage`, whose records have `columns` beside their origin.
    pub(super) fn new(stage: &str, path: &str, columns: &Schema, format: F, policy: Policy) -> Self {
        Self { stage: stage.to_owned(), path: path.to_owned(), schema: with_origin(columns), format, policy }
    }

    fn files(&self) -> Result<(Vec<InputFile>, Vec<Unavailable>), StageError> {
        let (files, unseen) = files::list_all(&self.stage, &self.path, F::EXTENSIONS, &self.policy.passed_over)?;
        let files: Result<Vec<_>, _> = files.into_iter().map(|file| self.format.listed(file)).collect();
        Ok((files?, unseen))
    }

    /// Reads the files one after the other, and leaves those in `unread` that cannot be read now.
    fn read_all(
        &self,
        files: &[InputFile],
        known: &FileCheckpoints,
        mut unread: UnreadInputs,
        progress: &Progress,
        take: &(dyn Fn(SourceBatch) -> bool + Sync),
    ) -> Result<(), StageError> {
        let (mut later, mut asked) = (files.iter(), VecDeque::new());
        for file in files {
            while asked.len() < store::TOGETHER
                && let Some(next) = later.next()
            {
                asked.push_back(next.ask()?);
            }
            let output = Output { schema: &self.schema, file, progress, tracking: None, take, wait: &|| () };
            let read = match self.read(asked.pop_front().flatten(), known, &output) {
                Err(Stop::Refused(refusal, records)) => output.reject_file(refusal, records),
                read => read,
            };
            if !goes_on(read, &mut unread)? {
                return Ok(());
            }
        }
        unread.into_result()
    }

    /// Reads what earlier runs have not read of a file; `own` is the output of the file under its own split. Whatever goes wrong
    /// in a reader concerns the file alone.
    fn read(&self, asked: Option<Ahead>, known: &FileCheckpoints, own: &Output<'_>) -> Result<(), Stop> {
        let (is_text, on_change) = (F::IS_TEXT, self.policy.on_change);
        let Some(Settled { file, before }) = known.settle(own.file, own.progress, is_text, on_change)? else {
            return Ok(());
        };
        let tracking = F::IS_TEXT.then(|| known.track(&file, before.as_ref()));
        let output = Output { file: &file, tracking: tracking.as_ref(), ..*own };
        // Others may remove or replace files while those before them are read.
        let input = file.open_listed(asked)?;
        let read = catch_unwind(AssertUnwindSafe(|| self.format.read(&file, input, &output)));
        read.unwrap_or_else(|panic| Err(file.unfit(RejectCode::Panicked, &panicked(&*panic), 1)))
    }
}

impl<F: RecordFormat> Source for RecordFiles<F> {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn reading_bytes(&self) -> u64 {
        store::reading_bytes(&self.path).saturating_add(self.format.held_bytes())
    }

    fn inputs(&self) -> Result<Option<Vec<String>>, StageError> {
        let (files, unseen) = self.files()?;
        if let Some(unavailable) = unseen.into_iter().next() {
            return Err(unavailable.into());
        }
        Ok(Some(files.iter().map(|file| file.split.name().to_owned()).collect()))
    }

    fn passed_over(&self) -> Option<LastPassedOver> {
        Some(self.policy.passed_over.clone())
    }

    fn takes(&self, written: &WrittenFiles<'_>) -> bool {
        FileSet::new(self.path.clone(), true, F::EXTENSIONS).is_ok_and(|files| files.takes(written))
    }

    fn refuses_changes(&self) -> bool {
        self.policy.on_change == OnChange::Refuse
    }

    fn admit_inputs(&self, progress: &Progress) -> Result<(), StageError> {
        if self.refuses_changes() { file_checkpoints::admit(&self.stage, &self.files()?.0, progress) } else { Ok(()) }
    }

    fn open(self: Box<Self>, progress: &Progress) -> Result<Opened, StageError> {
        let (files, unseen) = self.files()?;
        let mut unread = UnreadInputs::default();
        unseen.into_iter().try_for_each(|unavailable| unread.leave(unavailable))?;
        let source = Arc::new(*self);
        let known = FileCheckpoints::open(&source.stage, progress.state.as_ref())?;
        let recognized = files.iter().map(|file| known.recognized(file)).collect();
        let total = count(&source, &recognized, progress);
        let progress = progress.clone();
        let batches = read_blocking(2, move |sender| {
            let read = source.read_all(&files, &known, unread, &progress, &|batch| sender.send(batch));
            known.sync()?;
            read
        });
        Ok(Opened::new(batches, total))
    }
}

/// Objects whose rows are counted at most: it takes a request for each of them.
const COUNTED_OBJECTS: usize = 256;

/// Counts what is to be read, aside: of many files it takes longer than the first records may.
fn count<F: RecordFormat>(source: &Arc<RecordFiles<F>>, files: &Arc<[InputFile]>, progress: &Progress) -> Total {
    if store::is_url(&source.path) && files.len() > COUNTED_OBJECTS {
        return Total::Unknown;
    }
    let (source, files, progress) = (Arc::clone(source), Arc::clone(files), progress.clone());
    let (sender, total) = oneshot::channel();
    let counting = std::thread::Builder::new().name("count".to_owned());
    let spawned = counting.spawn(move || {
        let pending = |file: &InputFile| {
            // Nobody wants to know any more once the run is over.
            let rows = if sender.is_closed() { None } else { source.format.rows(file) }?;
            if progress.done(unusable(&file.split).name(), &(0..1)) {
                return Some(0);
            }
            let parts = progress.pending(&Provenance::rows(file.split.clone(), 0..rows));
            Some(parts.iter().map(|part| part.end - part.start).sum::<u64>())
        };
        let total = files.iter().try_fold(0, |total: u64, file| Some(total.saturating_add(pending(file)?)));
        total.map(|total| sender.send(total))
    });
    spawned.map_or(Total::Unknown, |_| Total::Counting(total))
}

/// Why reading ends early.
pub(super) enum Stop {
    /// Nobody wants more.
    Closed,
    /// The file cannot be read now. What was not handed over is left undone.
    Unavailable(Unavailable),
    /// The file cannot be used. One reject stands for this number of records: all that it holds, as far as is known.
    Refused(Refusal, u64),
    /// The run cannot go on.
    Failed(StageError),
}

/// Whether a source goes on with its next file, after it read one. A file that is unavailable is left in `unread`.
///
/// # Errors
/// Why the source ends.
pub(super) fn goes_on(read: Result<(), Stop>, unread: &mut UnreadInputs) -> Result<bool, StageError> {
    match read {
        Ok(()) => Ok(true),
        Err(Stop::Unavailable(unavailable)) => unread.leave(unavailable).map(|()| true),
        Err(Stop::Closed) => Ok(false),
        // Whoever can hand over a reject has done so.
        Err(Stop::Refused(Refusal { reason, .. }, _)) => Err(StageError::Other(reason)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

impl From<Unavailable> for Stop {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

impl From<ReadFailure> for Stop {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Rejected(refusal) => Self::Refused(refusal, 1),
            ReadFailure::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<StageError> for Stop {
    fn from(error: StageError) -> Self {
        Self::Failed(error)
    }
}

impl From<ArrowError> for Stop {
    fn from(error: ArrowError) -> Self {
        Self::Failed(error.into())
    }
}

/// Records of a file on their way out.
#[derive(Default)]
pub(super) struct Records {
    /// The planned columns, without origin.
    pub(super) columns: Vec<ArrayRef>,
    /// For each record its ordinal among the rows.
    pub(super) origin: Vec<u32>,
    /// Rows that are no records.
    pub(super) rejects: Vec<Reject>,
    /// What `source` holds where it is more than the file's name.
    pub(super) sources: Option<ArrayRef>,
    /// Pixels of the records' images.
    pub(super) pixels: u64,
}

/// Rows that a byte of a file can stand for: deflate and run-length encoding reach about as much. Files that declare more
/// are damaged or hostile.
pub(super) const ROWS_PER_BYTE: u64 = 1024;

/// Why a reject counts as one record.
const UNKNOWN_NUMBER: &str = "the number of records is unknown, so it counts as one";

/// Where a file's batches go.
pub(super) struct Output<'a> {
    schema: &'a SchemaRef,
    file: &'a InputFile,
    progress: &'a Progress,
    /// Records what is read of a file of text, where that is remembered.
    tracking: Option<&'a CheckpointTracker<'a>>,
    /// Takes a batch; `false`: nobody wants more.
    take: &'a (dyn Fn(SourceBatch) -> bool + Sync),
    /// Returns when nothing else is read, but what goes ahead of its turn.
    wait: &'a (dyn Fn() + Sync),
}

impl Output<'_> {
    /// The same, but batches go elsewhere.
    pub(super) fn through<'b>(
        &'b self,
        take: &'b (dyn Fn(SourceBatch) -> bool + Sync),
        wait: &'b (dyn Fn() + Sync),
    ) -> Output<'b> {
        Output { take, wait, ..*self }
    }

    /// Waits until all that stands before has been handed over: for what takes too much to be read ahead.
    pub(super) fn wait_for_turn(&self) {
        (self.wait)();
    }

    /// Hands over a batch as it is. `false`: nobody wants more.
    pub(super) fn hand_over(&self, batch: SourceBatch) -> bool {
        (self.take)(batch)
    }

    /// The text of the file, up to the length that was listed.
    pub(super) fn track(&self, input: Input) -> HashingReader {
        match self.tracking {
            Some(tracking) => tracking.read(input),
            None => HashingReader::plain(input, self.file.size()),
        }
    }

    /// Says that the rows before `rows` are about to be handed over; `in_quotes`: the file was found to end within a quoted
    /// value.
    pub(super) fn begin(&self, rows: u64, in_quotes: bool) -> Result<(), Stop> {
        self.tracking.map_or(Ok(()), |tracking| tracking.begin(rows, in_quotes)).map_err(Stop::Failed)
    }

    /// Says that the file was read to its end and has `rows` rows.
    pub(super) fn end(&self, rows: u64, in_quotes: bool) -> Result<(), Stop> {
        self.tracking.map_or(Ok(()), |tracking| tracking.end(rows, in_quotes)).map_err(Stop::Failed)
    }

    /// Whether every sink has these rows of the file.
    pub(super) fn done(&self, rows: &Range<u64>) -> bool {
        self.progress.done(self.file.split.name(), rows)
    }

    /// Hands over what became of these rows.
    pub(super) fn send(&self, rows: Range<u64>, mut records: Records) -> Result<(), Stop> {
        let added = self.schema.fields().len() - records.columns.len();
        reject_missing(&self.schema.fields()[added..], &mut records)?;
        let start = rows.start;
        let numbers = records.origin.iter().map(|&ordinal| start + u64::from(ordinal));
        let mut batch = add_origin(self.schema, &self.file.name, numbers, &records.columns)?;
        let is_ours = added > 0 && self.schema.field(0).name() == SOURCE;
        if let Some(sources) = records.sources.take().filter(|_| is_ours) {
            batch = with_first(&batch, sources)?;
        }
        self.push(rows, batch, records)
    }

    /// Hands over that the file, which holds `records`, cannot be used.
    fn reject_file(&self, Refusal { code, reason, .. }: Refusal, records: u64) -> Result<(), Stop> {
        let split = unusable(&self.file.split);
        if self.progress.done(split.name(), &(0..1)) {
            return Ok(());
        }
        let source = Some((self.file.name.clone(), 0));
        let rows = if records > self.most_rows() { 1 } else { records.max(1) };
        let rejects = vec![Reject { source, rows, records: rows, ..Reject::new(0, code, reason) }];
        let records = RecordBatch::new_empty(self.schema.clone());
        let batch = Batch { records, origin: Vec::new(), provenance: Provenance::rows(split, 0..rows).into() };
        if self.hand_over(SourceBatch { batch, rejects, pixels: 0 }) { Ok(()) } else { Err(Stop::Closed) }
    }

    /// Ends a file at an I/O error before `row`: what cannot be read for a reason of the environment is left undone; if the
    /// file has changed, the rest of it is one reject.
    pub(super) fn stop_at(&self, row: u64, error: io::Error) -> Result<(), Stop> {
        match self.file.unavailable(error) {
            Ok(unavailable) => Err(unavailable.into()),
            Err(error) => {
                self.refuse_rest(row, RejectCode::Unreadable, &format!("the rest of the file is lost: {error}"))
            }
        }
    }

    /// Hands over that these rows are no records, as one reject that stands for all of them. A number of rows that a file
    /// of this size cannot hold is not believed: then the reject stands for one row.
    pub(super) fn refuse(&self, rows: Range<u64>, code: RejectCode, reason: String) -> Result<(), Stop> {
        if rows.is_empty() {
            return Ok(());
        }
        let (start, count) = (rows.start, rows.end - rows.start);
        if count > self.most_rows() {
            let reason =
                format!("{reason}; {count} rows are declared, more than the file can hold: it counts as one record");
            return self.refuse(start..start + 1, code, reason);
        }
        let place = if count == 1 { format!("row {start}") } else { format!("{count} rows from {start}") };
        self.reject(rows, code, format!("{}, {place}: {reason}", self.file.name))
    }

    /// Rows that a file of this size can hold.
    fn most_rows(&self) -> u64 {
        self.file.size().saturating_mul(ROWS_PER_BYTE).max(1)
    }

    /// Hands over that the file cannot be read from `row` on, as one reject: the number of records is unknown.
    pub(super) fn refuse_rest(&self, row: u64, code: RejectCode, reason: &str) -> Result<(), Stop> {
        self.refuse(row..row + 1, code, format!("{reason}; {UNKNOWN_NUMBER}"))
    }

    /// One reject for these rows; the reason names the file.
    fn reject(&self, rows: Range<u64>, code: RejectCode, reason: String) -> Result<(), Stop> {
        if self.done(&rows) {
            return Ok(());
        }
        let count = rows.end - rows.start;
        let rejects = vec![Reject { rows: count, records: count, ..Reject::new(0, code, reason) }];
        let empty = RecordBatch::new_empty(self.schema.clone());
        self.push(rows, empty, Records { rejects, ..Records::default() })
    }

    fn push(&self, rows: Range<u64>, batch: RecordBatch, mut records: Records) -> Result<(), Stop> {
        for reject in &mut records.rejects {
            let place = || (self.file.name.clone(), rows.start + u64::from(reject.ordinal));
            let source = reject.source.take().unwrap_or_else(place);
            reject.source = Some(source);
        }
        let provenance = Provenance::rows(self.file.split.clone(), rows).into();
        let batch = Batch { records: batch, origin: records.origin, provenance };
        let batch = SourceBatch { batch, rejects: records.rejects, pixels: records.pixels };
        if self.hand_over(batch) { Ok(()) } else { Err(Stop::Closed) }
    }
}

/// The same records with another first column.
fn with_first(batch: &RecordBatch, first: ArrayRef) -> Result<RecordBatch, ArrowError> {
    let mut columns = batch.columns().to_vec();
    columns[0] = first;
    RecordBatch::try_new(batch.schema(), columns)
}

/// What a library said of bytes that it could not read, or that it panicked on them.
pub(super) fn guarded<T, E: ToString>(read: impl FnOnce() -> Result<T, E>) -> Result<T, (RejectCode, String)> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(outcome) => outcome.map_err(|error| (RejectCode::Malformed, shorten(&error.to_string()))),
        Err(panic) => Err((RejectCode::Panicked, panicked(&*panic))),
    }
}

/// The message of a reader's panic.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
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
pub(super) fn differs(field: &Field, met: Option<&DataType>) -> String {
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
        other => Err(differs(planned, other.map(|(_, field)| field.data_type()))),
    };
    planned.into_iter().map(place).collect()
}

/// What is wrong with the columns that a file is to give, if anything.
pub(super) fn check_names<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("column `{name}` is there twice; names must be unique"));
        }
    }
    if seen.is_empty() { Err("there are no columns".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
pub(super) mod testing {
    //! Runs a source to its end.
    #![allow(clippy::unwrap_used)]

    use serde_json::Value;
    use tokio_stream::StreamExt;

    use super::*;
    use crate::context::{Context, Limits};
    use crate::error::Fault;
    use crate::source::{BatchSize, SourceConfig};

    pub(crate) fn plan<C: SourceConfig>(options: Value, records: u32) -> Result<Box<dyn Source>, Vec<Fault>> {
        let limits = Limits { record_bytes: crate::units::Bytes(1 << 20), ..Limits::default() };
        let context = Context::new(std::collections::BTreeMap::new(), limits);
        let size = BatchSize { records: std::num::NonZeroU32::new(records), ..BatchSize::default() };
        crate::kind::options::<C>(options)?.plan("in", size, &context)
    }

    pub(crate) fn drain(source: Box<dyn Source>, progress: &Progress) -> Result<Vec<SourceBatch>, StageError> {
        let mut batches = source.open(progress)?.batches;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move {
            let mut all = Vec::new();
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                assert_eq!(batch.batch.origin.len(), batch.batch.records.num_rows());
                all.push(batch);
            }
            Ok(all)
        })
    }

    pub(crate) fn read<C: SourceConfig>(options: Value, records: u32) -> Vec<SourceBatch> {
        drain(plan::<C>(options, records).unwrap(), &Progress::default()).unwrap()
    }

    /// All records of the batches in one.
    pub(crate) fn records(batches: &[SourceBatch]) -> RecordBatch {
        let schema = batches[0].batch.records.schema();
        arrow::compute::concat_batches(&schema, batches.iter().map(|batch| &batch.batch.records)).unwrap()
    }

    /// Row, code, and bytes of every reject.
    pub(crate) fn rejects(batches: &[SourceBatch]) -> Vec<(u64, &'static str, Option<String>)> {
        let of = |batch: &SourceBatch| {
            let provenance = batch.batch.provenance.clone();
            let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
            let show = move |reject: &Reject| {
                (provenance.row(reject.ordinal).unwrap().1, reject.code.as_str(), reject.record.as_ref().map(text))
            };
            batch.rejects.iter().map(show).collect::<Vec<_>>()
        };
        batches.iter().flat_map(of).collect()
    }

    /// Progress where one sink has what these batches stand for.
    pub(crate) fn progress_of(batches: &[SourceBatch]) -> Progress {
        let mut coverage = crate::coverage::Coverage::default();
        batches.iter().for_each(|batch| coverage.insert(&batch.batch.provenance));
        Progress { sinks: std::sync::Arc::new(vec![coverage]), state: None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::Int64Array;

    use super::testing::{drain, progress_of, records};
    use super::*;

    /// Gives one record of each file, and panics on some.
    struct Fragile;

    impl RecordFormat for Fragile {
        const EXTENSIONS: &'static [&'static str] = &["x"];

        fn read(&self, file: &InputFile, _: Input, output: &Output<'_>) -> Result<(), Stop> {
            assert!(file.name != "b.x", "this one is odd");
            if output.done(&(0..1)) {
                return Ok(());
            }
            let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![7]))];
            output.send(0..1, Records { columns, origin: vec![0], ..Records::default() })
        }
    }

    #[test]
    fn a_file_that_a_reader_panics_on_is_one_reject() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.x", "b.x", "c.x"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let source = || {
            let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
            let path = folder.path().to_str().unwrap().to_owned();
            Box::new(RecordFiles::new("in", &path, &schema, Fragile, Policy::default()))
        };
        let batches = drain(source(), &Progress::default()).unwrap();
        assert_eq!(records(&batches).num_rows(), 2);
        let reject = &batches[1].rejects[0];
        assert_eq!(
            (reject.code, reject.reason.as_str()),
            (RejectCode::Panicked, "b.x: the reader panicked: this one is odd")
        );
        let again = drain(source(), &progress_of(&batches)).unwrap();
        assert!(again.iter().all(|batch| batch.rejects.is_empty()), "it is rejected once");
    }

    /// A format whose files declare a number of rows that they do not hold.
    struct Broken {
        declared: u64,
    }

    impl RecordFormat for Broken {
        const EXTENSIONS: &'static [&'static str] = &["broken"];

        fn read(&self, _: &InputFile, _: Input, output: &Output<'_>) -> Result<(), Stop> {
            output.refuse(5..5 + self.declared, RejectCode::Malformed, "damaged".to_owned())
        }
    }

    /// Rows and records of the reject for a file of 10 bytes, and its reason.
    fn reject_of(declared: u64) -> (u64, u64, String) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.broken"), "0123456789").unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        let source = RecordFiles::new("in", &path, &Schema::empty(), Broken { declared }, Policy::default());
        let batch = drain(Box::new(source), &Progress::default()).unwrap().remove(0);
        let reject = &batch.rejects[0];
        assert_eq!(batch.batch.provenance.len(), reject.rows);
        (reject.rows, reject.records, reject.reason.clone())
    }

    #[test]
    fn reject_of_many_rows_counts_all_that_its_file_can_hold() {
        assert_eq!(reject_of(10_240), (10_240, 10_240, "a.broken, 10240 rows from 5: damaged".to_owned()));
        for absurd in [10_241, 1 << 60] {
            let (rows, records, reason) = reject_of(absurd);
            assert_eq!((rows, records), (1, 1));
            assert!(reason.contains(&format!("{absurd} rows are declared, more than the file can hold")), "{reason}");
        }
    }
}
