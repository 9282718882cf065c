//! The source `tar`: reads the images of tar shards in the layout of WebDataset.

mod budget;
pub(crate) mod entry;
pub(crate) mod reader;
mod shard_input;

use std::io::BufReader;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::reject::RejectCode;
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::error::unavailable::UnreadInputs;
use crate::plan_context::PlanContext;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::compression::{Compression, decompression_memory};
use crate::source::discovery::file_checkpoints::{self, FileCheckpoints, OnChange};
use crate::source::discovery::file_set::FileSet;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::listed_file::{ListedFile, RecordError};
use crate::source::discovery::listing::Listing;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::discovery::share::SourceShare;
use crate::source::discovery::skipped_files::LastSkippedFiles;
use crate::source::images::batcher::config::ImageBatchConfig;
use crate::source::images::tar::reader::{AHEAD, KEY, TarReader};
use crate::source::reader::spawn_reader;
use crate::source::table::text::encoding::unpacked_by;
use crate::source::{Source, SourceConfig, SourceHandle, WrittenFiles};
use crate::storage::{FileReader, Location};

use shard_input::{ForwardReader, ShardInput};

/// Reads the images of tar shards in the layout of WebDataset.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct TarSourceConfig {
    /// A tar file, a folder (all `*.tar`, `*.tar.gz`, `*.tgz` and `*.tar.zst` in it and its
    /// subfolders), or a glob such as `shards/train-*.tar`. Files whose names end with `.gz`, `.tgz`
    /// or `.zst` are decompressed while they are read.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    path: String,
    /// Follow symbolic links. Default: false; links are skipped.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    follow_links: bool,
    /// How to treat a shard that has changed since an earlier run read it: `new` reads it as a new
    /// file and warns that the images of its earlier version stay in the output; `refuse` ends
    /// `check` and `run` with an error that names the shard. A shard of at most 32 MiB with the
    /// same content counts as unchanged, regardless of its modification time. Default: new.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    on_change: OnChange,
}

impl SourceConfig for TarSourceConfig {
    const FILE_ENDINGS: &'static [&'static str] = &["tar", "tgz"];

    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let files = FileSet::new(self.path.clone(), self.follow_links, SHARD_EXTENSIONS)
            .map_err(|fault| vec![fault])?;
        let batch_config = ImageBatchConfig::new(batch, context.limits, Some(KEY));
        Ok(Box::new(TarSource {
            name: name.to_owned(),
            files,
            share: SourceShare::new(context.shard),
            on_change: self.on_change,
            batch_config,
        }))
    }
}

/// The planned source.
struct TarSource {
    name: String,
    files: FileSet,
    share: SourceShare,
    on_change: OnChange,
    batch_config: ImageBatchConfig,
}

impl Source for TarSource {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.batch_config.schema)
    }

    fn reading_bytes(&self) -> u64 {
        let decompression = self.files.list().map_or(0, |listing| {
            decompression_memory(listing.files.values().map(|file| file.name.as_str()))
        });
        self.files.reading_bytes().saturating_add(decompression)
    }

    fn find_inputs(&self, _state: Option<&Location>) -> Result<(), StageError> {
        self.files.find_match()
    }

    fn list_inputs(&self, _state: Option<&Location>) -> Result<(), StageError> {
        let listing = self.files.list()?;
        if listing.files.is_empty() {
            return Err(self.files.no_matches(&listing));
        }
        self.share.count_files(listing.files.keys());
        listing.identities().map(drop)
    }

    fn inputs(&self) -> Result<Option<Vec<String>>, StageError> {
        let mut listing = self.files.list()?;
        listing.retain_shard(self.share.shard());
        listing.identities().map(Some)
    }

    fn share(&self) -> Option<&SourceShare> {
        Some(&self.share)
    }

    fn would_read(&self, written: &WrittenFiles<'_>) -> bool {
        self.files.would_read(written)
    }

    fn skipped_files(&self) -> Option<LastSkippedFiles> {
        Some(self.files.skipped_files())
    }

    fn refuses_changes(&self) -> bool {
        self.on_change == OnChange::Refuse
    }

    fn admit_inputs(&self, resume: &ResumeState) -> Result<(), StageError> {
        if !self.refuses_changes() {
            return Ok(());
        }
        let mut listing = self.files.list()?;
        listing.retain_shard(self.share.shard());
        let Listing { root, files, .. } = listing;
        let files: Vec<_> = files
            .into_values()
            .map(|file| InputFile::new(&self.name, &root, file))
            .collect();
        file_checkpoints::admit(&self.name, &files, resume)
    }

    fn open(self: Box<Self>, resume: &ResumeState) -> Result<SourceHandle, StageError> {
        let mut listing = self.files.list()?;
        if listing.files.is_empty() {
            return Err(self.files.no_matches(&listing));
        }
        let failures = listing.take_failures();
        let Listing { root, files, .. } = listing;
        check_some_plain(files.values(), &root)?;
        let mut unread = UnreadInputs::default();
        failures
            .into_iter()
            .try_for_each(|unavailable| unread.leave(unavailable))?;
        let files: Vec<_> = files
            .into_values()
            .filter(|file| self.share.has_file(&file.name))
            .map(|file| InputFile::new(&self.name, &root, file))
            .collect();
        let checkpoints = FileCheckpoints::open(&self.name, resume.state.as_ref())?;
        let skipped_files = self.files.skipped_files();
        let Self {
            batch_config,
            on_change,
            ..
        } = *self;
        let reader = TarReader {
            batch_config,
            root,
            resume: resume.clone(),
            checkpoints,
            on_change,
            skipped_files,
        };
        let batches = spawn_reader(AHEAD, move |out| {
            let read = reader.read_all(&files, unread, out);
            reader.checkpoints.sync()?;
            read
        });
        Ok(SourceHandle::new(batches, None))
    }
}

/// Extensions of members that are images. They determine the row numbers of a shard's own split, so
/// the list must never change.
const EXTENSIONS: &[&str] = &[
    "jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "pnm", "pbm", "pgm", "ppm",
];

/// Extensions of further members that are images. Their rows belong to a second split, which is
/// read after the shard's own one.
const FURTHER_EXTENSIONS: &[&str] = &["apng", "jfif", "jpe"];

/// The extensions of shards in a folder.
const SHARD_EXTENSIONS: &[&str] = &["tar", "tar.gz", "tgz", "tar.zst"];

/// Opens a shard, decompressed if its name states a compression, and a second handle of its file.
fn open(file: &ListedFile, root: &Location) -> Result<(ShardInput, FileReader), ReadEnd> {
    let failed = |error| ReadEnd::from(file.failure(&file.location(root), error));
    let input = file.open(root)?;
    let handle = input.try_clone().map_err(failed)?;
    let mut input = match Compression::of_name(&file.name) {
        Some(compression) => {
            let content = compression.decompress(input).map_err(failed)?;
            ShardInput::Compressed(BufReader::new(ForwardReader {
                content,
                position: 0,
            }))
        }
        None => ShardInput::Plain(BufReader::new(input)),
    };
    let Some(program) = unpacked_by(input.start().map_err(failed)?) else {
        return Ok((input, handle));
    };
    let name = &file.name;
    let reason = format!(
        "{name}: is compressed, but only plain tar files and those whose names end with `.gz`, \
         `.tgz` or `.zst` can be read; unpack it first (`{program} {name}`)"
    );
    Err(ReadEnd::Rejected(
        RecordError::new(RejectCode::Unsupported, reason),
        1,
    ))
}

/// Checks that at least one shard is not compressed.
///
/// # Errors
/// The reject reason of the first shard, if all are compressed.
fn check_some_plain<'a>(
    files: impl Iterator<Item = &'a ListedFile>,
    root: &Location,
) -> Result<(), StageError> {
    let mut compressed = None;
    for file in files {
        match open(file, root) {
            Err(ReadEnd::Rejected(
                RecordError {
                    code: RejectCode::Unsupported,
                    reason,
                    ..
                },
                _,
            )) => {
                compressed.get_or_insert(reason);
            }
            _ => return Ok(()),
        }
    }
    compressed.map_or(Ok(()), |reason| {
        Err(StageError::new(ErrorCode::InputInvalid, reason))
    })
}

#[cfg(test)]
mod tests;
