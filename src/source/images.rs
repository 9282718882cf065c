//! The source `images`: reads the encoded image files of a folder or a glob.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::{RejectCode, Split};
use crate::coverage::ResumeState;
use crate::error::{ConfigError, ErrorClass, StageError, UnavailableInput, UnreadInputs};
use crate::metrics::Metrics;
use crate::plan_context::PlanContext;
use crate::source::content_digest::ContentDigest;
use crate::source::digest_log::{DigestEntry, DigestLog};
use crate::source::file_set::FileSet;
use crate::source::image_batcher::{ImageBatchBuilder, ImageBatchConfig, ImageRecord};
use crate::source::listed_file::{ListedFile, ReadFailure, RecordError};
use crate::source::listing_journal::{
    self, JournalRow, JournaledListing, LoadedListings, RowState,
};
use crate::source::missing_rows::MissingRows;
use crate::source::object_prefetch::ObjectPrefetcher;
use crate::source::root_folder::{RootRecord, SourceRoot};
use crate::source::{
    BatchSender, BatchSize, LastSkippedFiles, Source, SourceConfig, SourceHandle, SourceShare,
    WrittenFiles, spawn_reader, watch,
};
use crate::storage::Location;
use crate::units::HumanDuration;

/// Extensions of image files, in lower case.
pub const EXTENSIONS: &[&str] = &[
    "jpg", "jpeg", "jpe", "jfif", "jfi", "jif", "pjpeg", "pjp", "png", "apng", "webp", "bmp",
    "dib", "gif", "tif", "tiff", "pnm", "pbm", "pgm", "ppm",
];

/// Batches that are read ahead of the consumer.
pub(super) const AHEAD: usize = 2;

/// Default of `batch.delay` for watched files: how long files that arrive wait for more.
const DELAY: Duration = Duration::from_millis(200);
/// Default of `retry_timeout`.
const RETRY_TIMEOUT: Duration = Duration::from_hours(1);
/// The smallest valid `rescan`.
const MIN_RESCAN: Duration = Duration::from_millis(100);

/// Reads the encoded image files of a folder or a glob.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct ImagesSourceConfig {
    /// A folder (all image files in it and its subfolders), a glob such as `photos/**/*.jpg`
    /// (exactly the files that match), or a single file. A path that exists is never treated as a
    /// glob, even if it contains wildcards. In a folder, hidden files and folders (`.x`) are
    /// skipped, and folders whose names begin with an underscore (`_temporary`); photographs such
    /// as `_DSC0001.JPG` are read. The folder `_latentflow` is never read. `check` and the summary
    /// count the skipped files.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    path: String,
    /// Follow symbolic links. Default: false; links are skipped.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    follow_links: bool,
    /// Add the column `label` with the name of the folder that contains the file, for collections
    /// with one folder per class. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    folder_labels: bool,
    /// Continue after all files are read, and read new files once they are completely written or
    /// moved in. The run then ends only when it is stopped. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    watch: bool,
    /// Interval between full listings of a watched folder, which find files that the system did not
    /// report; on network file systems it reports none. At least 100ms. Default: 10m; 1m for
    /// buckets, which are only listed.
    #[schemars(extend("x-changes-rows" = false))]
    rescan: Option<HumanDuration>,
    /// How long reading a file of a watched folder is retried if it fails for a reason outside of
    /// the file: permissions, a disk, a file server. The first retry follows after 1 second, and
    /// the interval doubles up to 1 minute. After `retry_timeout`, the file is rejected; the reject
    /// refers to the file, so that the source `rejects` can read it later. Default: 1h.
    #[schemars(extend("x-changes-rows" = false))]
    retry_timeout: Option<HumanDuration>,
}

/// The column with the names of the folders.
const LABEL: &str = "label";

impl SourceConfig for ImagesSourceConfig {
    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let files = FileSet::new(self.path.clone(), self.follow_links, EXTENSIONS)
            .map_err(|fault| vec![fault])?;
        let files = files.with_underscore_files();
        let batch_config =
            ImageBatchConfig::new(batch, context.limits, self.folder_labels.then_some(LABEL));
        let rescan = match (self.watch, self.rescan) {
            (false, Some(_)) => {
                return Err(vec![ConfigError::new("rescan", "requires `watch = true`")]);
            }
            (false, None) => None,
            (true, Some(span)) if span.0 < MIN_RESCAN => {
                return Err(vec![ConfigError::new(
                    "rescan",
                    format!("{span} is too short; expected 100ms or more"),
                )]);
            }
            (true, span) => Some(span.map_or_else(|| files.default_rescan(), |span| span.0)),
        };
        if let (false, Some(_)) = (self.watch, self.retry_timeout) {
            return Err(vec![ConfigError::new(
                "retry_timeout",
                "requires `watch = true`",
            )]);
        }
        // A watch reads the files of its shard only. Otherwise the journal holds the files of all
        // shards.
        let files = files.of_shard(context.shard.filter(|_| self.watch));
        let delay = batch.delay.map_or(DELAY, |delay| delay.0);
        let retry_timeout = self.retry_timeout.map_or(RETRY_TIMEOUT, |span| span.0);
        let metrics = Arc::clone(&context.metrics);
        Ok(Box::new(ImagesSource {
            name: name.to_owned(),
            files,
            share: SourceShare::new(context.shard),
            batch_config,
            rescan,
            delay,
            retry_timeout,
            metrics,
        }))
    }
}

/// The planned source.
struct ImagesSource {
    name: String,
    files: FileSet,
    share: SourceShare,
    batch_config: ImageBatchConfig,
    /// The interval between full listings; `None` if files are not watched.
    rescan: Option<Duration>,
    /// How long files that arrive wait for more.
    delay: Duration,
    /// How long reading an unavailable file is retried.
    retry_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Source for ImagesSource {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.batch_config.schema)
    }

    fn reading_bytes(&self) -> u64 {
        let group = if self.is_unbounded() {
            watch::GROUP_BYTES
        } else {
            0
        };
        self.files.reading_bytes() + group
    }

    fn skipped_files(&self) -> Option<LastSkippedFiles> {
        Some(self.files.skipped_files())
    }

    fn share(&self) -> Option<&SourceShare> {
        Some(&self.share)
    }

    fn would_read(&self, written: &WrittenFiles<'_>) -> bool {
        self.files.would_read(written)
    }

    fn is_unbounded(&self) -> bool {
        self.rescan.is_some()
    }

    fn inputs(&self) -> Result<Option<Vec<String>>, StageError> {
        let listing = if self.is_unbounded() {
            self.files.list_inbox()?
        } else {
            self.files.list()?
        };
        listing.identities().map(Some)
    }

    fn find_inputs(&self, state: Option<&Location>) -> Result<(), StageError> {
        // A watch waits for a folder that an earlier run has read, and reads the empty prefix of a
        // bucket.
        let waits = self.is_unbounded()
            && (self.files.local_root().is_none()
                || RootRecord::load(&self.name, state)?.is_known());
        if waits {
            return Ok(());
        }
        // A run without new files is complete if earlier runs have listed files.
        if self.is_unbounded() || listing_journal::exists(&self.name, state)? {
            self.files.find()
        } else {
            self.files.find_match()
        }
    }

    fn list_inputs(&self, state: Option<&Location>) -> Result<(), StageError> {
        if self.is_unbounded() {
            return self.inputs().map(drop);
        }
        let listing = self.files.list()?;
        self.share.count_files(listing.files.keys());
        // A run without new files is complete if earlier runs have listed files.
        if listing.files.is_empty() && !listing_journal::exists(&self.name, state)? {
            return Err(self.files.no_matches(&listing));
        }
        listing.identities().map(drop)
    }

    fn open(self: Box<Self>, resume: &ResumeState) -> Result<SourceHandle, StageError> {
        let Self {
            name,
            files,
            batch_config,
            ..
        } = *self;
        let state = resume.state.as_ref();
        if let Some(rescan) = self.rescan {
            let watch_config = watch::WatchConfig {
                rescan,
                delay: self.delay,
                retry_timeout: self.retry_timeout,
            };
            return watch::open(
                &name,
                files,
                batch_config,
                resume,
                watch_config,
                self.metrics,
            );
        }
        let mut listing = files.list()?;
        let found = listing.files.len();
        let mut digest_log = DigestLog::new(&name, state);
        let mut record = RootRecord::load(&name, state)?;
        let root = files
            .local_root()
            .map(|path| SourceRoot::probe(&path))
            .transpose()
            .map_err(StageError::Other)?;
        let unmounted = root.iter().flat_map(|root| record.missing_below(root));
        listing.unread.extend(unmounted.map(|path| (path, None)));
        let mut loaded = listing_journal::load(
            &name,
            state,
            &mut listing,
            &mut digest_log,
            self.share.shard(),
        )?;
        if let Some(root) = &root {
            // If known files are present, they were moved to another disk.
            if let Some(missing) = record.missing(root).filter(|_| !loaded.has_present()) {
                let advice =
                    "mount it, or accept the folder in its current state with --start-over";
                return Err(StageError::Other(format!("{missing}; {advice}")));
            }
            record.record(root, listing.mount_points(), &name, state)?;
        }
        loaded.add(&name, state, &mut listing)?;
        let LoadedListings {
            journals,
            mut unread,
            gone,
            ..
        } = loaded;
        unread.extend(listing.take_failures());
        let total = journals
            .iter()
            .map(|journal| pending(journal, resume))
            .sum();
        // If rows are left to read and no file is found, a disk that is not mounted is more likely
        // than the removal of all files.
        if found == 0 && (journals.is_empty() || total > 0) {
            if let Some(unavailable) = unread.first() {
                return Err(unavailable.to_stage_error());
            }
            return Err(files.no_matches(&listing));
        }
        let reader = ListedImageReader {
            batch_config,
            root: listing.root,
            resume: resume.clone(),
        };
        let batches = spawn_reader(AHEAD, move |out| {
            reader.read(
                &journals,
                ReadNotes {
                    digest_log,
                    pending: Vec::new(),
                    gone,
                },
                unread,
                out,
            )
        });
        Ok(SourceHandle::new(batches, Some(total)))
    }
}

/// Number of rows that are not committed.
fn pending(journal: &JournaledListing, resume: &ResumeState) -> u64 {
    let rows = journal.first..journal.first + journal.rows.len() as u64;
    rows.filter(|&row| !resume.is_committed(journal.split.name(), &(row..row + 1)))
        .count() as u64
}

/// Reads the files of a listing.
struct ListedImageReader {
    batch_config: ImageBatchConfig,
    root: Location,
    resume: ResumeState,
}

/// Records of the files that a run reads, for later runs.
struct ReadNotes {
    /// The log of content digests.
    digest_log: DigestLog,
    /// Digests of files whose batch is not sent yet: one write per batch.
    pending: Vec<DigestEntry>,
    /// The rows that are rejected because their files do not exist or have changed.
    gone: MissingRows,
}

impl ReadNotes {
    /// Writes the pending digests, before the batch of their files is sent.
    fn flush(&mut self) -> Result<(), StageError> {
        self.digest_log.append(&self.pending)?;
        self.pending.clear();
        Ok(())
    }
}

/// Why a read ended.
enum SendEnd {
    /// All rows were sent or are among the unread ones.
    Complete,
    /// The receiver is closed.
    Closed,
}

impl ListedImageReader {
    /// Reads all rows that are not committed. `unread` holds the paths that the listing left out.
    ///
    /// # Errors
    /// If the process or the store cannot read any file now, or Arrow cannot hold a batch; at the
    /// end, the files that could not be read, which include those of `unread`.
    fn read(
        &self,
        journals: &[JournaledListing],
        mut notes: ReadNotes,
        unread: Vec<UnavailableInput>,
        out: &BatchSender,
    ) -> Result<(), StageError> {
        let mut inputs = UnreadInputs::default();
        unread
            .into_iter()
            .try_for_each(|unavailable| inputs.leave(unavailable))?;
        for JournaledListing {
            split, first, rows, ..
        } in journals
        {
            let mut rows_unread = Vec::new();
            let end = self.read_rows(split, *first, rows, &mut notes, out, &mut rows_unread)?;
            rows_unread
                .into_iter()
                .try_for_each(|unavailable| inputs.leave(unavailable))?;
            if matches!(end, SendEnd::Closed) {
                return Ok(());
            }
        }
        inputs.into_result()
    }

    /// Reads the uncommitted rows of `rows`, which begin at row `start`. Files that could not be
    /// read are appended to `unread`. An error of the process ends the read.
    ///
    /// # Errors
    /// If Arrow cannot hold a batch.
    fn read_rows(
        &self,
        split: &Arc<Split>,
        mut start: u64,
        rows: &[JournalRow],
        notes: &mut ReadNotes,
        out: &BatchSender,
        unread: &mut Vec<UnavailableInput>,
    ) -> Result<SendEnd, StageError> {
        for segment in rows.chunks(self.batch_config.max_records()) {
            let builder =
                ImageBatchBuilder::new(&self.batch_config, &self.resume, out, split, start);
            let length = segment.len() as u64;
            if !builder.is_done(length) && !self.read_segment(segment, builder, notes, unread)? {
                return Ok(SendEnd::Closed);
            }
            if unread
                .last()
                .is_some_and(|unavailable| unavailable.class == ErrorClass::Process)
            {
                break;
            }
            start += length;
        }
        Ok(SendEnd::Complete)
    }

    /// Reads the rows of one segment. Returns `false` if the receiver is closed.
    fn read_segment(
        &self,
        rows: &[JournalRow],
        mut builder: ImageBatchBuilder<'_>,
        notes: &mut ReadNotes,
        unread: &mut Vec<UnavailableInput>,
    ) -> Result<bool, StageError> {
        let present = rows
            .iter()
            .filter(|row| row.state == RowState::Present)
            .map(|row| &row.file);
        let mut images = ObjectPrefetcher::new(&self.root, self.batch_config.record_bytes, present);
        for row in rows {
            let image = match row.state {
                RowState::Present => images.next(&row.file),
                RowState::Unseen => Err(ReadFailure::Unavailable(unseen(&row.file, &self.root))),
                RowState::Changed | RowState::Gone | RowState::Rejected => {
                    if !builder.is_done(1) {
                        tracing::warn!(
                            path = %row.file.name,
                            "a listed file was deleted or modified"
                        );
                    }
                    Err(row.file.unreadable(GONE).into())
                }
            };
            let image = match image {
                Ok(image) => Ok(Cow::from(image)),
                Err(ReadFailure::Rejected(refusal)) => {
                    // If the same file reappears, it must be read.
                    if refusal.code == RejectCode::Unreadable && !builder.is_done(1) {
                        let (split, number) = builder.next();
                        notes.gone.add(split, number)?;
                    }
                    Err(refusal)
                }
                Err(ReadFailure::Unavailable(unavailable)) => {
                    let stops = unavailable.class == ErrorClass::Process;
                    let is_done = builder.is_done(1);
                    if !is_done {
                        unread.push(unavailable);
                    }
                    notes.flush()?;
                    if !builder.close()? {
                        return Ok(false);
                    }
                    if stops && !is_done {
                        return Ok(true);
                    }
                    builder.skip();
                    continue;
                }
            };
            let digest = image
                .as_ref()
                .ok()
                .and_then(|image| self.new_digest(row, image));
            if let Some(record) = builder.try_push(image_record(&row.file, image)) {
                notes.flush()?;
                if !builder.close()? {
                    return Ok(false);
                }
                // An empty batch accepts any row.
                builder.try_push(record);
            }
            notes.pending.extend(digest);
        }
        notes.flush()?;
        builder.close()
    }

    /// The digest of a local file, by which it is recognized after its time has changed; `None` if
    /// the digest is already logged.
    fn new_digest(&self, row: &JournalRow, image: &[u8]) -> Option<DigestEntry> {
        let is_new = self.root.local().is_some() && row.file.digest.is_none();
        is_new.then(|| DigestEntry {
            digest: Some(ContentDigest::of(image)),
            ..DigestEntry::from_file(&row.file)
        })
    }
}

/// The record of a file: its bytes or its reject.
pub(super) fn image_record<'a>(
    file: &'a ListedFile,
    image: Result<Cow<'a, [u8]>, RecordError>,
) -> ImageRecord<'a> {
    ImageRecord {
        source: file.name.as_str().into(),
        row: 0,
        text: Some(folder(&file.name).into()),
        image,
    }
}

/// The error of a file that is not read because it or its folder is missing now.
pub(super) fn unseen(file: &ListedFile, root: &Location) -> UnavailableInput {
    let error = std::io::Error::other("the file does not exist, or its folder cannot be read");
    UnavailableInput {
        path: file.location(root).to_path(),
        class: ErrorClass::Environment,
        error,
    }
}

/// The name of the folder that contains a file; empty for the root of the listing.
fn folder(name: &str) -> &str {
    name.rsplit('/').nth(1).unwrap_or_default()
}

/// Reject reason of a listed file that does not exist any more or is another one.
pub(super) const GONE: &str = "was deleted or modified after it was listed";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::UInt64Type;
    use serde_json::json;
    use tokio_stream::StreamExt;

    use super::*;
    use crate::batch::SourceBatch;
    use crate::coverage::Coverage;
    use crate::plan_context::PipelineLimits;
    use crate::registry::find;
    use crate::source::KINDS;
    use crate::units::ByteSize;

    /// A black PPM image of `width` by `height` pixels.
    fn image(width: usize, height: usize) -> Vec<u8> {
        let mut image = format!("P6 {width} {height} 255\n").into_bytes();
        image.resize(image.len() + width * height * 3, 0);
        image
    }

    fn fill(folder: &Path, names: &[&str]) {
        for name in names {
            fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            fs::write(folder.join(name), image(2, 1)).unwrap();
        }
    }

    fn open(
        folder: &Path,
        batch: serde_json::Value,
        resume: &ResumeState,
    ) -> Result<SourceHandle, StageError> {
        let limits = PipelineLimits {
            pixels: 1000,
            record_bytes: ByteSize(10_000),
            memory: None,
        };
        let context = PlanContext::new(BTreeMap::new(), limits);
        let plan = find(KINDS, "images", "source").unwrap().plan;
        let batch = serde_json::from_value(batch).unwrap();
        plan("in", json!({ "path": folder }), batch, &context)
            .unwrap()
            .stage
            .open(resume)
    }

    fn read(folder: &Path, size: serde_json::Value, resume: &ResumeState) -> Vec<SourceBatch> {
        let mut opened = open(folder, size, resume).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let batches: Result<Vec<_>, _> = runtime.block_on(opened.batches.collect());
        let batches = batches.unwrap();
        let rows: u64 = batches
            .iter()
            .flat_map(|batch| resume.uncommitted_ranges(&batch.batch.provenance))
            .map(|p| p.end - p.start)
            .sum();
        assert_eq!(
            opened.total.known(),
            Some(rows),
            "the total counts the pending rows"
        );
        batches
    }

    fn sources(batch: &SourceBatch) -> Vec<&str> {
        batch
            .batch
            .records
            .column(0)
            .as_string::<i32>()
            .iter()
            .flatten()
            .collect()
    }

    fn resume(state: &Path, done: &[&SourceBatch]) -> ResumeState {
        let mut coverage = Coverage::default();
        done.iter()
            .for_each(|batch| coverage.insert(&batch.batch.provenance));
        ResumeState {
            sinks: Arc::new(vec![coverage]),
            state: Some(state.into()),
        }
    }

    #[test]
    fn files_are_read_unchanged_in_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), &["c.pnm", "a.PNM", "b/x.png"]);
        let batches = read(folder.path(), json!({}), &ResumeState::default());
        let [batch] = batches.as_slice() else {
            panic!("one batch expected")
        };
        assert_eq!(sources(batch), ["a.PNM", "b/x.png", "c.pnm"]);
        assert_eq!(
            batch
                .batch
                .records
                .column(1)
                .as_primitive::<UInt64Type>()
                .values(),
            &[0, 0, 0]
        );
        assert_eq!(
            batch.batch.records.column(2).as_binary::<i32>().value(1),
            image(2, 1)
        );
        assert_eq!((batch.pixels, batch.rejects.len()), (6, 0));
        assert_eq!(
            batch.batch.provenance.ranges()[0].split.name(),
            "in/listing-0"
        );
    }

    #[test]
    fn folder_labels_add_the_name_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        fill(
            folder.path(),
            &["a.png", "train/cat/1.png", "train/dog/1.png"],
        );
        let options = json!({ "path": folder.path(), "folder_labels": true });
        let context = PlanContext::new(BTreeMap::new(), PipelineLimits::default());
        let source = (find(KINDS, "images", "source").unwrap().plan)(
            "in",
            options,
            BatchSize::default(),
            &context,
        )
        .map(|planned| planned.stage);
        let mut batches = source
            .unwrap()
            .open(&ResumeState::default())
            .unwrap()
            .batches;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let batch = runtime.block_on(batches.next()).unwrap().unwrap();
        let labels: Vec<&str> = batch.batch.records["label"]
            .as_string::<i32>()
            .iter()
            .flatten()
            .collect();
        assert_eq!(labels, ["", "cat", "dog"]);
    }

    #[test]
    fn batch_ends_at_limit_of_records_or_decoded_bytes() {
        let folder = tempfile::tempdir().unwrap();
        fill(
            folder.path(),
            &["a.pnm", "b.pnm", "c.pnm", "e.pnm", "f.pnm"],
        );
        fs::write(folder.path().join("d.pnm"), image(30, 30)).unwrap();
        let sizes = |size| -> Vec<usize> {
            let batches = read(folder.path(), size, &ResumeState::default());
            batches
                .iter()
                .map(|batch| batch.batch.records.num_rows())
                .collect()
        };
        assert_eq!(sizes(json!({ "records": 2 })), [2, 2, 2]);
        assert_eq!(sizes(json!({ "bytes": "2000B" })), [3, 1, 2]);
        assert_eq!(sizes(json!({ "bytes": "1B" })), [1; 6]);
    }

    #[test]
    fn image_beyond_limits_is_rejected_or_counts_no_pixels() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.pnm"), image(100, 100)).unwrap();
        fs::write(folder.path().join("b.pgm"), b"P5 100000 100000 255\n").unwrap();
        fs::write(folder.path().join("c.png"), b"").unwrap();
        fs::write(folder.path().join("d.png"), b"no image").unwrap();
        let batches = read(folder.path(), json!({}), &ResumeState::default());
        assert_eq!(
            (sources(&batches[0]), batches[0].pixels),
            (vec!["b.pgm", "c.png", "d.png"], 0)
        );
        assert_eq!(batches[0].batch.row_ordinals, [1, 2, 3]);
        let reject = &batches[0].rejects[0];
        assert_eq!((reject.ordinal, reject.code), (0, RejectCode::TooLarge));
        assert!(
            reject
                .reason
                .starts_with("a.pnm: 30015 bytes, more than the limit of 10000 bytes"),
            "{}",
            reject.reason
        );
    }

    #[test]
    fn later_run_resumes_with_the_same_batches() {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fill(
            folder.path(),
            &["a.pnm", "b.pnm", "c.pnm", "d.pnm", "e.pnm"],
        );
        let size = || json!({ "records": 2 });
        let first = read(folder.path(), size(), &resume(state.path(), &[]));
        let second = read(folder.path(), size(), &resume(state.path(), &[&first[0]]));
        assert_eq!(
            second.iter().map(sources).collect::<Vec<_>>(),
            [vec!["c.pnm", "d.pnm"], vec!["e.pnm"]]
        );
        assert_eq!(second[0].batch.provenance, first[1].batch.provenance);
        assert!(
            read(
                folder.path(),
                size(),
                &resume(state.path(), &first.iter().collect::<Vec<_>>())
            )
            .is_empty()
        );
        let half = first[1].slice(0..1);
        let rest = read(
            folder.path(),
            size(),
            &resume(state.path(), &[&first[0], &half]),
        );
        assert_eq!(
            sources(&rest[0]),
            ["c.pnm", "d.pnm"],
            "the caller cuts out committed rows"
        );
    }

    #[test]
    fn new_file_is_read_and_missing_uncommitted_one_is_rejected() {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fill(folder.path(), &["a.pnm", "b.pnm", "c.pnm"]);
        let first = read(
            folder.path(),
            json!({ "records": 1 }),
            &resume(state.path(), &[]),
        );
        fs::remove_file(folder.path().join("a.pnm")).unwrap();
        fs::remove_file(folder.path().join("b.pnm")).unwrap();
        fill(folder.path(), &["0.pnm"]);
        let second = read(
            folder.path(),
            json!({ "records": 1 }),
            &resume(state.path(), &[&first[0]]),
        );
        assert_eq!(
            second.iter().map(sources).collect::<Vec<_>>(),
            [vec![], vec!["c.pnm"], vec!["0.pnm"]]
        );
        assert_eq!(second[0].rejects[0].code, RejectCode::Unreadable);
        assert_eq!(second[0].rejects[0].reason, format!("b.pnm: {GONE}"));
        assert_eq!(
            second[2].batch.provenance.ranges()[0].split.name(),
            "in/listing-1"
        );
    }

    #[test]
    fn folder_without_images_or_emptied_too_early_is_an_error() {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let error = |resume: &ResumeState| {
            open(folder.path(), json!({}), resume)
                .err()
                .map(|error| error.to_string())
        };
        fs::write(folder.path().join("notes.txt"), "x").unwrap();
        assert!(
            error(&ResumeState::default())
                .unwrap()
                .contains("; files scanned: 1; none has the extension jpg, ")
        );
        fill(folder.path(), &["a.pnm"]);
        let first = read(folder.path(), json!({}), &resume(state.path(), &[]));
        fs::remove_file(folder.path().join("a.pnm")).unwrap();
        assert!(
            error(&resume(state.path(), &[]))
                .unwrap()
                .contains("; files scanned: 1; none has the extension jpg, ")
        );
        assert_eq!(
            error(&resume(state.path(), &[&first[0]])),
            None,
            "files of committed rows may be removed"
        );
    }

    #[test]
    fn every_broken_image_becomes_a_row() {
        let Some(folder) = crate::test_data::test_data("bad") else {
            return;
        };
        let files = FileSet::new(folder.to_str().unwrap().to_owned(), false, EXTENSIONS).unwrap();
        let batches = read(&folder, json!({}), &ResumeState::default());
        let rows: usize = batches
            .iter()
            .map(|batch| batch.batch.records.num_rows() + batch.rejects.len())
            .sum();
        assert_eq!(rows, files.list().unwrap().files.len());
    }

    #[cfg(unix)]
    #[test]
    fn pipe_is_skipped_and_rejected_in_place_of_a_listed_file() {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), &["a.pnm", "b.pnm"]);
        let pipe = |name: &str| {
            let status = std::process::Command::new("mkfifo")
                .arg(folder.path().join(name))
                .status()
                .unwrap();
            assert!(status.success());
        };
        pipe("pipe.jpg");
        let batches = read(folder.path(), json!({}), &ResumeState::default());
        assert_eq!(sources(&batches[0]), ["a.pnm", "b.pnm"]);

        let files = FileSet::new(
            folder.path().to_str().unwrap().to_owned(),
            false,
            EXTENSIONS,
        )
        .unwrap();
        let listing = files.list().unwrap();
        fs::remove_file(folder.path().join("a.pnm")).unwrap();
        pipe("a.pnm");
        let failure = listing.files["a.pnm"]
            .read(&listing.root, 1000)
            .unwrap_err();
        assert!(matches!(
            failure,
            ReadFailure::Rejected(refusal) if refusal.code == RejectCode::Unreadable
        ));
    }
}
