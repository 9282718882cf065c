//! The source over the files of a format.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::batch::SourceBatch;
use crate::batch::reject::RejectCode;
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::unavailable::{UnavailableInput, UnreadInputs};
use crate::source::discovery::file_checkpoints::{self, FileCheckpoints, OnChange, SettledFile};
use crate::source::discovery::file_set::FileSet;
use crate::source::discovery::hive_partitions::HivePartitions;
use crate::source::discovery::input_file::{self, InputFile};
use crate::source::discovery::read_end::ReadEnd;
use crate::source::discovery::share::SourceShare;
use crate::source::discovery::skipped_files::LastSkippedFiles;
use crate::source::origin::with_origin;
use crate::source::reader::spawn_reader;
use crate::source::table::file_source::batch_output::BatchOutput;
use crate::source::table::file_source::count::count;
use crate::source::table::file_source::read_end::panicked;
use crate::source::table::file_source::{FileFormat, FileSource, continues};
use crate::source::{Source, SourceHandle, WrittenFiles};
use crate::storage::PrefetchedObject;
use crate::storage::transfer_limits::{MAX_CONCURRENT_REQUESTS, reading_bytes};

/// The policy of a source for changed files, its share of the inputs, and the files that its last
/// listing skipped.
#[derive(Debug, Default)]
pub(crate) struct ReadPolicy {
    on_change: OnChange,
    /// The share of the files, or of their parts, that is read.
    share: SourceShare,
    /// The files that the last listing skipped.
    skipped_files: LastSkippedFiles,
}

impl ReadPolicy {
    /// The policy for changed files, and the share of the inputs.
    pub(crate) fn new(on_change: OnChange, share: SourceShare) -> Self {
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
    pub(crate) fn new(
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
    pub(crate) fn with_partitions(mut self, partitions: HivePartitions) -> Self {
        let fields = self.schema.fields().iter().chain(partitions.fields());
        self.schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        self.partitions = partitions;
        self
    }

    /// Adds sentences about files that differ from the plan.
    pub(crate) fn with_notes(self, notes: Vec<String>) -> Self {
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
            while prefetched.len() < MAX_CONCURRENT_REQUESTS
                && let Some(next) = later.next()
            {
                prefetched.push_back(next.prefetch());
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
        reading_bytes(&self.path).saturating_add(self.format.buffer_bytes())
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

    fn reads_rejects(&self) -> bool {
        self.format.reads_rejects()
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
