//! The entries of a shard: their classes, and the checks of its end.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tar::Entry;

use crate::batch::provenance::Split;
use crate::batch::reject::RejectCode;
use crate::source::discovery::file_set::patterns::has_extension;
use crate::source::discovery::listed_file::{RecordError, encode_name};
use crate::source::discovery::skipped_files::SkipReason;
use crate::source::images::batcher::ImageRecord;
use crate::source::images::tar::budget::{MeteredReader, ReadBudget};
use crate::source::images::tar::shard_input::ShardInput;
use crate::source::images::tar::{EXTENSIONS, FURTHER_EXTENSIONS};

/// The kind of an entry of a shard.
pub(crate) enum TarEntry<'a> {
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
pub(in crate::source) fn classify(
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
pub(crate) fn at_end(
    shard: &str,
    row: u64,
    budget: &ReadBudget,
    shard_input: &mut ShardInput,
) -> TarStep {
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
pub(super) fn broken(
    shard: &str,
    row: u64,
    code: RejectCode,
    reason: &str,
) -> ImageRecord<'static> {
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
pub(super) fn key(name: &str) -> &str {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[start..].find('.') {
        Some(dot) if dot > 0 => &name[..start + dot],
        _ => name,
    }
}

/// The next entry of a shard.
pub(crate) enum TarStep {
    /// Not an image.
    Other,
    /// An image whose row is committed.
    Done,
    Image(ImageRecord<'static>),
    /// The archive is broken here; the rest of it cannot be read.
    Broken(ImageRecord<'static>),
    End,
}

pub(super) type ShardEntry<'a> = Entry<'a, MeteredReader>;

/// One of the two reads of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShardPass {
    /// Reads members with [`EXTENSIONS`].
    First,
    /// Reads members with [`FURTHER_EXTENSIONS`].
    Further,
}

impl ShardPass {
    /// The split of the rows of this pass. The suffix after `+` is not part of the version of the
    /// file.
    pub(super) fn split(self, own: &Arc<Split>) -> Arc<Split> {
        match self {
            Self::First => Arc::clone(own),
            Self::Further => Split::new(format!("{}+further", own.name())),
        }
    }
}
