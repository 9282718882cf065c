//! The source `tar`: reads the images of tar shards in the layout of WebDataset.

mod budget;
mod shard_input;

use std::cell::RefCell;
use std::io::{self, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ::tar::{Archive, Entry};
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::{RejectCode, Split};
use crate::coverage::ResumeState;
use crate::error::{ConfigError, StageError, UnavailableInput, UnreadInputs};
use crate::plan_context::PlanContext;
use crate::source::compression::{Compression, decompression_memory};
use crate::source::file_checkpoints::{self, FileCheckpoints, OnChange, SettledFile};
use crate::source::file_set::{FileSet, has_extension};
use crate::source::file_source::{ReadEnd, catch_panic, continues, panicked};
use crate::source::image_batcher::{ImageBatchBuilder, ImageBatchConfig, ImageRecord};
use crate::source::input_file::{InputFile, unusable};
use crate::source::listed_file::{ListedFile, RecordError, encode_name};
use crate::source::listing::Listing;
use crate::source::skipped_files::SkipReason;
use crate::source::text_encoding::unpacked_by;
use crate::source::{
    BatchSender, BatchSize, LastSkippedFiles, Source, SourceConfig, SourceHandle, SourceShare,
    WrittenFiles, spawn_reader,
};
use crate::storage::{FileReader, Location};

use budget::{HEADER_BYTES, MeteredReader, ReadBudget};
use shard_input::{ForwardReader, ShardInput};

/// Batches that are read ahead of the consumer.
const AHEAD: usize = 2;

/// The column of WebDataset's keys: the common part of the names of the files of one sample.
const KEY: &str = "key";

/// Reads the images of tar shards in the layout of WebDataset.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct TarSourceConfig {
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
    compressed.map_or(Ok(()), |reason| Err(StageError::Other(reason)))
}

/// The next entry of a shard.
enum TarStep {
    /// Not an image.
    Other,
    /// An image whose row is committed.
    Done,
    Image(ImageRecord<'static>),
    /// The archive is broken here; the rest of it cannot be read.
    Broken(ImageRecord<'static>),
    End,
}

/// Reads shards.
struct TarReader {
    batch_config: ImageBatchConfig,
    root: Location,
    resume: ResumeState,
    checkpoints: FileCheckpoints,
    on_change: OnChange,
    skipped_files: LastSkippedFiles,
}

impl TarReader {
    /// Reads the shards in order, and adds those that cannot be read now to `unread`.
    fn read_all(
        &self,
        files: &[InputFile],
        mut unread: UnreadInputs,
        out: &BatchSender,
    ) -> Result<(), StageError> {
        for file in files {
            if !continues(self.read(file, out), &mut unread)? {
                return Ok(());
            }
        }
        unread.into_result()
    }

    /// Reads a shard. A shard that cannot be read becomes one reject, and so does the unreadable
    /// rest of a broken one.
    fn read(&self, file: &InputFile, out: &BatchSender) -> Result<(), ReadEnd> {
        let split = &file.split;
        let read = catch_unwind(AssertUnwindSafe(|| {
            match self
                .checkpoints
                .settle(file, &self.resume, false, self.on_change)?
            {
                Some(SettledFile { file, .. }) => {
                    if self.read_members(&file, ShardPass::First, out)? {
                        self.read_members(&file, ShardPass::Further, out)?;
                    }
                    Ok(())
                }
                None => Ok(()),
            }
        }));
        let read = read.unwrap_or_else(|panic| {
            let reason = format!("{}: {}", file.name, panicked(&*panic));
            Err(ReadEnd::Rejected(
                RecordError::new(RejectCode::Panicked, reason),
                1,
            ))
        });
        let Err(ReadEnd::Rejected(refusal, _)) = read else {
            return read;
        };
        let mut builder =
            ImageBatchBuilder::new(&self.batch_config, &self.resume, out, &unusable(split), 0);
        let source = file.name.as_str().into();
        if builder.is_done(1) {
            return Ok(());
        }
        let is_open = builder.push(ImageRecord {
            source,
            row: 0,
            text: None,
            image: Err(refusal),
        })? && builder.close()?;
        if is_open {
            Ok(())
        } else {
            Err(ReadEnd::Cancelled)
        }
    }

    /// Reads the images of one pass over a shard. Returns whether the shard also holds images of
    /// the second pass.
    fn read_members(
        &self,
        file: &InputFile,
        pass: ShardPass,
        out: &BatchSender,
    ) -> Result<bool, ReadEnd> {
        let (split, file) = (pass.split(&file.split), file.listed());
        let budget = ReadBudget::default();
        let (input, handle) = open(file, &self.root)?;
        let input = Rc::new(RefCell::new(input));
        let location = file.location(&self.root);
        let stop = |error| ReadEnd::from(file.failure(&location, error));
        let mut archive = Archive::new(MeteredReader {
            file: Rc::clone(&input),
            budget: budget.clone(),
        });
        let mut entries = archive.entries_with_seek().map_err(stop)?;
        let length = self.batch_config.max_records() as u64;
        let mut builder = ImageBatchBuilder::new(&self.batch_config, &self.resume, out, &split, 0);
        let mut done = builder.is_done(length);
        let (mut row, mut has_further) = (0, false);
        loop {
            budget.allow(HEADER_BYTES);
            let next = catch_panic(|| {
                let ends_before = |end| input.borrow().ends_before(end, file.size);
                let entry = entries.next();
                entry.map(|entry| classify(entry, ends_before)).transpose()
            });
            let step = match next {
                Ok(None) => at_end(&file.name, row, &budget, &mut input.borrow_mut()),
                Ok(Some(TarEntry::Folder)) => TarStep::Other,
                Ok(Some(TarEntry::Skipped(name, reason))) => {
                    if pass == ShardPass::First {
                        self.skipped_files.add(Path::new(&name), reason);
                    }
                    TarStep::Other
                }
                Ok(Some(TarEntry::Image(_, of))) if of != pass => {
                    has_further |= of == ShardPass::Further;
                    TarStep::Other
                }
                Ok(Some(TarEntry::Image(..))) if done => TarStep::Done,
                Ok(Some(TarEntry::Image(mut entry, _))) => {
                    TarStep::Image(self.member(&file.name, row, &mut entry, &budget))
                }
                Err((_, reason)) => {
                    TarStep::Broken(broken(&file.name, row, RejectCode::Malformed, &reason))
                }
            };
            if let Some((class, error)) = handle.failure() {
                // The images before the failure could be read.
                let unavailable = UnavailableInput {
                    path: location.to_path(),
                    class,
                    error,
                };
                return if builder.close()? {
                    Err(unavailable.into())
                } else {
                    Err(ReadEnd::Cancelled)
                };
            }
            // The first pass has rejected the rest behind the broken place.
            let step = if pass == ShardPass::Further && matches!(step, TarStep::Broken(_)) {
                TarStep::End
            } else {
                step
            };
            let ends = matches!(step, TarStep::Broken(_) | TarStep::End);
            row += u64::from(matches!(step, TarStep::Image(_) | TarStep::Done));
            let is_open = match step {
                TarStep::Image(member) | TarStep::Broken(member) => builder.push(member)?,
                TarStep::Done => builder.skip(),
                TarStep::Other => continue,
                TarStep::End => true,
            };
            let closes = ends || row % length == 0;
            if !is_open || (closes && !builder.close()?) {
                return Err(ReadEnd::Cancelled);
            }
            if ends {
                return Ok(has_further);
            }
            if closes {
                done = builder.is_done(length);
            }
        }
    }

    fn member(
        &self,
        shard: &str,
        row: u64,
        entry: &mut ShardEntry<'_>,
        budget: &ReadBudget,
    ) -> ImageRecord<'static> {
        let name = encode_name(&entry.path_bytes());
        let source = format!("{shard}/{name}");
        let (size, limit) = (entry.size(), self.batch_config.record_bytes);
        let image = if size > limit {
            Err(RecordError::too_large(&source, size, limit))
        } else {
            Ok(Vec::new())
        };
        let image = image.and_then(|mut image| {
            budget.allow(size);
            let read = entry
                .take(size)
                .read_to_end(&mut image)
                .map_err(|error| error.to_string());
            match read {
                Ok(read) if read as u64 == size => Ok(image),
                Ok(_) => Err("the shard is truncated or was changed during the read".to_owned()),
                Err(error) => Err(error),
            }
            .map_err(|reason| {
                RecordError::new(RejectCode::Unreadable, format!("{source}: {reason}"))
            })
        });
        ImageRecord {
            source: source.into(),
            row,
            text: Some(key(&name).to_owned().into()),
            image: image.map(Into::into),
        }
    }
}

type ShardEntry<'a> = Entry<'a, MeteredReader>;

/// One of the two reads of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShardPass {
    /// Reads members with [`EXTENSIONS`].
    First,
    /// Reads members with [`FURTHER_EXTENSIONS`].
    Further,
}

impl ShardPass {
    /// The split of the rows of this pass. The suffix after `+` is not part of the version of the
    /// file.
    fn split(self, own: &Arc<Split>) -> Arc<Split> {
        match self {
            Self::First => Arc::clone(own),
            Self::Further => Split::new(format!("{}+further", own.name())),
        }
    }
}

/// The kind of an entry of a shard.
enum TarEntry<'a> {
    /// An image that is stored contiguously, and the pass that reads it.
    Image(Box<ShardEntry<'a>>, ShardPass),
    /// Neither a file nor a link.
    Folder,
    /// The name of a member that is not an image, or not stored contiguously.
    Skipped(String, SkipReason),
}

/// Classifies an entry.
///
/// # Errors
/// How the archive is broken; entries behind that place cannot be found.
fn classify(
    entry: io::Result<ShardEntry<'_>>,
    ends_before: impl Fn(u64) -> bool,
) -> Result<TarEntry<'_>, String> {
    let mut entry = entry.map_err(|error| error.to_string())?;
    let name = encode_name(&entry.path_bytes());
    // The reader seeks over content that it does not read, even beyond the end of the file.
    if ends_before(entry.raw_file_position().saturating_add(entry.size())) {
        return Err(format!("the archive ends inside {name}"));
    }
    let kind = entry.header().entry_type();
    if kind.is_symlink() || kind.is_hard_link() {
        return Ok(TarEntry::Skipped(name, SkipReason::MemberLink));
    }
    if kind.is_gnu_sparse() {
        return Ok(TarEntry::Skipped(name, SkipReason::Sparse));
    }
    if !kind.is_file() {
        return Ok(TarEntry::Folder);
    }
    let path = Path::new(&name);
    let pass = match () {
        () if has_extension(path, EXTENSIONS) => ShardPass::First,
        () if has_extension(path, FURTHER_EXTENSIONS) => ShardPass::Further,
        () => return Ok(TarEntry::Skipped(name, SkipReason::Extension)),
    };
    let mut extensions = entry
        .pax_extensions()
        .map_err(|error| error.to_string())?
        .into_iter()
        .flatten()
        .flatten();
    let is_sparse = extensions.any(|extension| extension.key_bytes().starts_with(b"GNU.sparse."));
    Ok(if is_sparse {
        TarEntry::Skipped(name, SkipReason::Sparse)
    } else {
        TarEntry::Image(Box::new(entry), pass)
    })
}

/// Reject reason of an archive that ends where an entry could begin.
const NO_END_MARK: &str =
    "the archive ends without an end mark (a block of zeros) and may be truncated";

/// Reject reason of an archive with other bytes than zeros behind its end mark.
const DATA_BEHIND_END_MARK: &str = "the end mark is followed by other bytes than zeros, such as \
     members behind a damaged header, or another archive";

/// Checks the bytes behind the last entry of a shard.
fn at_end(shard: &str, row: u64, budget: &ReadBudget, shard_input: &mut ShardInput) -> TarStep {
    // POSIX requires blocks of zeros behind the last entry.
    if budget.is_at_end() {
        return TarStep::Broken(broken(shard, row, RejectCode::Truncated, NO_END_MARK));
    }
    match shard_input.has_rest() {
        Ok(false) => TarStep::End,
        Ok(true) => TarStep::Broken(broken(
            shard,
            row,
            RejectCode::Malformed,
            DATA_BEHIND_END_MARK,
        )),
        Err(error) => TarStep::Broken(broken(
            shard,
            row,
            RejectCode::Unreadable,
            &error.to_string(),
        )),
    }
}

/// The rejected row that represents everything behind a broken place.
fn broken(shard: &str, row: u64, code: RejectCode, reason: &str) -> ImageRecord<'static> {
    let images = if row == 1 { "image" } else { "images" };
    let reason = format!("{shard}: broken after {row} {images}; the rest cannot be read: {reason}");
    let image = Err(RecordError::new(code, reason));
    ImageRecord {
        source: shard.to_owned().into(),
        row,
        text: None,
        image,
    }
}

/// The WebDataset key of a member: its path up to the first dot of its file name.
fn key(name: &str) -> &str {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[start..].find('.') {
        Some(dot) if dot > 0 => &name[..start + dot],
        _ => name,
    }
}

#[cfg(test)]
mod tests;
