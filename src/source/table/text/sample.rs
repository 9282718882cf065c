//! Chooses the parts of text files from which the types of columns are inferred: the beginning of
//! each file, and blocks in the middle and at the end of large ones.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};

use crate::error::StageError;
use crate::source::batch_limits::BatchLimits;
use crate::source::discovery::compression::Compression;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::table::schema_inference::SkippedInputs;
use crate::source::table::text::batch::TextBatch;
use crate::source::table::text::framer::Framer;
use crate::source::table::text::{TextBatches, TextFormat};
use crate::storage::FileReader;
use crate::storage::transfer_limits::MAX_CONCURRENT_REQUESTS;

/// Maximum number of bytes that are read from all files together.
const MAX_BYTES: u64 = 64 << 20;
/// Maximum number of records that are read from all files together.
const MAX_RECORDS: u64 = 1 << 20;
/// Maximum number of local files that are read.
const MAX_LOCAL_FILES: usize = 1024;
/// Maximum number of objects that are read, each of which takes requests.
const MAX_OBJECTS: usize = 64;
/// Maximum number of bytes of an object: one block of a request.
const MAX_OBJECT_BYTES: u64 = 1 << 20;
/// Number of blocks behind the beginning of a large file.
const BLOCKS: u64 = 8;

/// The part of a file that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSample {
    /// Bytes at the beginning of the text.
    pub(crate) bytes: u64,
    /// Maximum number of records.
    pub(crate) records: u64,
    /// The size of each of the blocks behind the beginning; 0: no blocks.
    block: u64,
}

impl FileSample {
    /// The complete lines of the blocks behind the beginning of a file. The first line of a block
    /// may be the rest of a record with line ends in quotes.
    pub(crate) fn blocks(self, file: &InputFile) -> Result<Vec<Vec<u8>>, ReadEnd> {
        if self.block == 0 {
            return Ok(Vec::new());
        }
        let mut input = file.reopen().map_err(file.stopped())?;
        let last = file.size().saturating_sub(self.block);
        let first = self.bytes.min(last);
        let block = |index: u64| first + (last - first) * index / (BLOCKS - 1);
        (0..BLOCKS)
            .map(|index| read_lines(&mut input, block(index), self.block))
            .collect::<io::Result<_>>()
            .map_err(file.stopped())
    }
}

/// Visits the first records of a text, up to the size of the sample. A text that is damaged after
/// some records is visited up to there.
pub(crate) fn visit_records<R: Read>(
    file: &InputFile,
    framer: Framer<R>,
    sample: FileSample,
    format: &impl TextFormat,
    mut visit: impl FnMut(TextBatch) -> Result<(), ReadEnd>,
) -> Result<u64, ReadEnd> {
    let limits = BatchLimits {
        records: 4096,
        bytes: sample.bytes.min(4 << 20),
        soft_max_records: 4096,
    };
    let mut batches = TextBatches::new(framer, limits);
    let mut records = 0;
    while batches.consumed() < sample.bytes && records < sample.records {
        let batch = match batches.next(format) {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(error) => match file.stopped()(error) {
                ReadEnd::Rejected(..) if records > 0 => break,
                stopped => return Err(stopped),
            },
        };
        records += u64::from(batch.rows());
        visit(batch)?;
    }
    Ok(records)
}

/// Reads the complete lines within a range of a file.
fn read_lines(input: &mut (impl Read + Seek), start: u64, length: u64) -> io::Result<Vec<u8>> {
    input.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    input.take(length).read_to_end(&mut text)?;
    let first = text.iter().position(|&byte| byte == b'\n');
    let last = text.iter().rposition(|&byte| byte == b'\n');
    Ok(match (first, last) {
        (Some(first), Some(last)) => text[first + 1..=last.max(first)].to_vec(),
        _ => Vec::new(),
    })
}

/// The files that are read, evenly spread over all files, and the part of each.
fn samples(files: &[InputFile], has_blocks: bool) -> Vec<(&InputFile, FileSample)> {
    let is_local = files.first().is_none_or(InputFile::is_local);
    let max_files = if is_local {
        MAX_LOCAL_FILES
    } else {
        MAX_OBJECTS
    };
    let count = files.len().min(max_files);
    let chosen = (0..count).map(|index| &files[index * files.len() / count]);
    let chosen: Vec<&InputFile> = chosen.collect();
    let equal_share = share(chosen.iter().map(|file| file.size()).collect());
    let max_bytes = if is_local {
        equal_share
    } else {
        equal_share.min(MAX_OBJECT_BYTES)
    };
    let records = MAX_RECORDS / count.max(1) as u64;
    let sample = |file: &&InputFile| {
        let is_plain = Compression::of_name(&file.name).is_none();
        if has_blocks && is_local && is_plain && file.size() > max_bytes {
            FileSample {
                bytes: max_bytes / 2,
                records,
                block: max_bytes / 2 / BLOCKS,
            }
        } else {
            FileSample {
                bytes: max_bytes,
                records,
                block: 0,
            }
        }
    };
    chosen.iter().map(|file| (*file, sample(file))).collect()
}

/// The number of bytes of each file so that all of them have at most [`MAX_BYTES`]; small files
/// leave theirs to the others.
fn share(mut sizes: Vec<u64>) -> u64 {
    sizes.sort_unstable();
    let (mut left, mut share) = (MAX_BYTES, MAX_BYTES);
    let count = sizes.len() as u64;
    for (index, size) in (0..count).zip(sizes) {
        share = left / (count - index);
        left -= size.min(share);
    }
    share
}

/// Calls `infer` with the files that are read, each opened, and the part of each; it returns whether
/// the file has columns. Files that are unavailable or do not fit are skipped here; the run later
/// leaves them unread or rejects them. `has_blocks`: a line feed is always the end of a line.
/// Returns sentences for the user about files that differ or are not read.
///
/// # Errors
/// An error of the process. If no file has columns: the error of the first unavailable file,
/// otherwise the reason of the first file that does not fit, otherwise that all files are empty.
pub(crate) fn infer_from_samples(
    files: &[InputFile],
    has_blocks: bool,
    mut infer: impl FnMut(&InputFile, FileReader, FileSample) -> Result<bool, ReadEnd>,
) -> Result<Vec<String>, StageError> {
    let (mut skipped, mut has_columns) = (SkippedInputs::default(), false);
    let samples = samples(files, has_blocks);
    let (mut later, mut prefetched) = (samples.iter(), VecDeque::new());
    for &(file, sample) in &samples {
        while prefetched.len() < MAX_CONCURRENT_REQUESTS
            && let Some((next, _)) = later.next()
        {
            prefetched.push_back(next.prefetch());
        }
        let opened = match prefetched.pop_front().flatten() {
            Some(object) => file.open_listed(Some(object)).map_err(ReadEnd::from),
            None => file.reopen().map_err(file.stopped()),
        };
        match opened.and_then(|input| infer(file, input, sample)) {
            Ok(found) => has_columns |= found,
            Err(end) => skipped.add(end)?,
        }
    }
    if !has_columns {
        return Err(skipped.into_error());
    }
    skipped.warn();
    let mut notes = skipped.notes();
    if samples.len() < files.len() {
        notes.push(format!(
            "the columns and types are inferred from {} of {} files; a column that only other \
             files have is left out",
            samples.len(),
            files.len()
        ));
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Cursor;

    use super::*;

    #[test]
    fn small_files_leave_their_share_to_large_ones() {
        assert_eq!(share(vec![]), MAX_BYTES);
        assert_eq!(share(vec![1, 2, 3]), MAX_BYTES - 3);
        assert_eq!(share(vec![u64::MAX, 4 << 20, u64::MAX]), 30 << 20);
        assert_eq!(share(vec![u64::MAX; 64]), 1 << 20);
    }

    #[test]
    fn block_has_complete_lines() {
        let mut text = Cursor::new(b"one\ntwo\nthree\nfour".to_vec());
        for (start, length, expected) in [
            (1, 10, &b"two\n"[..]),
            (1, 100, b"two\nthree\n"),
            (15, 3, b""),
            (7, 1, b""),
            (100, 5, b""),
        ] {
            assert_eq!(
                read_lines(&mut text, start, length).unwrap(),
                expected,
                "{start}"
            );
        }
    }
}
