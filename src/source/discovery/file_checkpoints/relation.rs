//! The relation of a file to the files that earlier runs read.

use std::io::{self, BufRead, BufReader};

use crate::coverage::{Coverage, ResumeState};
use crate::source::discovery::content_digest::ContentHasher;
use crate::source::discovery::file_checkpoints::checkpoint::{CheckpointEnding, FileCheckpoint};
use crate::source::discovery::file_checkpoints::open;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;

/// The relation of a file to the files that earlier runs read.
#[derive(Debug)]
pub(super) enum FileRelation {
    /// The file is new, or its own split has rows in an output.
    Own,
    /// The file begins with, or equals, content that was read before. Its rows continue that split.
    Continues(Box<FileCheckpoint>),
    /// The file had another content when it was read before, and rows of that content are in an
    /// output.
    Changed,
}

/// The checkpoint of a file that is unchanged since it was recognized last.
pub(super) fn same<'a>(
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

pub(super) fn relate(
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
pub(super) fn longest<'a>(
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
